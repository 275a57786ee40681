"""What the parts of the executor contract have in common: the executor, its abilities, its runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any, ClassVar

import numpy as np
import pytest

from flowcore.dataset import Dataset
from flowcore.executors.base import Executor
from flowcore.pipeline import Pipeline
from flowcore.run.handles import Feed, Run
from flowcore.testing.leaks import watched
from flowcore.testing.meeting import MeetingBatch
from flowcore.testing.trials import AnyExecutor

__all__ = ["BATCHES", "ExecutorRuns", "plain"]

BATCHES = 6  # of the runs below: 23 items in batches of 4


def plain() -> Any:  # a Pipeline, whose actions no type checker knows
    """Return a pipeline over 23 items of two numbers each."""
    return Dataset(23, MeetingBatch, np.arange(46.0).reshape(23, 2)).p


class ExecutorRuns:
    """The executor that a contract is about, and runs on it."""

    #: Several tasks are in progress at once.
    parallel: ClassVar[bool] = True
    #: The actions run in this process, and see its objects.
    shares_memory: ClassVar[bool] = False
    #: A worker that is killed is replaced, and one that is still in an action when the run is left
    #: is killed.
    kills_workers: ClassVar[bool] = False
    #: A library that it uses opens connections to its own servers when it likes.
    opens_sockets: ClassVar[bool] = False

    @pytest.fixture
    def executor(self) -> AnyExecutor:
        """Return what to give a run as ``executor=``."""
        raise NotImplementedError("override the fixture `executor`: a name or an executor")

    def options(self) -> dict[str, Any]:
        """Return the options of each run; by default two workers."""
        return {"num_workers": 2}

    @pytest.fixture(autouse=True)
    def _leaves_nothing(
        self, executor: AnyExecutor, request: pytest.FixtureRequest
    ) -> Iterator[None]:
        if isinstance(executor, (Executor, futures.Executor)):
            self._warm(executor)  # what it then has, it may keep
        yield from watched(request, sockets=not self.opens_sockets)

    def _warm(self, executor: AnyExecutor) -> None:
        """Have all workers begin, once in the life of an executor object."""
        if vars(type(self)).get("_warmed") is not executor:
            for _ in range(2):
                list(self._run(plain().double(), executor, prefetch=BATCHES))
            type(self)._warmed = executor  # type: ignore[attr-defined]

    def _run(self, pipeline: Pipeline, executor: AnyExecutor, **options: Any) -> Run:
        return pipeline.gen_batch(4, **self._how(executor, options))

    def _feed(self, pipeline: Pipeline, executor: AnyExecutor, **options: Any) -> Feed:
        return pipeline.feed(4, **self._how(executor, options))

    def _how(self, executor: AnyExecutor, options: dict[str, Any]) -> dict[str, Any]:
        own = {} if executor == "serial" else self.options()
        return {"executor": executor, "prefetch": 3, **own, **options}

    def _needs_parallel(self) -> None:
        if not self.parallel:
            pytest.skip("the executor says that it runs one task at a time")
