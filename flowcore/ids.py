"""Ids and positions as ranges and arrays: made, checked, looked up and joined.

`flowcore.index.Index` is made of these. A range stays a range wherever it can, so that 10**9 ids
cost what ten cost.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import OptionError, explain

__all__ = [
    "Ids",
    "Positions",
    "apart",
    "as_ids",
    "checked_ids",
    "compact",
    "duplicates",
    "find_in_range",
    "id_array",
    "id_keys",
    "id_table",
    "ids_at",
    "is_missing",
    "is_unique",
    "joined",
    "listed",
]

Ids: TypeAlias = "range | NDArray[Any]"
Positions: TypeAlias = "range | NDArray[np.int64]"


def compact(positions: Positions) -> Positions:
    """Return positions that count up by one as a range, and others as they are."""
    if isinstance(positions, range):
        return positions
    if not len(positions):
        return range(0)
    first, last = int(positions[0]), int(positions[-1])
    if last - first + 1 == len(positions) and _increasing(positions):
        return range(first, last + 1)
    return positions


def id_array(ids: Sequence[Any]) -> NDArray[Any]:
    """Return ids, or labels, as an array of their own dtype if they are of one type, or of objects.

    ``np.array`` would turn ``[1, "a"]`` into strings and a list of tuples into a matrix.
    """
    kinds = set(map(type, ids))
    kind = kinds.pop() if len(kinds) == 1 else object
    if kind in (str, int) or (issubclass(kind, np.generic) and kind is not np.void):
        array = np.array(ids)
        rounded = kind is int and array.dtype.kind == "f"
        cut = kind is str and array.tolist() != list(ids)  # NULs at the end are
        if not rounded and not cut:
            return array
    array = np.empty(len(ids), dtype=object)
    array[:] = ids
    return array


def is_missing(value: Any) -> bool:
    """Return whether a value stands for none: NaN, NaT and the like differ from themselves."""
    try:
        return bool(value != value)
    except (TypeError, ValueError) as error:
        return isinstance(error, TypeError)  # pandas.NA has no truth; an array has several


def as_ids(ids: Any) -> Ids:
    """Return what an index may be made of as a range or a one-dimensional array of its own.

    Raises:
        OptionError: it has no fixed order or length, or more than one dimension.
    """
    if isinstance(ids, range):
        return _checked_range(ids)
    if isinstance(ids, (bool, np.bool_, str, bytes, set, frozenset, dict)):
        raise OptionError(
            explain(
                f"an index cannot be made of {type(ids).__name__} {ids!r:.60}",
                why="it needs the number of items, or their ids in a fixed order",
                next="pass an int, or a list or array of unique ids",
            )
        )
    if hasattr(ids, "__index__") and not isinstance(ids, np.ndarray):
        n = operator.index(ids)
        if n < 0:
            raise OptionError(f"the number of items must not be negative, got {n}")
        return _checked_range(range(n))
    return _array(ids)


def _checked_range(ids: range) -> range:
    if not ids or max(abs(ids[0]), abs(ids[-1])) < 2**63:
        return ids
    raise OptionError(
        explain(
            f"the ids of {ids!r} are not integers of 64 bits",
            next="use Dataset(n), and keep the ids as a component",
        )
    )


def _array(ids: Any) -> NDArray[Any]:
    if not hasattr(ids, "__len__"):
        raise OptionError(
            explain(
                f"an index cannot be made of {type(ids).__name__}",
                why="its ids must be countable, and readable more than once",
                next="pass an int, or list(...) of what is iterable",
            )
        )
    array = np.array(ids) if isinstance(ids, np.ndarray) else id_array(list(ids))
    if array.ndim != 1:
        raise OptionError(
            explain(
                f"an index is one-dimensional, got an array of shape {array.shape}",
                next="pass the ids, or len(array) for the ids 0..n-1",
            )
        )
    array.flags.writeable = False
    return array


def checked_ids(ids: NDArray[Any]) -> dict[Any, int] | None:
    """Return the `id_table` of ids, if it was needed to know that they are unique.

    Raises:
        OptionError: ids that are not unique, not hashable, missing (NaN, NaT), or bools.
    """
    _refuse(ids)
    if ids.dtype.kind in "iufmM":
        unique = is_unique(ids)
    elif ids.dtype.kind in "US" and _increasing(ids):  # as the sorted names of files
        unique = True
    else:
        table = id_table(ids)
        if len(table) == len(ids):
            return table
        unique = False
    if not unique:
        raise OptionError(duplicates(listed(ids)))
    return None


def _refuse(ids: NDArray[Any]) -> None:
    """Refuse ids that are none: they would not be found again, or are meant for a mask."""
    if ids.dtype.kind == "O":
        places = np.flatnonzero([isinstance(id_, bool) or is_missing(id_) for id_ in ids])
    else:
        places = np.flatnonzero((ids != ids) | (ids.dtype.kind == "b"))
    if places.size:
        raise OptionError(
            explain(
                f"an id cannot be {ids[places[0]]}; {places.size} of {len(ids)} ids are bools or "
                f"missing, the first at position {places[0]}",
                next="leave these items out, or use Dataset(len(ids)) and keep the ids as a "
                "component; a mask goes in brackets: dataset[mask]",
            )
        )


def id_table(ids: NDArray[Any]) -> dict[Any, int]:
    """Return the position of each id, by its key.

    Raises:
        OptionError: an id that is not hashable.
    """
    try:
        return {key: at for at, key in enumerate(id_keys(ids, ids.dtype))}
    except TypeError as error:
        raise OptionError(
            explain(
                f"ids must be hashable, as ints, strings and tuples are: {error}",
                next="use Dataset(len(ids)), and keep the ids as a component",
            )
        ) from None


def id_keys(ids: Any, dtype: np.dtype[Any]) -> list[Any]:
    """Return what ids are called in the table of an index of ``dtype``."""
    if dtype.kind not in "mM":
        return listed(ids)
    if isinstance(ids, np.ndarray) and ids.dtype == dtype:
        keys: list[Any] = ids.astype(np.int64).tolist()
        return keys
    return [_moment(id_, dtype) for id_ in ids]


def _moment(id_: Any, dtype: np.dtype[Any]) -> int | None:
    """Return a date or a span of time in the units of ``dtype``, None if it is none, or finer."""
    dated = isinstance(id_, (np.datetime64, np.timedelta64, date, timedelta))
    if not dated or getattr(id_, "tzinfo", None) is not None:  # NumPy's are in no time zone
        return None
    try:
        given: Any = np.datetime64(id_) if dtype.kind == "M" else np.timedelta64(id_)
    except (TypeError, ValueError):  # one in place of the other
        return None
    found = given.astype(dtype)
    return int(found.astype(np.int64)) if found == given else None


def find_in_range(ids: range, wanted: Any) -> NDArray[np.int64]:
    """Return the positions of ``wanted`` in a range of ids, -1 for those that are not there."""
    wanted = _array_of(wanted) if isinstance(wanted, range) else wanted
    if not ids:
        return np.full(len(wanted), -1)
    if not isinstance(wanted, np.ndarray) or wanted.dtype.kind not in "iu":
        keys = listed(wanted)
        return np.fromiter((_place(ids, key) for key in keys), np.int64, len(keys))
    inside = (wanted >= min(ids[0], ids[-1])) & (wanted <= max(ids[0], ids[-1]))
    places, rest = np.divmod(wanted.astype(np.int64) - ids.start, ids.step)
    return np.where(inside & (rest == 0), places, -1)


def _place(ids: range, id_: Any) -> int:
    try:
        return ids.index(operator.index(id_))  # of an int it is computed, not searched
    except (TypeError, ValueError):
        return -1


def ids_at(ids: Ids, positions: Positions) -> Ids:
    """Return the ids at ``positions``; a range of a range is a range."""
    if isinstance(positions, range) and isinstance(ids, range):
        start, step = ids.start, ids.step
        first, end = start + step * positions.start, start + step * positions.stop
        return range(first, end, step * positions.step)
    if isinstance(positions, range):
        positions = _array_of(positions)
    return positions * ids.step + ids.start if isinstance(ids, range) else ids[positions]


def apart(ids: Ids, more: Ids) -> bool:
    """Return whether two ranges lie one beside the other, which is known at once."""
    if not isinstance(ids, range) or not isinstance(more, range) or not ids or not more:
        return False
    (_, end), (start, _) = sorted(sorted((part[0], part[-1])) for part in (ids, more))
    return end < start


def joined(ids: Ids, more: Ids) -> Ids:
    """Return ``ids`` and after them ``more``, as a range if they are one."""
    if not len(ids) or not len(more):
        return ids if len(ids) else more
    if isinstance(ids, range) and isinstance(more, range):
        whole = range(ids.start, more.stop, ids.step)
        if whole[len(ids) :] == more:
            return whole
    one, other = (_array_of(part) if isinstance(part, range) else part for part in (ids, more))
    if one.dtype.kind == other.dtype.kind != "O":
        return np.concatenate([one, other])
    return id_array([*listed(one), *listed(other)])


def _array_of(numbers: range) -> NDArray[np.int64]:
    return np.arange(numbers.start, numbers.stop, numbers.step, dtype=np.int64)


def _increasing(values: NDArray[Any]) -> bool:
    return bool(np.all(values[1:] > values[:-1]))


def is_unique(values: NDArray[Any]) -> bool:
    """Return whether no number, or date, is repeated."""
    return _increasing(values) or _increasing(np.sort(values))


def listed(ids: Any) -> list[Any]:
    """Return ids as a list of Python's own values; dates of NumPy stay, as they may be finer."""
    own = isinstance(ids, np.ndarray) and ids.dtype.kind not in "mM"
    values: list[Any] = ids.tolist() if own else list(ids)
    return values


def duplicates(ids: list[Any]) -> str:
    """Return the text of the error that some ids are repeated."""
    places: defaultdict[Any, list[int]] = defaultdict(list)
    for position, id_ in enumerate(ids):
        places[id_].append(position)
    repeated = [f"{id_!r} at positions {at[:4]}" for id_, at in places.items() if len(at) > 1]
    shown = "; ".join(repeated[:3])
    more = f", and {len(repeated) - 3} more" if len(repeated) > 3 else ""
    return explain(
        f"the ids of an index must be unique; repeated: {shown}{more}",
        next="remove the repeats, or use Dataset(len(ids)) and keep the ids as a component",
    )
