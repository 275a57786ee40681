"""Promise 6: an error arrives where it belongs, as what it is, wherever it was raised."""

# ruff: noqa: D102 - a test's name is its description

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest

from flowcore.dataset import Dataset
from flowcore.errors import ActionError
from flowcore.testing.batches import Broken, ItemsBatch, StrictError, seen
from flowcore.testing.executor_runs import ExecutorRuns, plain
from flowcore.testing.meeting import FailingSink

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flowcore.batch import Batch
    from flowcore.testing.trials import AnyExecutor

__all__ = ["Errors", "failure"]


def failure(run: Iterable[Batch], error: type[BaseException] = Exception) -> tuple[list[int], Any]:
    """Return the numbers of the batches before a run fails, and what it fails of."""
    numbers: list[int] = []
    with pytest.raises(error) as raised:
        numbers.extend(batch.number for batch in run)
    return numbers, raised.value


class Errors(ExecutorRuns):
    """The tests of promise 6 that need no worker to be lost."""

    def test_an_exception_arrives_in_its_batchs_place_with_a_note(
        self, executor: AnyExecutor
    ) -> None:
        run = self._run(plain().fail(2, Broken, "in an action"), executor)
        numbers, error = failure(run, Broken)
        assert numbers == [0, 1]
        assert str(error) == "in an action"
        note = "\n".join(error.__notes__)
        assert "'fail'" in note
        assert "batch 2 of epoch 0" in note
        assert "[8, 9, 10" in note

    def test_an_exception_shows_where_in_the_action_it_was_raised(
        self, executor: AnyExecutor
    ) -> None:
        _, error = failure(self._run(plain().fail(2, Broken), executor), Broken)
        assert "raise error(*args)" in "".join(traceback.format_exception(error))

    def test_an_exception_that_cannot_be_made_from_its_args_arrives_as_what_it_is(
        self, executor: AnyExecutor
    ) -> None:
        run = self._run(plain().fail(2, StrictError, 7, "in an action"), executor)
        _, error = failure(run, StrictError)
        assert (str(error), error.code) == ("7: in an action", 7)

    def test_an_exception_keeps_what_it_says_of_its_cause(self, executor: AnyExecutor) -> None:
        _, error = failure(self._run(plain().open_nothing(), executor), FileNotFoundError)
        assert error.filename == "no such folder/at all"

    @pytest.mark.parametrize("kind", [StopIteration, SystemExit, GeneratorExit])
    def test_an_exception_that_would_end_a_loop_or_the_program_is_an_error_of_its_batch(
        self, executor: AnyExecutor, kind: type[BaseException]
    ) -> None:
        numbers, error = failure(self._run(plain().fail(2, kind), executor), ActionError)
        assert numbers == [0, 1]
        assert f"'fail' raised {kind.__name__}" in str(error)

    def test_a_keyboard_interrupt_in_an_action_arrives_and_is_never_skipped(
        self, executor: AnyExecutor
    ) -> None:
        run = self._run(plain().fail(2, KeyboardInterrupt), executor, on_error="skip")
        numbers, _ = failure(run, KeyboardInterrupt)
        assert numbers == [0, 1]

    def test_an_exception_in_prepare_arrives_in_its_batchs_place(
        self, executor: AnyExecutor
    ) -> None:
        numbers, error = failure(self._run(plain(), executor, sink=FailingSink(prepare=2)), Broken)
        assert numbers == [0, 1]
        assert "prepare of sink" in "\n".join(error.__notes__)

    def test_an_exception_in_put_arrives_and_is_never_skipped(self, executor: AnyExecutor) -> None:
        run = self._run(plain(), executor, sink=FailingSink(put=2), on_error="skip")
        assert failure(run, Broken)[0] == [0, 1]

    def test_after_an_error_the_run_goes_on_raising_it(self, executor: AnyExecutor) -> None:
        run = self._run(plain().fail(0, Broken), executor)
        _, first = failure(run, Broken)
        _, again = failure(run, Broken)
        assert again is first

    def test_a_batch_that_fails_is_skipped_and_reported(self, executor: AnyExecutor) -> None:
        run = self._run(plain().fail(2, Broken), executor, on_error="skip")
        assert [batch.number for batch in run] == [0, 1, 3, 4, 5]
        (skipped,) = run.report.skipped
        assert (skipped.number, skipped.action, type(skipped.error)) == (2, "fail", Broken)

    def test_a_batch_that_fails_once_is_retried_in_its_place(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        run = self._run(plain().jitter().fail_once(2, tmp_path), executor, seed=6, retries=1)
        assert seen(run) == seen(plain().jitter().gen_batch(4, executor="serial", seed=6))
        assert [retried.number for retried in run.report.retried] == [2]

    def test_items_that_are_skipped_are_reported_as_serial_reports_them(
        self, executor: AnyExecutor
    ) -> None:
        pipeline = Dataset(23, ItemsBatch).p.load().jitter_at_once(bad=(3, 5))
        runs = [
            self._run(pipeline, executor, on_error="skip_items"),
            pipeline.gen_batch(4, executor="serial", on_error="skip_items"),
        ]
        reports = [
            [(one.number, one.ids.tolist(), str(one.error)) for one in run.report.skipped_items]
            for run in runs
            if list(run)
        ]
        assert reports[0] == reports[1] == [(0, [3], "item 3"), (1, [5], "item 5")]
