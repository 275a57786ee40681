"""Actions between arrays and files in NumPy's own formats: `load` and `dump`.

A file is of an item or of a whole batch. An ``.npy`` file holds one array, an ``.npz`` file several
by name.
"""

from __future__ import annotations

import os
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from flowcore import action, stacked
from flowcore.errors import DataError, OptionError, explain
from flowcore_arrays._parts import (
    AnyBatch,
    Components,
    as_items,
    checked_names,
    only_name,
    parts_of,
)
from flowcore_arrays._paths import Each, PathLike, paths_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from flowcore import Batch

__all__ = ["dump", "load"]


@action
def load(
    batch: AnyBatch,
    path: PathLike,
    *,
    components: Components = None,
    each: Each = "item",
    mmap: bool = False,
    allow_pickle: bool = False,
) -> AnyBatch:
    """Read components from ``.npy`` or ``.npz`` files.

    Args:
        batch: its ids name the files. Components that it has already stay.
        path: a pattern with ``{id}``, and ``{epoch}`` and ``{number}`` (of the batch) if need be:
            ``"images/{id}.npy"``; or a function that returns the path of an id, as the method
            ``path`` of a `FilesIndex` does. With ``each="batch"`` a pattern with ``{number}``, or a
            function of the batch.
        components: what the array of an ``.npy`` file is to be called, by default as the only
            component, and without a name if there is none; which arrays of an ``.npz`` file to
            take, by default those that the batch's class declares, or else all.
        each: ``"item"``: a file holds one item. Items of one shape are stacked ``(N, ...)``, others
            become an array of objects. ``"batch"``: a file holds N entries.
        mmap: map ``.npy`` files into memory in place of reading them, which is the faster way for
            files from about 100 KB. Writing to a batch does not reach the files.
        allow_pickle: read objects too. Only from files that you trust: they can run any code.

    Raises:
        OptionError: ``path``, ``each``, or no single component for ``.npy`` files.
        DataError: a file that lacks an array, or has other than N entries; components that the
            batch's class does not declare.
        OSError, ValueError: a file that is not there, or is damaged. A note names the item.
    """
    files = []
    for of, where in _files(batch, path, each):
        with _noted("reading", where, of):
            files.append(_read(batch, where, components, mmap, allow_pickle))
    if not files:  # a batch without items
        return batch
    if each == "item":
        return _with(batch, _joined(batch, files))
    of = f"the file of {batch!r}"
    return _with(batch, {name: as_items(files[0][name], len(batch), of) for name in files[0]})


@action
def dump(
    batch: AnyBatch,
    path: PathLike,
    *,
    components: Components = None,
    each: Each = "item",
    overwrite: bool = False,
) -> AnyBatch:
    """Write components to ``.npy`` or ``.npz`` files; the batch stays as it is.

    A file is written under another name and then renamed, so it is whole or not there. Folders are
    made. A batch that is made again, by ``retries=`` or in another epoch, finds its own files: take
    ``overwrite=True`` then, or put ``{epoch}`` into the path.

    Args:
        batch: arrays ``(N, ...)`` of any dtype but objects. With ``each="item"`` an array of
            objects will do, if the objects are arrays.
        path: as that of `load`. It ends in ``.npy`` or ``.npz``.
        components: which arrays: one for ``.npy`` files, by default the only one; any for ``.npz``
            files, by default all that are loaded.
        each: ``"item"`` for a file of each item, ``"batch"`` for one of the whole batch.
        overwrite: replace files that are there.

    Raises:
        OptionError: ``path``, ``each``, or no single component for ``.npy`` files.
        DataError: the components; objects; a file that is there, or is to be written twice.
        OSError: a file cannot be written. A note names the item.
    """
    files = list(_files(batch, path, each))
    _check_new([where for _, where in files], overwrite)
    parts = parts_of(batch, _to_dump(batch, components, [where for _, where in files]))
    for row, (of, where) in enumerate(files):
        with _noted("writing", where, of):
            rows = slice(None) if each == "batch" else row
            _write(where, {part.name: np.asarray(part.array[rows]) for part in parts})
    return batch


def _files(batch: Batch, path: PathLike, each: Each) -> Iterator[tuple[str, str]]:
    """Yield what each file is of, as text, and its path."""
    paths = paths_of(batch, path, each)
    names = [f"item {id_!r}" for id_ in batch.index.tolist()] if each == "item" else [repr(batch)]
    yield from zip(names, paths, strict=True)


@contextmanager
def _noted(doing: str, path: str, of: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"flowcore: while {doing} {path}, the file of {of}")
        raise


def _read(
    batch: Batch, path: str, components: Components, mmap: bool, allow_pickle: bool
) -> Mapping[str | None, NDArray[Any]]:
    if mmap:  # copied where it is written to
        found = np.load(path, mmap_mode="c", allow_pickle=allow_pickle)
        return _arrays(batch, found, components)
    with open(path, "rb") as file:  # NumPy leaves a damaged archive open
        return _arrays(batch, np.load(file, allow_pickle=allow_pickle), components)


def _arrays(batch: Batch, file: Any, components: Components) -> Mapping[str | None, NDArray[Any]]:
    """Return the arrays of a file by component; ``None`` is the name of data without one."""
    names = () if components is None else checked_names(components)
    if isinstance(file, np.lib.npyio.NpzFile):
        with file:
            return _of_archive(file, names or type(batch).components or tuple(file.files))
    return {_one(names) if names else only_name(batch): file}


def _of_archive(file: Any, names: tuple[str, ...]) -> Mapping[str | None, NDArray[Any]]:
    lacking = [name for name in names if name not in file.files]
    if lacking:
        raise DataError(
            explain(
                f"the file has no array {lacking[0]!r}",
                why=f"it has: {', '.join(file.files)}",
                next="name those that it has: components=...",
            )
        )
    return {name: file[name] for name in names}


def _one(names: tuple[str, ...]) -> str:
    if len(names) > 1:
        raise OptionError(
            explain(
                f"an .npy file is of one component, not of {len(names)}: {', '.join(names)}",
                next="name one: components='images'; or keep several in .npz files",
            )
        )
    return names[0]


def _joined(batch: Batch, files: list[Mapping[str | None, Any]]) -> dict[str | None, Any]:
    """Return the arrays of the files of items, joined by component."""
    for at, file in enumerate(files):
        if set(file) != set(files[0]):
            raise DataError(
                explain(
                    f"the files have not the same arrays: {_listed(files[0])}; {_listed(file)}",
                    where=f"items {batch.index[0]!r} and {batch.index[at]!r} of {batch!r}",
                    next="name those that all have: components=...",
                )
            )
    return {name: stacked([file[name] for file in files], "array") for name in files[0]}


def _listed(names: Iterable[str | None]) -> str:
    return ", ".join("one without a name" if name is None else name for name in names)


def _with(batch: AnyBatch, found: Mapping[str | None, Any]) -> AnyBatch:
    """Set what was found, beside the components that the batch has already."""
    if None in found:
        batch.data = found[None]
    elif batch.components or batch.data is None:
        batch.data = {**(batch.data if batch.components else {}), **found}
    else:
        raise DataError(
            explain(
                "the batch has data without a name, and would lose it to components",
                where=repr(batch),
                next="name it: preloaded={'images': ...}, or components in the class",
            )
        )
    return batch


def _to_dump(batch: Batch, components: Components, paths: list[str]) -> Components:
    """Return the components that go into files of these paths, by their suffix."""
    kinds = {os.path.splitext(path)[1] for path in paths}
    if not kinds <= {".npy"} and not kinds <= {".npz"}:
        raise OptionError(
            explain(
                f"files of arrays end in .npy or all in .npz, not in {', '.join(sorted(kinds))!r}",
                next="dump('folder/{id}.npy')",
            )
        )
    if kinds == {".npz"}:
        if not batch.components:
            raise DataError(
                explain(
                    "an .npz file holds arrays by name, and the data of the batch has no names",
                    where=repr(batch),
                    next="write .npy files",
                )
            )
        return tuple(batch.data) if components is None else components
    return components if components is None else _one(checked_names(components))


def _check_new(paths: list[str], overwrite: bool) -> None:
    twice = [path for path, count in Counter(paths).items() if count > 1]
    there = [path for path in paths if not overwrite and os.path.lexists(path)]
    if twice or there:
        what = "would be written twice" if twice else "is there already"
        raise DataError(
            explain(
                f"{(twice or there)[0]} {what}",
                why=f"and {len(twice or there) - 1} more" if len(twice or there) > 1 else None,
                next="let {id} make the names differ" if twice else "overwrite=True replaces it",
            )
        )


def _write(path: str, arrays: Mapping[str | None, NDArray[Any]]) -> None:
    """Write a file under another name, then give it its own."""
    objects = [name for name, array in arrays.items() if array.dtype.hasobject]
    if objects:
        raise DataError(
            explain(
                f"{_listed(objects)}: objects cannot be written to the files of arrays",
                next="make numbers or strings of them first: .arrays.cast(...)",
            )
        )
    folder, name = os.path.split(path)
    os.makedirs(folder or os.curdir, exist_ok=True)
    draft = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(draft, "xb") as file:
            if name.endswith(".npz"):
                _write_archive(file, arrays)
            else:
                np.save(file, next(iter(arrays.values())), allow_pickle=False)
        os.replace(draft, path)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)


def _write_archive(file: BinaryIO, arrays: Mapping[str | None, NDArray[Any]]) -> None:
    """Write what `numpy.savez` does, of which some names of components are options."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
