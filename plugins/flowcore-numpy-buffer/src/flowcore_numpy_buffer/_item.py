"""What one batch brings: its arrays, copied, and enough to name it in an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from flowcore import Batch
from flowcore.errors import DataError, explain

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Item", "Key", "assembled"]

# Which of a batch's arrays: by component name, by place in a tuple, or None for the only one.
Key: TypeAlias = str | int | None
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """The arrays of one batch. Plain data: it may come from another process.

    Attributes:
        epoch: of the batch, from zero.
        number: of the batch in its epoch, from zero.
        items: how many the batch has; an array may have another number of rows.
        arrays: each with the same length along axis 0; the item's own, no view of the batch's.
    """

    epoch: int
    number: int
    items: int
    arrays: dict[Key, NDArray[Any]]

    @classmethod
    def of(cls, batch: Batch, get_tensor: Callable[[Any], Any] | None) -> Item:
        """Copy what ``get_tensor``, or the default, returns for a batch.

        Raises:
            DataError: it cannot be arrays of one length.
        """
        tensor = _default_tensor(batch) if get_tensor is None else get_tensor(batch)
        item = cls(batch.epoch, batch.number, len(batch), {})
        for key, value in _by_key(tensor, item).items():
            item.arrays[key] = _copied(value, item.where(key))
        item._check_lengths()
        return item

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def where(self, key: Key = None) -> str:
        """Name the batch, and one of its arrays, for an error."""
        batch = f"batch {self.number} of epoch {self.epoch}"
        return batch if key is None else f"{batch}, {_called(key)}"

    def _check_lengths(self) -> None:
        lengths = {key: len(array) for key, array in self.arrays.items()}
        if len(set(lengths.values())) > 1:
            first, length = next(iter(lengths.items()))
            other = next(key for key in lengths if lengths[key] != length)
            raise DataError(
                explain(
                    f"{_called(first)} has shape {self.arrays[first].shape}, "
                    f"{_called(other)} has shape {self.arrays[other].shape}",
                    where=self.where(),
                    why="axis 0 counts the items, and a batch has as many of each component",
                    next="let the actions, or get_tensor=, keep one entry for each item",
                )
            )


def assembled(parts: Mapping[Key, Value]) -> Value | tuple[Value, ...] | dict[str, Value]:
    """Return parts in the form that ``get_tensor`` gave them: itself, a tuple or a dict."""
    if None in parts:
        return parts[None]
    if 0 in parts:
        return tuple(parts.values())
    return {str(key): part for key, part in parts.items()}


def _default_tensor(batch: Batch) -> Any:
    data = batch.data
    has_its_own = type(batch).get_tensor is not Batch.get_tensor
    if has_its_own or data is None or (isinstance(data, dict) and not data):
        return batch.get_tensor()  # which says what is missing, if there is no data
    if isinstance(data, dict) and len(data) < len(batch.components):
        return batch.get_tensor()  # which says what is missing
    if isinstance(data, dict) and len(data) == 1:
        return next(iter(data.values()))
    if isinstance(data, tuple) and len(data) == 1:
        return data[0]
    return data


def _by_key(tensor: Any, item: Item) -> Mapping[Key, Any]:
    if isinstance(tensor, Mapping):
        parts: Mapping[Key, Any] = tensor
        nameless = [key for key in tensor if not isinstance(key, str)]
    else:
        parts = dict(enumerate(tensor)) if isinstance(tensor, tuple) else {None: tensor}
        nameless = []
    if nameless or not parts or tensor is None:
        raise DataError(
            explain(
                f"a batch cannot be collected as {tensor!r:.80}",
                where=item.where(),
                next="let get_tensor return an array, a tuple of arrays, or a dict of arrays by "
                "component name",
            )
        )
    return parts


def _copied(value: Any, where: str) -> NDArray[Any]:
    try:
        array = np.array(value, order="C")  # a copy: later steps may write to the batch's arrays
    except ValueError as error:
        raise DataError(
            explain(
                f"items of different shapes: {_two_shapes(value)}",
                where=where,
                why=f"NumPy: {error}",
                next="pad or crop them to one shape in an action before",
            )
        ) from error
    if array.ndim == 0:
        raise DataError(
            explain(
                f"{value!r:.60} has shape (), so it holds no items",
                where=where,
                next="give an array with one entry for each item along axis 0",
            )
        )
    return array


def _two_shapes(value: Any) -> str:
    try:
        shapes = [np.shape(entry) for entry in value]
    except (TypeError, ValueError):
        return "nested to different depths"
    other = next((shape for shape in shapes if shape != shapes[0]), "another")
    return f"{shapes[0]} and {other}"


def _called(key: Key) -> str:
    return f"array {key} of the tuple" if isinstance(key, int) else f"component {key!r}"
