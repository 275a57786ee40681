"""One .npy file that rows are appended to, and that a later run can go on with."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from flowcore.errors import DataError, explain

if TYPE_CHECKING:
    from io import FileIO

    from numpy.typing import NDArray

__all__ = ["FileColumn", "write_all"]


class FileColumn:
    """The rows of one component in a file. Make one with `new` or `reopened`.

    What is written goes past every buffer of this process: `head` maps what is in the file, a
    process that is killed loses none of it, and closing a file that failed flushes nothing.

    Attributes:
        path: of the file; change it when the file is moved.
        shape: of one row.
        dtype: of the rows.
    """

    def __init__(self, path: Path, file: FileIO, shape: tuple[int, ...], dtype: Any) -> None:
        self.path, self.shape = path, shape
        self.dtype: np.dtype[Any] = dtype
        self._file = file
        self._start = len(self._header(0))

    @classmethod
    def new(cls, path: Path, rows: NDArray[Any], where: str) -> FileColumn:
        """Make a file for rows of this shape and dtype; none of them is written.

        Raises:
            DataError: a .npy file cannot hold them.
        """
        if rows.dtype.hasobject:
            raise DataError(
                explain(
                    f"dtype {rows.dtype} cannot be written to a .npy file item by item",
                    where=where,
                    next="give the items a dtype of numbers or text, with array.astype(...) in an "
                    "action or in get_tensor",
                )
            )
        file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed with the run
        column = cls(path, file, rows.shape[1:], rows.dtype)
        write_all(file, column._header(0))
        return column

    @classmethod
    def reopened(cls, path: Path) -> FileColumn:
        """Open a file that `new` has made; call `keep` before rows are added.

        Raises:
            OSError: it is not there.
            ValueError: it is no such file.
        """
        file = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed with the run
        try:
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file, 2**16)  # longer is not 1.0
            return cls(path, file, shape[1:], dtype)
        except BaseException:
            file.close()
            raise

    @property
    def count(self) -> int:
        """How many whole rows are in the file, as far as it was written."""
        size = self._row_size
        return (os.fstat(self._file.fileno()).st_size - self._start) // size if size else 2**63

    def keep(self, count: int) -> None:
        """Write the next rows after the first ``count``.

        Those behind stay until they are written over: who has mapped them must not lose them.
        """
        self._file.seek(self._start + count * self._row_size)

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows of this shape and dtype."""
        if self.dtype.names:  # the gaps between fields would be what was in memory before
            rows, given = np.zeros(rows.shape, self.dtype), rows
            rows[...] = given
        # Not `rows.tofile`: it does not see what fails when its own buffer is flushed.
        write_all(self._file, rows.reshape(-1).view(np.uint8).data)

    def head(self, count: int) -> np.memmap[Any, Any]:
        """Return the first ``count`` rows, mapped read-only. Called from any thread."""
        return np.memmap(self.path, self.dtype, "r", self._start, (count, *self.shape))

    def finish(self, count: int) -> None:
        """Make it a .npy file of ``count`` rows."""
        header = self._header(count)
        assert len(header) == self._start  # NumPy leaves room for any length in it
        end = self._start + count * self._row_size
        if os.fstat(self._file.fileno()).st_size > end:  # a run that it goes on from had more
            self._file.truncate(end)
        self._file.seek(0)
        write_all(self._file, header)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    @property
    def _row_size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def _header(self, count: int) -> bytes:
        made = io.BytesIO()
        npy.write_array_header_1_0(
            made,
            {
                "descr": npy.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (count, *self.shape),
            },
        )
        return made.getvalue()


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of ``data`` to a file without a buffer, whose ``write`` may take a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
