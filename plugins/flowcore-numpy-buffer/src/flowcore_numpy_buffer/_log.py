"""How far an unfinished result is: what each put has brought, in a file that one run has at a time.

The file is locked as long as a run has it. The system lets the lock go when the process ends,
however it ends, so none is ever left over; and worker processes do not inherit it, so none that
outlives a killed run holds on to it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowcore.errors import OptionError, StateError, explain
from flowcore_numpy_buffer._npy import write_all

if TYPE_CHECKING:
    from io import FileIO

    from numpy.typing import NDArray

__all__ = ["Log"]

_RECORD = 16  # bytes
_PATIENCE = 1.0  # seconds that a run which nobody holds any more may take to end, in its threads

# By what runs of this process have: the system's lock is that of the whole process. Calls of a
# dict are atomic, and any thread may make them.
_held: dict[str, Log] = {}


class Log:
    """Records of two numbers, one after each put: items, and rows, that have come in until then.

    A batch need not have a row for each item; a state counts batches, and a place counts items.

    Args:
        path: of the log.
        create: make it if it is not there.

    Attributes:
        items: how many have come in.
        rows: likewise; at first, of what is kept, none.

    Raises:
        FileNotFoundError: it is not there.
        OptionError: another run has it.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path
        self._key = os.path.realpath(path)
        self.items = self.rows = 0
        self._hold()
        try:
            self._file: FileIO = _opened(path, create=create)
        except BaseException:
            del _held[self._key]
            raise
        try:
            self._lock()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return os.fstat(self._file.fileno()).st_size // _RECORD

    def cut(self, items: int, puts: int | None) -> None:
        """Keep what tells of the first ``puts``, or else of the first ``items``.

        Raises:
            StateError: fewer have come in, or it cannot be told which rows are theirs.
        """
        records = self._read()
        if puts is not None and puts > len(records):
            raise self._too_few(len(records), puts, "batches")
        kept = int(np.searchsorted(records[:, 0], items, side="right")) if puts is None else puts
        self.items, self.rows = map(int, records[kept - 1]) if kept else (0, 0)
        missing = items - self.items if puts is None else 0
        if missing:
            self._check_inside(records[kept:], items)
        self._file.truncate(kept * _RECORD)
        self._file.seek(kept * _RECORD)
        if missing:
            self.add(missing, missing)

    def add(self, items: int, rows: int) -> None:
        """Note what one put has brought, after it is written."""
        self.items += items
        self.rows += rows
        write_all(self._file, np.array([self.items, self.rows], "<i8").tobytes())

    def close(self) -> None:
        """Let another run have it."""
        self._file.close()
        _held.pop(self._key, None)

    def _hold(self) -> None:
        """Be the only one in this process, before the file is opened.

        To close it again here would let go the lock of the run that has it.
        """
        until = time.monotonic() + _PATIENCE
        while _held.setdefault(self._key, self) is not self:
            if time.monotonic() > until:
                raise self._busy()
            time.sleep(0.01)

    def _lock(self) -> None:
        try:
            _lock(self._file)
        except (BlockingIOError, PermissionError):
            raise self._busy() from None

    def _too_few(self, found: int, counted: int, what: str) -> StateError:
        return StateError(
            explain(
                f"the unfinished file has {found} {what}, and what the run is to go on from counts "
                f"{counted}",
                where=str(self._path.parent),
                why="it is that of another run, or of one that went on from an older state",
                next="resume= with a state of the run that wrote it; or leave resume= out, which "
                "starts over",
            )
        )

    def _busy(self) -> OptionError:
        return OptionError(
            explain(
                "another run writes here",
                where=str(self._path.parent),
                why="with resumable=True the unfinished file has one name, so one run may have it",
                next="close the other run first; or give each run, and each shard, its own path=",
            )
        )

    def _read(self) -> NDArray[np.int64]:
        self._file.seek(0)
        data = self._file.read(len(self) * _RECORD)  # not with a half record at the end
        return np.frombuffer(data, "<i8").reshape(-1, 2)

    def _check_inside(self, after: NDArray[Any], items: int) -> None:
        """Check that a number of items that is inside of a batch says a number of rows."""
        if not len(after):
            raise self._too_few(self.items, items, "items")
        batch_items, batch_rows = map(int, after[0] - (self.items, self.rows))
        if batch_items != batch_rows:
            raise StateError(
                explain(
                    f"the run is to go on after {items} items, which is inside of a batch of "
                    f"{batch_items} items and {batch_rows} rows",
                    where=str(self._path.parent),
                    why="it cannot be told how many of the rows are those items'",
                    next="resume= with the same batch_size",
                )
            )


def _opened(path: Path, *, create: bool) -> FileIO:
    flags = os.O_RDWR | (os.O_CREAT if create else 0) | getattr(os, "O_BINARY", 0)
    return open(os.open(path, flags, 0o666), "r+b", buffering=0)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: FileIO) -> None:
        file.seek(2**62)  # a byte that nobody reads: on Windows others could not, nor could this
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: FileIO) -> None:
        # Not flock: a forked worker would inherit it, and may outlive a process that is killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
