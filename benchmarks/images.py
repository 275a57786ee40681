"""W3: photos: JPEG files of 375 x 500 are decoded, made 224 x 224 and normalised, 32 in a batch.

An image takes 1.5 ms of CPU, nearly all in OpenCV and NumPy, which let other threads run meanwhile.
OpenCV's own threads are off. Some pixels of every image are looked at: all must come, in order.

A batch is one array, float32, of 32 images that are stacked, but in the rows that say ``in place``.
There the images are written to where they belong, which saves a copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from harness import Measure, Target, Work
from images_peers import PEERS
from images_work import (
    AHEAD,
    SIZE,
    WORKERS,
    Making,
    batch,
    batch_in_place,
    load,
    measured,
)

__all__ = ["WORK"]

POOL, SERIAL = "floor, pool of 2, per batch", "floor, serial"
STYLES = {"per batch": "load_all", "per item": "load_each"}
MORE = 4, 8, 16  # workers
WORK = Work(
    "W3",
    "photos: JPEG decoded, resized, normalised, by 2 threads",
    [
        Measure("images_s", "images/s", 0, more=True),
        Measure("cpu_ms", "CPU ms an image", 2),
        Measure("peak_mb", "peak MB of the consumer", 0),
    ],
    packages=[
        *("numpy", "opencv_python_headless", "flowcore", "flowcore_processes", "torch", "grain"),
        *("spdl", "tensorflow_cpu", "batchflow"),
    ],
    references=[POOL, SERIAL],
    targets=[
        Target(f"flowcore, {style}, {workers} threads", "images_s", 0.97, of=POOL)
        for workers in (WORKERS, *MORE)
        for style in STYLES
    ],
)


def system(name: str, **options: Any) -> Callable[[Making], Making]:
    """Mark a function that makes so many batches; see `measured` for the options."""

    def mark(make: Making) -> Making:
        WORK.system(name)(lambda short: measured(make, short, **options))
        return make

    return mark


# Floors


def windowed(pool: Any, make: Callable[[int], Any], count: int, window: int) -> Iterator[Any]:
    """Generate in order what a pool makes of numbers, so many of them ahead of the consumer."""
    with pool:
        waiting: deque[Future[Any]] = deque()
        for number in range(count):
            waiting.append(pool.submit(make, number))
            if len(waiting) > window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@system(SERIAL)
def floor_serial(batches: int) -> Iterable[Any]:
    return map(batch, range(batches))


@system(POOL)
def floor_pool(batches: int) -> Iterable[Any]:
    return windowed(ThreadPoolExecutor(WORKERS), batch, batches, AHEAD)


@system("floor, pool of 2, per batch, in place")
def floor_in_place(batches: int) -> Iterable[Any]:
    return windowed(ThreadPoolExecutor(WORKERS), batch_in_place, batches, AHEAD)


@system("floor, pool of 2, per image")
def floor_images(batches: int) -> Iterable[Any]:
    images = windowed(ThreadPoolExecutor(WORKERS), load, batches * SIZE, AHEAD * SIZE)
    return (np.stack(some) for some in zip(*[images] * SIZE, strict=True))


@system("floor, pool of 2 processes, pickled")
def floor_processes(batches: int) -> Iterable[Any]:
    pool = ProcessPoolExecutor(WORKERS, get_context("fork"))
    return windowed(pool, batch, batches, AHEAD)


# flowcore


def flowcore(batches: int, action: str, **options: Any) -> Iterable[Any]:
    from images_flowcore import batches as made

    return made(batches, action, **options)


for workers in (WORKERS, 1, *MORE):
    for style, action in STYLES.items():
        name = f"flowcore, {style}, {workers} thread{'s' * (workers > 1)}"
        system(name)(partial(flowcore, action=action, num_workers=workers))


@system("flowcore, per batch, 2 threads, in place")
def flowcore_in_place(batches: int) -> Iterable[Any]:
    return flowcore(batches, "load_in_place", num_workers=WORKERS)


@system("flowcore, per item, 2 at once, 1 thread")
def flowcore_at_once(batches: int) -> Iterable[Any]:
    return flowcore(batches, "load_two_at_once", num_workers=1)


@system("flowcore, per batch, 2 processes")
def flowcore_processes(batches: int) -> Iterable[Any]:
    return flowcore(batches, "load_all", num_workers=WORKERS, executor="processes")


for name, peer in PEERS.items():
    system(name, off=0.05 if name.startswith("tf.data") else 0.0)(peer)

if __name__ == "__main__":
    WORK.main()
