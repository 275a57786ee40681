"""Several batches made one: of a mixture's parts, and of what comes before a `rebatch`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore.batch import Batch, checked_components
from flowcore.errors import DataError, explain

__all__ = ["attach", "concatenated", "piece", "rows_left"]


def piece(batch: Batch, rows: slice) -> Batch:
    """Return a batch of some of a batch's items, with copies of their data."""
    part = copy.copy(batch).subset(np.arange(len(batch))[rows])
    for name, value in vars(part).items():  # arrays of numbers are copies already
        if isinstance(value, (list, tuple)) or getattr(value, "dtype", np.dtype(int)).hasobject:
            vars(part)[name] = copy.deepcopy(value)
    return part


def concatenated(batches: Sequence[Batch], batch_class: type[Batch]) -> Batch:
    """Return a batch of the items of all, in their order; ``positions`` is for the caller to set.

    Raises:
        DataError: they do not have the same components.
    """
    first = batches[0]
    made = batch_class(joined([batch.index for batch in batches]))
    made.positions = np.concatenate([batch.positions for batch in batches])
    if any(batch._keys is not None for batch in batches):
        keys = [batch.positions if batch._keys is None else batch._keys for batch in batches]
        made._keys = np.concatenate(keys)
    names = [tuple(batch.data) if batch.components else None for batch in batches]
    for batch, other in zip(batches, names, strict=True):
        if (other is not None and set(other) != set(names[0] or ())) or (other is None) != (
            names[0] is None
        ):
            raise DataError(
                explain(
                    f"batches of different components cannot be made one: {names[0]} and {other}",
                    where=f"{first!r} and {batch!r}",
                    next="let all of them have the same components, by the same names",
                )
            )
    if names[0] is None:
        if first.data is not None:
            made.data = joined([batch.data for batch in batches])
        return made
    attach(made, {name: joined([batch.data[name] for batch in batches]) for name in names[0]})
    return made


def rows_left(asked: NDArray[np.int64], batch: Batch) -> NDArray[np.int64]:
    """Return which of the items asked for a batch still has, as places in ``asked``.

    Raises:
        DataError: it has others, or has them in another order.
    """
    found = batch.positions
    if np.array_equal(asked, found):
        return np.arange(len(asked))
    rows: list[int] = []  # some were dropped: what is left must come in the same order
    for row, position in enumerate(asked.tolist()):
        if len(rows) < len(found) and position == found[len(rows)]:
            rows.append(row)
    if len(rows) < len(found):
        raise DataError(
            explain(
                "a pipeline inside of a join or a mixture changed its items, or their order",
                where=repr(batch),
                next="let its actions keep batch.index and batch.positions as they are",
            )
        )
    return np.array(rows, np.int64)


def attach(batch: Batch, components: dict[str, Any]) -> None:
    """Set components of a batch, also those that its class does not declare."""
    new = tuple(name for name in components if name not in batch.components)
    if new:
        checked_components(new)
        batch.components = (*batch.components, *new)
    batch.data = {**batch.data, **components}


def joined(values: Sequence[Any]) -> Any:
    """Return arrays, or lists, one after the other; of unequal items an array of objects."""
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, list) for value in values):
        return [item for value in values for item in value]
    if any(value is None for value in values):
        raise DataError("a batch without data cannot be made one with another")
    arrays: list[NDArray[Any]] = [np.asarray(value) for value in values]
    same_kind = len({_kind(array) for array in arrays}) == 1
    if same_kind and len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    made = np.empty(sum(map(len, arrays)), object)
    made[:] = [item for array in arrays for item in array]
    return made


def _kind(array: NDArray[Any]) -> str:
    """Return what may be joined without changing what it is: numbers, or one kind of others."""
    return "number" if array.dtype.kind in "iuf" else array.dtype.kind
