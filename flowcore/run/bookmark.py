"""How far a run is: kept while batches are handed over, given as small JSON.

It counts what was handed over and nothing more, whatever is in progress.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeAlias

from flowcore.recipe import Recipe
from flowcore.run.plan import Plan, Position
from flowcore.run.settings import Settings
from flowcore.run.start import Shape, identity_of, shape_of
from flowcore.run.state import Resume, read_state

__all__ = ["Bookmark", "Handed"]


#: What one hand-over settles: the place of its batch among this run's (-1 if it is made of
#: several), the number of its items, where the run then is if that does not follow from the count,
#: and the places of the batches that were left out since the last one. Made for every batch, so it
#: is a plain tuple.
Handed: TypeAlias = "tuple[int, int, Position | None, tuple[int, ...]]"


class Bookmark:
    """Where a run began, and how far it is. Any thread may read it, one at a time may `note`.

    Attributes:
        items_before: handed over before the place where the run begins.
        batches_before: likewise; ``None`` where ``resume=`` says a place alone.
    """

    def __init__(self, settings: Settings, recipe: Recipe, plan: Plan) -> None:
        self._settings, self._recipe, self._plan = settings, recipe, plan
        resume = Resume(batches=0) if settings.resume is None else read_state(settings.resume)
        self.items_before = self._count_before(resume)
        self.batches_before = resume.batches
        beyond = frozenset(plan.beyond)
        # All of the run's places below the first number, counted from its start, are through, and
        # these above it; where it is, if that does not follow; items; batches. It is replaced as a
        # whole, so that no thread ever reads half of a change.
        self._at: tuple[int, frozenset[int], Position | None, int, int | None]
        self._at = 0, beyond, None, self.items_before, self.batches_before
        self._own = resume.shard is not None

    def note(self, handed: Handed) -> None:
        """Note that a batch was handed over."""
        place, size, after, left_out = handed
        low, beyond, last, items, batches = self._at
        if place == low and not beyond and not left_out:
            low += 1
        else:
            through = {*beyond, *left_out, *([place] if place >= 0 else ())}
            while low in through:
                through.remove(low)
                low += 1
            beyond = frozenset(through)
        if after is None or (last is not None and last > after):
            after = last  # several consumers may come in another order
        batches = None if batches is None else batches + 1
        self._at = low, beyond, after, items + size, batches

    @cached_property
    def shape(self) -> Shape:
        """How much comes out of the run."""
        return shape_of(self._recipe, self._plan)

    def count(self) -> int:
        """Return how many batches the run has from its start on.

        Raises:
            TypeError: it has no end, or the number is not known before they are made.
        """
        if self.shape.batches is None:
            raise TypeError("a run with n_epochs=None has no end, so it has no len()")
        if not self.shape.exact:
            raise TypeError(
                "a run whose pipeline filters has no len(): how many batches are left is known "
                "when they are made"
            )
        return self.shape.batches

    def state(self) -> dict[str, Any]:
        """Return where the run is: what was handed over, and nothing more."""
        return {**self._identity, **self._place()}

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return identity_of(self._settings, self._recipe).state()

    def _place(self) -> dict[str, Any]:
        low, beyond, after, items, batches = self._at
        at = after or self._plan.position(low)
        state: dict[str, Any] = {"epoch": at.epoch, "batch": at.batch}
        if at.skip or at.number:
            state.update(skip=at.skip, number=at.number)
        if beyond:
            state["beyond"] = sorted(place - low for place in beyond)
        # Other shards may be elsewhere: but for the place where all of them began.
        apart = self._plan.uneven == "short" and bool(low)
        if (apart or self._own or len(state) > 2) and self._plan.shard.world > 1:
            state["shard"] = [self._plan.shard.rank, self._plan.shard.world]
        if batches is not None:
            state["batches"] = batches
        return {**state, "items": items, "seed": self._plan.seed}

    def _count_before(self, resume: Resume) -> int:
        plan = self._plan
        if resume.items is not None or plan.start == Position():
            return resume.items or 0
        each, left = plan.epoch_items(), plan.epoch_items(plan.start.batch)
        return plan.start.epoch * each + each - left
