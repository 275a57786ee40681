"""The batches that the contracts run on, and their contents as something that compares by bytes.

They are at the top level of a module so that they can be sent to workers in other processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowcore.actions import action
from flowcore.batch import Batch
from flowcore.items import Item

__all__ = [
    "AlignedBatch",
    "Broken",
    "ItemsBatch",
    "NamedBatch",
    "PlainBatch",
    "Seen",
    "StrictError",
    "contents",
    "seen",
]


class Seen(NamedTuple):
    """A batch as its consumer sees it, with its `contents` in place of its values.

    Attributes:
        epoch: of the batch.
        number: of the batch in its epoch.
        ids: of its items.
        parts: its data, as ``"data"``, and its other attributes by name.
    """

    epoch: int
    number: int
    ids: Any
    parts: dict[str, Any]


class Broken(Exception):
    """What the contracts' actions raise."""


class StrictError(Exception):
    """An exception as users write them, which cannot be made again from its ``args``."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class PlainBatch(Batch):
    """A batch of one array."""

    @action
    def double(self) -> PlainBatch:
        """Multiply by two."""
        self.data = self.data * 2
        return self

    @action
    def jitter(self) -> PlainBatch:
        """Add noise from the batch's own generator."""
        self.data = self.data + self.rng.normal(size=self.data.shape)
        return self

    @action
    def replace(self) -> Batch:
        """Go on with another batch object."""
        return PlainBatch(self.index, self.positions, data=self.data + 1)

    @action
    def spoil(self) -> PlainBatch:
        """Overwrite the array in place."""
        self.data[...] = -1
        return self

    @action
    def open_nothing(self) -> PlainBatch:
        """Open a file that does not exist."""
        Path("no such folder/at all").read_bytes()
        return self

    @action
    def fail(self, number: int, error: type[Exception], *args: Any) -> PlainBatch:
        """Raise ``error(*args)`` in the batch called ``number``."""
        if self.number == number:
            raise error(*args)
        return self

    @action
    def fail_once(self, number: int, folder: Path) -> PlainBatch:
        """Raise in the first attempt at ``number``; a file keeps count, as workers share none."""
        if self.number == number and not (folder / "failed").exists():
            (folder / "failed").touch()
            raise Broken("once")
        return self

    @action
    def call(self, function: Any) -> PlainBatch:
        """Call ``function`` with the batch; for workers that share memory with the test."""
        function(self)
        return self


class NamedBatch(Batch):
    """A batch of two components."""

    components = ("images", "labels")

    @action
    def relabel(self) -> NamedBatch:
        """Change the type of one component, and the values of both."""
        images, labels = self.data.values()
        self.data = images + 0.5, (labels % 3).astype(np.int8)
        return self


class ItemsBatch(Batch):
    """A batch whose actions are of single items, or async."""

    components = "x", "noise"

    @action
    def load(self) -> ItemsBatch:
        """Make both components."""
        self.data = self.positions * 1.0, self.rng.random(len(self))
        return self

    @action(each="item")
    def jitter(item: Item) -> Item:
        """Add noise from the item's own generator."""
        item.noise = item.noise + item.rng.random()
        return item

    @action(each="item", concurrency=3)
    def jitter_at_once(item: Item, bad: tuple[int, ...] = ()) -> Item:
        """Add noise, in several threads; raise for the ids in ``bad``."""
        if item.id in bad:
            raise Broken(f"item {item.id}")
        item.noise = item.noise + item.rng.random()
        return item

    @action(each="item")
    async def jitter_async(item: Item) -> Item:
        """Add noise, in a task of the event loop."""
        item.noise = item.noise + item.rng.random()
        return item

    @action
    async def double(self) -> ItemsBatch:
        """Multiply by two, in a task of the event loop."""
        self.noise = self.noise * 2
        return self

    @action
    def add(self, amount: Any, draws: Any = 0) -> ItemsBatch:
        """Add to one component."""
        self.noise = self.noise + amount + draws
        return self


class AlignedBatch(PlainBatch):
    """A batch that asks for the array of its output."""

    @action
    def double_aligned(self) -> AlignedBatch:
        """Multiply by two, into an array of the run."""
        made = self.empty(self.data.shape, np.float32)
        if made.ctypes.data % 64:
            raise Broken(f"the array starts {made.ctypes.data % 64} bytes behind a multiple of 64")
        np.multiply(self.data, 2, out=made)
        self.data = made
        return self


def contents(value: Any, _inside: tuple[int, ...] = ()) -> Any:
    """Return a value, arrays in whatever they are nested in too, as what ``==`` compares by bytes.

    An array is its dtype, shape and bytes, or the list of its objects; an object that has no
    equality of its own is its parts, as `pickle` takes it apart.
    """
    if id(value) in _inside:
        return "itself"
    if isinstance(value, Mapping):
        return {name: contents(part, (*_inside, id(value))) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [contents(part, (*_inside, id(value))) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            return value.dtype, value.shape, contents(value.ravel().tolist(), _inside)
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, float):
        return contents(np.float64(value))  # so that NaN is NaN, and -0.0 is not 0.0
    return value if _has_equality(value) else _parts(value, (*_inside, id(value)))


def _has_equality(value: Any) -> bool:
    equal: Any = type(value).__eq__
    try:
        return callable(value) or (equal is not object.__eq__ and value == value) is True
    except Exception:  # of a table of pandas, say
        return False


def _parts(value: Any, inside: tuple[int, ...]) -> Any:
    try:
        made_by, *parts = value.__reduce_ex__(4)
    except Exception:  # a lock, say
        return value
    parts = [list(part) if isinstance(part, Iterator) else part for part in parts]
    return [made_by, contents(parts, inside)]


def seen(batches: Iterable[Batch]) -> list[Seen]:
    """Return all that a consumer can see of some batches, as it is when each is handed over."""
    return [
        Seen(
            batch.epoch,
            batch.number,
            contents(batch.index),
            {**contents(_attributes(batch)), "data": contents(batch.data)},
        )
        for batch in batches
    ]


def _attributes(batch: Batch) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(batch).items()
        if not name.startswith("_") and name not in ("index", *batch.components)
    }
