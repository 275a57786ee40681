"""The rows of a batch, one for each item: of its data, and of its generators.

Data by items has one entry for each item, in their order: an array, a list, a tuple. The one object
of a batch without components, which is called ``data`` here, may also be a tuple of several such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import DataError, OptionError, explain
from flowcore.memory import LARGE, Allocate, aligned_empty
from flowcore.sampler import seed_sequence

__all__ = ["ItemStreams", "Stacks", "cut", "item_stream", "places_of", "row_of", "stacked"]

_ITEM = 2  # what these streams are for; the other purposes are those of `flowcore.sampler`
_WORD = 2**64 - 1


def row_of(value: Any, row: int, length: int, name: str) -> Any:
    """Return one item's entry of a component; of a NumPy array it is a view.

    Raises:
        DataError: the component does not have one entry for each of ``length`` items.
    """
    if name == "data" and isinstance(value, tuple):
        return tuple(row_of(part, row, length, f"data[{at}]") for at, part in enumerate(value))
    _check_length(value, length, name)
    return _by_place(value)[row]


def cut(value: Any, places: NDArray[np.int64], length: int, name: str) -> Any:
    """Return the entries of a component at ``places``, as what it is: an array, a list, a tuple.

    What is neither of these is asked for them at once, if it has dimensions, and else becomes a
    list.

    Raises:
        DataError: the component does not have one entry for each of ``length`` items.
    """
    if name == "data" and isinstance(value, tuple):
        return tuple(cut(part, places, length, f"data[{at}]") for at, part in enumerate(value))
    _check_length(value, length, name)
    if hasattr(value, "ndim"):
        return _by_place(value)[places]
    entries = [value[place] for place in places.tolist()]
    return tuple(entries) if isinstance(value, tuple) else entries


def stacked(values: list[Any], name: str = "", allocate: Allocate = aligned_empty) -> Any:
    """Return items' values as one array: stacked if they are alike, else of the objects they are.

    Args:
        values: one for each item. Alike are arrays, or what NumPy makes arrays of, of one shape and
            one kind: numbers, strings, dates.
        name: of ``"data"``, a batch's one object, equally long tuples become a tuple of arrays.
        allocate: makes an array of a shape and a dtype, for those that are stacked.

    Returns:
        An array of shape ``(len(values), ...)``, or ``(len(values),)`` of objects.
    """
    widths = {len(value) if isinstance(value, tuple) else 0 for value in values}
    if name == "data" and len(widths) == 1 and 0 not in widths:
        parts = zip(*values, strict=True)
        return tuple(stacked(list(part), f"data[{at}]", allocate) for at, part in enumerate(parts))
    arrays = [_array(value) for value in values]
    kinds = {"number" if array.dtype.kind in "biufc" else array.dtype.kind for array in arrays}
    if len(kinds) == len({array.shape for array in arrays}) == 1 and kinds != {"O"}:
        whole = allocate((len(arrays), *arrays[0].shape), np.result_type(*arrays))
        return np.stack(arrays, out=whole)
    objects = np.empty(len(values), object)
    for row, value in enumerate(values):  # one by one: NumPy would look into what is assigned
        objects[row] = value
    return objects


class Stacks:
    """The arrays that items' large arrays are stacked to, each written as soon as it is made.

    So its own memory is used again for the next item, and is still in the cache. If all were kept
    until the last is made, the system would give each of them new memory, and clear it first.

    Several threads may put rows at once.

    Args:
        length: number of items.
        allocate: makes an array of a shape and a dtype.
    """

    __slots__ = ("_allocate", "_length", "_rows", "_wholes")

    def __init__(self, length: int, allocate: Allocate) -> None:
        self._length, self._allocate = length, allocate
        self._wholes: dict[str, NDArray[Any]] = {}  # by component
        self._rows: dict[str, list[int]] = {}  # those that are in them

    def put(self, name: str, row: int, value: Any) -> Any:
        """Return an item's value; a large array that is like the first one, as its row."""
        if type(value) is not np.ndarray or value.nbytes < LARGE or value.dtype.kind not in "biufc":
            return value
        whole = self._wholes.get(name)
        if whole is None:
            shape, kind = (self._length, *value.shape), value.dtype.newbyteorder("=")
            whole = self._wholes.setdefault(name, self._allocate(shape, kind))
        if (value.shape, value.dtype) != (whole.shape[1:], whole.dtype):
            return value
        whole[row] = value
        self._rows.setdefault(name, []).append(row)
        return whole[row]

    def stacked(self, name: str, values: list[Any]) -> Any:
        """Return the items' values of a component as one array, as the function `stacked` does."""
        whole = self._wholes.get(name)
        if whole is None:
            return stacked(values, name, self._allocate)
        if len(self._rows.get(name, ())) == len(values) == self._length:
            return whole
        # They are no rows after all, and must not keep the whole array.
        own = [value.copy() if np.may_share_memory(value, whole) else value for value in values]
        return stacked(own, name, self._allocate)


def places_of(keep: Any, length: int) -> NDArray[np.int64]:
    """Return the places that ``keep`` means: a bool for each of ``length``, or places.

    Raises:
        OptionError: it is neither, or has a place twice, or one that there is not.
    """
    array = np.asarray(keep)
    if array.ndim == 1 and array.dtype == bool and len(array) == length:
        return np.flatnonzero(array)
    if array.ndim == 1 and (array.dtype.kind in "iu" or not array.size) and array.dtype != bool:
        places = array.astype(np.int64)
        inside = not places.size or (places.min() >= 0 and places.max() < length)
        if inside and len(np.unique(places)) == len(places):
            return places
    raise OptionError(
        explain(
            f"a subset of {length} items takes {length} bools, or different places in "
            f"0..{length - 1}",
            why=f"it was given {keep!r:.60} (shape {array.shape}, dtype {array.dtype})",
        )
    )


def item_stream(seed: int, epoch: int, key: int) -> np.random.Generator:
    """Return the generator of one item in one epoch.

    The streams of a seed are parts of one sequence of a counter-based generator (Philox), at 2**128
    blocks from each other: they cannot overlap.

    Args:
        seed: of the run, a non-negative int of any size.
        epoch: from zero.
        key: tells the item from all others; its position.
    """
    bits = np.random.Philox(_item_seed(seed, epoch, key))
    counter = np.array([0, 0, key & _WORD, epoch], np.uint64)
    bits.state = {
        "bit_generator": "Philox",
        "state": {"counter": counter, "key": _philox_key(seed)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,  # so nothing of the buffer is used
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(bits)


class ItemStreams(Sequence["np.random.Generator"]):  # quoted: it loads `numpy.random`
    """The generators of a batch's items, one a row, each made when it is first asked for."""

    def __init__(self, seed: int | None, epoch: int, keys: NDArray[np.int64]) -> None:
        self._seed, self._epoch, self._keys = seed, epoch, keys
        # By row. The threads of one batch write here, each its own rows.
        self._made: dict[int, np.random.Generator] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[at] for at in range(len(self))[row]]
        row = range(len(self))[row]  # counts from the end, too; an IndexError behind it
        if row not in self._made:
            self._made[row] = (
                np.random.default_rng()
                if self._seed is None
                else item_stream(self._seed, self._epoch, int(self._keys[row]))
            )
        return self._made[row]

    def cut(self, places: NDArray[np.int64]) -> ItemStreams:
        """Return the generators at ``places``; those that were made go on where they are."""
        chosen = ItemStreams(self._seed, self._epoch, self._keys[places])
        rows = enumerate(places.tolist())
        chosen._made = {row: self._made[place] for row, place in rows if place in self._made}
        return chosen


@lru_cache(maxsize=64)
def _philox_key(seed: int) -> NDArray[np.uint64]:
    return seed_sequence(seed, _ITEM).generate_state(2, np.uint64).astype(np.uint64, copy=False)


class _ItemSeed:
    """What a generator of an item makes its children of.

    The state that it is asked for first is replaced at once, so it costs nothing. (Made with a key
    alone, a Philox asks the system for entropy, which takes longer than all the rest.)
    """

    def __init__(self, seed: int, *key: int) -> None:
        self._seed, self._key = seed, key
        self._sequence: np.random.SeedSequence | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _item_seed, (self._seed, *self._key), {"_sequence": self._sequence}

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        return np.zeros(n_words, dtype)

    def spawn(self, n_children: int) -> list[Any]:
        if self._sequence is None:
            self._sequence = seed_sequence(self._seed, _ITEM, *self._key)
        return self._sequence.spawn(n_children)


def _item_seed(seed: int, *key: int) -> Any:
    _make_known()
    return _ItemSeed(seed, *key)


@cache
def _make_known() -> None:
    """Make `_ItemSeed` known to NumPy; not before it is used, as that loads `numpy.random`."""
    np.random.bit_generator.ISpawnableSeedSequence.register(_ItemSeed)


def _by_place(value: Any) -> Any:
    """Return what takes places in square brackets; those of pandas take labels."""
    return value if isinstance(value, np.ndarray) else getattr(value, "iloc", value)


def _array(value: Any) -> NDArray[Any]:
    """Return a value as an array, of objects where one of another dtype would lose something."""
    lossy = isinstance(value, (bytes, bytearray, np.ma.MaskedArray)) or (
        isinstance(value, str) and value.endswith("\0")  # as bytes, arrays end at the last other
    )
    if not lossy:
        try:
            return np.asarray(value)
        except (TypeError, ValueError):  # lists of different lengths; a tensor on a device
            pass
    return np.empty((), object)


def _check_length(value: Any, length: int, name: str) -> None:
    by_items = all(hasattr(value, name) for name in ("__getitem__", "__len__"))
    by_items = by_items and getattr(value, "ndim", None) != 0
    if by_items and not isinstance(value, (str, bytes, Mapping)):
        if len(value) == length:
            return
        problem = f"has {len(value)} entries for {length} items"
    else:
        problem = f"is one {type(value).__name__}, and has no entry for each item"
    raise DataError(
        explain(
            f"{name!r} {problem}",
            next="let it have one entry for each item of the batch, in their order",
        )
    )
