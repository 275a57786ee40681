"""Promises 2 to 5: where items are prepared and put, in which order, how many ahead, and stalls."""

# ruff: noqa: D102 - a test's name is its description

from __future__ import annotations

import logging
import os
import queue
import time
from logging.handlers import QueueHandler
from typing import TYPE_CHECKING

import pytest

from flowcore.testing.executor_runs import BATCHES, ExecutorRuns, plain
from flowcore.testing.meeting import PATIENCE, OneRoomSink, TracingSink, begun, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flowcore.testing.trials import AnyExecutor

__all__ = ["Delivers"]

_either_order = pytest.mark.parametrize("ordered", [True, False])
_SOON = 0.2  # seconds in which more would have begun, if it may


class Delivers(ExecutorRuns):
    """The tests of promises 2 to 5."""

    @pytest.fixture
    def warned(self) -> Iterator[queue.SimpleQueue[logging.LogRecord]]:
        """The warnings of flowcore, as they are logged."""
        records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        handler = QueueHandler(records)
        logging.getLogger("flowcore").addHandler(handler)
        yield records
        logging.getLogger("flowcore").removeHandler(handler)

    def test_items_are_prepared_where_the_actions_run_and_put_in_one_thread_here(
        self, executor: AnyExecutor
    ) -> None:
        run = self._run(plain().here().put_into(TracingSink()), executor)
        list(run)
        (puts,) = run.report.results.values()
        assert [item["number"] for item, _ in puts] == list(range(BATCHES))
        assert all(tuple(item["tensor"][0]) == item["by"] for item, _ in puts)
        assert ({item["by"][0] for item, _ in puts} == {os.getpid()}) == self.shares_memory
        assert len({thread for _, thread in puts}) == 1
        assert puts[0][1][0] == os.getpid()

    @_either_order
    def test_the_nth_batch_handed_over_is_the_nth_item_put(
        self, executor: AnyExecutor, ordered: bool, tmp_path: Path
    ) -> None:
        pipeline = plain().put_into(TracingSink())
        if not ordered and self.parallel:
            pipeline = plain().wait_for(0, tmp_path / "go").put_into(TracingSink())
        numbers = []
        run = self._run(pipeline, executor, ordered=ordered)
        for batch in run:
            (tmp_path / "go").touch()
            numbers.append(batch.number)
            (puts,) = run.report.results.values()
            assert [item["number"] for item, _ in puts][: len(numbers)] == numbers
        assert sorted(numbers) == list(range(BATCHES))

    def test_a_batch_that_is_ready_early_waits_for_its_turn(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        self._needs_parallel()
        pipeline = plain().wait_for(0, tmp_path / "begun-0-1").begin(tmp_path)
        numbers = [batch.number for batch in self._run(pipeline, executor)]
        assert numbers == list(range(BATCHES))

    def test_unordered_a_batch_that_is_ready_early_is_handed_over(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        self._needs_parallel()
        numbers = []
        for batch in self._run(plain().wait_for(0, tmp_path / "go"), executor, ordered=False):
            (tmp_path / "go").touch()
            numbers.append(batch.number)
        assert numbers[0] != 0

    def test_two_batches_are_in_progress_at_once(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        self._needs_parallel()
        assert len(list(self._run(plain().meet(tmp_path, 2), executor, prefetch=1))) == BATCHES

    @_either_order
    @pytest.mark.parametrize("prefetch", [1, 4])
    def test_a_consumer_that_takes_one_item_for_each_batch_is_never_stuck(
        self, executor: AnyExecutor, ordered: bool, prefetch: int
    ) -> None:
        sink = OneRoomSink()
        run = self._run(
            plain().double(), executor, sink=sink, ordered=ordered, prefetch=prefetch, n_epochs=3
        )
        for batch in run:
            assert sink.queue.get(timeout=PATIENCE) == batch.number
        assert run.report.batches == 3 * BATCHES

    @pytest.mark.parametrize("prefetch", [1, 3])
    def test_no_more_batches_are_begun_than_asked_for_and_prefetched(
        self, executor: AnyExecutor, prefetch: int, tmp_path: Path
    ) -> None:
        pipeline = plain().begin(tmp_path)
        with self._run(pipeline, executor, prefetch=prefetch, n_epochs=None) as run:
            next(run)
            self._check_begun(tmp_path, 1 + prefetch)
            next(run)
            self._check_begun(tmp_path, 2 + prefetch)

    def test_a_full_sink_stops_the_workers(self, executor: AnyExecutor, tmp_path: Path) -> None:
        sink = OneRoomSink()
        pipeline = plain().begin(tmp_path)
        with self._feed(pipeline, executor, sink=sink, prefetch=2, n_epochs=None):
            count = 4 if self.parallel else 2  # in the sink, at its door, and two ahead
            self._check_begun(tmp_path, count)
            assert sink.queue.get(timeout=PATIENCE) == 0
            self._check_begun(tmp_path, count + 1)

    def test_a_feed_puts_everything_in_order(self, executor: AnyExecutor) -> None:
        with self._feed(plain().put_into(TracingSink()), executor, n_epochs=2) as feed:
            assert feed.wait(PATIENCE)
        (puts,) = feed.results.values()
        assert [item["number"] for item, _ in puts] == [*range(BATCHES)] * 2

    def test_a_task_that_goes_on_running_is_named_in_a_warning(
        self,
        executor: AnyExecutor,
        tmp_path: Path,
        warned: queue.SimpleQueue[logging.LogRecord],
    ) -> None:
        pipeline = plain().wait_for(1, tmp_path / "go")
        with self._feed(pipeline, executor, stall_warning=_SOON) as feed:
            try:
                while "to finish batch 1 of epoch 0" not in (said := _text(warned)):
                    pass  # it is of a worker that was slow to start
            finally:
                (tmp_path / "go").touch()
            assert feed.wait(PATIENCE)
        assert "'wait_for'" in said or not self.shares_memory

    def _check_begun(self, folder: Path, count: int) -> None:
        until(lambda: begun(folder) >= count, f"it begins fewer than {count} batches")
        time.sleep(_SOON)
        assert begun(folder) == count, "it begins more than it may"


def _text(warned: queue.SimpleQueue[logging.LogRecord]) -> str:
    """Return the next warning; it is an error that there is none."""
    return warned.get(timeout=PATIENCE).getMessage()
