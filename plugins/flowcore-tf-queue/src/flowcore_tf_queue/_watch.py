"""Puts in the thread that asked for the batch, maybe the main thread, which must see a Ctrl-C.

Python sees a signal only between calls to TensorFlow, so a put that waits must come back now and
then. A session's call does by its deadline. An eager op does as a thread beside it interrupts it;
that is cheaper than to have another thread put: nobody is woken where there is room.
"""

from __future__ import annotations

import threading
from typing import Protocol

from flowcore import Cancel
from flowcore_tf_queue._arrays import Arrays

__all__ = ["Door", "InCaller"]

_SLICE = 0.1  # seconds; a put that waits is interrupted after one to two of these
_PATIENCE = 0.2  # seconds that `close` waits for the thread


class Door(Protocol):
    """What puts into one queue, for one run."""

    def put(self, arrays: Arrays, cancel: Cancel) -> None:
        """Put one item, or each of many; see `flowcore.Sink.put`."""
        ...

    def interrupt(self) -> None:
        """Have a put that waits look at its token, and go on; called in any thread."""
        ...

    def close_queue(self) -> None:
        """Close the queue; this waits behind the enqueues that others wait in."""
        ...

    def close(self) -> None:
        """Let go of what the door holds, but not of the queue."""
        ...


class InCaller:
    """A door whose puts may be made in the main thread.

    Args:
        door: what puts.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._puts = 0  # odd while one is in progress; written by the thread that puts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="flowcore-tf-queue", daemon=True)
        self._thread.start()

    def put(self, arrays: Arrays, cancel: Cancel) -> None:
        """Put one item, or each of many; see `flowcore.Sink.put`."""
        self._puts += 1
        try:
            self._door.put(arrays, cancel)
        except RuntimeError as error:
            # The signal came while TensorFlow made the error of a call that was given up; its
            # binding then says only what that error was replaced by.
            if "REPLACED BY KeyboardInterrupt" in str(error):
                raise KeyboardInterrupt from None
            raise
        finally:
            self._puts += 1

    def interrupt(self) -> None:
        """Have a put that waits look at its token."""
        self._door.interrupt()

    def close_queue(self) -> None:
        """Close the queue."""
        self._door.close_queue()

    def close(self) -> None:
        """Let the thread go."""
        self._over.set()
        self._thread.join(_PATIENCE)
        self._door.close()

    def _watch(self) -> None:
        before = 0
        while not self._over.wait(_SLICE):
            if before == self._puts and before % 2:
                self._door.interrupt()
            before = self._puts
