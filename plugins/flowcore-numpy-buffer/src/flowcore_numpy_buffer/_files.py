"""Collects in .npy files, which appear under their name when they are complete.

They are written in a temporary folder beside it, appended to and not through a memory map: a full
disk is then an exception and not the end of the process, and the length need not be known.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.lib import format as npy

from flowcore.errors import DataError, OptionError, explain
from flowcore_numpy_buffer._collection import Collection, Column
from flowcore_numpy_buffer._item import Item, Key, assembled
from flowcore_numpy_buffer._target import check_folder, check_target, file_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flowcore import Cancel

__all__ = ["FileStore"]


class FileStore:
    """Collects in a file, or a folder of files.

    Args:
        path: absolute.

    Raises:
        OptionError: it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        check_target(path)
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
        self._files = ExitStack()
        self._columns: dict[Key, _FileColumn] = {}
        self._collection = Collection(self._new_columns)
        # Held while the files move, by `close`, and by `result` in whatever thread. Reentrant, as
        # the garbage collector may leave a run, and so close this, inside of `result`.
        self._moving = threading.RLock()
        self._closed = False
        self._result: Any = None
        try:
            self._temporary.mkdir()
        except OSError as error:
            raise OptionError(
                explain(
                    f"cannot write in {path.parent}: {error}",
                    where=f"path={str(path)!r}",
                    next="give a path in a folder that you may write to",
                )
            ) from error

    def put(self, item: Item, cancel: Cancel) -> None:
        """Append one item; it never waits for room."""
        self._collection.add(item)

    def close(self, error: BaseException | None) -> None:
        """Complete the files and give them their name, or remove them if there was an error."""
        with self._moving:
            self._closed = True
            try:
                with self._files:
                    keys = self._collection.finish() if error is None else ()
                if error is None:
                    self._publish(keys)
            finally:
                shutil.rmtree(self._temporary, ignore_errors=True)

    @property
    def result(self) -> Any:
        """Read-only memory maps: of what has come so far, and after the end of the final files."""
        with self._moving:
            return self._result if self._closed else self._collection.heads()

    def _new_columns(self, item: Item) -> Mapping[Key, Column]:
        self._check_layout(item)
        for key, rows in item.arrays.items():
            column = _FileColumn(self._temporary / file_name(key), rows, item.where(key))
            self._files.callback(column.close)
            self._columns[key] = column
        return self._columns

    def _check_layout(self, item: Item) -> None:
        single = None in item.arrays
        if single != (self._path.suffix == ".npy"):
            what = "one array goes to a file" if single else "several arrays go to a folder"
            name = f"{self._path.name}.npy" if single else self._path.stem
            raise DataError(
                explain(
                    f"{what}, and path={str(self._path)!r} names "
                    f"{'a folder' if single else 'a file'}",
                    where=item.where(),
                    why="a name that ends in .npy is that of a file",
                    next=f"path={str(self._path.with_name(name))!r}"
                    + ("" if single else ", or get_tensor= for one of the arrays"),
                )
            )
        unfit = [key for key in item.arrays if isinstance(key, str) and Path(key).name != key]
        if unfit:
            raise DataError(
                explain(
                    f"component {unfit[0]!r} cannot be the name of a file",
                    where=item.where(),
                    next="return a dict with other names from get_tensor=",
                )
            )
        if not single:
            check_folder(self._path, item.arrays)

    def _publish(self, keys: tuple[Key, ...]) -> None:
        if not keys:
            raise DataError(
                explain(
                    f"no batch was delivered, so {self._path} was not written",
                    why="the shape and dtype of an item are not known",
                    next="look at report.skipped, and whether the dataset is empty",
                )
            )
        final = {key: self._path if key is None else self._path / file_name(key) for key in keys}
        # Mapped before they move, as another run may put its own in their place right after; but
        # Windows does not rename what is mapped.
        maps = {} if os.name == "nt" else self._maps()
        if None in keys:
            os.replace(self._columns[None].path, self._path)
        else:
            self._replace_folder(keys)
        for key, column in self._columns.items():
            column.path = final[key]
        maps = maps or self._maps()
        for key, array in maps.items():
            array.filename = str(final[key])  # for who asks the array where it comes from
        self._result = assembled(maps)

    def _maps(self) -> dict[Key, np.memmap[Any, Any]]:
        count = self._collection.count
        return {key: column.head(count) for key, column in self._columns.items()}

    def _replace_folder(self, keys: tuple[Key, ...]) -> None:
        # Python has no call that replaces a folder with anything in it: what is there is moved
        # aside first. Another run, maybe in another process, may put its own there in between; that
        # is then moved aside too, so that the run that ends last remains, whole.
        aside: list[Path] = []
        try:
            while not _renamed(self._temporary, self._path):
                check_folder(self._path, keys)
                aside.append(self._temporary.with_suffix(f".old{len(aside)}"))
                try:
                    self._path.rename(aside[-1])
                except FileNotFoundError:
                    aside.pop()
        except BaseException:
            if aside:
                aside.pop().rename(self._path)
            raise
        finally:
            for folder in aside:
                shutil.rmtree(folder, ignore_errors=True)


class _FileColumn:
    def __init__(self, path: Path, rows: NDArray[Any], where: str) -> None:
        if rows.dtype.hasobject:
            raise DataError(
                explain(
                    f"dtype {rows.dtype} cannot be written to a .npy file item by item",
                    where=where,
                    next="give the items a dtype of numbers or text, with array.astype(...) in an "
                    "action or in get_tensor",
                )
            )
        self.shape, self.dtype = rows.shape[1:], rows.dtype
        self.path = path
        # No buffer: `head` maps what is in the file, and closing a failed file flushes nothing.
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed with the run
        self._start = len(self._header(0))
        self._write(self._header(0))

    def append(self, rows: NDArray[Any]) -> None:
        # Not `rows.tofile`: it does not see what fails when its own buffer is flushed.
        self._write(rows.reshape(-1).view(np.uint8).data)

    def head(self, count: int) -> np.memmap[Any, Any]:
        return np.memmap(self.path, self.dtype, "r", self._start, (count, *self.shape))

    def finish(self, count: int) -> None:
        header = self._header(count)
        assert len(header) == self._start  # NumPy leaves room for any length in it
        self._file.seek(0)
        self._write(header)

    def close(self) -> None:
        self._file.close()

    def _write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:  # a write may take a part
            rest = rest[self._file.write(rest) :]

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


def _renamed(folder: Path, path: Path) -> bool:
    """Rename a folder; return whether that was possible, as nothing was in the way."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True
