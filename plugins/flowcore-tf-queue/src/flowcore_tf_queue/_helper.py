"""A thread that waits inside of TensorFlow, so that the thread that asked for the batch does not.

The main thread cannot see a Ctrl-C while it is in TensorFlow; and where a session's call ends by
its deadline just then, the binding turns the `KeyboardInterrupt` into a `RuntimeError`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Protocol

from flowcore import Cancel
from flowcore_tf_queue._arrays import Arrays

__all__ = ["Door", "Helped"]

_SLICE = 0.2  # seconds between looks at the token


class Door(Protocol):
    """What puts into one queue, for one run."""

    def put(self, arrays: Arrays, cancel: Cancel) -> None:
        """Put one item, or each of many; see `flowcore.Sink.put`."""
        ...

    def close_queue(self) -> None:
        """Close the queue; this waits behind the enqueues that others wait in."""
        ...

    def close(self) -> None:
        """Let go of what the door holds, but not of the queue."""
        ...


class Helped:
    """A door whose puts are done in a thread of its own, while the caller waits in Python."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._thread = ThreadPoolExecutor(1, "flowcore-tf-queue")

    def put(self, arrays: Arrays, cancel: Cancel) -> None:
        """Have the door put, and wait for it."""
        mine = Cancel()
        with cancel.on_set(mine.set):
            done = self._thread.submit(self._door.put, arrays, mine)
            try:
                while True:
                    try:
                        return done.result(_SLICE)
                    except NotYet:
                        cancel.is_set()  # a look at the token gives the stall warning
            except BaseException:
                mine.set()  # after a Ctrl-C: the put must not outlive this call
                done.exception()
                raise

    def close_queue(self) -> None:
        """Close the queue."""
        self._door.close_queue()

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown()
        self._door.close()
