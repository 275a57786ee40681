"""How flowcore's peers do the work of `overhead.py`, each as its documentation advises.

Each function makes the batches of a pass. Each imports its peer itself, so that one that is not
installed is found out alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from overhead_work import AHEAD, BATCHES, ROWS, SIZE, Making, data, gathered

__all__ = ["FAST", "SLOW"]


class Rows:
    """A dataset as PyTorch takes it; a list of places gives a batch."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, at: Any) -> Any:
        return data()[at] * 2


class Lists(Rows):
    """The same, for a loader that asks for a batch at once."""

    __getitems__ = Rows.__getitem__


def same(batch: Any) -> Any:
    return batch


def torch_getitems() -> Iterable[Any]:
    from torch.utils.data import DataLoader

    return DataLoader(Lists(), SIZE, collate_fn=same)


def torch_sampler() -> Iterable[Any]:
    from torch.utils.data import BatchSampler, DataLoader

    sampler = BatchSampler(range(ROWS), SIZE, drop_last=False)
    return DataLoader(Rows(), batch_size=None, sampler=sampler, collate_fn=same)


def torch_item() -> Iterable[Any]:
    from torch.utils.data import DataLoader

    return DataLoader(Rows(), SIZE)


def nodes_serial() -> Iterable[Any]:
    from torchdata.nodes import IterableWrapper, Loader, Mapper

    return Loader(Mapper(IterableWrapper(range(BATCHES)), gathered))


def nodes_prefetch() -> Iterable[Any]:
    from torchdata.nodes import IterableWrapper, Loader, Mapper, Prefetcher

    return Loader(Prefetcher(Mapper(IterableWrapper(range(BATCHES)), gathered), AHEAD))


def nodes_threads() -> Iterable[Any]:
    from torchdata.nodes import IterableWrapper, Loader, ParallelMapper

    numbers = IterableWrapper(range(BATCHES))
    return Loader(ParallelMapper(numbers, gathered, num_workers=2, method="thread"))


def grain_options(threads: int) -> Any:
    from grain import ReadOptions

    return ReadOptions(num_threads=threads, prefetch_buffer_size=AHEAD if threads else 0)


def grain_batch(threads: int = 0) -> Iterable[Any]:
    from grain import MapDataset

    return MapDataset.range(BATCHES).map(gathered).to_iter_dataset(grain_options(threads))


def grain_item(threads: int = 0) -> Iterable[Any]:
    from grain import MapDataset

    made = MapDataset.range(ROWS).map(lambda at: data()[at] * 2).batch(SIZE)
    return made.to_iter_dataset(grain_options(threads))


def grain_loader() -> Iterable[Any]:
    from grain import DataLoader
    from grain.samplers import SequentialSampler
    from grain.sharding import NoSharding
    from grain.transforms import Batch

    return DataLoader(
        data_source=Rows(),
        sampler=SequentialSampler(ROWS, NoSharding()),
        operations=[Batch(SIZE)],
        read_options=grain_options(0),
    )


def spdl(threads: int = 1) -> Iterable[Any]:
    from spdl.pipeline import PipelineBuilder

    builder = PipelineBuilder().add_source(range(BATCHES))
    builder.pipe(gathered, concurrency=threads, output_order="input").add_sink(AHEAD)
    line = builder.build(num_threads=threads)
    with line.auto_stop():
        yield from line


def tf_data(prefetch: int = 0) -> Iterable[Any]:
    import tensorflow as tf

    rows = tf.data.Dataset.from_tensor_slices(data()).batch(SIZE).map(lambda batch: batch * 2)
    return (rows.prefetch(prefetch) if prefetch else rows).as_numpy_iterator()


def batchflow(prefetch: int = 0) -> Iterable[Any]:
    import batchflow as bf

    class RowBatch(bf.Batch):
        @bf.action
        def double(self) -> Any:
            self._data = data()[self.indices] * 2
            return self

    made = bf.Dataset(ROWS, RowBatch).p.double()
    return (batch.data for batch in made.gen_batch(SIZE, n_epochs=1, prefetch=prefetch))


FAST: dict[str, Making] = {
    "PyTorch DataLoader, __getitems__": torch_getitems,
    "PyTorch DataLoader, batch sampler": torch_sampler,
    "torchdata.nodes, serial": nodes_serial,
    "Grain, per batch": grain_batch,
    "Grain, per batch, threads": partial(grain_batch, AHEAD),
}
SLOW: dict[str, Making] = {
    "torchdata.nodes, prefetch 4": nodes_prefetch,
    "torchdata.nodes, 2 threads": nodes_threads,
    "PyTorch DataLoader, per item": torch_item,
    "Grain, per item": grain_item,
    "Grain, per item, threads": partial(grain_item, AHEAD),
    "Grain DataLoader": grain_loader,
    "SPDL, concurrency 1": spdl,
    "SPDL, concurrency 4": partial(spdl, AHEAD),
    "tf.data": tf_data,
    "tf.data, prefetch 4": partial(tf_data, AHEAD),
    "BatchFlow": batchflow,
    "BatchFlow, prefetch 4": partial(batchflow, AHEAD),
}
