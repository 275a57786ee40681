"""Where the files of a batch are: patterns and functions, as paths of its items or of itself."""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from flowcore.errors import DataError, OptionError, explain

if TYPE_CHECKING:
    from flowcore import Batch

__all__ = ["Each", "PathLike", "paths_of"]

Each: TypeAlias = 'Literal["item", "batch"]'
PathLike: TypeAlias = "str | os.PathLike[str] | Callable[[Any], str | os.PathLike[str]]"

_FIELDS = {"item": ("id", "epoch", "number"), "batch": ("number", "epoch")}  # the first is needed


def paths_of(batch: Batch, path: PathLike, each: Each) -> list[str]:
    """Return the path of each item of a batch, or the one of the batch.

    Raises:
        OptionError: a pattern without ``{id}`` (of a batch: ``{number}``) or with other fields; a
            function that returns no path; no such ``each``.
        DataError: an id that would lead out of the folder of the pattern.
    """
    if each not in _FIELDS:
        raise OptionError(f"each must be 'item' or 'batch', got {each!r:.60}")
    if callable(path):
        return [_called(path, of) for of in (batch.index if each == "item" else [batch])]
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"a path must be a pattern or a function, got {path!r:.60}")
    pattern = os.path.expanduser(os.fspath(path))
    _check_pattern(pattern, each)
    if each == "batch":
        return [pattern.format(number=batch.number, epoch=batch.epoch)]
    return [_filled(pattern, id_, batch) for id_ in batch.index]


def _called(function: Callable[[Any], Any], of: Any) -> str:
    path = function(of)
    if isinstance(path, (str, os.PathLike)):
        return os.fspath(path)
    raise OptionError(f"the function of paths returned {path!r:.60} for {of!r:.60}, which is none")


def _check_pattern(pattern: str, each: str) -> None:
    fields = _FIELDS[each]
    try:
        parsed = list(string.Formatter().parse(pattern))
    except ValueError as error:  # a brace without its other half
        raise OptionError(f"{pattern!r} is no pattern of paths: {error}") from None
    names = [name for _, name, _, _ in parsed if name is not None]
    nested = [form for _, _, form, _ in parsed if form and "{" in form]
    if fields[0] in names and set(names) <= set(fields) and not nested:
        return
    raise OptionError(
        explain(
            f"{pattern!r} is no pattern for a file of each {each}",
            why=f"it must have {{{fields[0]}}}, and may have {{{'}, {'.join(fields[1:])}}}",
            next=f"'folder/{{{fields[0]}}}.npy'; a brace that is meant is written twice",
        )
    )


def _filled(pattern: str, id_: Any, batch: Batch) -> str:
    parts = PurePath(str(id_))
    if parts.is_absolute() or ".." in parts.parts:
        raise DataError(
            explain(
                f"the id {id_!r} leads out of the folder of {pattern!r}",
                where=repr(batch),
                next="give a function of the id as the path",
            )
        )
    try:
        return pattern.format(id=id_, number=batch.number, epoch=batch.epoch)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{pattern!r} does not take the id {id_!r}: {error}") from None
