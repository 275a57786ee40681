"""The contract of an executor as tests, for its author to subclass."""

# ruff: noqa: D102 - a test's name is its description

from __future__ import annotations

import gc
import threading
import traceback
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import pytest

from flowcore.dataset import Dataset
from flowcore.testing.batches import Broken, NamedBatch, PlainBatch, StrictError, seen
from flowcore.testing.install import leaves_no_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent import futures
    from pathlib import Path

    from flowcore.batch import Batch
    from flowcore.executors.base import Executor
    from flowcore.pipeline import Pipeline
    from flowcore.run.handles import Run

__all__ = ["ExecutorContract"]

AnyExecutor: TypeAlias = "str | Executor | futures.Executor"

_PATIENCE = 10  # seconds in which what must happen has happened, on a slow machine too


def _plain() -> Any:  # a Pipeline, whose actions no type checker knows
    return Dataset(23, PlainBatch, np.arange(46.0).reshape(23, 2)).p


def _named() -> Any:
    components = {"images": np.arange(69.0).reshape(23, 3), "labels": np.arange(23)}
    return Dataset([f"id-{k}" for k in range(23)], NamedBatch, components).p


# What is compared with `serial`: a pipeline, and the arguments of its run.
_RECIPES: dict[str, tuple[Pipeline, dict[str, Any]]] = {
    "in order, a short batch at the end": (_plain().double(), {}),
    "shuffled, with random numbers": (_plain().jitter(), {"shuffle": True, "seed": 1}),
    "several epochs, without the short batch": (
        _plain().jitter(),
        {"shuffle": True, "seed": 2, "n_epochs": 3, "drop_last": True},
    ),
    "random numbers in a batch that replaces the first": (
        _plain().replace().jitter(),
        {"seed": 3},
    ),
    "named components": (_named().relabel(), {"shuffle": True, "seed": 4}),
}
_each_recipe = pytest.mark.parametrize(("recipe", "arguments"), _RECIPES.values(), ids=_RECIPES)


class ExecutorContract:
    """What a run, and its user, may expect of any executor: the promises that go through it.

    Override the fixture `executor`, and say what it can do::

        class TestThreads(ExecutorContract):
            shares_memory = True

            @pytest.fixture
            def executor(self):
                return "threads"

    The fixture may have the scope ``"class"``, for an executor that is slow to start; it is a
    ``@classmethod`` then.
    """

    #: Several tasks are in progress at once.
    parallel: ClassVar[bool] = True
    #: The actions run in this process, and see its objects.
    shares_memory: ClassVar[bool] = False

    # For the author to override

    @pytest.fixture
    def executor(self) -> AnyExecutor:
        """Return what to give a run as ``executor=``."""
        raise NotImplementedError("override the fixture `executor`: a name or an executor")

    def options(self) -> dict[str, Any]:
        """Return the options of each run; by default two workers."""
        return {"num_workers": 2}

    # The contract

    @pytest.fixture(autouse=True)
    def _leaves_no_thread(self) -> Iterator[None]:
        with leaves_no_thread():
            yield

    @pytest.mark.parametrize("prefetch", [1, 4])
    @_each_recipe
    def test_it_gives_the_bytes_that_serial_gives_in_the_same_order(
        self, executor: AnyExecutor, recipe: Pipeline, arguments: dict[str, Any], prefetch: int
    ) -> None:
        run = self._run(recipe, executor, prefetch=prefetch, **arguments)
        assert seen(run) == seen(recipe.gen_batch(4, executor="serial", **arguments))

    def test_unordered_it_gives_the_same_batches_in_any_order(self, executor: AnyExecutor) -> None:
        run = self._run(_plain().jitter(), executor, ordered=False, seed=5)
        expected = seen(_plain().jitter().gen_batch(4, executor="serial", seed=5))
        assert sorted(seen(run)) == expected

    def test_a_batch_that_is_ready_early_waits_for_its_turn(self, executor: AnyExecutor) -> None:
        assert self._numbers_when_the_first_is_last(executor, ordered=True) == [0, 1, 2, 3, 4, 5]

    def test_unordered_a_batch_that_is_ready_early_is_handed_over(
        self, executor: AnyExecutor
    ) -> None:
        assert self._numbers_when_the_first_is_last(executor, ordered=False)[0] == 1

    def test_two_batches_are_in_progress_at_once(self, executor: AnyExecutor) -> None:
        self._needs(parallel=True)
        both = threading.Barrier(2, timeout=_PATIENCE)  # breaks, and fails, if they take turns
        pipeline = _plain().call(lambda _: both.wait())
        assert len(list(self._run(pipeline, executor, prefetch=1))) == 6

    def test_an_exception_arrives_in_its_batchs_place_with_a_note(
        self, executor: AnyExecutor
    ) -> None:
        run = self._run(_plain().fail(2, Broken, "in an action"), executor)
        numbers: list[int] = []
        with pytest.raises(Broken, match="in an action") as raised:
            numbers.extend(batch.number for batch in run)
        assert numbers == [0, 1]
        note = "\n".join(raised.value.__notes__)
        assert "'fail'" in note
        assert "batch 2 of epoch 0" in note
        assert "[8, 9, 10" in note

    def test_an_exception_shows_where_in_the_action_it_was_raised(
        self, executor: AnyExecutor
    ) -> None:
        with pytest.raises(Broken) as raised:
            list(self._run(_plain().fail(2, Broken), executor))
        assert "raise error(*args)" in "".join(traceback.format_exception(raised.value))

    def test_an_exception_that_cannot_be_made_from_its_args_arrives_as_what_it_is(
        self, executor: AnyExecutor
    ) -> None:
        run = self._run(_plain().fail(2, StrictError, 7, "in an action"), executor)
        with pytest.raises(StrictError, match="7: in an action") as raised:
            list(run)
        assert raised.value.code == 7

    def test_an_exception_keeps_what_it_says_of_its_cause(self, executor: AnyExecutor) -> None:
        run = self._run(_plain().open_nothing(), executor)
        with pytest.raises(FileNotFoundError, match="no such folder") as raised:
            next(run)
        run.close()
        assert raised.value.filename == "no such folder/at all"

    def test_a_batch_that_fails_is_skipped_and_reported(self, executor: AnyExecutor) -> None:
        pipeline = _plain().fail(2, Broken)
        run = self._run(pipeline, executor, on_error="skip")
        assert [batch.number for batch in run] == [0, 1, 3, 4, 5]
        (skipped,) = run.report.skipped
        assert (skipped.number, skipped.action, type(skipped.error)) == (2, "fail", Broken)

    def test_a_batch_that_fails_once_is_retried_in_its_place(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        run = self._run(_plain().jitter().fail_once(2, tmp_path), executor, seed=6, retries=1)
        assert seen(run) == seen(_plain().jitter().gen_batch(4, executor="serial", seed=6))
        assert [retried.number for retried in run.report.retried] == [2]

    @pytest.mark.parametrize("way", ["close", "del", "an exception in the loop"])
    def test_a_run_that_is_left_leaves_nothing_but_an_executor_for_the_next(
        self, executor: AnyExecutor, way: str
    ) -> None:
        with leaves_no_thread():
            run = self._run(_plain().double(), executor, n_epochs=None)
            next(run)
            if way == "close":
                run.close()
            elif way == "an exception in the loop":
                with pytest.raises(Broken), run:
                    raise Broken
            del run
            gc.collect()
        again = self._run(_plain().double(), executor)
        assert seen(again) == seen(_plain().double().gen_batch(4))

    @pytest.mark.parametrize("prefetch", [1, 3])
    def test_no_more_batches_are_begun_than_asked_for_and_prefetched(
        self, executor: AnyExecutor, prefetch: int
    ) -> None:
        self._needs()
        begun = threading.Semaphore(0)
        pipeline = _plain().call(lambda _: begun.release())
        with self._run(pipeline, executor, prefetch=prefetch, n_epochs=None) as run:
            next(run)
            for _ in range(prefetch + 1):
                assert begun.acquire(timeout=_PATIENCE), "it makes fewer than it may"
            assert not begun.acquire(timeout=0.2), "it makes more than it may"
            next(run)
            assert begun.acquire(timeout=_PATIENCE), "it stopped"

    # Inside

    def _run(self, pipeline: Pipeline, executor: AnyExecutor, **options: Any) -> Run:
        return pipeline.gen_batch(
            4, **{"executor": executor, "prefetch": 3, **self.options(), **options}
        )

    def _needs(self, parallel: bool = False) -> None:
        if not self.shares_memory or (parallel and not self.parallel):
            pytest.skip("the executor says that it cannot do what the test needs")

    def _numbers_when_the_first_is_last(self, executor: AnyExecutor, ordered: bool) -> list[int]:
        """Return the numbers of the batches of a run whose batch 0 waits for batch 1's delivery.

        Ordered, that cannot be, so it waits until batch 1 is made.
        """
        self._needs(parallel=True)
        go_on = threading.Event()

        def hold(batch: Batch) -> None:
            if batch.number == 0:
                assert go_on.wait(_PATIENCE), "batch 1 was not made while batch 0 was in progress"
            elif ordered:
                go_on.set()

        numbers = []
        for batch in self._run(_plain().call(hold), executor, ordered=ordered):
            numbers.append(batch.number)
            go_on.set()
        return numbers
