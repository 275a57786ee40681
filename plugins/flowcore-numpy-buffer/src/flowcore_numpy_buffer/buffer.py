"""A bounded buffer of batches between a run and the threads that read it."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from flowcore.errors import Cancelled, FlowcoreError, explain
from flowcore_numpy_buffer._item import Item, assembled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from flowcore import Cancel

__all__ = ["Buffer", "BufferStore", "EndOfData"]

_POLL = 0.1  # seconds between looks at the cancel token, where a stall warning may be due


class EndOfData(FlowcoreError, EOFError):
    """All batches of the run were read from the buffer."""


class Buffer:
    """Hands the batches of a run to readers, in delivery order, each batch to one of them.

    Any number of threads may read. A full buffer holds the run back. What is read belongs to the
    reader. ``len(buffer)`` is the number of batches that wait to be read. It is made by the sink:
    take it from the run's results.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[Any] = deque()
        # Guards the items and the end. The delivering thread waits here for room, readers for
        # items. Reentrant: the garbage collector may leave the run, and so call back, within it.
        self._changed = threading.Condition(threading.RLock())
        self._ended = False
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return True  # also while it is empty

    def __repr__(self) -> str:
        return f"<Buffer: {len(self)} of {self._capacity} batches{', ended' * self._ended}>"

    def __iter__(self) -> Iterator[Any]:
        """Read until the end of the data; raises what `get` raises but `EndOfData`."""
        while True:
            try:
                tensor = self.get()
            except EndOfData:
                return
            yield tensor

    def get(self, timeout: float | None = None) -> Any:
        """Return the next batch's array, or its tuple or dict of arrays, waiting for it.

        Args:
            timeout: seconds to wait at most; 0 does not wait, ``None`` waits as long as it takes.

        Raises:
            TimeoutError: no batch came in time.
            EndOfData: there are no more, now and in each later call.
            Cancelled: the run was left before its end, and what was in the buffer has been read.
            Exception: what the run failed of, after the batches before it were read.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._ended, timeout):
                raise TimeoutError(
                    explain(
                        f"no batch came within {timeout} s",
                        why="the buffer is empty, and the run has not ended",
                        next="get() without timeout= waits for it; see that somebody asks the run "
                        "for its next batch, or fill it in the background with pipeline.feed(...)",
                    )
                )
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
        raise self._ending()

    def _put(self, tensor: Any, cancel: Cancel) -> None:
        with cancel.on_set(self._wake), self._changed:
            while len(self._items) >= self._capacity:
                if cancel.is_set():
                    raise Cancelled(f"the run was left while {self} was full")
                self._changed.wait(_POLL)
            self._items.append(tensor)
            self._changed.notify_all()

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._error = error
            self._traceback = None if error is None else error.__traceback__
            self._ended = True
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _ending(self) -> BaseException:
        """Return what a reader is told after the last batch."""
        error = self._error
        if error is None:
            return EndOfData("all batches of the run have been read")
        if isinstance(error, Exception) and not isinstance(error, Cancelled):
            # Without what former raises, in this thread or another, added to its traceback.
            return error.with_traceback(self._traceback)
        left = Cancelled(
            explain(
                "the run that fills this buffer was left before its end",
                why=f"{type(error).__name__}: {error}",
                next="close the run, or leave its `with` block, after the last get(); or catch "
                "flowcore.errors.Cancelled in the reader",
            )
        )
        left.__cause__ = error
        return left


class BufferStore:
    """Puts the items of a run into a buffer."""

    def __init__(self, capacity: int) -> None:
        self.result = Buffer(capacity)

    def put(self, item: Item, cancel: Cancel) -> None:
        """Take one item, waiting for room."""
        self.result._put(assembled(item.arrays), cancel)

    def close(self, error: BaseException | None) -> None:
        """Tell the readers."""
        self.result._end(error)
