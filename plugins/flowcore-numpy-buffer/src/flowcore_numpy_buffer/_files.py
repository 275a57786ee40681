"""Collects in .npy files, which appear under their name when they are complete.

They are written in a folder beside it, appended to and not through a memory map: a full disk is
then an exception and not the end of the process, and the length need not be known.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from flowcore.errors import DataError, OptionError, StateError, explain
from flowcore_numpy_buffer._collection import Collection, Column
from flowcore_numpy_buffer._item import Item, Key, assembled
from flowcore_numpy_buffer._npy import FileColumn
from flowcore_numpy_buffer._place import Place, Resumable, Scratch
from flowcore_numpy_buffer._target import check_folder, check_target, file_name, final_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowcore import Cancel, SinkRun

__all__ = ["FileStore"]


class FileStore:
    """Collects in a file, or a folder of files.

    Args:
        path: absolute.
        resumable: keep what is there when the run is left or fails, for a run that goes on with it.
        run: that opens it.

    Raises:
        OptionError: the path cannot be written to, or there is nothing to go on from.
        StateError: what is there has less than was put before.
    """

    def __init__(self, path: Path, run: SinkRun, *, resumable: bool) -> None:
        check_target(path)
        self._path = path
        self._files = ExitStack()
        self._columns: dict[Key, FileColumn] = {}
        self._collection = Collection(self._new_columns)
        # Held while the files move, by `close`, and by `result` in whatever thread. Reentrant, as
        # the garbage collector may leave a run, and so close this, inside of `result`.
        self._moving = threading.RLock()
        self._closed = False
        self._result: Any = None
        self._place: Place = (Resumable if resumable else Scratch)(path, run)
        try:
            self._go_on()
        except BaseException:
            self._files.close()
            self._place.close()
            raise

    def put(self, item: Item, cancel: Cancel) -> None:
        """Append one item; it never waits for room."""
        self._collection.add(item)
        self._place.note(item.items, len(item))

    def close(self, error: BaseException | None) -> None:
        """Complete the files and give them their name, if there was no error."""
        with self._moving:
            self._closed = True
            try:
                with self._files:
                    keys = self._collection.finish() if error is None else ()
                if error is None:
                    self._publish(keys)
            finally:
                self._place.close()

    @property
    def result(self) -> Any:
        """Read-only memory maps: of what has come so far, and after the end of the final files."""
        with self._moving:
            return self._result if self._closed else self._collection.heads()

    def _new_columns(self, item: Item) -> Mapping[Key, Column]:
        self._check_layout(item)
        self._place.begin(item.arrays)
        for key, rows in item.arrays.items():
            path = self._place.folder / file_name(key)
            self._add_column(key, FileColumn.new(path, rows, item.where(key)))
        return self._columns

    def _add_column(self, key: Key, column: FileColumn) -> None:
        self._files.callback(column.close)
        self._columns[key] = column

    def _go_on(self) -> None:
        """Open what an earlier run has left, if there is something."""
        try:
            for key in self._place.found():
                path = self._place.folder / file_name(key)
                self._add_column(key, FileColumn.reopened(path))
        except (OSError, ValueError) as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(
                explain(
                    f"cannot go on from {self._place.folder}: {error}",
                    where=f"path={str(self._path)!r}, and resume=",
                    next="leave resume= out, which starts over",
                )
            ) from error
        rows = self._place.rows
        for column in self._columns.values():
            self._check_rows(column, rows)
            column.keep(rows)
        self._collection.go_on(self._columns, rows, f"the unfinished {self._path.name}")

    def _check_rows(self, column: FileColumn, rows: int) -> None:
        if column.count < rows:
            raise StateError(
                explain(
                    f"{column.path} has {column.count} rows, and is to have {rows}",
                    where=f"path={str(self._path)!r}, and resume=",
                    why="the machine lost what was not on the disk yet, or something else cut it",
                    next="resume= with an older state; or leave resume= out, which starts over",
                )
            )

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
        self._place.complete(keys)
        # Mapped before they move, as another run may put its own in their place right after; but
        # Windows does not rename what is mapped.
        maps = {} if os.name == "nt" else self._maps()
        if None in keys:
            os.replace(self._columns[None].path, self._path)
        else:
            self._replace_folder(keys)
        for key, column in self._columns.items():
            column.path = final_path(self._path, key)
        maps = maps or self._maps()
        for key, array in maps.items():
            array.filename = str(
                final_path(self._path, key)
            )  # for who asks the array where it comes from
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
            while not _renamed(self._place.folder, self._path):
                check_folder(self._path, keys)
                aside.append(self._path.with_name(f".{self._path.name}.{uuid4().hex}.old"))
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


def _renamed(folder: Path, path: Path) -> bool:
    """Rename a folder; return whether that was possible, as nothing was in the way."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True
