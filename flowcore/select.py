"""Which positions of an index are meant: by ids, by a mask, by a slice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import OptionError, explain, near
from flowcore.ids import Positions, duplicates, is_unique, listed
from flowcore.index import Index

__all__ = ["positions_of", "positions_without"]

_SHOWN = 3  # ids in an error
_SEARCHED = 10_000  # ids, for one that is nearly what was asked for


def positions_of(index: Index, items: Any) -> Positions:
    """Return the positions of ``items``: a slice of positions, a bool for each id, or ids.

    Raises:
        OptionError: ids that are not there or are repeated; what is none of the three.
    """
    if isinstance(items, slice):
        return _sliced(len(index), items)
    ids = _collection(items)
    if _is_mask(ids):
        return _masked(len(index), ids)
    _refuse_floats(index, ids)
    found = _found(index, ids)
    if not is_unique(found):
        raise OptionError(duplicates(list(ids) if isinstance(ids, Index) else listed(ids)))
    return found


def positions_without(index: Index, ids: Any) -> Positions:
    """Return the positions of all ids but some: ids, or objects that have ``ids``.

    Raises:
        OptionError: an id that is not there.
    """
    left = np.ones(len(index), bool)
    for some in _flat(ids):
        left[_found(index, some)] = False
    return np.flatnonzero(left)


def _flat(ids: Any) -> list[Any]:
    """Return collections of ids."""
    if hasattr(ids, "ids") and not isinstance(ids, Index):
        return [ids.ids]
    ids = _collection(ids)
    if _is_mask(ids):
        raise OptionError(
            explain(
                "without() takes ids, and got a mask", next="leave out by a mask: dataset[~mask]"
            )
        )
    if isinstance(ids, list) and ids and all(hasattr(one, "ids") for one in ids):
        return [one.ids for one in ids]
    return [ids]


def _collection(items: Any) -> Any:
    """Return items as an index, an array or a list."""
    if isinstance(items, (Index, np.ndarray)) and getattr(items, "ndim", 1) == 1:
        return items
    if isinstance(items, range):
        return Index(items)
    if isinstance(items, np.ndarray):
        what = f"an array of shape {items.shape} is no list of ids"
    elif isinstance(items, (set, frozenset, dict)):
        what = f"a {type(items).__name__} has no order that ids could be taken in"
    elif hasattr(items, "__array__") and not isinstance(items, np.generic):  # pandas, torch
        return _collection(np.asarray(items))
    elif isinstance(items, (str, bytes, tuple)) or not isinstance(items, Iterable):
        what = f"a dataset takes several ids, a mask or a slice in brackets, got {items!r:.60}"
    else:
        return list(items)
    raise OptionError(
        explain(
            what, next="ids go in a list, one too: dataset[[id]]; or dataset.create_batch([id])"
        )
    )


def _is_mask(ids: Any) -> bool:
    if isinstance(ids, np.ndarray) and ids.dtype.kind != "O":
        return bool(ids.dtype.kind == "b")
    return not isinstance(ids, Index) and any(isinstance(one, (bool, np.bool_)) for one in ids)


def _masked(n: int, mask: Any) -> NDArray[np.int64]:
    array = np.asarray(mask)  # of a list; one with something else in it is not of bools
    if array.dtype.kind == "b" and len(array) == n:
        return np.flatnonzero(array)
    raise OptionError(
        explain(
            f"a mask must have a bool for each of the {n} items, got {len(array)} entries of "
            f"dtype {array.dtype}",
            next="make it from the index, or from data of this dataset",
        )
    )


def _sliced(n: int, items: slice) -> range:
    try:
        return range(n)[items]
    except (TypeError, ValueError) as error:
        raise OptionError(
            explain(
                f"a slice of a dataset is one of positions: {error}",
                next="dataset[10:20], or dataset[ids] for ids",
            )
        ) from None


def _refuse_floats(index: Index, ids: Any) -> None:
    """Refuse floats that would be taken for the ids 0 and 1; a mask of floats is a mistake."""
    floats = isinstance(ids, np.ndarray) and ids.dtype.kind == "f" and len(ids)
    if floats and not any(
        isinstance(id_, float) for id_ in index.ids(np.arange(min(len(index), 1)))
    ):
        raise OptionError(
            explain(
                f"ids of dtype {ids.dtype}, and the dataset has none such",
                next="a mask is of bools: dataset[mask.astype(bool)]; ids: ids.astype(int)",
            )
        )


def _found(index: Index, ids: Any) -> NDArray[np.int64]:
    try:
        found = index.find(ids)
    except TypeError as error:
        raise OptionError(f"ids must be hashable, as those of the dataset are: {error}") from None
    missing = np.flatnonzero(found < 0)
    if missing.size:
        lacking = _first(ids, missing[:_SHOWN])
        shown = ", ".join(map(repr, lacking)) + (", ..." if missing.size > _SHOWN else "")
        known = listed(index.ids(np.arange(min(len(index), _SEARCHED))))
        names = [id_ for id_ in known if isinstance(id_, str)]
        hint = near(lacking[0], names) if isinstance(lacking[0], str) else ""
        raise OptionError(
            explain(
                f"{missing.size} of {len(found)} ids are not in the dataset: {shown}",
                where=repr(index),
                next=hint or "see dataset.index; positions are taken by a slice: dataset[10:20]",
            )
        )
    return found


def _first(ids: Any, places: NDArray[np.int64]) -> list[Any]:
    if isinstance(ids, list):
        return [ids[place] for place in places.tolist()]
    return listed(ids.ids(places) if isinstance(ids, Index) else ids[places])
