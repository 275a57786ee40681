"""Joins the items of one run along axis 0, one column for each array of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from flowcore.errors import DataError, explain
from flowcore_numpy_buffer._item import Item, Key, assembled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from flowcore import Cancel

__all__ = ["Collection", "Column", "MemoryStore"]


class Column(Protocol):
    """The rows of one component, of one shape and dtype; it begins empty."""

    shape: tuple[int, ...]  # of one row
    dtype: np.dtype[Any]

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows of this shape and dtype."""

    def head(self, count: int) -> NDArray[Any]:
        """Return the first ``count`` rows; they will not change. Called from any thread."""

    def finish(self, count: int) -> None:
        """Keep ``count`` rows; no more will come."""


class Collection:
    """The columns of one run. `add` and `finish` are called from one thread, `heads` from any.

    Args:
        new_columns: called once, with the first item that has rows.

    Attributes:
        count: of the rows so far.
    """

    def __init__(self, new_columns: Callable[[Item], Mapping[Key, Column]]) -> None:
        self._new_columns = new_columns
        self._columns: Mapping[Key, Column] = {}
        self._first = ""  # the item that decided on shapes and dtypes
        self._empty: Item | None = None  # tells them if no item has rows
        # Rows that all columns have. Written last, so that a reader in another thread, who reads
        # it first, sees no half item.
        self.count = 0

    def go_on(self, columns: Mapping[Key, Column], count: int, named: str) -> None:
        """Go on with columns that have ``count`` rows, and decide on shapes and dtypes.

        Args:
            columns: by what array of a batch they hold.
            count: of their rows.
            named: what they are called in an error.
        """
        self._columns, self._first = columns, named
        self.count = count

    def add(self, item: Item) -> None:
        """Add an item, to all columns or to none.

        Raises:
            DataError: it does not fit those before it.
        """
        if not len(item):  # a list without entries has no shape to compare
            self._empty = self._empty or item
            return
        if not self._columns:
            self._begin(item)
        if set(item.arrays) != set(self._columns):
            raise DataError(
                explain(
                    f"the batch has {_names(item.arrays)}, {self._first} has "
                    f"{_names(self._columns)}",
                    where=item.where(),
                    next="let get_tensor return the same for every batch",
                )
            )
        fitting = [
            (column, self._fitted(item.arrays[key], column, item.where(key)))
            for key, column in self._columns.items()
        ]
        for column, rows in fitting:
            column.append(rows)
        self.count += len(item)

    def heads(self) -> Any:
        """Return what has come so far, ``None`` if nothing has."""
        count = self.count
        if not self._columns:
            return None
        return assembled({key: column.head(count) for key, column in self._columns.items()})

    def finish(self) -> tuple[Key, ...]:
        """Trim the columns to the rows that came; return their keys, none if no batch came."""
        if not self._columns and self._empty is not None:
            self._begin(self._empty)
        for column in self._columns.values():
            column.finish(self.count)
        return tuple(self._columns)

    def _begin(self, item: Item) -> None:
        self._first = item.where()
        self._columns = self._new_columns(item)

    def _fitted(self, rows: NDArray[Any], column: Column, where: str) -> NDArray[Any]:
        """Return rows in the column's dtype.

        Raises:
            DataError: another shape, or a dtype that cannot be cast without harm.
        """
        if rows.shape[1:] != column.shape:
            raise DataError(
                explain(
                    f"items of shape {rows.shape[1:]} do not fit those of shape {column.shape} "
                    f"in {self._first}",
                    where=where,
                    why="what is collected is one array",
                    next="pad or crop the items to one shape in an action before, or give the sink "
                    "capacity= and take each batch as it is",
                )
            )
        if rows.dtype == column.dtype:
            return rows
        if np.can_cast(rows.dtype, column.dtype, "same_kind"):
            cast = rows.astype(column.dtype)
            if column.dtype.kind in "fc" or _same_values(cast, rows):
                return cast
            why = "values would change: too large, or too long, for it"
        else:
            why = "NumPy does not cast it (casting='same_kind')"
        raise DataError(
            explain(
                f"dtype {rows.dtype} does not fit dtype {column.dtype} of {self._first}",
                where=where,
                why=why,
                next="give every batch the same dtype: array.astype(...) in an action or in "
                "get_tensor",
            )
        )


class MemoryStore:
    """Collects in memory.

    Args:
        items: how many are expected; ``None`` if that is not known.
    """

    def __init__(self, items: int | None) -> None:
        self._items = items
        self._collection = Collection(self._new_columns)

    def put(self, item: Item, cancel: Cancel) -> None:
        """Take one item; it never waits."""
        self._collection.add(item)

    def close(self, error: BaseException | None) -> None:
        """Trim the arrays, whatever the end."""
        self._collection.finish()

    @property
    def result(self) -> Any:
        """The arrays so far: views that are read-only until the end."""
        return self._collection.heads()

    def _new_columns(self, item: Item) -> Mapping[Key, Column]:
        try:
            return {key: _MemoryColumn(rows, self._items) for key, rows in item.arrays.items()}
        except MemoryError as error:
            error.add_note(
                explain(
                    f"flowcore: numpy-buffer makes room for the {self._items} items of the run",
                    next="path='x.npy' collects them in a file, capacity=n hands them over",
                )
            )
            raise


class _MemoryColumn:
    def __init__(self, rows: NDArray[Any], expected: int | None) -> None:
        self.shape, self.dtype = rows.shape[1:], rows.dtype
        self._array = self._empty(max(len(rows), expected or 0))
        self._count = 0
        self._finished = False

    def append(self, rows: NDArray[Any]) -> None:
        end = self._count + len(rows)
        if end > len(self._array):
            # A new array rather than a resized one: `head` has given out views of the old.
            grown = self._empty(max(end, 2 * len(self._array)))
            grown[: self._count] = self._array[: self._count]
            self._array = grown
        self._array[self._count : end] = rows
        self._count = end

    def head(self, count: int) -> NDArray[Any]:
        array = self._array
        if self._finished and count == len(array):
            return array
        view = array[:count]
        view.flags.writeable = False
        return view

    def finish(self, count: int) -> None:
        if 2 * count < len(self._array):
            self._array = self._array[:count].copy()  # frees more than it takes
        elif count < len(self._array):
            self._array = self._array[:count]
        self._finished = True

    def _empty(self, length: int) -> NDArray[Any]:
        return np.empty((length, *self.shape), self.dtype)


def _same_values(cast: NDArray[Any], rows: NDArray[Any]) -> bool:
    # By bytes, as a NaT is not equal to itself.
    return cast.astype(rows.dtype).tobytes() == rows.tobytes()


def _names(keys: Any) -> str:
    if None in keys:
        return "one array"
    if 0 in keys:
        return f"a tuple of {len(keys)} arrays"
    return f"the components {', '.join(map(repr, keys))}"
