"""What a batch of `transfer.py` costs to make and to use, and how a run of them is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from family import Family
from harness import Measures, peak_mb
from numpy.typing import NDArray

__all__ = [
    "BYTES",
    "SHAPE",
    "WAITING",
    "WORKERS",
    "Batch",
    "Making",
    "fresh",
    "measured",
    "think",
    "use",
]

Batch: TypeAlias = NDArray[np.float32]
Making: TypeAlias = "Callable[[int], Iterable[Any]]"  # makes so many batches

SHAPE = (64, 3, 224, 224)
BYTES = int(np.prod(SHAPE)) * 4  # 38.5 MB
WORKERS = 2
WAITING = 4  # batches ahead of the consumer, of all workers together, where that can be said
LOOPS = 130_000  # a few milliseconds of Python, as an action has that is not all NumPy

BEFORE, AFTER = 30, 8  # batches outside of the clock: until all workers and all memory are there
TIMED = 120, 30  # batches under the clock, in a long run and in a short one


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


def measured(make: Making, short: bool) -> Measures:
    """Return what batches cost in the middle of a run, when all workers are at work.

    Args:
        make: makes so many batches.
        short: make fewer.
    """
    family, timed = Family(), TIMED[short]
    for number, batch in enumerate(make(BEFORE + timed + AFTER), 1):
        use(batch, number - 1)
        if number == BEFORE // 2:
            family.find()
        elif number == BEFORE:
            start, before = time.perf_counter(), family.seconds()
        elif number == BEFORE + timed:
            took, cpu = time.perf_counter() - start, family.seconds() - before
            memory = family.megabytes()
    assert number == BEFORE + timed + AFTER, number
    measures = {"batches_s": timed / took, "cpu_ms": cpu / timed * 1e3}
    return {**measures, "memory_mb": memory, "peak_mb": peak_mb()}
