"""One pipeline run in several ways, for the assertions that compare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

from flowcore.batch import Batch
from flowcore.errors import OptionError, explain
from flowcore.executors.base import Executor
from flowcore.pipeline import Pipeline
from flowcore.plugins import load
from flowcore.recipe import Mixture, Recipe
from flowcore.run.handles import Run
from flowcore.run.settings import Settings
from flowcore.steps import ActionStep, JoinStep, SinkStep
from flowcore.testing.batches import Seen, seen
from flowcore.testing.forget import Memory

__all__ = ["AnyExecutor", "Trial", "Way"]

AnyExecutor: TypeAlias = "str | Executor | futures.Executor"
Way: TypeAlias = "Mapping[str, Any]"  # executor and prefetch of a run

# The options that make one batch what it is.
_ALONE = ("batch_size", "shuffle", "seed", "sampler", "variables")
_OWN = {option.name for option in fields(Settings)}  # options of no plugin

_SERIAL: Way = {"executor": "serial", "prefetch": 0}


class Trial:
    """A pipeline, without its sinks, and the options that all its runs have in common.

    Args:
        pipeline: with a dataset.
        batch_size: of the runs.
        executors: what to compare the serial executor with.
        seed: of the runs; a state to go on from has its own.
        options: of a run, any. ``executor`` is one more, ``prefetch`` one more to try.

    Attributes:
        ways: executor and prefetch of each way to compare, by its name.
        memory: of the batch classes and actions, as it was before.

    Raises:
        OptionError: no pipeline, no executor, or a run without an end.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        batch_size: int,
        executors: AnyExecutor | Sequence[AnyExecutor],
        seed: int,
        options: Mapping[str, Any],
    ) -> None:
        given = {"batch_size": batch_size, "seed": seed, **options}
        self._executors = [*_listed(executors), *_listed(given.pop("executor", None))]
        prefetches = dict.fromkeys([1, 4, given.pop("prefetch", None) or 1])
        self.ways: dict[str, Way] = {
            f"{_name(executor)}, prefetch={prefetch}": {"executor": executor, "prefetch": prefetch}
            for executor in self._executors
            for prefetch in prefetches
        }
        _check(pipeline, given, self._executors)
        self._pipeline, self._given = _without_sinks(pipeline, given)
        steps = pipeline._recipe.all_steps()
        self.memory = Memory(
            _classes(pipeline._recipe),
            [step.function for step in steps if isinstance(step, ActionStep)],
        )

    @property
    def is_ordered(self) -> bool:
        """Whether the batches come in order."""
        return bool(self._given.get("ordered", True))

    @property
    def makes_one_alone(self) -> bool:
        """Whether a batch made alone is what it is in the run: nothing is dropped or retried."""
        return self._given.get("on_error", "raise") == "raise" and not self._given.get("retries")

    def run(self, way: Way = _SERIAL, **options: Any) -> Run:
        """Return a run in a way: by default serial."""
        return self._pipeline.gen_batch(**{**self._options(way["executor"]), **way, **options})

    def seen(self, way: Way = _SERIAL, **options: Any) -> list[Seen]:
        """Run to the end and return what a consumer sees, by number if it comes in any order."""
        return self.in_order(seen(self.run(way, **options)))

    def in_order(self, batches: list[Seen]) -> list[Seen]:
        """Return batches as they are to be compared."""
        return batches if self.is_ordered else sorted(batches, key=lambda batch: batch[:2])

    def alone(self, batches: Sequence[Seen]) -> Iterator[Batch]:
        """Make each of some batches alone, the last one first."""
        options = self._options("serial")
        kept = {name: options[name] for name in options if name in _ALONE or name not in _OWN}
        for batch in reversed(batches):
            self.memory.forget()
            yield self._pipeline.batch(batch.number, batch.epoch, **kept)

    def _options(self, executor: AnyExecutor) -> dict[str, Any]:
        """Return the options of a run, without those that only other executors have."""
        others = {name for one in self._executors for name in _declared(one)} - set(
            _declared(executor)
        )
        return {name: value for name, value in self._given.items() if name not in others}


def _classes(recipe: Recipe) -> Iterator[type[Batch]]:
    """Generate the batch classes of a recipe, and of those inside of it."""
    if recipe.source is not None:
        yield recipe.source.batch_class
    parts = recipe.source.parts if isinstance(recipe.source, Mixture) else ()
    joins = (step.recipe for step in recipe.steps if isinstance(step, JoinStep))
    for inner in (*parts, *joins):
        yield from _classes(inner)


def _listed(executors: Any) -> list[AnyExecutor]:
    if executors is None:
        return []
    return [executors] if isinstance(executors, (str, Executor, futures.Executor)) else [*executors]


def _name(executor: AnyExecutor) -> str:
    return executor if isinstance(executor, str) else type(executor).__name__


def _declared(executor: AnyExecutor) -> Mapping[str, str]:
    found: Any = load("flowcore.executors", executor) if isinstance(executor, str) else executor
    declared: Mapping[str, str] = getattr(found, "run_options", {})
    return declared


def _check(pipeline: Any, options: Mapping[str, Any], executors: Sequence[AnyExecutor]) -> None:
    if not isinstance(pipeline, Pipeline):
        raise OptionError(
            explain(f"{pipeline!r:.60} is no pipeline", next="dataset.p, and its actions")
        )
    if not executors:
        raise OptionError(
            explain("executors is empty, so there is nothing to compare", next="('threads',)")
        )
    if options.get("n_epochs", 1) is None:
        raise OptionError(
            explain(
                "n_epochs=None has no end, and runs are compared to their end",
                next="n_epochs=2: the second epoch shows what the first one leaves behind",
            )
        )


def _without_sinks(
    pipeline: Pipeline, options: Mapping[str, Any]
) -> tuple[Pipeline, dict[str, Any]]:
    """Return a pipeline that puts nothing anywhere, and the options that it still has."""
    recipe = pipeline._recipe
    of_sinks, of_actions = {"sink"}, set[str]()
    for step in recipe.all_steps():
        if isinstance(step, SinkStep):
            of_sinks.update(step.sink.run_options)
        elif isinstance(step, ActionStep):
            of_actions.update(step.run_options)
    kept = {name: options[name] for name in options if name not in of_sinks - of_actions}
    if isinstance(kept.get("shuffle"), (np.random.Generator, np.random.RandomState)):
        kept["shuffle"] = True  # it is there to draw a seed from, and the seed is known
    if "seed" in (kept.get("resume") or {}):
        kept["seed"] = kept["resume"]["seed"]
    steps = tuple(step for step in recipe.steps if not isinstance(step, SinkStep))
    return Pipeline(Recipe(recipe.source, steps)), kept
