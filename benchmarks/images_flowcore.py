"""How `images.py` makes its batches with flowcore; a module, so that worker processes find it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from images_work import SHAPE, SIZE, batch, batch_in_place, load

import flowcore as fc

__all__ = ["batches"]


class Photos(fc.Batch):
    """A batch, as a user writes it."""

    @fc.action
    def load_all(self) -> Photos:
        self.data = batch(self.number)
        return self

    @fc.action
    def load_in_place(self) -> Photos:
        self.data = batch_in_place(self.number, self.empty(SHAPE, np.float32))
        return self

    @fc.action(each="item")
    def load_each(item: Any) -> Any:
        return load(item.position)

    @fc.action(each="item", concurrency=2)
    def load_two_at_once(item: Any) -> Any:
        return load(item.position)


def batches(number: int, action: str, **options: Any) -> Iterator[Any]:
    """Generate so many batches of a run with these options."""
    pipeline = getattr(fc.Dataset(number * SIZE, Photos).p, action)()
    for made in pipeline.gen_batch(SIZE, **options):
        yield made.data
