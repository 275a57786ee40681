"""The batches that the contracts run on, and their contents as something that compares by bytes.

They are at the top level of a module so that they can be sent to workers in other processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowcore.actions import action
from flowcore.batch import Batch

__all__ = ["Broken", "NamedBatch", "PlainBatch", "StrictError", "contents", "seen"]


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


def contents(value: Any) -> Any:
    """Return arrays, in whatever they are nested, as what ``==`` compares bit for bit."""
    if isinstance(value, Mapping):
        return {name: contents(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [contents(part) for part in value]
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return value.shape, [contents(part) for part in value.ravel().tolist()]
        return value.dtype.str, value.shape, value.tobytes()
    return value


def seen(batches: Iterable[Batch]) -> list[Any]:
    """Return all that a consumer can see of some batches."""
    return [
        (batch.epoch, batch.number, contents(batch.index), contents(batch.data))
        for batch in batches
    ]
