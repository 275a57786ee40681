"""The sink: what it may be told, and which of its three stores serves a run."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flowcore import Batch, Cancel, Sink, SinkRun
from flowcore.errors import OptionError, explain
from flowcore_numpy_buffer._collection import MemoryStore
from flowcore_numpy_buffer._files import FileStore
from flowcore_numpy_buffer._item import Item
from flowcore_numpy_buffer._target import check_target
from flowcore_numpy_buffer.buffer import BufferStore

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NumpyBufferSink"]


class Store(Protocol):
    """Where the items of one run go."""

    def put(self, item: Item, cancel: Cancel) -> None:
        """Take one item."""

    def close(self, error: BaseException | None) -> None:
        """Make an end; ``error`` is that of `Sink.close`."""

    @property
    def result(self) -> Any:
        """The sink's result."""


class NumpyBufferSink(Sink):
    """Collects what a run delivers, in delivery order.

    Args:
        get_tensor: called with the batch, in a worker; returns an array, a tuple of arrays or a
            dict of arrays by component name, each with one entry for each item along axis 0. A list
            is one array. By default the batch's own `get_tensor` where its class has one, else its
            components by name, or its data where that is one array.
        capacity: make the result a `Buffer` that holds at most this many batches.
        path: write the result to files: for one array a file, whose name must end in ``.npy``; for
            a tuple or dict a folder, with ``0.npy``, ``1.npy``... or ``<component>.npy`` in it. A
            relative one is relative to the folder that is current now.
        resumable: with ``path``, keep the unfinished files of a run that is left, fails or is
            killed, under a name that follows from ``path``, so that a run with ``resume=`` goes on
            with them. One run at a time may then write to ``path``. A run without ``resume=``
            starts over. By default such a run leaves nothing, and cannot be resumed.

    Raises:
        OptionError: a value that cannot be right; ``capacity`` and ``path`` together, or
            ``resumable`` without ``path``; a ``path`` in a folder that does not exist, or where
            something else is that the run would destroy.

    A batch raises `DataError` where its arrays differ in length, and, without ``capacity``, where
    its items do not have the shape, or cannot be cast to the dtype, of those of the first batch.
    """

    def __init__(
        self,
        *,
        get_tensor: Callable[[Any], Any] | None = None,
        capacity: int | None = None,
        path: str | os.PathLike[str] | None = None,
        resumable: bool = False,
    ) -> None:
        if get_tensor is not None and not callable(get_tensor):
            raise OptionError(
                explain(
                    f"get_tensor must be a function of a batch, got {get_tensor!r:.80}",
                    next="pass the function itself: get_tensor=MyBatch.get_tensor",
                )
            )
        if capacity is not None and path is not None:
            raise OptionError(
                explain(
                    "capacity and path cannot go together",
                    why="a buffer forgets what was read, a file keeps all",
                    next="leave one of them out, or put the batch into two sinks",
                )
            )
        _check_resumable(resumable, path)
        self._get_tensor = get_tensor
        self._resumable = resumable
        self._capacity = None if capacity is None else _checked_capacity(capacity)
        self._path = None if path is None else _checked_path(path)
        self._store: Store | None = None  # of the run that opened this object

    def __getstate__(self) -> dict[str, Any]:
        # `prepare` is sent to worker processes, and each run opens a copy: neither takes the
        # store of a run along.
        return {**vars(self), "_store": None}

    def open(self, run: SinkRun) -> None:
        """Make the store of this run; with ``path``, a folder beside it for what is unfinished.

        Raises:
            OptionError: ``path`` cannot be written to, or the run is to go on from what is not
                there; with ``resumable``, another run has it.
            StateError: what it is to go on from has less than the state counts.
        """
        if self._capacity is not None:
            self._store = BufferStore(self._capacity)
        elif self._path is not None:
            self._store = FileStore(self._path, run, resumable=self._resumable)
        else:
            self._store = MemoryStore(run.items)

    def prepare(self, batch: Batch) -> Item:
        """Return copies of the batch's arrays.

        Raises:
            DataError: arrays of different lengths, items of different shapes, or no items axis.
        """
        return Item.of(batch, self._get_tensor)

    def put(self, item: Item, cancel: Cancel) -> None:
        """Take one item; with ``capacity``, wait while the buffer is full.

        Raises:
            Cancelled: ``cancel`` was set while the buffer was full; the item was not taken.
            DataError: the item does not fit those before it, or not into a .npy file.
        """
        assert self._store is not None
        self._store.put(item, cancel)

    def close(self, error: BaseException | None) -> None:
        """Trim the arrays; at the end of the data, give the files their name; end the buffer.

        Raises:
            DataError: the data ended without a batch to tell what to write to ``path``.
            OSError: the files could not be completed or renamed; those of an earlier run remain.
        """
        assert self._store is not None
        self._store.close(error)

    @property
    def result(self) -> Any:
        """What has come: an array, or a tuple or dict of arrays; with ``capacity`` the `Buffer`.

        While the run goes on, arrays are read-only views of the items so far; they do not change,
        and those of a tuple or dict have the same length. They are ``None`` before the first item.
        After the run they are the user's, with exactly the items delivered, also when the run was
        left or has failed. With ``path`` they are read-only memory maps, during the run of an
        unfinished file (which Windows cannot rename while one is held), and ``None`` after a run
        that was left or has failed. A resumed run has what it puts itself; only with ``path`` what
        was put before, too. A buffer is there from the start of the run.
        """
        return None if self._store is None else self._store.result


def _checked_capacity(capacity: int) -> int:
    try:
        number = operator.index(capacity)
    except TypeError:
        number = 0
    if isinstance(capacity, bool) or number < 1:
        raise OptionError(
            explain(
                f"capacity must be an int of at least 1, got {capacity!r:.80}",
                next="give the number of batches to hold, or leave capacity out to collect all",
            )
        )
    return number


def _check_resumable(resumable: bool, path: object) -> None:
    if not isinstance(resumable, bool):
        raise OptionError(f"resumable must be True or False, got {resumable!r:.80}")
    if resumable and path is None:
        raise OptionError(
            explain(
                "resumable=True, and there is no path",
                why="what is kept for a later run is a file",
                next="give path=, or leave resumable out: run.state_dict() says where to go on",
            )
        )


def _checked_path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)) or Path(path).name in ("", ".."):
        raise OptionError(
            explain(
                f"path must name a file or a folder to be made, got {path!r:.80}",
                next="path='x.npy' for one array, path='folder' for several",
            )
        )
    absolute = Path(os.path.abspath(path))
    check_target(absolute)
    return absolute
