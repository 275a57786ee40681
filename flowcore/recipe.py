"""The recipe of a pipeline: where its items come from and the steps that are taken, as plain data.

Everything here is immutable; nothing here runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowcore.batch import Batch
from flowcore.errors import PipelineError, explain
from flowcore.fingerprint import digest
from flowcore.index import Index
from flowcore.interleave import Stop
from flowcore.joins import check_join
from flowcore.source import Source
from flowcore.steps import (
    ActionStep,
    JoinStep,
    NamedStep,
    RebatchStep,
    RepeatStep,
    SinkStep,
    Step,
    WhenStep,
)
from flowcore.values import V, merged, variables

__all__ = ["Mixture", "Recipe", "flat"]


@dataclass(frozen=True, slots=True)
class Mixture:
    """Several recipes as one source: all items of the first, then of the next, or all mixed.

    Attributes:
        parts: the recipes.
        index: the ids of all.
        batch_class: what a batch of it is: the nearest class that all parts are of.
        weights: how many items of each part come in a row of ``sum(weights)``; ``None``: one part
            comes after the other.
        stop: an epoch of mixed parts ends with the first that has no item left, or with the last.
    """

    parts: tuple[Recipe, ...]
    index: Index
    batch_class: type[Batch]
    weights: tuple[int, ...] | None = None
    stop: Stop = "first"

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what tells it from other sources."""
        return self.weights, self.stop, [part.fingerprint_parts() for part in self.parts]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A source and the steps over its batches. ``source`` is ``None`` in a template."""

    source: Source | Mixture | None = None
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        rebatches = [at for at, one in enumerate(self.steps) if isinstance(one, RebatchStep)]
        sinks = [at for at, one in enumerate(self.steps) if isinstance(one, SinkStep)]
        if len(rebatches) > 1 or (rebatches and sinks and sinks[0] < rebatches[0]):
            raise PipelineError(
                explain(
                    "rebatch comes once, and before the sinks",
                    where=f"{self}",
                    next="give the last size, and put_into after it",
                )
            )

    def then(self, *steps: Step) -> Recipe:
        """Return a new recipe with ``steps`` at the end."""
        return Recipe(self.source, (*self.steps, *steps))

    def over(self, source: Source | Mixture) -> Recipe:
        """Return the recipe over another source, with the actions of its batch class.

        Raises:
            UnknownAction, ArgumentError: the batch class does not have an action, or not so.
        """
        return Recipe(source, tuple(_bound(step, source) for step in self.steps))

    def variables(self) -> dict[str, V]:
        """Return the run's variables that stand in it, by name."""
        found: list[V] = []
        for step in self.all_steps():
            if isinstance(step, ActionStep):
                found += variables((step.args, dict(step.kwargs))).values()
            elif isinstance(step, WhenStep):
                found += variables(step.condition).values()
            elif isinstance(step, RepeatStep):
                found += variables(step.times).values()
        return merged(found)

    def all_steps(self) -> Iterator[Step]:
        """Generate the steps, those inside of them, and those of recipes inside of this one."""
        for part in self.source.parts if isinstance(self.source, Mixture) else ():
            yield from part.all_steps()
        for step in flat(self.steps):
            yield step
            if isinstance(step, JoinStep):
                yield from step.recipe.all_steps()

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what tells it from other recipes; sinks are left out, as they change no batch."""
        steps = [step for step in self.steps if not isinstance(step, SinkStep)]
        length = None if self.source is None else len(self.source.index)
        inner = self.source if isinstance(self.source, Mixture) else None
        return length, inner, steps

    def step_digests(self) -> str:
        """Return three letters for the source, and for each step that is no sink.

        A long recipe has its later steps in one: at most 12 are told apart.
        """
        _, inner, steps = self.fingerprint_parts()
        parts = [(inner, self._some_ids()), *steps[:11]] + ([steps[11:]] if steps[11:] else [])
        return "".join(digest(part, length=3) for part in parts)

    def _some_ids(self) -> Any:
        """Return ids from all over the index: enough to see another one, at no cost."""
        if self.source is None:
            return None
        length = len(self.source.index)
        return self.source.index.ids(np.arange(0, length, max(1, length // 32)))

    @property
    def headline(self) -> str:
        """What it is over, in a few words."""
        if self.source is None:
            return "Pipeline()"
        of = "" if isinstance(self.source, Source) else f" of {len(self.source.parts)} pipelines"
        count = len(self.source.index)
        return f"Pipeline over {count} items{of}, {self.source.batch_class.__name__}"

    def __str__(self) -> str:
        steps = [f"  {at}. {step}" for at, step in enumerate(self.steps, 1)]
        return "\n".join([self.headline, *steps])


def flat(steps: Sequence[Step]) -> Iterator[Step]:
    """Generate steps and those inside of them."""
    for step in steps:
        yield step
        for inner in _inside(step):
            yield from flat(inner)


def _inside(step: Step) -> tuple[tuple[Step, ...], ...]:
    if isinstance(step, WhenStep):
        return step.then, step.otherwise
    return (step.steps,) if isinstance(step, RepeatStep) else ()


def _bound(step: Step, source: Source | Mixture) -> Step:
    """Return a step as it is over another source; refuse what cannot be there."""
    if isinstance(step, NamedStep):
        return step.bound(source.batch_class)
    if isinstance(step, ActionStep) and step.of_class:
        return NamedStep(step.name, step.args, step.kwargs).bound(source.batch_class)
    if isinstance(step, JoinStep) and step.recipe.source is not None:
        check_join(source, step.recipe.source, step)
    if isinstance(step, WhenStep):
        then = tuple(_bound(inner, source) for inner in step.then)
        otherwise = tuple(_bound(inner, source) for inner in step.otherwise)
        return replace(step, then=then, otherwise=otherwise)
    if isinstance(step, RepeatStep):
        return replace(step, steps=tuple(_bound(inner, source) for inner in step.steps))
    return step
