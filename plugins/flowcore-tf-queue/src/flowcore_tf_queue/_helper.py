"""A thread that waits inside of TensorFlow, so that the thread that asked for the batch does not.

The main thread cannot see a Ctrl-C while it is in TensorFlow; and where a session's call ends by
its deadline just then, the binding turns the `KeyboardInterrupt` into a `RuntimeError`.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Protocol

from flowcore import Cancel
from flowcore_tf_queue._arrays import Arrays

__all__ = ["Door", "Helped"]

_SLICE = 0.2  # seconds between looks at the token
_PATIENCE = 0.2  # seconds that `close` waits for the thread


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
    """A door whose puts are done in a thread of its own, while the caller waits in Python.

    Not a `concurrent.futures.ThreadPoolExecutor`: the interpreter's exit would wait for its thread
    before it comes to leaving the run, which is what ends the wait.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        # To the helper: what to put, the token of that put, and where to say that it is done.
        self._jobs: SimpleQueue[tuple[Arrays, Cancel, Future[None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="flowcore-tf-queue", daemon=True)
        self._thread.start()

    def put(self, arrays: Arrays, cancel: Cancel) -> None:
        """Have the door put, and wait for it."""
        mine = Cancel()
        with cancel.on_set(mine.set):
            done: Future[None] = Future()
            self._jobs.put((arrays, mine, done))
            try:
                while wait([done], _SLICE).not_done:
                    cancel.is_set()  # a look at the token gives the stall warning
                done.result()
            except BaseException:
                mine.set()  # after a Ctrl-C: the put must not outlive this call
                done.exception()
                raise

    def close_queue(self) -> None:
        """Close the queue."""
        self._door.close_queue()

    def close(self) -> None:
        """Let the thread go."""
        self._jobs.put(None)
        self._thread.join(_PATIENCE)
        self._door.close()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            arrays, cancel, done = job
            try:
                self._door.put(arrays, cancel)
            except BaseException as error:  # for the caller, whatever it is
                done.set_exception(error)
            else:
                done.set_result(None)
            del job, arrays, cancel, done
