"""What `overhead.py` and its peers make: the rows, batches of them, and how a pass is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from harness import Measures, cpu_seconds, peak_mb

__all__ = [
    "AHEAD",
    "BATCHES",
    "CHUNK",
    "ROWS",
    "SIZE",
    "Making",
    "data",
    "eight",
    "gathered",
    "measured",
    "sliced",
]

ROWS, WIDTH, SIZE, AHEAD, CHUNK = 200_000, 16, 32, 4, 8
BATCHES = ROWS // SIZE
ENOUGH = 1.0, 0.2  # seconds under the clock, in a long run and in a short one

Making = Callable[[], Iterable[Any]]  # makes the batches of a pass


@cache
def data() -> np.ndarray:
    """Return the rows. Each value says where it stands, and is exact, also doubled."""
    return np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)


@cache
def places() -> np.ndarray:
    """Return the positions of the rows of each batch, as a shuffled run would have them."""
    return np.arange(ROWS).reshape(BATCHES, SIZE)


def sliced(number: int) -> np.ndarray:
    """Return a batch by its number, as one who reads in order would make it by hand."""
    return data()[number * SIZE : (number + 1) * SIZE] * 2


def gathered(number: int) -> np.ndarray:
    """Return a batch by its number, with an array of positions, as any order needs one."""
    return data()[places()[number]] * 2


def eight(start: int) -> list[np.ndarray]:
    """Return as many batches as are handed over at once."""
    return [gathered(number) for number in range(start, min(start + CHUNK, BATCHES))]


def measured(
    make: Making,
    short: bool,
    *,
    array: Callable[[Any], np.ndarray] = np.asarray,
    shuffled: bool = False,
) -> Measures:
    """Return the measures of passes, of which one before them is checked.

    Args:
        make: makes the batches of a pass.
        short: measure fewer passes.
        array: returns the array of a batch.
        shuffled: they are to come in another order than they stand in.
    """
    check(map(array, make()), shuffled)
    passes: list[tuple[float, float]] = []
    while sum(took for took, _ in passes) * BATCHES < ENOUGH[short]:
        passes.append(timed(iter(make()), array))
    took, cpu = map(statistics.median, zip(*passes, strict=True))
    return {"us": took * 1e6, "cpu_us": cpu * 1e6, "peak_mb": peak_mb()}


def check(batches: Iterable[np.ndarray], shuffled: bool) -> None:
    """Raise, if these are not all the rows, doubled, each once and in the order that is wanted."""
    parts = []
    for batch in batches:
        assert batch.shape == (SIZE, WIDTH), batch.shape
        assert batch.dtype == np.float32, batch.dtype
        parts.append((batch[:, 0] / (2 * WIDTH)).astype(np.int64))
        assert np.array_equal(batch, data()[parts[-1]] * 2)
    order, in_order = np.concatenate(parts), np.arange(ROWS)
    assert np.array_equal(np.sort(order), in_order)
    assert np.array_equal(order, in_order) is not shuffled


def timed(batches: Iterator[Any], array: Callable[[Any], np.ndarray]) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds, of each batch of a pass but the first."""
    last, count = next(batches), 1
    start, cpu = time.perf_counter(), cpu_seconds()
    for last in islice(batches, BATCHES - 1):  # noqa: B007 (it is looked at below)
        count += 1
    took, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    assert count == BATCHES
    assert array(last).shape == (SIZE, WIDTH)
    assert next(batches, None) is None
    return took / (count - 1), cpu / (count - 1)
