"""The batches of the fault matrix and what goes wrong in them. Workers import it by its name."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from pathlib import Path

import numpy as np

import flowcore as fc
from flowcore.errors import Cancelled

__all__ = [
    "BAD",
    "BATCHES",
    "Broken",
    "DoorSink",
    "Faulty",
    "NoPut",
    "NoTensor",
    "TensorSink",
    "Unpicklable",
    "Unreadable",
    "count",
    "die",
    "die_writing",
    "fail",
    "grow",
    "hold_lock",
    "ignore",
    "let_go",
    "made",
    "pipeline",
    "until",
    "wait",
    "workers",
]

BATCHES = 10  # of an epoch
BAD = 4  # the one that a fault is in

_TOO_MUCH = 1 << 33  # bytes: more than a limit of the tests allows


class Faulty(fc.Batch):
    @fc.action
    def load(self, folder):
        """Make the data, and note which batch it is and where it is made."""
        with (folder / "made").open("a") as file:
            file.write(f"{self.number} {os.getpid()}\n")
        self.data = self.positions * 2.0 + self.rng.random(len(self))
        return self

    @fc.action
    def wrong(self, function, *args, **kwargs):
        """Call a function in the bad batch."""
        if self.number == BAD:
            function(self, *args, **kwargs)
        return self

    @fc.action
    def widen(self):
        """Hold 40 MB more."""
        self.wide = np.zeros(40_000_000, np.uint8)
        return self

    @fc.action
    def note_end(self, folder):
        (folder / f"ended-{self.number}").touch()
        return self


class NoTensor(Faulty):
    def get_tensor(self):
        if self.number == BAD:
            raise Broken("the text")
        return self.data


class NoPut(fc.Sink):
    @staticmethod
    def prepare(batch):
        return batch.number

    def put(self, item, cancel):
        if item == BAD:
            raise Broken("the text")


class TensorSink(NoPut):
    @staticmethod
    def prepare(batch):
        return batch.get_tensor()

    def put(self, item, cancel):
        pass


class DoorSink(NoPut):
    """Has room for one item, and says when another is at the door."""

    def __init__(self):
        self.queue = queue.Queue(1)
        self.at_door = threading.Event()

    def put(self, item, cancel):
        if self.queue.full():
            self.at_door.set()
        while not cancel.is_set():
            try:
                return self.queue.put(item, timeout=0.01)
            except queue.Full:
                pass
        raise Cancelled


class Broken(Exception):
    pass


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Unreadable(Exception):
    """An exception whose pickle can be read in its own process alone."""

    def __reduce__(self):
        return _read_in, (os.getpid(), *self.args), vars(self)


def _read_in(process, *args):
    if process != os.getpid():
        raise ValueError("this cannot be read here")
    return Unreadable(*args)


def pipeline(folder, batch_class=Faulty):
    """Return ten batches, each of which is noted in the folder when it is made."""
    return fc.Dataset(2 * BATCHES, batch_class).p.load(Path(folder))


def made(folder):
    """Return the numbers of the batches, as often as they were made."""
    return [int(line.split()[0]) for line in _notes(folder)]


def workers(folder):
    """Return the processes that made batches."""
    return {int(line.split()[1]) for line in _notes(folder)}


def until(happened, what, seconds=10):
    """Wait until something has happened, which it has in so many seconds at the latest."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def count(folder, what):
    return len(list(Path(folder).glob(what)))


def let_go(folder):
    """Let go what waits in an action."""
    (Path(folder) / "go").touch()


def _notes(folder):
    path = Path(folder) / "made"
    return path.read_text().splitlines() if path.exists() else []


# What goes wrong


def fail(batch, error):
    raise error("the text")


def ignore(batch, argument):
    pass


def hold_lock(batch):
    batch.lock = threading.Lock()


def die(batch, folder, *, once):
    """Kill the worker, when the batches before this one were taken."""
    until((folder / "taken").exists, "the batches before it were not taken")
    if not (once and (folder / "died").exists()):
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def die_writing(batch, folder):
    batch.deadly = _Deadly(folder)


class _Deadly:
    """Something that kills the worker when it is pickled for the first time."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        die(None, self.folder, once=True)
        return str, ("written",)


def wait(batch, folder):
    """Wait until the test lets it go."""
    try:
        (folder / "waits").write_text(str(os.getpid()))
        until((folder / "go").exists, "nobody has let it go")
        (folder / "ended").touch()
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        raise


def grow(batch):
    batch.data = np.ones(_TOO_MUCH, np.uint8)
