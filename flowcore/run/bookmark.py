"""How far a run is: kept while batches are handed over, given as small JSON.

It counts what was handed over and nothing more, whatever is in progress.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flowcore.recipe import Recipe
from flowcore.run.plan import Plan, Position
from flowcore.run.settings import Settings
from flowcore.run.start import Shape, identity_of, shape_of
from flowcore.run.state import Resume, read_state

__all__ = ["Bookmark", "Handed"]


@dataclass(frozen=True, slots=True)
class Handed:
    """What one hand-over settles.

    Attributes:
        places: of this run's batches: the one handed over, and those left out since the last.
        items: number of items handed over.
        after: where the run then is, if that does not follow from the count.
    """

    places: tuple[int, ...]
    items: int = 0
    after: Position | None = None


class Bookmark:
    """Where a run began, and how far it is. Any thread may use any method.

    Attributes:
        items_before: handed over before the place where the run begins.
        batches_before: likewise; ``None`` where ``resume=`` says a place alone.
        items: handed over by now, those before included.
        batches: likewise.
    """

    def __init__(self, settings: Settings, recipe: Recipe, plan: Plan) -> None:
        self._settings, self._recipe, self._plan = settings, recipe, plan
        self._lock = threading.Lock()  # several consumers may be handed batches at once
        self._low = 0  # all places below, counted from the start of this run, are through
        self._beyond = set(plan.beyond)  # and these above it
        self._after: Position | None = None
        resume = Resume(batches=0) if settings.resume is None else read_state(settings.resume)
        self.items = self.items_before = self._count_before(resume)
        self.batches = self.batches_before = resume.batches
        self._own = resume.shard is not None

    def note(self, handed: Handed) -> None:
        """Note that a batch was handed over."""
        with self._lock:
            self._beyond.update(handed.places)
            while self._low in self._beyond:
                self._beyond.remove(self._low)
                self._low += 1
            if handed.after is not None and (self._after is None or handed.after > self._after):
                self._after = handed.after  # several consumers may come in another order
            self.items += handed.items
            self.batches = None if self.batches is None else self.batches + 1

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
        with self._lock:
            at = self._after or self._plan.position(self._low)
            state: dict[str, Any] = {"epoch": at.epoch, "batch": at.batch}
            if at.skip or at.number:
                state.update(skip=at.skip, number=at.number)
            if self._beyond:
                state["beyond"] = sorted(place - self._low for place in self._beyond)
            # Other shards may be elsewhere: but for the place where all of them began.
            apart = self._plan.uneven == "short" and bool(self._low)
            if (apart or self._own or len(state) > 2) and self._plan.shard.world > 1:
                state["shard"] = [self._plan.shard.rank, self._plan.shard.world]
            if self.batches is not None:
                state["batches"] = self.batches
            return {**state, "items": self.items, "seed": self._plan.seed}

    def _count_before(self, resume: Resume) -> int:
        plan = self._plan
        if resume.items is not None or plan.start == Position():
            return resume.items or 0
        each, left = plan.epoch_items(), plan.epoch_items(plan.start.batch)
        return plan.start.epoch * each + each - left
