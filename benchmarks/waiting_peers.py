"""How flowcore's peers do the work of `waiting.py`, each as its documentation advises.

Each function makes so many items. Each imports its peer itself, so that one that is not installed
is found out alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from waiting_work import AT_ONCE, Making, wait, wait_async

__all__ = ["FAST", "SLOW"]


def grain(items: int, buffer: int = AT_ONCE) -> Iterable[Any]:
    from grain import MapDataset, ReadOptions

    return MapDataset.range(items).map(wait).to_iter_dataset(ReadOptions(AT_ONCE, buffer))


def nodes(items: int) -> Iterable[Any]:
    from torchdata.nodes import IterableWrapper, Loader, ParallelMapper

    numbers = IterableWrapper(range(items))
    return Loader(ParallelMapper(numbers, wait, num_workers=AT_ONCE, method="thread"))


def spdl(items: int, function: Callable[[Any], Any] = wait) -> Iterable[Any]:
    from spdl.pipeline import PipelineBuilder

    builder = PipelineBuilder().add_source(range(items))
    builder.pipe(function, concurrency=AT_ONCE, output_order="input").add_sink(AT_ONCE)
    line = builder.build(num_threads=AT_ONCE)
    with line.auto_stop():
        yield from line


def tf_data(items: int) -> Iterable[Any]:
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = AT_ONCE
    made = tf.data.Dataset.range(items).map(
        lambda number: tf.numpy_function(wait, [number], tf.int64, stateful=False),
        num_parallel_calls=AT_ONCE,
        deterministic=True,
    )
    return made.prefetch(AT_ONCE).with_options(options).as_numpy_iterator()


def batchflow(items: int) -> Iterable[Any]:
    import batchflow as bf

    class Numbers(bf.Batch):
        @bf.action
        def wait(self) -> Any:
            self._data = wait(self.indices)
            return self

    run = bf.Dataset(items, Numbers).p.wait().gen_batch(1, n_epochs=1, prefetch=AT_ONCE)
    return (batch.data for batch in run)


class Squares:
    """A dataset as PyTorch takes it."""

    def __init__(self, items: int) -> None:
        self.items = items

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, number: int) -> int:
        found: int = wait(number)
        return found


def torch(items: int) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    return DataLoader(Squares(items), batch_size=None, num_workers=8, prefetch_factor=8)


FAST: dict[str, Making] = {
    "Grain, 64 threads, buffer of 64": grain,
    "Grain, 64 threads, buffer of 128": partial(grain, buffer=2 * AT_ONCE),
    "torchdata.nodes, 64 threads": nodes,
}
SLOW: dict[str, Making] = {
    "SPDL, 64 threads": spdl,
    "SPDL, async def": partial(spdl, function=wait_async),
    "tf.data, numpy_function, 64 calls": tf_data,
    "BatchFlow, prefetch 64": batchflow,
    "PyTorch DataLoader, 8 processes": torch,
}
