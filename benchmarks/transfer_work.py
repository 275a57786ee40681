"""The work of `transfer.py`, the same for every system: what a batch costs to make and to use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BYTES", "SHAPE", "WAITING", "WORKERS", "Batch", "fresh", "think", "use"]

Batch = NDArray[np.float32]

SHAPE = (64, 3, 224, 224)
BYTES = int(np.prod(SHAPE)) * 4  # 38.5 MB
WORKERS = 2
WAITING = 4  # batches ahead of the consumer, of all workers together, where that can be said
LOOPS = 130_000  # a few milliseconds of Python, as an action has that is not all NumPy


def think() -> None:
    """Hold the interpreter, as Python code does."""
    total = 0
    for number in range(LOOPS):
        total += number


def fresh(number: int) -> Batch:
    """Make batch ``number``: an array that the system has not seen, filled with the number."""
    think()
    return np.full(SHAPE, number, np.float32)


def use(batch: Any, number: int) -> None:
    """Read every value of the batch, and see that it is batch ``number``.

    Raises:
        AssertionError: it is another batch, or of another shape or dtype, or torn.
    """
    assert batch.shape == SHAPE, batch.shape
    assert batch.dtype == np.float32, batch.dtype
    assert batch.flat[0] == batch.flat[-1] == number, (batch.flat[0], batch.flat[-1], number)
    assert np.isclose(batch.mean(), number), (batch.mean(), number)
