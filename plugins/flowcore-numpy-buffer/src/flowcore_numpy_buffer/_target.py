"""What may be under the path that a run writes to: nothing that the run would destroy."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from flowcore.errors import OptionError, explain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flowcore_numpy_buffer._item import Key

__all__ = ["check_folder", "check_target", "file_name", "final_path"]


def check_target(path: Path) -> None:
    """Refuse a path that could not be written to, or where the run would destroy something else.

    Raises:
        OptionError: its folder does not exist, or something is there that no run has written.
    """
    if not path.parent.is_dir():
        raise OptionError(
            explain(
                f"there is no folder {path.parent}",
                where=f"path={str(path)!r}",
                next=f"make it first: pathlib.Path({str(path.parent)!r}).mkdir(parents=True)",
            )
        )
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return
    if is_folder and path.suffix != ".npy":
        check_folder(path, None)
    elif is_folder:
        raise OptionError(
            explain(
                f"{path} is a folder, and a path that ends in .npy is a file for one array",
                next="give the folder for several arrays a name without .npy",
            )
        )
    elif path.suffix != ".npy":
        raise OptionError(
            explain(
                f"{path} is a file, and a path that does not end in .npy is a folder for several "
                "arrays",
                next="end the name of the file for one array in .npy",
            )
        )


def check_folder(path: Path, keys: Iterable[Key] | None) -> None:
    """Refuse a folder that holds more than the arrays of ``keys``; ``None`` allows any arrays."""
    known = None if keys is None else {file_name(key) for key in keys}
    try:
        with os.scandir(path) as entries:
            others = sorted(
                entry.name
                for entry in entries
                if not entry.name.endswith(".npy")
                or (known is not None and entry.name not in known)
                or not entry.is_file(follow_symlinks=False)
            )
    except FileNotFoundError:
        return  # there is none, or another run has just moved it
    if others:
        raise OptionError(
            explain(
                f"{path} holds {', '.join(map(repr, others[:3]))}"
                f"{', ...' if len(others) > 3 else ''}, which this run would not write again",
                why="the folder is replaced as a whole when the run is complete",
                next="give path= the name of a new folder, or remove the old one",
            )
        )


def file_name(key: Key) -> str:
    return "array.npy" if key is None else f"{key}.npy"


def final_path(path: Path, key: Key) -> Path:
    return path if key is None else path / file_name(key)
