"""Actions and sinks that meet their test through files, wherever the workers are.

All of it is at the top level of a module, so that it can be sent to workers in other processes.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from flowcore.actions import action
from flowcore.batch import Batch
from flowcore.errors import Cancelled
from flowcore.sinks import Cancel, Sink, SinkRun
from flowcore.testing.batches import Broken, PlainBatch

__all__ = [
    "PATIENCE",
    "FailingSink",
    "MeetingBatch",
    "OneRoomSink",
    "TracingSink",
    "Unpicklable",
    "Unreadable",
    "begun",
    "until",
    "within_a_second",
]

PATIENCE = 10.0  # seconds in which what must happen has happened, on a slow machine too


def until(happened: Callable[[], object], what: str) -> None:
    """Wait until something has happened.

    Raises:
        AssertionError: it has not in 10 seconds; ``what`` says what is wrong then.
    """
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def within_a_second(call: Callable[[], object]) -> None:
    """Make a call that a test which fails leaves behind, and raise what it raises."""
    done: futures.Future[None] = futures.Future()

    def answer() -> None:
        try:
            call()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=answer, daemon=True).start()
    # Half a second more for a machine that is busy.
    assert futures.wait([done], 1.5).done, "it took longer than a second"
    done.result()


def begun(folder: Path) -> int:
    """Return how many batches `MeetingBatch.begin` has noted."""
    return len(list(folder.glob("begun-*")))


class Unpicklable(Exception):
    """An exception that does not pickle."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Unreadable(Exception):
    """An exception that pickles, and whose pickle cannot be read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("this cannot be read")


class MeetingBatch(PlainBatch):
    """A batch whose actions write files, and wait for them."""

    @action
    def begin(self, folder: Path) -> MeetingBatch:
        """Note that the batch has begun."""
        (folder / f"begun-{self.epoch}-{self.number}").touch()
        return self

    @action
    def wait_for(self, number: int, path: Path) -> MeetingBatch:
        """Wait, in the batch called ``number``, until a file exists."""
        if self.number == number:
            until(path.exists, f"batch {number} has waited in vain for {path.name}")
        return self

    @action
    def meet(self, folder: Path, count: int) -> MeetingBatch:
        """Wait until ``count`` batches are in here at once, or were."""
        (folder / f"met-{self.number}").touch()
        until(lambda: len(list(folder.glob("met-*"))) >= count, "the batches take turns")
        return self

    @action(singleton=True)
    def alone(self, folder: Path) -> MeetingBatch:
        """Raise if another batch is in here too."""
        inside = folder / "inside"
        inside.touch(exist_ok=False)
        time.sleep(0.002)  # long enough for another to come in, were it let
        inside.unlink()
        return self

    @action
    def here(self) -> MeetingBatch:
        """Make the data where it is made: process and thread."""
        self.data = np.tile([os.getpid(), threading.get_ident()], (len(self), 1))
        return self

    @action
    def hold_lock(self, number: int) -> MeetingBatch:
        """Leave something on the batch that does not pickle."""
        if self.number == number:
            self.lock = threading.Lock()
        return self

    @action
    def die(self, number: int, once: Path | None = None) -> MeetingBatch:
        """Kill the worker's process in the batch called ``number``; a file says: not again."""
        if self.number == number and not (once and once.exists()):
            if once:
                once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self


class TracingSink(Sink):
    """Keeps each item with where it was prepared and where it was put."""

    def open(self, run: SinkRun) -> None:
        """Begin an empty list."""
        self._puts: list[tuple[dict[str, Any], tuple[int, int]]] = []

    @staticmethod  # so that a worker in another process needs no sink
    def prepare(batch: Batch) -> dict[str, Any]:
        """Return the batch's number and a copy of its tensor, and process and thread."""
        tensor = batch.get_tensor().copy()
        return {"number": batch.number, "tensor": tensor, "by": _here()}

    def put(self, item: dict[str, Any], cancel: Cancel) -> None:
        """Keep it, with process and thread."""
        self._puts.append((item, _here()))

    @property
    def result(self) -> list[tuple[dict[str, Any], tuple[int, int]]]:
        """The items, each with where it was put."""
        return self._puts


def _here() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


class OneRoomSink(Sink):
    """Puts the numbers of batches into a queue that holds one."""

    def __init__(self) -> None:
        self.queue: queue.Queue[int] = queue.Queue(1)

    @staticmethod
    def prepare(batch: Batch) -> int:
        """Return the batch's number."""
        return batch.number

    def put(self, item: int, cancel: Cancel) -> None:
        """Wait until there is room, or the run is left."""
        while not cancel.is_set():
            try:
                return self.queue.put(item, timeout=0.01)
            except queue.Full:
                pass
        raise Cancelled


class FailingSink(TracingSink):
    """Fails to prepare one batch, or to put it."""

    def __init__(self, prepare: int = -1, put: int = -1) -> None:
        self._fails_to_put = put
        self.prepare = partial(_prepared, prepare)  # type: ignore[method-assign]

    def put(self, item: dict[str, Any], cancel: Cancel) -> None:
        """Keep it, or raise."""
        if item["number"] == self._fails_to_put:
            raise Broken("in put")
        super().put(item, cancel)


def _prepared(number: int, batch: Batch) -> dict[str, Any]:
    if batch.number == number:
        raise Broken("in prepare")
    return TracingSink.prepare(batch)
