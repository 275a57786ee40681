"""Which executor for which work: batches a second of `serial`, `threads` and `processes`.

``python benchmarks/executors.py`` prints a table in Markdown, as in the guide to worker processes.
The executors take turns, in pieces of one endless run each, with two workers; the median of the
pieces is shown. The consumer reads the large arrays. It needs `flowcore-processes`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

import flowcore as fc

SHAPE = (64, 3, 224, 224)  # 38.5 MB of float32
WAYS: dict[str, dict[str, Any]] = {
    "serial": {},
    "threads": {"executor": "threads", "num_workers": 2, "prefetch": 4},
    "processes": {"executor": "processes", "num_workers": 2, "prefetch": 4},
}


class Work(fc.Batch):
    @fc.action
    def loop(self):
        total = 0
        for number in range(300_000):
            total += number & 7
        self.data = np.full(len(self), total)
        return self

    @fc.action
    def sines(self):
        values = np.linspace(0, 1, 16_000)
        for _ in range(60):
            np.sin(values, out=values)
        self.data = values[: len(self)].copy()
        return self

    @fc.action
    def wait(self):
        time.sleep(0.02)
        self.data = self.positions
        return self

    @fc.action
    def hardly(self):
        self.data = self.positions
        return self

    @fc.action
    def fill(self):
        self.data = np.full(SHAPE, self.number, np.float32)
        return self

    @fc.action
    def fill_empty(self):
        self.data = self.empty(SHAPE, np.float32)
        self.data.fill(self.number)
        return self


START = fc.Dataset(80_000, Work).p
WORK = {  # the pipeline, and the number of batches in a piece
    "a loop in Python": (START.loop(), 40),
    "sines in NumPy": (START.sines(), 40),
    "waiting, 20 ms": (START.wait(), 60),
    "hardly anything": (START.hardly(), 4000),
    "38.5 MB, filled with a number": (START.fill(), 40),
    "the same, into `self.empty(...)`": (START.fill_empty(), 40),
    "38.5 MB after that loop in Python": (START.loop().fill(), 40),
    "the same after it, into `self.empty(...)`": (START.loop().fill_empty(), 40),
}


def piece(run: fc.Run, batches: int) -> float:
    """Return the batches a second of a piece of a run, once it is on its way."""
    for _ in range(8):
        next(run)
    start = time.perf_counter()
    for _ in range(batches):
        data = next(run).data
        if data.nbytes > 1_000_000:
            data.max()
    return batches / (time.perf_counter() - start)


def measured(pipe: fc.Pipeline, batches: int, rounds: int) -> list[float]:
    """Return the median of the pieces of each way."""
    runs = [pipe.gen_batch(8, n_epochs=None, **way) for way in WAYS.values()]
    pieces = [[piece(run, batches) for run in runs] for _ in range(rounds)]
    for run in runs:
        run.close()
    return [statistics.median(of_way) for of_way in zip(*pieces, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"| to make a batch | {' | '.join(f'`{way}`' for way in WAYS)} |")
    print(f"|---|{'---:|' * len(WAYS)}")
    for name, (pipe, batches) in WORK.items():
        speeds = measured(pipe, batches, rounds)
        print(f"| {name} | {' | '.join(f'{speed:,.0f}' for speed in speeds)} |", flush=True)


if __name__ == "__main__":
    main()
