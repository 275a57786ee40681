"""What the order of a shuffled run costs at 10**9 items, beside a permutation that is an array.

Run it as ``python benchmarks/order.py``; it prints a table in Markdown. Each row has the medians of
five fresh processes. Memory is what a process has resident at most, beyond what it had before. A
process's first run looks for plugins, and NumPy imports its generators when they are first used:
they have been used before the clock starts, but in the row that says so. The array is a tenth as
long, as one of 10**9 takes 8 GB.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

import flowcore as fc
from flowcore.run.plan import Plan
from flowcore.sampler import Shuffled

ITEMS, BATCH_SIZE, BLOCK, BATCHES, PROCESSES = 10**9, 32, 2**14, 51_200, 5
COLD = "a run, 10^9, the first of its process"


def blocks() -> Iterator[object]:
    """Return the positions of each batch, computed as fast as they can be."""
    order = Shuffled().order(ITEMS, seed=1, epoch=0)
    for start in range(0, ITEMS, BLOCK):
        yield from order[start : start + BLOCK].reshape(-1, BATCH_SIZE)


def run(**options: object) -> Iterator[object]:
    """Return the batches of a shuffled run, in the calling thread."""
    pipeline = fc.Dataset(ITEMS).p
    return iter(pipeline.gen_batch(BATCH_SIZE, shuffle=True, seed=1, prefetch=0, **options))


def plan() -> Iterator[object]:
    """Return the positions of each batch, as the run computes them."""
    order = Plan(sampler=Shuffled(), length=ITEMS, batch_size=BATCH_SIZE, seed=1)
    return (order.positions(0, number) for number in range(order.epoch_batches))


def array() -> Iterator[object]:
    """Return the same of an array of a tenth of the length."""
    order = np.random.permutation(ITEMS // 10)
    return (order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE))


def resumed(batch: int) -> Iterator[object]:
    """Return the batches of a run that begins at ``batch``."""
    return run(resume={"epoch": 0, "batch": batch})


ROWS: dict[str, Callable[[], Iterator[object]]] = {
    "the order itself, 10^9, by 16,384 places": blocks,
    "the order as a run takes it, 10^9": plan,
    "a run, 10^9": run,
    COLD: run,
    "a run resumed at batch 10, 10^9": lambda: resumed(10),
    "a run resumed at batch 100,000, 10^9": lambda: resumed(100_000),
    "`np.random.permutation`, 10^8": array,
}


def resident() -> float:
    """Return the most memory that this process has had resident, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def measure(row: str) -> tuple[float, float, float]:
    """Return ms to the first batch, microseconds for each of those that follow, and MB more."""
    if row != COLD:
        next(iter(fc.Dataset(10).p.gen_batch(2, shuffle=True, seed=1, prefetch=0)))
    before = resident()
    start = time.perf_counter()
    batches = ROWS[row]()
    next(batches)
    first = time.perf_counter()
    for _ in islice(batches, BATCHES):
        pass
    end = time.perf_counter()
    return (first - start) * 1e3, (end - first) * 1e6 / BATCHES, resident() - before


def medians(row: str) -> list[float]:
    """Return what `measure` finds in processes of their own."""
    command = [sys.executable, __file__, row]
    found = [json.loads(subprocess.check_output(command)) for _ in range(PROCESSES)]
    return [statistics.median(column) for column in zip(*found, strict=True)]


def main() -> None:
    """Print the table."""
    print(f"| batches of {BATCH_SIZE}, shuffled | first batch, ms | each batch, µs | memory, MB |")
    print("|---|---:|---:|---:|")
    for row in ROWS:
        first, each, memory = medians(row)
        print(f"| {row} | {first:.2f} | {each:.2f} | {memory:.1f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
