"""Where the files of a run are until they are complete: `Scratch`, or `Resumable`, which stays."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from flowcore.errors import OptionError, explain
from flowcore_numpy_buffer._log import Log
from flowcore_numpy_buffer._target import file_name, final_path

if TYPE_CHECKING:
    from flowcore import SinkRun
    from flowcore_numpy_buffer._item import Key

__all__ = ["Place", "Resumable", "Scratch"]

_log = logging.getLogger("flowcore")


class Place(Protocol):
    """A folder beside the path of the result, on the same disk, that this run alone writes to.

    Attributes:
        folder: for the files, and nothing else.
        rows: how many rows of an earlier run are in each, to go on with.
    """

    folder: Path
    rows: int

    def found(self) -> Iterable[Key]:
        """Return what the files of the earlier run hold, in order; they are in the folder then.

        Raises:
            OptionError: they are not there any more.
            OSError, ValueError: they cannot be read.
        """

    def begin(self, keys: Iterable[Key]) -> None:
        """Note what the files will hold, before rows are written."""

    def note(self, items: int, rows: int) -> None:
        """Note what a put has brought, after it is written."""

    def complete(self, keys: Iterable[Key]) -> None:
        """Note that the files are complete, before they move to the path."""

    def close(self) -> None:
        """Make an end. Complete files are not here any more."""


class Scratch:
    """A folder that goes when the run ends, however it ends. Its name is used once.

    Args:
        path: of the result.
        run: that is to write it.

    Raises:
        OptionError: the run is to go on from somewhere; or nothing can be written there.
    """

    rows = 0

    def __init__(self, path: Path, run: SinkRun) -> None:
        if _goes_on(run):
            why = "the sink is not resumable, so it has kept nothing"
            raise _nothing(path, why)
        self.folder = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
        with _writing(path):
            self.folder.mkdir()

    def found(self) -> Iterable[Key]:
        return ()

    def begin(self, keys: Iterable[Key]) -> None:
        pass

    def note(self, items: int, rows: int) -> None:
        pass

    def complete(self, keys: Iterable[Key]) -> None:
        pass

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Resumable:
    """A folder that stays, however the run ends. Its name follows from the path.

    It stays also when the files are complete. A run may be over for its sinks while its consumer
    has yet to be handed the last batches; and a run may go on with more epochs. It then has no
    files, but knows those under the path by their stamps.

    Args:
        path: of the result.
        run: that is to write it. If nothing was put before, it starts over.

    Raises:
        OptionError: there is nothing to go on from, another run has it, or nothing can be written.
        StateError: it does not have as much as was put before.
    """

    def __init__(self, path: Path, run: SinkRun) -> None:
        root = _beside(path)
        self._path = path
        self.folder = root / "files"
        self._index = root / "index.json"
        with _writing(path):
            self._log = _existing(path) if _goes_on(run) else _made(root)
            try:
                if not _goes_on(run) and self.folder.exists() and len(self._log):
                    _log.warning("numpy-buffer starts over, and does not go on with %s", root)
                self._log.cut(run.items_before, run.batches_before)
                self.rows = self._log.rows
                if not self.rows:
                    shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(exist_ok=True)
            except BaseException:
                self._log.close()
                raise

    def found(self) -> Iterable[Key]:
        if not self.rows:
            return
        for key, stamp in json.loads(self._index.read_text("utf-8")):
            kept, final = self.folder / file_name(key), final_path(self._path, key)
            if not kept.exists():
                self._take_back(kept, final, stamp)
            yield key

    def begin(self, keys: Iterable[Key]) -> None:
        self._write([(key, None) for key in keys])

    def note(self, items: int, rows: int) -> None:
        self._log.add(items, rows)

    def complete(self, keys: Iterable[Key]) -> None:
        # Stamps stay the same when a file moves. They are noted before, so that there is no moment
        # at which a run that is killed leaves a result which nobody knows.
        self._write([(key, _stamp(self.folder / file_name(key))) for key in keys])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # if there is nothing in it
        self._log.close()

    def _take_back(self, kept: Path, final: Path, stamp: list[int] | None) -> None:
        """Copy a file that is complete, as it stays under the path until another one is."""
        if not final.exists() or _stamp(final) != stamp:
            raise _nothing(self._path, f"{final} is not what the run has written that was there")
        copy = self._index.with_name("copy.npy")
        shutil.copyfile(final, copy)
        copy.replace(kept)

    def _write(self, written: list[tuple[Key, list[int] | None]]) -> None:
        new = self._index.with_name("index.new")
        new.write_text(json.dumps(written), "utf-8")
        new.replace(self._index)


def _goes_on(run: SinkRun) -> bool:
    return bool(run.items_before or run.batches_before)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.resume")


def _made(root: Path) -> Log:
    root.mkdir(exist_ok=True)
    return Log(root / "log", create=True)


def _existing(path: Path) -> Log:
    try:
        return Log(_beside(path) / "log", create=False)
    except FileNotFoundError:
        raise _nothing(path, "no run with resumable=True has written here") from None


def _stamp(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _nothing(path: Path, why: str) -> OptionError:
    return OptionError(
        explain(
            f"there is nothing to go on from: looked for {_beside(path)}",
            where=f"path={str(path)!r}, and resume=",
            why=why,
            next="leave resume= out, which starts over; with resumable=True a run keeps what the "
            "next one needs to go on",
        )
    )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OptionError(
            explain(
                f"cannot write in {path.parent}: {error}",
                where=f"path={str(path)!r}",
                next="give a path in a folder that you may write to",
            )
        ) from error
