"""How `transfer.py` makes its batches with flowcore."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from transfer_work import SHAPE, WAITING, WORKERS, Batch, fresh, think

import flowcore as fc

__all__ = ["pool", "run"]


class Pictures(fc.Batch):
    """The batch, as a user writes it."""

    @fc.action
    def make(self) -> Pictures:
        self.data = fresh(self.number)
        return self

    @fc.action
    def fill(self) -> Pictures:
        think()
        self.data = self.empty(SHAPE, np.float32)
        self.data[...] = self.number
        return self


def run(batches: int, *, action: str = "make", **options: Any) -> Iterator[Batch]:
    """Yield the data of the batches of a run with these options."""
    pipeline = getattr(fc.Dataset(batches * SHAPE[0], Pictures).p, action)()
    options = {"num_workers": WORKERS, "prefetch": WAITING, **options}
    for batch in pipeline.gen_batch(SHAPE[0], **options):
        yield batch.data


def pool(batches: int) -> Iterator[Batch]:
    """Yield the batches of a run in a pool of processes of the standard library."""
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as executor:
        yield from run(batches, executor=executor)
