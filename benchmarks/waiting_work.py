"""What `waiting.py` and its peers wait for, and how a pass of it is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from harness import Measures, cpu_seconds

__all__ = ["AT_ONCE", "Making", "measured", "wait", "wait_async"]

LATENCY, AT_ONCE = 0.005, 64
WARM = 8 * AT_ONCE  # items before the clock runs

Making = Callable[[int], Iterable[Any]]  # makes so many items: results, or arrays of them


def measured(make: Making, items: int) -> Measures:
    """Return the measures of a pass; raise, if the items are not the right ones, in order."""
    made, found, warm = iter(make(items)), [], 0
    while warm < WARM:
        found.append(next(made))
        warm += np.size(found[-1])
    start = end = time.perf_counter()
    cpu = cpu_seconds()
    for one in made:
        found.append(one)
        end = time.perf_counter()
    cpu = cpu_seconds() - cpu
    results = np.concatenate([np.ravel(one) for one in found])
    assert np.array_equal(results, np.arange(items) ** 2)
    count = items - warm
    return {"items_s": count / (end - start), "cpu_us": cpu / count * 1e6}


def wait(number: Any) -> Any:
    time.sleep(LATENCY)
    return number * number


async def wait_async(number: Any) -> Any:
    await asyncio.sleep(LATENCY)
    return number * number
