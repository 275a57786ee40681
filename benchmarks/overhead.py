"""W1: what a framework adds to tiny batches: 200,000 rows of 16 float32, 32 in a batch, doubled.

Each system makes 6,250 batches. It makes them once unmeasured, and every value of that pass is
checked. Then it makes them again until the clock has seen enough, and the median of these passes
counts. The clock runs from the first batch of a pass to the last.

The windows are equal: four batches are in progress or waiting while the consumer has one; where
eight are handed over at once, four times eight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import chain
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
from harness import Measure, Target, Work
from overhead_peers import FAST, SLOW
from overhead_work import (
    AHEAD,
    BATCHES,
    CHUNK,
    ROWS,
    SIZE,
    Making,
    data,
    eight,
    gathered,
    measured,
    sliced,
)

__all__ = ["WORK"]

WINDOW, CHUNKS = "floor, pool of 2, window of 4", "floor, pool of 1, 8 at a time"
WORK = Work(
    "W1",
    "overhead: batches of 32 rows of 16 float32, doubled",
    [
        Measure("us", "us a batch", 2),
        Measure("cpu_us", "CPU us a batch", 2),
        Measure("peak_mb", "peak MB", 0),
    ],
    packages=[
        *("numpy", "flowcore", "torch", "torchdata", "grain", "spdl"),
        *("tensorflow_cpu", "batchflow"),
    ],
    references=["floor, gather", WINDOW, CHUNKS],
    targets=[
        Target("flowcore, serial", "us", 5.0),
        Target("flowcore, threads", "us", 1.3, of=WINDOW),
        Target("flowcore, threads, prefetch 32", "us", 1.3, of=CHUNKS),
    ],
    rounds=(9, 1),
)


def system(name: str, *, every: int = 1, **options: Any) -> Callable[[Making], Making]:
    """Mark a function that makes the batches of a pass; see `measured` for the options."""

    def mark(make: Making) -> Making:
        WORK.system(name, every=every)(lambda short: measured(make, short, **options))
        return make

    return mark


# Floors


def windowed(make: Callable[[int], Any], numbers: Iterable[int], workers: int) -> Iterator[Any]:
    """Generate in order what a pool makes of numbers, four of them ahead of the consumer."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Any]] = deque()
        for number in numbers:
            waiting.append(pool.submit(make, number))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def queued(made: Iterable[Any]) -> Iterator[Any]:
    """Generate what a thread makes, and puts into a queue of four."""
    queue: Queue[Any] = Queue(AHEAD)

    def serve() -> None:
        for one in made:
            queue.put(one)
        queue.put(None)

    Thread(target=serve, daemon=True).start()
    while (one := queue.get()) is not None:
        yield one


@system("floor, slice")
def floor_slice() -> Iterable[Any]:
    return map(sliced, range(BATCHES))


@system("floor, gather")
def floor_gather() -> Iterable[Any]:
    return map(gathered, range(BATCHES))


@system("floor, pool of 1, window of 4")
def floor_pool_1() -> Iterable[Any]:
    return windowed(gathered, range(BATCHES), 1)


@system(WINDOW)
def floor_pool_2() -> Iterable[Any]:
    return windowed(gathered, range(BATCHES), 2)


@system("floor, pool of 4, window of 4")
def floor_pool_4() -> Iterable[Any]:
    return windowed(gathered, range(BATCHES), 4)


@system("floor, thread and queue of 4")
def floor_queue() -> Iterable[Any]:
    return queued(map(gathered, range(BATCHES)))


@system(CHUNKS)
def floor_pool_chunks() -> Iterable[Any]:
    return chain.from_iterable(windowed(eight, range(0, BATCHES, CHUNK), 1))


@system("floor, thread and queue of 4, 8 at a time")
def floor_queue_chunks() -> Iterable[Any]:
    return chain.from_iterable(queued(map(eight, range(0, BATCHES, CHUNK))))


# flowcore


@cache
def pipeline(*, preloaded: bool = True) -> Any:
    """Return the pipeline: its dataset has the rows, or its action reads them."""
    import flowcore as fc

    class Rows(fc.Batch):
        @fc.action
        def read(self) -> Rows:
            self.data = data()[self.positions]
            return self

        @fc.action
        def double(self) -> Rows:
            self.data = self.data * 2
            return self

    if preloaded:
        return fc.Dataset(ROWS, Rows, preloaded=data()).p.double()
    return fc.Dataset(ROWS, Rows).p.read().double()


def data_of(batch: Any) -> np.ndarray:
    found: np.ndarray = batch.data
    return found


@system("flowcore, serial", array=data_of)
def flowcore_serial() -> Iterable[Any]:
    return pipeline().gen_batch(SIZE, prefetch=0)


@system("flowcore, serial, read by an action", array=data_of)
def flowcore_read() -> Iterable[Any]:
    return pipeline(preloaded=False).gen_batch(SIZE, prefetch=0)


@system("flowcore, serial, shuffled", array=data_of, shuffled=True)
def flowcore_shuffled() -> Iterable[Any]:
    return pipeline().gen_batch(SIZE, prefetch=0, shuffle=True, seed=1)


@system("flowcore, threads", array=data_of)
def flowcore_threads() -> Iterable[Any]:
    return pipeline().gen_batch(SIZE, prefetch=AHEAD, num_workers=2)


@system("flowcore, threads, num_workers 1", array=data_of)
def flowcore_threads_1() -> Iterable[Any]:
    return pipeline().gen_batch(SIZE, prefetch=AHEAD, num_workers=1)


@system("flowcore, threads, num_workers by default", array=data_of)
def flowcore_threads_default() -> Iterable[Any]:
    return pipeline().gen_batch(SIZE, prefetch=AHEAD)


@system("flowcore, threads, prefetch 32", array=data_of)
def flowcore_threads_chunks() -> Iterable[Any]:
    return pipeline().gen_batch(SIZE, prefetch=AHEAD * CHUNK, num_workers=2)


for name, make in FAST.items():
    system(name)(make)
for name, make in SLOW.items():
    system(name, every=2)(make)

if __name__ == "__main__":
    WORK.main()
