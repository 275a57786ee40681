"""From a batch to arrays that a queue can adopt: counted, cast, checked, aligned, read-only.

Nothing here knows TensorFlow, so it runs in any worker process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore import Batch, aligned_empty
from flowcore.errors import DataError, explain
from flowcore.memory import frozen

__all__ = ["Arrays", "Fitter", "Slots"]

Arrays = tuple[NDArray[Any], ...]
Freeze = Callable[[NDArray[Any], np.dtype[Any]], NDArray[Any]]
Shape = tuple[int | None, ...] | None  # None: of any rank; a None in it: of any length


@dataclass(frozen=True, slots=True)
class Slots:
    """What a queue takes: the dtype and shape of each component, as plain data.

    Attributes:
        dtypes: NumPy's; ``object`` for strings.
        shapes: of each component of one item.
        names: of the components, for a queue that takes a dict.
    """

    dtypes: tuple[np.dtype[Any], ...]
    shapes: tuple[Shape, ...]
    names: tuple[str, ...] | None = None

    def is_exactly(self, array: NDArray[Any]) -> bool:
        """Return whether an array, of numbers, is the only component as it stands."""
        return (
            len(self.dtypes) == 1
            and array.dtype == self.dtypes[0]
            and self.shapes[0] in (None, array.shape)
            and self.names is None
            and not array.dtype.hasobject
        )

    def called(self, at: int) -> str:
        """Return what a component is called in messages."""
        return repr(self.names[at]) if self.names else str(at)


def _frozen(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return frozen(array, dtype, aligned_empty)


@dataclass(frozen=True, slots=True)
class Fitter:
    """Makes the arrays of a batch; called in the workers.

    Attributes:
        get_tensor: of the batch; ``None`` is ``batch.get_tensor()``, or the batch's components
            for a queue that has names for them.
        slots: what the queue takes; ``None`` where there is no queue before the first item.
        many: the first axis counts items of the queue.
    """

    get_tensor: Callable[[Any], Any] | None
    slots: Slots | None
    many: bool

    def __call__(self, batch: Batch) -> Arrays:
        """Return one array for each component of the queue, that nobody writes to any more.

        It is the one of ``get_tensor``, made read-only, or a copy: see `Batch.frozen`. The copy is
        made where the batch has its arrays: in a worker process, in shared memory.

        Raises:
            DataError: a number of components, a dtype or a shape that the queue does not take.
        """
        return self.fit(self._tensor(batch), batch, batch.frozen)

    def fit(self, tensor: Any, where: object, freeze: Freeze = _frozen) -> Arrays:
        """Return the arrays of what ``get_tensor`` returned.

        Args:
            tensor: the array, the tuple or the dict.
            where: shown in errors.
            freeze: returns an array, with the dtype, that is not written to any more.
        """
        slots = self.slots
        single = type(tensor) is np.ndarray and not self.many
        if single and slots is not None and slots.is_exactly(tensor):
            return (freeze(tensor, tensor.dtype),)  # as most often; the rest takes longer
        parts = self._parts(tensor, where)
        if self.many:
            _check_lengths(parts, where)
        dtypes: Iterable[np.dtype[Any]] = [part.dtype for part in parts]
        if slots is not None:
            dtypes = slots.dtypes
            for at, part in enumerate(parts):
                _check(part, at, slots, self.many, where)
        return tuple(
            _fitted(part, dtype, at, where, freeze)
            for at, (part, dtype) in enumerate(zip(parts, dtypes, strict=True))
        )

    def _tensor(self, batch: Batch) -> Any:
        if self.get_tensor is not None:
            return self.get_tensor(batch)
        names = self.slots.names if self.slots is not None else None
        if names and type(batch).get_tensor is Batch.get_tensor:
            return _components(batch, names)
        return batch.get_tensor()

    def _parts(self, tensor: Any, where: object) -> Arrays:
        names = self.slots.names if self.slots is not None else None
        if isinstance(tensor, Mapping):
            if names is None:
                raise _unwanted_dict(tensor, where)
            if set(tensor) != set(names):
                raise DataError(
                    explain(
                        f"get_tensor returned a dict with the keys {sorted(tensor)}, "
                        f"the queue's names are {sorted(names)}",
                        where=str(where),
                        next="return exactly these keys",
                    )
                )
            values = tuple(tensor[name] for name in names)
        elif names is not None:
            raise DataError(
                explain(
                    f"the queue has names ({', '.join(names)}), and get_tensor returned "
                    f"{type(tensor).__name__}",
                    where=str(where),
                    next="return a dict with one array for each name",
                )
            )
        else:
            values = tensor if isinstance(tensor, tuple) else (tensor,)
        if not values:
            raise DataError(explain("get_tensor returned an empty tuple", where=str(where)))
        if self.slots is not None and len(values) != len(self.slots.dtypes):
            raise DataError(
                explain(
                    f"get_tensor returned {len(values)} components, "
                    f"the queue takes {len(self.slots.dtypes)}",
                    where=str(where),
                    next="return a tuple with one array for each dtype of the queue; "
                    "a list is one tensor",
                )
            )
        return tuple(_array(value, where) for value in values)


def _components(batch: Batch, names: tuple[str, ...]) -> dict[str, Any]:
    loaded = batch.data if isinstance(batch.data, Mapping) else {}
    missing = [name for name in names if name not in loaded]
    if missing:
        raise DataError(
            explain(
                f"the queue has the name {missing[0]!r}, and the batch no such component",
                where=repr(batch),
                why=f"its components: {', '.join(loaded) or 'none'}",
                next="load it in an action, or pass get_tensor= that returns a dict by the "
                "queue's names",
            )
        )
    return {name: loaded[name] for name in names}


def _check_lengths(parts: Arrays, where: object) -> None:
    lengths = {part.shape[:1] for part in parts}
    if len(lengths) != 1 or () in lengths:
        raise DataError(
            explain(
                "many=True needs components with one entry for each item",
                where=str(where),
                why=f"their shapes are {', '.join(str(part.shape) for part in parts)}",
                next="return arrays of equal first axes from get_tensor",
            )
        )


def _fitted(
    part: NDArray[Any], dtype: np.dtype[Any], at: int, where: object, freeze: Freeze
) -> NDArray[Any]:
    if dtype.hasobject:  # it was made here, of strings
        return part
    made = freeze(part, dtype)
    if made is not part and part.dtype != dtype:
        _check_values(part, made, at, where)
    return made


def _array(value: Any, where: object) -> NDArray[Any]:
    try:
        array = np.asarray(value)
        if array.dtype.kind in "US" and not isinstance(value, (np.ndarray, np.generic)):
            array = np.array(value, dtype=object)  # NumPy's own strings lose NULs at their end
    except ValueError as error:  # lists of unequal lengths
        raise DataError(
            explain(
                f"what get_tensor returned is no array: {error}",
                where=str(where),
                next="return arrays, or lists of equal lengths",
            )
        ) from None
    if array.dtype.kind in "USTO":
        return _encoded(array, where)
    if array.dtype.kind in "mM" or array.dtype.names or array.dtype.char in "gG":
        raise DataError(
            explain(
                f"a queue takes no {array.dtype}",
                where=str(where),
                next="convert it in get_tensor: array.astype('int64'), or 'float64'",
            )
        )
    return array


def _encoded(array: NDArray[Any], where: object) -> NDArray[Any]:
    """Return strings as an object array of bytes; refuse other objects."""
    encoded = np.empty(array.size, object)
    for at, value in enumerate(array.flat):
        if not isinstance(value, (str, bytes)):
            raise DataError(
                explain(
                    f"what get_tensor returned holds {type(value).__name__} objects",
                    where=str(where),
                    next="return arrays of numbers or of strings: np.array(..., dtype=...)",
                )
            )
        try:
            encoded[at] = value.encode() if isinstance(value, str) else value
        except UnicodeEncodeError as error:
            raise DataError(explain(f"a string is not UTF-8: {error}", where=str(where))) from None
    return encoded.reshape(array.shape)


def _check(array: NDArray[Any], at: int, slots: Slots, many: bool, where: object) -> None:
    wanted, shape = slots.dtypes[at], slots.shapes[at]
    found = array.shape[1:] if many else array.shape
    if shape is not None and not (
        len(found) == len(shape)
        and all(length in (None, real) for length, real in zip(shape, found, strict=True))
    ):
        raise DataError(
            explain(
                f"component {slots.called(at)} has shape {found}"
                f"{' for each item' if many else ''}, the queue takes {shape}",
                where=str(where),
                next=_shape_advice(found, shape, many),
            )
        )
    if array.dtype == wanted or (
        not (array.dtype.hasobject or wanted.hasobject)
        and np.can_cast(array.dtype, wanted, "same_kind")
    ):
        return
    raise DataError(
        explain(
            f"component {slots.called(at)} has dtype {_shown(array.dtype)}, "
            f"the queue takes {_shown(wanted)}",
            where=str(where),
            why="NumPy calls that no cast of the same kind, so it could change the values",
            next=f"say so in get_tensor: array.astype({_spelled(wanted)}); or make the queue with "
            "that dtype",
        )
    )


def _check_values(array: NDArray[Any], made: NDArray[Any], at: int, where: object) -> None:
    """Refuse a cast between integers that changed a value: NumPy wraps without a word."""
    narrowed = (
        array.dtype.kind in "iu"
        and made.dtype.kind in "iu"
        and not np.can_cast(array.dtype, made.dtype, "safe")
    )
    if narrowed and not np.array_equal(array, made):
        raise DataError(
            explain(
                f"component {at} has values that {made.dtype} does not hold",
                where=str(where),
                why=f"it is {array.dtype}, from {array.min()} to {array.max()}",
                next=f"make the queue with {array.dtype}, or bring the values into range",
            )
        )


def _spelled(dtype: np.dtype[Any]) -> str:
    return "str" if dtype.kind == "O" else repr(str(dtype))


def _shown(dtype: np.dtype[Any]) -> str:
    return "string (object)" if dtype.kind == "O" else str(dtype)


def _shape_advice(found: tuple[int, ...], shape: tuple[int | None, ...], many: bool) -> str:
    if not many and len(found) == len(shape) + 1:
        return "to put the items of a batch one by one, say many=True"
    if len(found) == len(shape) and found[1:] == shape[1:]:
        return "a last short batch? drop_last=True leaves it out; or give the queue no shape"
    return "reshape it in get_tensor, or make the queue with that shape, or with none"


def _unwanted_dict(tensor: Mapping[str, Any], where: object) -> DataError:
    return DataError(
        explain(
            f"get_tensor returned a dict ({', '.join(map(str, tensor))}), the queue has no names",
            where=str(where),
            next="return a tuple in the order of the queue's dtypes, or make the queue with names=",
        )
    )
