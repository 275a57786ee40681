"""Promise 6, where the way to the workers breaks: what does not pickle, and workers that die."""

# ruff: noqa: D102 - a test's name is its description

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from flowcore.errors import PipelineError, WorkerLost
from flowcore.testing.batches import Broken, seen
from flowcore.testing.executor_errors import failure
from flowcore.testing.executor_runs import BATCHES, ExecutorRuns, plain
from flowcore.testing.meeting import Unpicklable, Unreadable

if TYPE_CHECKING:
    from pathlib import Path

    from flowcore.testing.trials import AnyExecutor

__all__ = ["Faults"]

_OTHERS = [0, 1, 3, 4, 5]  # the batches, when 2 is the one that fails


class Faults(ExecutorRuns):
    """The tests of what only workers in other processes can fail of."""

    @pytest.mark.parametrize("kind", [Unpicklable, Unreadable])
    def test_an_exception_that_cannot_be_sent_arrives_by_its_name_with_its_text(
        self, executor: AnyExecutor, kind: type[Exception]
    ) -> None:
        numbers, error = failure(self._run(plain().fail(2, kind, "the text"), executor))
        assert numbers == [0, 1]
        assert type(error).__name__ == kind.__name__
        assert "the text" in str(error)
        assert "batch 2 of epoch 0" in "\n".join(error.__notes__)

    def test_a_batch_that_cannot_be_sent_back_is_an_error_of_that_batch(
        self, executor: AnyExecutor
    ) -> None:
        run = self._run(plain().hold_lock(2), executor, on_error="skip")
        numbers = [batch.number for batch in run]
        if self.shares_memory:
            assert numbers == list(range(BATCHES))
        else:
            assert numbers == _OTHERS
            assert "lock" in str(run.report.skipped[0].error)

    def test_a_pipeline_that_cannot_be_sent_is_an_error_and_never_a_hang(
        self, executor: AnyExecutor
    ) -> None:
        pipeline = plain().fail(-1, Broken, threading.Lock())
        if self.shares_memory:
            assert len(list(self._run(pipeline, executor))) == BATCHES
        else:
            numbers, error = failure(self._run(pipeline, executor, on_error="skip"), PipelineError)
            assert numbers == []
            assert "lock" in str(error)

    def test_after_each_of_these_the_executor_goes_on(self, executor: AnyExecutor) -> None:
        for pipeline in (plain().fail(0, Unreadable), plain().hold_lock(0)):
            list(self._run(pipeline, executor, on_error="skip"))
        assert len(list(self._run(plain().double(), executor))) == BATCHES

    def test_a_worker_that_is_killed_once_costs_a_re_run_and_nothing_else(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        self._needs_kills()
        run = self._run(plain().jitter().die(2, tmp_path / "died"), executor, seed=6)
        assert seen(run) == seen(plain().jitter().gen_batch(4, executor="serial", seed=6))
        assert (tmp_path / "died").exists()

    def test_a_batch_that_kills_its_worker_each_time_is_an_error_in_its_place(
        self, executor: AnyExecutor
    ) -> None:
        self._needs_kills()
        numbers, error = failure(self._run(plain().die(2), executor), WorkerLost)
        assert numbers == [0, 1]
        assert "batch 2 of epoch 0" in "\n".join(error.__notes__)

    def test_a_batch_that_kills_its_worker_each_time_costs_only_itself_when_skipped(
        self, executor: AnyExecutor
    ) -> None:
        self._needs_kills()
        run = self._run(plain().die(2), executor, on_error="skip")
        assert [batch.number for batch in run] == _OTHERS
        (skipped,) = run.report.skipped
        assert (skipped.number, type(skipped.error)) == (2, WorkerLost)

    def _needs_kills(self) -> None:
        if not self.kills_workers:
            pytest.skip("the executor does not say that it replaces workers that are killed")
