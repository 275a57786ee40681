"""W7: a global shuffle: batches of 32 positions of so many, all equally likely to come first.

A system makes batches of positions, and nothing else. The first batch is timed apart, from the call
on; then come pieces, whose median counts. A part of an epoch is looked at unmeasured: its positions
are in range, none comes twice, and they are from everywhere. Memory is what a process has resident
at most, beyond what it had with everything imported. What needs a table of all positions is
measured at 10^8 or less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from harness import Measure, Measures, Target, Work, peak_mb

__all__ = ["WORK"]

SIZE, PIECES, CHECKED = 32, 7, 500
SECONDS = (0.2, 0.05)  # of a piece, in a long run and in a short one
BLOCK = 1 << 14

Batches: TypeAlias = Iterable[Any]
WORK = Work(
    "W7",
    "order: batches of 32 shuffled positions",
    [
        Measure("us", "us a batch", 2),
        Measure("first_ms", "ms to the first batch", 2),
        Measure("mb", "MB more", 1),
    ],
    packages=["numpy", "flowcore", "torch", "grain", "tensorflow_cpu", "batchflow"],
    references=["floor, table by NumPy, 10^7"],
    targets=[
        Target("flowcore, as a run cuts it, 10^9", "us", 1),
        Target("flowcore, as a run cuts it, 10^9", "first_ms", 5),
        Target("flowcore, as a run cuts it, 10^9", "mb", 5),
    ],
)


def system(
    name: str, length: int, *, every: int = 1, spread: bool = True
) -> Callable[[Callable[[], Callable[[int], Batches]]], Any]:
    """Mark a function that imports what it needs, and returns what makes batches of a length.

    ``spread=False``: what comes first is not from everywhere, as the shuffle is not a global one.
    """

    def mark(load: Callable[[], Callable[[int], Batches]]) -> Any:
        WORK.system(f"{name}, 10^{len(str(length)) - 1}", every=every)(
            lambda short: measured(load(), length, short, spread)
        )
        return load

    return mark


def measured(make: Callable[[int], Batches], length: int, short: bool, spread: bool) -> Measures:
    """Return the time of the first batch, and of those after it, and the memory."""
    np.random.default_rng(0)  # it is loaded with its first use, by all of them
    before, start = peak_mb(), time.perf_counter()
    batches = iter(make(length))
    seen = [np.array(next(batches))]
    first = time.perf_counter() - start
    seen += [np.array(one) for one in islice(batches, CHECKED)]
    check(np.stack(seen), length, spread)
    count = piece(batches, 300)
    count = min(max(300, int(SECONDS[short] / count)), length // SIZE // (PIECES + 2))
    took = statistics.median(piece(batches, count) for _ in range(PIECES))
    return {"us": took * 1e6, "first_ms": first * 1e3, "mb": peak_mb() - before}


def piece(batches: Iterator[Any], count: int) -> float:
    """Return the seconds of each of the batches that come next."""
    start = time.perf_counter()
    done = sum(1 for _ in islice(batches, count))
    took = time.perf_counter() - start
    assert done == count, (done, count)
    return took / count


def check(seen: Any, length: int, spread: bool) -> None:
    """Refuse what is no part of a shuffled order."""
    values = seen.ravel()
    assert seen.shape == (CHECKED + 1, SIZE), seen.shape
    assert len(np.unique(values)) == len(values), "a position comes twice"
    assert np.array_equal(values, values % length), "not in range"
    assert (np.diff(values) < 0).mean() > 0.4, "in order"
    if spread:
        assert abs(values.mean() / length - 0.5) < 0.02, "not from everywhere"


# Floors


@system("floor, table by NumPy", 10**8, every=2)
@system("floor, table by NumPy", 10**7)
def table() -> Callable[[int], Batches]:
    def make(length: int) -> Batches:
        order = np.random.default_rng(1).permutation(length)
        return (order[at : at + SIZE] for at in range(0, length, SIZE))

    return make


# flowcore


@system("flowcore, the order by itself", 10**9)
def by_itself() -> Callable[[int], Batches]:
    from flowcore.sampler import Shuffled

    def make(length: int) -> Batches:
        order = Shuffled().order(length, seed=1, epoch=0)
        yield order[:SIZE]  # as a run does, that begins with little and takes more and more
        for start in range(SIZE, length, BLOCK):
            yield from order[start : start + BLOCK].reshape(-1, SIZE)

    return make


@system("flowcore, as a run cuts it", 10**9)
@system("flowcore, as a run cuts it", 10**6)
def cut() -> Callable[[int], Batches]:
    from flowcore.run.plan import Plan
    from flowcore.sampler import Shuffled

    def make(length: int) -> Batches:
        plan = Plan(sampler=Shuffled(), length=length, batch_size=SIZE, seed=1)
        return (plan.positions(0, number) for number in range(plan.epoch_batches))

    return make


@system("flowcore, a run with its batches", 10**9)
@system("flowcore, a run with its batches", 10**6)
def whole() -> Callable[[int], Batches]:
    import flowcore as fc

    fc.plugins()  # a program's first look for plugins is measured in W6

    def make(length: int) -> Batches:
        run = fc.Dataset(length).p.gen_batch(SIZE, shuffle=True, seed=1, prefetch=0)
        return (batch.positions for batch in run)

    return make


# Peers


@system("Grain, shuffle", 10**9)
def grain() -> Callable[[int], Batches]:
    from grain import MapDataset, ReadOptions

    def make(length: int) -> Batches:
        order = MapDataset.range(length).shuffle(seed=1).batch(SIZE)
        return order.to_iter_dataset(ReadOptions(num_threads=0, prefetch_buffer_size=0))

    return make


@system("Grain, index_shuffle", 10**9)
def grain_index() -> Callable[[int], Batches]:
    from grain.experimental import index_shuffle

    def make(length: int) -> Batches:
        one = {"max_index": length - 1, "seed": 1, "rounds": 4}
        for start in range(0, length, SIZE):
            yield np.array([index_shuffle(at, **one) for at in range(start, start + SIZE)])

    return make


@system("PyTorch RandomSampler", 10**7, every=2)
@system("PyTorch RandomSampler", 10**6)
def torch() -> Callable[[int], Batches]:
    from torch.utils.data import BatchSampler, RandomSampler

    return lambda length: BatchSampler(RandomSampler(range(length)), SIZE, drop_last=False)


@system("tf.data, global shuffle", 10**9)
def tf_global() -> Callable[[int], Batches]:
    import tensorflow as tf
    from tensorflow.python.data.experimental.ops.global_shuffle_op import _global_shuffle

    def make(length: int) -> Batches:  # it has no public name yet
        order = _global_shuffle(tf.data.Dataset.range(length), seed=1)
        return order.batch(SIZE).as_numpy_iterator()

    return make


@system("tf.data, buffer of 10^6", 10**9, spread=False)
def tf_buffer() -> Callable[[int], Batches]:
    import tensorflow as tf

    def make(length: int) -> Batches:
        order = tf.data.Dataset.range(length).shuffle(10**6, seed=1)
        return order.batch(SIZE).as_numpy_iterator()

    return make


@system("BatchFlow", 10**7, every=5)
@system("BatchFlow", 10**6)
def batchflow() -> Callable[[int], Batches]:
    import batchflow as bf

    def make(length: int) -> Batches:
        batches = bf.DatasetIndex(length).gen_batch(SIZE, shuffle=1, n_epochs=1)
        return (batch.indices for batch in batches)

    return make


if __name__ == "__main__":
    WORK.main()
