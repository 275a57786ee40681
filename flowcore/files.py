"""The index over files, or folders: their names are the ids, and it knows where they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from flowcore.errors import OptionError, explain
from flowcore.ids import Positions, ids_at, listed
from flowcore.index import Index

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FilesIndex"]

Pattern: TypeAlias = "str | os.PathLike[str]"

_SHOWN = 5  # paths in an error
_ID_OF = {  # what is made of a path from the folder that the patterns have in common
    "name": lambda path: path.name,
    "stem": lambda path: path.stem,
    "path": lambda path: path.as_posix(),
}


class FilesIndex(Index):
    """The index of the files that patterns match, sorted by their paths.

    The ids are strings. The files are looked for once, here; the paths are absolute, so that they
    are right in worker processes and after a change of the current folder. An action gets at the
    path of an id through this object: ``index.path(id)``.

    Args:
        patterns: as ``glob`` takes them: ``*`` and ``?`` in names, ``**`` for any folders, ``~``
            for the home folder; one, or a sequence of several. A file that several match is one
            item. Names that begin with a dot are matched only by patterns that do.
        folders: take the folders that match, and not the files.
        name: what the ids are: ``"name"``, of the file (``"cat.png"``); ``"stem"``, without its
            last suffix (``"cat"``); or ``"path"``, from the folder that all patterns have in common
            (``"train/cat.png"``), with ``/`` on every system.

    Raises:
        OptionError: a pattern that matches nothing; files of the same name; files, links or folders
            that cannot be read.
    """

    def __init__(
        self,
        patterns: Pattern | Sequence[Pattern],
        *,
        folders: bool = False,
        name: Literal["name", "stem", "path"] = "name",
    ) -> None:
        if name not in _ID_OF:
            raise OptionError(f"name must be 'name', 'stem' or 'path', got {name!r}")
        wanted = _checked(patterns)
        found = {path for pattern in wanted for path in _found(pattern, folders)}
        base = os.path.commonpath([_searched(pattern) for pattern in wanted])
        from pathlib import PurePath  # in functions, as all programs load this module

        inside = {path: PurePath(os.path.relpath(path, base)) for path in found}
        paths = sorted(found, key=lambda path: inside[path].as_posix())
        ids = [_ID_OF[name](inside[path]) for path in paths]
        _refuse_repeated(ids, paths)
        super().__init__(ids)
        self._paths = np.array(paths, object)

    def path(self, id_: str) -> Path:
        """Return the absolute path of the file, or folder, called ``id_``.

        Raises:
            KeyError: the index has no such id.
        """
        from pathlib import Path

        return Path(self._paths[self.positions([id_])[0]])

    def subset(self, positions: Positions) -> Self:
        """Return the index of the files at ``positions``, in their order.

        Raises:
            OptionError: positions that are repeated.
        """
        part = super().subset(positions)
        part._paths = np.asarray(ids_at(self._paths, positions))
        return part

    def union(self, other: Index) -> Self:
        """Return the index of these files and, after them, those of ``other`` that are not here.

        Raises:
            OptionError: ``other`` is no index of files, or has other files of the same names.
        """
        union = super().union(other)
        assert isinstance(other, FilesIndex)  # or it was refused
        found = self.find(other)
        there = np.flatnonzero(found >= 0)
        other_files = there[self._paths[found[there]] != other._paths[there]]
        if other_files.size:
            first = other_files[:1]
            paths = [self._paths[found[first]][0], other._paths[first][0]]
            _refuse_repeated(listed(other.ids(first)) * 2, paths)
        union._paths = np.concatenate([self._paths, other._paths[found < 0]])
        return union


def _checked(patterns: Any) -> list[str]:
    one = isinstance(patterns, (str, os.PathLike))
    given = [patterns] if one else list(patterns) if isinstance(patterns, Iterable) else []
    if given and all(isinstance(each, (str, os.PathLike)) and os.fspath(each) for each in given):
        return [os.path.expanduser(os.fspath(each)) for each in given]
    raise OptionError(
        explain(
            f"FilesIndex needs a pattern, or several, got {patterns!r:.60}",
            next='FilesIndex("images/*.png")',
        )
    )


def _found(pattern: str, folders: bool) -> list[str]:
    """Return the absolute paths that a pattern matches; refuse those that cannot be read."""
    import glob

    matched = [os.path.abspath(path) for path in glob.glob(pattern, recursive=True)]
    found = list(filter(os.path.isdir if folders else os.path.isfile, matched))
    unreadable = [path for path in matched if not os.path.exists(path)]  # links to nowhere
    unreadable += [path for path in (*_folders(pattern), *found) if not _can_read(path)]
    if unreadable:
        raise OptionError(
            explain(
                f"{len(unreadable)} of what {pattern!r} leads to cannot be read",
                where=_shown(unreadable),
                why="there is no permission, or a link leads nowhere",
                next="change the permissions, remove the links, or write a narrower pattern",
            )
        )
    if not found:
        _refuse_nothing(pattern, folders, others=len(matched))
    return found


def _refuse_nothing(pattern: str, folders: bool, others: int) -> None:
    folder = _searched(pattern)
    kind, other = ("folder", "files") if folders else ("file", "folders")
    why = f"it matches {others} {other}" if others else None
    if not os.path.isdir(folder):
        why = "there is no such folder"
    raise OptionError(
        explain(
            f"no {kind} matches {pattern!r}",
            where=f"in {folder}",
            why=why,
            next=f"write a pattern of {kind}s, as 'images/*', or take {other}: folders="
            f"{not folders}"
            if others
            else "see what is there, and from which folder the program is started",
        )
    )


def _searched(pattern: str) -> str:
    """Return the folder, absolute, in which a pattern begins to have a choice."""
    import glob

    head = os.path.dirname(pattern)
    while glob.has_magic(head):
        head = os.path.dirname(head)
    return os.path.abspath(head)


def _folders(pattern: str) -> Iterator[str]:
    """Yield the folders that are looked into: ``glob`` is silent on those that it cannot read."""
    import glob

    head = pattern if os.path.basename(pattern) == "**" else os.path.dirname(pattern)
    while True:
        yield from glob.glob(os.path.join(head or os.curdir, ""), recursive=True)
        if not glob.has_magic(head):
            return
        head = os.path.dirname(head)


def _can_read(path: str) -> bool:
    mode = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _refuse_repeated(ids: list[str], paths: Sequence[str]) -> None:
    repeated = {id_ for id_, count in Counter(ids).items() if count > 1}
    if repeated:
        of_them = sorted(
            (id_, path) for id_, path in zip(ids, paths, strict=True) if id_ in repeated
        )
        raise OptionError(
            explain(
                f"ids that stand for several files each: {len(repeated)}",
                where=_shown([f"{id_!r}: {path}" for id_, path in of_them]),
                next='take the paths for ids: FilesIndex(..., name="path")',
            )
        )


def _shown(paths: list[str]) -> str:
    more = [f"and {len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else []
    return "; ".join([*paths[:_SHOWN], *more])
