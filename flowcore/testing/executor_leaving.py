"""Promises 7 and 8: leaving a run is clean, and another goes on from where it was."""

# ruff: noqa: D102 - a test's name is its description

from __future__ import annotations

import gc
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flowcore.testing.batches import Broken, seen
from flowcore.testing.executor_runs import BATCHES, ExecutorRuns, plain
from flowcore.testing.leaks import leaves_nothing
from flowcore.testing.meeting import OneRoomSink, begun, until, within_a_second

if TYPE_CHECKING:
    from pathlib import Path

    from flowcore.testing.trials import AnyExecutor

__all__ = ["Leaving"]

_SAME = {"shuffle": True, "n_epochs": 2}


class Leaving(ExecutorRuns):
    """The tests of promises 7 and 8."""

    @pytest.mark.parametrize("way", ["close", "del", "an exception in the loop", "the end"])
    def test_a_run_that_is_left_leaves_nothing_but_an_executor_for_the_next(
        self, executor: AnyExecutor, way: str
    ) -> None:
        with leaves_nothing(sockets=not self.opens_sockets):
            run = self._run(plain().double(), executor, n_epochs=None if way != "the end" else 1)
            next(run)
            if way == "close":
                run.close()
            elif way == "an exception in the loop":
                with pytest.raises(Broken), run:
                    raise Broken
            elif way == "the end":
                list(run)
            del run
            gc.collect()
        self._check_usable(executor)

    def test_a_run_that_is_left_while_an_action_waits_is_gone_within_a_second(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        with leaves_nothing(sockets=not self.opens_sockets):
            run = self._run(plain().begin(tmp_path).wait_for(1, tmp_path / "go"), executor)
            caller = threading.Thread(target=list, args=(run,), daemon=True)
            caller.start()
            until(lambda: (tmp_path / "begun-0-1").exists(), "batch 1 did not begin")
            within_a_second(run.close)
            if not self.kills_workers:
                (tmp_path / "go").touch()  # nothing ends the action but itself
            within_a_second(caller.join)
            del run, caller
        self._check_usable(executor)

    def test_a_run_that_is_left_at_a_full_sink_is_gone_within_a_second(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        sink = OneRoomSink()
        feed = self._feed(plain().begin(tmp_path), executor, sink=sink, prefetch=1)
        with leaves_nothing(sockets=not self.opens_sockets), feed:
            until(
                lambda: begun(tmp_path) == 2 + self.parallel, "it stopped before the sink was full"
            )
        assert sink.queue.get_nowait() == 0
        assert sink.queue.empty()
        self._check_usable(executor)

    def test_a_run_that_failed_leaves_nothing(self, executor: AnyExecutor) -> None:
        with leaves_nothing(sockets=not self.opens_sockets), pytest.raises(Broken):
            list(self._run(plain().fail(2, Broken), executor))
        self._check_usable(executor)

    @pytest.mark.parametrize("to", ["serial", "executor"])
    @pytest.mark.parametrize("ordered", [True, False])
    def test_a_run_goes_on_where_another_was_left_serial_or_not(
        self, executor: AnyExecutor, to: str, ordered: bool
    ) -> None:
        whole = seen(plain().jitter().gen_batch(4, executor="serial", seed=3, **_SAME))
        for stop in (1, BATCHES, BATCHES + 2):
            found = self._left_and_resumed(executor, to, stop, {"ordered": ordered, **_SAME})
            assert (found if ordered else sorted(found)) == whole

    # Inside

    def _left_and_resumed(
        self, executor: AnyExecutor, to: str, stop: int, options: dict[str, Any]
    ) -> list[Any]:
        ways: tuple[AnyExecutor, AnyExecutor] = (executor, "serial")
        first, second = ways if to == "serial" else ways[::-1]
        with self._run(plain().jitter(), first, seed=3, **options) as run:
            before = seen(batch for _, batch in zip(range(stop), run, strict=False))
            state = json.loads(json.dumps(run.state_dict()))
        return before + seen(self._run(plain().jitter(), second, resume=state, **options))

    def _check_usable(self, executor: AnyExecutor) -> None:
        again = self._run(plain().double(), executor)
        assert seen(again) == seen(plain().double().gen_batch(4))
