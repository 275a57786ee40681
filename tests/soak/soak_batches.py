"""The batches of the soak, the faults that happen in them, and a sink that is soon full."""

import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

import flowcore as fc
from flowcore.errors import Cancelled
from flowcore.testing.batches import Broken, ItemsBatch

__all__ = [
    "DEADLY",
    "NAMES",
    "Fault",
    "Foreseen",
    "SideBatch",
    "SmallSink",
    "SoakBatch",
    "keep_batch",
    "keep_item",
    "noise_of",
]


class Foreseen(Exception):
    """What a serial run raises in place of a fault: its argument is the kind."""


class Locked(Exception):
    """An exception that does not pickle."""

    def __init__(self, *args):
        super().__init__(*args)
        self.lock = threading.Lock()


def _raise(batch):
    raise Broken(batch.number)


def _raise_locked(batch):
    raise Locked(batch.number)


def _lock(batch):
    batch.lock = threading.Lock()


def _kill(batch):
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(batch):
    os._exit(3)


def _hang(batch):
    threading.Event().wait(100)


#: What the consumer is told of a fault that happens each time, by its kind.
NAMES = {
    "error": "Broken",
    "unpicklable error": "Locked",
    "unpicklable result": "ActionError",
    "kill": "WorkerLost",
    "exit": "WorkerLost",
    "hang": "TimedOut",
}

#: Those that end the worker.
DEADLY = ("kill", "exit", "hang")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in the batch called ``number``, in its first attempt or in each."""

    number: int
    kind: str
    once: bool
    foreseen: bool = False

    DO: ClassVar[dict[str, Callable[[fc.Batch], None]]] = {
        "error": _raise,
        "unpicklable error": _raise_locked,
        "unpicklable result": _lock,
        "kill": _kill,
        "exit": _exit,
        "hang": _hang,
    }

    def happen(self, batch, folder):
        """Go wrong, if this is the batch and the attempt."""
        if batch.number != self.number:
            return
        if self.foreseen:
            raise Foreseen(self.kind)
        mark = Path(folder) / f"{batch.epoch}-{batch.number}"
        if not (self.once and mark.exists()):
            mark.touch()
            self.DO[self.kind](batch)


class SoakBatch(ItemsBatch):
    components = "x", "noise", "image"

    @fc.action
    def load_wide(self, width, in_place):
        """Make the components; an image is ``width`` numbers."""
        shape = len(self), width
        image = self.empty(shape) if in_place else np.empty(shape)
        image[...] = self.positions[:, None] + np.arange(width)
        self.data = self.positions * 1.0, self.rng.random(len(self)), image
        return self

    @fc.action
    def go_wrong(self, faults, folder):
        for fault in faults:
            fault.happen(self, folder)
        return self


class SideBatch(fc.Batch):
    components = ("y",)

    @fc.action
    def load_side(self):
        self.data = (self.positions + self.rng.random(len(self)),)
        return self


def keep_batch(batch):
    return batch.x % 3 > 0


def keep_item(item):
    return item.x % 4 > 0


def noise_of(batch):
    return batch.noise


class SmallSink(fc.Sink):
    """Holds few items, each until `get` takes it."""

    def __init__(self, capacity):
        self._capacity = capacity

    def __getstate__(self):
        return {"_capacity": self._capacity}

    def open(self, run):
        self._items = queue.Queue(self._capacity)

    def prepare(self, batch):
        return batch.noise.copy()

    def put(self, item, cancel):
        while True:
            try:
                return self._items.put(item, timeout=0.01)
            except queue.Full:
                if cancel.is_set():
                    raise Cancelled("the run is left") from None

    @property
    def result(self):
        return self

    def get(self, timeout):
        return self._items.get(timeout=timeout)
