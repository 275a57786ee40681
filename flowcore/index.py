"""The ordered, unique ids of a dataset's items, and the way between ids and positions.

An index over ``range`` ids holds nothing of their number: 10**9 ids cost what ten cost. Over other
ids it holds their array, and from the first search on a table of their positions.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowcore.errors import OptionError, explain
from flowcore.ids import (
    Ids,
    Positions,
    apart,
    as_ids,
    checked_ids,
    compact,
    duplicates,
    find_in_range,
    id_keys,
    id_table,
    ids_at,
    is_unique,
    joined,
    listed,
)

__all__ = ["Index", "IndexLike"]

_BLOCK = 1 << 20  # ids that are looked up at a time

IndexLike: TypeAlias = "int | range | Sequence[Any] | NDArray[Any] | Index"


class Index:
    """The ordered, unique ids of a dataset's items.

    Args:
        ids: an int ``n`` (ids ``0..n-1``), a range, a sequence or one-dimensional array of unique,
            hashable ids (ints, strings, dates, tuples), or another index.

    Raises:
        OptionError: ids that are not unique, not one-dimensional, missing (NaN, NaT), bools, or in
            no order (a set).
    """

    def __init__(self, ids: IndexLike) -> None:
        self._ids: Ids
        self._table: dict[Any, int] | None = None
        if isinstance(ids, Index):
            self._ids, self._table = ids._ids, ids._table
            return
        self._ids = as_ids(ids)
        if isinstance(self._ids, np.ndarray):
            self._table = checked_ids(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ids)

    def __contains__(self, id_: object) -> bool:
        try:
            return bool(self.find([id_])[0] >= 0)
        except TypeError:  # not hashable
            return False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        if isinstance(self._ids, range) and isinstance(other._ids, range):
            return self._ids == other._ids
        if len(self) != len(other):
            return False
        return self._ids is other._ids or all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_table": None}  # made again where it is needed

    def __repr__(self) -> str:
        name = type(self).__name__
        if isinstance(self._ids, range):
            return f"{name}({self._ids.stop if self._ids == range(len(self)) else self._ids!r})"
        shown = ", ".join(map(repr, listed(self._ids[:3])))
        return f"{name}([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} ids)"

    def ids(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return the ids at ``positions``, as an array of their length."""
        if isinstance(self._ids, range):
            if self._ids.start == 0 and self._ids.step == 1:
                return positions
            return positions * self._ids.step + self._ids.start
        return self._ids[positions]

    def positions(self, ids: ArrayLike | Sequence[Any] | Index) -> NDArray[np.int64]:
        """Return the positions of ``ids``, as an int64 array of their length.

        Raises:
            KeyError: an id that is not in the index; it is the argument.
        """
        wanted = ids if isinstance(ids, (Index, np.ndarray)) else list(ids)  # type: ignore[arg-type]
        found = self.find(wanted)
        missing = np.flatnonzero(found < 0)[:1]
        if not missing.size:
            return found
        if isinstance(wanted, list):
            raise KeyError(wanted[missing[0]])
        at = wanted.ids(missing) if isinstance(wanted, Index) else wanted[missing]
        raise KeyError(*listed(at))

    def find(self, ids: ArrayLike | Sequence[Any] | Index) -> NDArray[np.int64]:
        """Return the positions of ``ids``, -1 for one that is not there, as an int64 array.

        Raises:
            TypeError: an id that is not hashable.
        """
        wanted = ids._ids if isinstance(ids, Index) else ids
        if isinstance(self._ids, range):
            return find_in_range(self._ids, wanted)
        if self._table is None:  # two threads may both make it: it is the same
            self._table = id_table(self._ids)
        keys = id_keys(wanted, self._ids.dtype)
        get = self._table.get
        return np.fromiter((get(key, -1) for key in keys), np.int64, len(keys))

    def is_in(self, other: Index) -> NDArray[np.bool_]:
        """Return for each id whether ``other`` has it too."""
        there = np.empty(len(self), bool)
        for start in range(0, len(self), _BLOCK):
            places = np.arange(start, min(start + _BLOCK, len(self)))
            there[places] = other.find(self.ids(places)) >= 0
        return there

    def subset(self, positions: Positions) -> Self:
        """Return the index of the ids at ``positions``, in their order.

        Of a range, a range of positions, and positions that count up by one, make a range.

        Raises:
            OptionError: positions that are repeated.
        """
        chosen = compact(positions)
        if isinstance(chosen, np.ndarray) and not is_unique(chosen):
            raise OptionError(duplicates(listed(self.ids(chosen))))
        return self._with(ids_at(self._ids, chosen))

    def union(self, other: Index) -> Self:
        """Return the index of these ids and, after them, those of ``other`` that are not here.

        Raises:
            OptionError: ``other`` is an index of another kind, as files are and numbers are not.
        """
        if type(self) is not type(other):
            kinds = f"{type(self).__name__} and {type(other).__name__}"
            raise OptionError(
                explain(f"{kinds} make no index together", next="use fc.concat([one, other])")
            )
        if not apart(self._ids, other._ids):
            other = other.subset(np.flatnonzero(~other.is_in(self)))
        return self._with(joined(self._ids, other._ids))

    def _with(self, ids: Ids) -> Self:
        """Return an index of other ids, which are known to be unique."""
        made = object.__new__(type(self))
        vars(made).update(vars(self), _ids=ids, _table=None)
        return made
