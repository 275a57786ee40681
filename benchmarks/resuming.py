"""W8: how long a run takes to go on at batch 100,000 of 10^7 shuffled items, 32 in a batch.

Another process runs to that place first, writes the state there, and tells what comes next: the
batch of the run that goes on must be that one. What has no state (a table, tf.data) has the number
of the batch for it. The clock begins with everything imported, in a process where nothing ran, and
ends with the first batch; what a run has to be made of, as a table, is in it. The items are their
positions: no data is read.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from harness import Measure, Measures, Target, Work, peak_mb

__all__ = ["WORK"]

ITEMS, SIZE, FAR, NEAR = 10**7, 32, 100_000, 10
WORK = Work(
    "W8",
    "resume at batch 100,000 of 10^7 shuffled items",
    [
        Measure("ms", "ms to the batch", 2),
        Measure("bytes", "bytes of state", 0),
        Measure("peak_mb", "peak MB", 0),
    ],
    packages=["numpy", "flowcore", "torch", "torchdata", "grain", "tensorflow_cpu"],
    references=["floor, table by NumPy"],
    targets=[
        Target("flowcore", "ms", 5),
        Target("flowcore, at batch 10", "ms", 5),
        Target("flowcore, threads", "ms", 5),
    ],
)

# Batches that go on from a state, from the start if it is None; and what gives the state then.
Started: TypeAlias = "tuple[Iterator[Any], Callable[[], Any]]"
Start: TypeAlias = Callable[[Any], Started]


def system(name: str, at: int = FAR, *, every: int = 1) -> Callable[[Callable[[], Start]], Any]:
    """Mark a function that imports what it needs, and returns what starts a run."""

    def mark(load: Callable[[], Start]) -> Any:
        WORK.system(name, every=every)(lambda short: measured(load, at))
        return load

    return mark


def measured(load: Callable[[], Start], at: int) -> Measures:
    """Return the time from a state to the next batch, after checking that batch."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        state, expected = pool.apply(reached, (load.__qualname__, at))
    start = load()
    begin = time.perf_counter()
    batches, _ = start(state)
    batch = next(batches)
    took = time.perf_counter() - begin
    assert np.asarray(batch).tolist() == expected, "another batch"
    return {"ms": took * 1e3, "bytes": size_of(state), "peak_mb": peak_mb()}


def size_of(state: Any) -> int:
    """Return how many bytes a state has as JSON, or pickled if it holds more than that can."""
    try:
        return len(json.dumps(state))
    except TypeError:
        return len(pickle.dumps(state))


def reached(load: str, at: int) -> tuple[Any, list[int]]:
    """Return the state of a run after so many batches, and the batch that comes then."""
    batches, state_of = globals()[load]()(None)
    assert sum(1 for _ in islice(batches, at)) == at
    state = state_of()
    return at if state is None else state, np.asarray(next(batches)).tolist()


def no_state() -> None:
    """Return what stands for the number of the batch."""


# Floors


def table() -> Start:
    def start(at: int | None) -> Started:
        order = np.random.default_rng(1).permutation(ITEMS)
        places = range((at or 0) * SIZE, ITEMS, SIZE)
        return (order[place : place + SIZE] for place in places), no_state

    np.random.default_rng(1)
    return start


# flowcore


def flowcore(prefetch: int = 0) -> Start:
    import flowcore as fc

    np.random.default_rng(1)  # NumPy imports its generators when they are first used

    def start(state: Any) -> Started:
        made = fc.Dataset(ITEMS).p
        run = made.gen_batch(SIZE, shuffle=True, seed=1, prefetch=prefetch, resume=state)
        return (batch.positions for batch in run), run.state_dict

    return start


def flowcore_threads() -> Start:
    return flowcore(4)


# Peers


def grain(threads: int = 0) -> Start:
    from grain import MapDataset, ReadOptions

    options = ReadOptions(num_threads=threads, prefetch_buffer_size=4 if threads else 0)

    def start(state: Any) -> Started:
        made = MapDataset.range(ITEMS).shuffle(seed=1).batch(SIZE)
        batches = iter(made.to_iter_dataset(options))
        if state is not None:
            batches.set_state(state)
        return batches, batches.get_state

    return start


def grain_threads() -> Start:
    return grain(4)


class Places:
    """A dataset as PyTorch takes it: an item is its place; a list of places gives a batch."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, at: Any) -> Any:
        return at

    __getitems__ = __getitem__


def itself(batch: Any) -> Any:
    return batch


def stateful() -> Start:
    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader
    from torchdata.stateful_dataloader.sampler import RandomSampler

    def start(state: Any) -> Started:
        sampler = RandomSampler(Places(), generator=torch.Generator().manual_seed(1))
        loader = StatefulDataLoader(Places(), SIZE, sampler=sampler, collate_fn=itself)
        if state is not None:
            loader.load_state_dict(state)
        return iter(loader), loader.state_dict

    return start


def nodes() -> Start:
    import torch
    from torch.utils.data import RandomSampler
    from torchdata.nodes import Batcher, Loader, SamplerWrapper

    def start(state: Any) -> Started:
        sampler = RandomSampler(range(ITEMS), generator=torch.Generator().manual_seed(1))
        loader = Loader(Batcher(SamplerWrapper(sampler), SIZE))
        if state is not None:
            loader.load_state_dict(state)
        return iter(loader), loader.state_dict

    return start


def tf_data() -> Start:
    import tensorflow as tf

    def start(at: int | None) -> Started:
        made = tf.data.Dataset.range(ITEMS).shuffle(100_000, seed=1).batch(SIZE)
        return made.skip(at or 0).as_numpy_iterator(), no_state

    return start


system("floor, table by NumPy")(table)
system("flowcore")(flowcore)
system("flowcore, at batch 10", NEAR)(flowcore)
system("flowcore, threads")(flowcore_threads)
system("flowcore, threads, at batch 10", NEAR)(flowcore_threads)
system("Grain", every=2)(grain)
system("Grain, at batch 10", NEAR)(grain)
system("Grain, threads", every=2)(grain_threads)
system("torchdata StatefulDataLoader", every=2)(stateful)
system("torchdata.nodes", every=2)(nodes)
system("tf.data, buffer of 10^5, skip", every=2)(tf_data)

if __name__ == "__main__":
    WORK.main()
