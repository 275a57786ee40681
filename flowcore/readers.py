"""Data that is already there, read by positions: a reader for each kind of source.

The kind is known by what an object can do, and by the module of its type; no library is imported.
What a reader returns belongs to the batch; the source itself is never written to.

Several workers read at once. Arrays, memory maps, zarr, Arrow and pandas allow it, h5py lets one in
at a time. Objects of one's own, and torch datasets, are called from several threads.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import DataError, explain
from flowcore.rows import stacked

__all__ = ["Part", "Preloaded"]

Rows: TypeAlias = "NDArray[np.int64]"
Reader: TypeAlias = "Callable[[Any, Rows, str], Any]"


@dataclass(frozen=True, slots=True)
class Part:
    """One source of preloaded data, with its reader.

    Attributes:
        name: of the component; ``"data"`` of the only source, and none of one in a tuple.
        where: what it is called in messages.
        source: has an entry for each item.
        reader: called as ``reader(source, rows, name)``.
    """

    name: str
    where: str
    source: Any
    reader: Reader

    def read(self, rows: Rows) -> Any:
        """Return the entries at ``rows``; what the source raises gets a note."""
        try:
            return self.reader(self.source, rows, self.name)
        except Exception as error:
            shown = ", ".join(map(str, rows[:3].tolist())) + (", ..." if len(rows) > 3 else "")
            error.add_note(f"flowcore: while reading {self.where}, positions [{shown}]")
            raise


class Preloaded:
    """The data of all items: one source, several in a tuple, or several by name.

    Args:
        data: arrays (memory maps too), lists, tuples, h5py and zarr arrays, Arrow columns, pandas
            series, torch datasets, sequences of objects, or what takes an int64 array of positions,
            or else an int, in square brackets; or a tuple, a dict, or a table of such.

    Raises:
        DataError: something else, or nothing; names that are no strings, or repeated; Arrow columns
            of integers or bools with nulls.
    """

    def __init__(self, data: Any) -> None:
        columns = _columns(data)
        self._named = isinstance(columns, Mapping)
        self._one = not self._named and not isinstance(columns, tuple)
        if isinstance(columns, Mapping):
            self.parts = [_part(name, f"component {name!r}", columns[name]) for name in columns]
        elif isinstance(columns, tuple):
            self.parts = [_part("", f"preloaded[{at}]", one) for at, one in enumerate(columns)]
        else:
            self.parts = [_part("data", "preloaded", columns)]
        if not self.parts:
            raise DataError(
                explain(
                    f"preloaded is an empty {type(data).__name__}",
                    next="leave it out, or give it an array for each component",
                )
            )

    def read(self, rows: Rows) -> Any:
        """Return the data of the items at ``rows``: one object, a tuple, or a dict by name."""
        if self._one:
            return self.parts[0].read(rows)
        return self._formed([part.read(rows) for part in self.parts])

    def outline(self) -> Any:
        """Return something of the form of the data that holds none; None if it is not known."""
        if self._one and self.parts[0].reader not in _OF_COLUMNS:
            return None  # its items may be tuples or dicts, which are components
        return self._formed([np.arange(0) for _ in self.parts])

    def _formed(self, values: list[Any]) -> Any:
        if self._named:
            return {part.name: value for part, value in zip(self.parts, values, strict=True)}
        return values[0] if self._one else tuple(values)


def _columns(data: Any) -> Any:
    """Return data as a dict or a tuple of columns, if it has several, and else as it is."""
    names: Sequence[Any] = ()
    if isinstance(data, Mapping):  # an h5py group is one
        names, columns = list(data), data
    elif hasattr(data, "iloc") and hasattr(data, "columns"):  # a DataFrame
        names, columns = list(data.columns), data
    elif hasattr(data, "column_names") and hasattr(data, "column"):  # an Arrow table
        names = data.column_names
        columns = dict(zip(names, data.columns, strict=True))
    else:
        return data
    counts = Counter(names)
    wrong = [name for name in names if not isinstance(name, str) or counts[name] > 1]
    if wrong:
        raise DataError(
            explain(
                f"{wrong[0]!r:.60} cannot be the name of a component of preloaded data",
                why="names must be strings, each of one component",
                next="rename it, or pass arrays by name: preloaded={'features': array}",
            )
        )
    return {name: columns[name] for name in names}


def _part(name: str, where: str, source: Any) -> Part:
    if isinstance(source, (list, tuple)):
        source = _list_array(source)
    if (
        not hasattr(source, "__getitem__")
        or isinstance(source, (str, bytes, Mapping))
        or getattr(source, "ndim", 1) == 0
    ):
        raise DataError(
            explain(
                f"preloaded data of type {type(source).__name__} cannot be read by positions",
                where=where,
                next="pass an array, or an object whose __getitem__ takes an array of positions",
            )
        )
    reader = _reader(source)
    if reader is _read_arrow:
        _refuse_nulls(source, where)
    return Part(name, where, source, reader)


def _list_array(items: Sequence[Any]) -> NDArray[Any]:
    try:
        return np.asarray(items)
    except ValueError:  # of different lengths
        objects: NDArray[Any] = stacked(list(items), "")
        return objects


def _reader(source: Any) -> Reader:
    """Choose the reader of a source by its type; nothing is read."""
    if isinstance(source, np.ndarray):
        # Of any other layout `take` would make a copy of the whole source first.
        flags, native = source.flags, source.dtype.isnative
        whole_rows = type(source) is np.ndarray and flags.c_contiguous and flags.aligned and native
        return _read_rows if whole_rows and not source.dtype.hasobject else _read_array
    if _comes_from(source, "h5py", "zarr"):
        return _read_stored
    if _comes_from(source, "pyarrow"):
        return _read_arrow
    if hasattr(source, "iloc"):
        return _read_series
    if hasattr(source, "__getitems__"):  # torch's way to ask for several items at once
        return _read_many
    if isinstance(source, Sequence) or _comes_from(source, "torch.utils.data"):
        return _read_each
    return _Unknown()


def _comes_from(source: Any, *packages: str) -> bool:
    return any(
        f"{base.__module__}.".startswith(f"{package}.")
        for base in type(source).__mro__
        for package in packages
    )


def _read_array(source: Any, rows: Rows, name: str) -> Any:
    return _own(source[rows])


def _read_rows(source: Any, rows: Rows, name: str) -> Any:
    """Read an array of which NumPy can take whole rows: a third of the time, if they are short."""
    return source.take(rows, 0)


def _read_stored(source: Any, rows: Rows, name: str) -> Any:
    """Read each stored row once, in the order of the file; rows in a row as a slice."""
    wanted, back = np.unique(rows, return_inverse=True)
    if len(wanted) and wanted[-1] - wanted[0] + 1 == len(wanted):
        found = source[int(wanted[0]) : int(wanted[-1]) + 1]
    else:
        found = getattr(source, "oindex", source)[wanted]  # of zarr; h5py takes sorted rows
    return np.asarray(found)[back]


def _read_arrow(source: Any, rows: Rows, name: str) -> Any:
    return _own(np.asarray(source.take(rows)))


def _read_series(source: Any, rows: Rows, name: str) -> Any:
    return _own(np.asarray(source.iloc[rows]))  # by position; in brackets are labels


def _read_many(source: Any, rows: Rows, name: str) -> Any:
    return _joined(list(source.__getitems__(rows.tolist())), rows, name)


def _read_each(source: Any, rows: Rows, name: str) -> Any:
    return _joined([source[row] for row in rows.tolist()], rows, name)


class _Unknown:
    """The reader of an object that does not say what it takes: positions, or one at a time.

    It is asked for all at once. Where that fails, it is asked once what it takes, so that an error
    of its own is never taken for an answer. Where it works, the first answer is held against that
    for one position: code that is meant for an int may take an array, and give something else.
    """

    def __init__(self) -> None:
        # Written by whichever worker reads first; all would write the same.
        self._each: bool | None = None

    def __call__(self, source: Any, rows: Rows, name: str) -> Any:
        if self._each:
            return _read_each(source, rows, name)
        try:
            found = source[rows]
        except Exception:
            if self._each is not None or not _takes_one_only(source, rows):
                raise
            self._each = True
            return _read_each(source, rows, name)
        if self._each is None and len(rows) and _differs(source, rows, found):
            self._each = True
            return _read_each(source, rows, name)
        if len(rows) > 1:  # an array of one may have been taken for an int
            self._each = False
        _check_count(found, len(rows))
        return copy.deepcopy(found)  # it may be the object's own


def _takes_one_only(source: Any, rows: Rows) -> bool:
    first = rows[:1]
    return len(first) > 0 and _fails(source, first.repeat(2)) and not _fails(source, int(first[0]))


def _differs(source: Any, rows: Rows, found: Any) -> bool:
    """Return whether the first of what was found for all is not what is found for it alone."""
    try:
        alone = source[int(rows[0])]
    except Exception:
        return False  # it takes several only
    if isinstance(found, (Mapping, tuple)):
        return False
    try:
        whole, one = np.asarray(found), np.asarray(alone)
        nan = whole.dtype.kind in "fc" and one.dtype.kind in "fc"
        if np.array_equal(whole, one, equal_nan=nan) and len(whole) != len(rows):
            return len(rows) == 1  # of several it does not look at what it is asked for
        return not np.array_equal(np.asarray(found[0]), one, equal_nan=nan)
    except Exception:
        return True


def _fails(source: Any, at: Any) -> bool:
    try:
        source[at]
    except Exception:
        return True
    return False


_OF_COLUMNS: tuple[Any, ...] = (_read_array, _read_rows, _read_stored, _read_arrow, _read_series)


def _joined(items: list[Any], rows: Rows, name: str) -> Any:
    """Join items into columns: those of dicts by name, those of the only source's tuples too."""
    _check_count(items, len(rows))
    if not items or not all(isinstance(item, Mapping) for item in items):
        return _own(stacked(items, name))
    for row, item in zip(rows.tolist(), items, strict=True):
        if set(item) != set(items[0]):
            raise DataError(
                explain(
                    f"item {row} has the entries {sorted(map(repr, item))}, and item {rows[0]} "
                    f"has {sorted(map(repr, items[0]))}",
                    next="let every item have the same entries",
                )
            )
    return {key: _own(stacked([item[key] for item in items], key)) for key in items[0]}


def _own(value: Any) -> Any:
    """Return what an action may write to: objects in arrays are only referred to."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value if value.flags.writeable else value.copy()
    return copy.deepcopy(value)


def _check_count(found: Any, count: int) -> None:
    values = found.values() if isinstance(found, Mapping) else found
    for value in values if isinstance(found, (tuple, Mapping)) else [found]:
        if hasattr(value, "__len__") and getattr(value, "ndim", 1) != 0 and len(value) != count:
            raise DataError(
                explain(
                    f"asked for {count} positions, the preloaded object gave {len(value)} entries",
                    next="let its __getitem__ give one entry for each of the positions",
                )
            )


def _refuse_nulls(column: Any, where: str) -> None:
    """Refuse nulls where NumPy has none: a batch would have another dtype for each that it gets."""
    if column.null_count and str(column.type).startswith(("int", "uint", "bool")):
        raise DataError(
            explain(
                f"{where} is an Arrow column of {column.type} with {column.null_count} nulls",
                next="fill them first: column.fill_null(0)",
            )
        )
