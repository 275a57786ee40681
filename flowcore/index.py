"""The ordered, unique ids of a dataset's items, and the way between ids and positions.

An index over ``range`` ids holds nothing of their number: 10**9 ids cost what ten cost.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowcore.errors import OptionError, explain

__all__ = ["Index", "IndexLike"]

IndexLike: TypeAlias = "int | range | Sequence[Any] | NDArray[Any] | Index"


class Index:
    """The ordered, unique ids of a dataset's items.

    Args:
        ids: an int ``n`` (ids ``0..n-1``), a range, a sequence or one-dimensional array of unique,
            hashable ids, or another index.

    Raises:
        OptionError: ids that are not unique, not one-dimensional, or in no order (a set).
    """

    __slots__ = ("_ids", "_positions")

    def __init__(self, ids: IndexLike) -> None:
        self._ids: range | NDArray[Any] = _as_ids(ids)
        self._positions: dict[Any, int] | None = None
        if isinstance(self._ids, np.ndarray):
            try:
                self._positions = {id_: at for at, id_ in enumerate(self._ids.tolist())}
            except TypeError as error:
                raise OptionError(
                    explain(
                        f"ids must be hashable, as ints, strings and tuples are: {error}",
                        next="use Dataset(len(ids)), and keep the ids as a component",
                    )
                ) from None
            if len(self._positions) != len(self._ids):
                raise OptionError(_duplicates(self._ids.tolist()))

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ids)

    def __contains__(self, id_: object) -> bool:
        try:
            self.positions([id_])
        except KeyError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        if isinstance(self._ids, range) and isinstance(other._ids, range):
            return self._ids == other._ids
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if isinstance(self._ids, range):
            return f"Index({self._ids.stop if self._ids == range(len(self)) else self._ids!r})"
        shown = ", ".join(repr(id_) for id_ in self._ids[:3].tolist())
        return f"Index([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} ids)"

    def ids(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return the ids at ``positions``, as an array of their length."""
        if isinstance(self._ids, range):
            if self._ids.start == 0 and self._ids.step == 1:
                return positions
            return positions * self._ids.step + self._ids.start
        return self._ids[positions]

    def positions(self, ids: ArrayLike | Sequence[Any]) -> NDArray[np.int64]:
        """Return the positions of ``ids``, as an int64 array of their length.

        Raises:
            KeyError: an id that is not in the index; it is the argument.
        """
        wanted = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)  # type: ignore[arg-type]
        find = self._in_range if self._positions is None else self._positions.__getitem__
        return np.fromiter(map(find, wanted), np.int64, len(wanted))

    def _in_range(self, id_: Any) -> int:
        assert isinstance(self._ids, range)
        try:
            return self._ids.index(operator.index(id_))  # of an int it is computed, not searched
        except (TypeError, ValueError):
            raise KeyError(id_) from None


def _as_ids(ids: IndexLike) -> range | NDArray[Any]:
    if isinstance(ids, Index):
        return ids._ids
    if isinstance(ids, range):
        return ids
    if isinstance(ids, (bool, np.bool_, str, bytes, set, frozenset, dict)):
        raise OptionError(
            explain(
                f"an index cannot be made of {type(ids).__name__} {ids!r:.60}",
                why="it needs the number of items, or their ids in a fixed order",
                next="pass an int, or a list or array of unique ids",
            )
        )
    if hasattr(ids, "__index__") and not isinstance(ids, np.ndarray):
        return _range(operator.index(ids))
    return _array(ids)


def _range(n: int) -> range:
    if n < 0:
        raise OptionError(f"the number of items must not be negative, got {n}")
    return range(n)


def _array(ids: Any) -> NDArray[Any]:
    if not hasattr(ids, "__len__"):
        raise OptionError(
            explain(
                f"an index cannot be made of {type(ids).__name__}",
                why="its ids must be countable, and readable more than once",
                next="pass an int, or list(...) of what is iterable",
            )
        )
    array = ids if isinstance(ids, np.ndarray) else _list_array(list(ids))
    if array.ndim != 1:
        raise OptionError(
            explain(
                f"an index is one-dimensional, got an array of shape {array.shape}",
                next="pass the ids, or len(array) for the ids 0..n-1",
            )
        )
    array = array.copy()
    array.flags.writeable = False
    return array


def _list_array(ids: list[Any]) -> NDArray[Any]:
    """Keep strings and ints as arrays of their own dtype, and everything else as it is.

    ``np.array`` would turn ``[1, "a"]`` into strings and a list of tuples into a matrix.
    """
    for kind in (str, int):
        if ids and all(type(id_) is kind for id_ in ids):
            array = np.array(ids)
            if array.dtype.kind in "iU":  # not of ints that only fit into floats
                return array
    array = np.empty(len(ids), dtype=object)
    array[:] = ids
    return array


def _duplicates(ids: list[Any]) -> str:
    first: dict[Any, int] = {}
    repeated: dict[Any, list[int]] = {}
    for position, id_ in enumerate(ids):
        if id_ in first:
            repeated.setdefault(id_, [first[id_]]).append(position)
        else:
            first[id_] = position
    shown = [f"{id_!r} at positions {positions[:4]}" for id_, positions in repeated.items()][:3]
    more = f", and {len(repeated) - 3} more" if len(repeated) > 3 else ""
    return explain(
        f"the ids of an index must be unique; repeated: {'; '.join(shown)}{more}",
        next="remove the repeats, or use Dataset(len(ids)) and keep the ids as a component",
    )
