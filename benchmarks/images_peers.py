"""How flowcore's peers do the work of `images.py`, each as its documentation advises.

Each function makes so many batches. Each imports its peer itself, so that one that is not installed
is found out alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from images_work import AHEAD, MEAN, SIDE, SIZE, STD, WORKERS, Making, batch, jpegs, load

__all__ = ["PEERS"]


class Images:
    """A dataset as PyTorch takes it, of images or of whole batches."""

    def __init__(self, length: int, make: Any) -> None:
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Any:
        return self.make(number)


def tensor(number: int) -> Any:
    import torch

    return torch.from_numpy(batch(number))


def torch(batches: int, *, whole: bool) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    made = Images(batches, tensor) if whole else Images(batches * SIZE, load)
    size = None if whole else SIZE
    return DataLoader(made, size, num_workers=WORKERS, prefetch_factor=AHEAD // WORKERS)


def grain_item(batches: int, threads: int = WORKERS, buffer: int = AHEAD * SIZE) -> Iterable[Any]:
    from grain import MapDataset, ReadOptions

    made = MapDataset.range(batches * SIZE).map(load)
    return made.to_iter_dataset(ReadOptions(threads, buffer)).batch(SIZE)


def grain_batch(batches: int) -> Iterable[Any]:
    from grain import MapDataset, ReadOptions

    return MapDataset.range(batches).map(batch).to_iter_dataset(ReadOptions(WORKERS, AHEAD))


def grain_processes(batches: int, *, whole: bool) -> Iterable[Any]:
    from absl import flags
    from grain import MapDataset, MultiprocessingOptions, ReadOptions

    flags.FLAGS(["images"])  # its worker processes read absl's flags
    items = MapDataset.range(batches * SIZE).map(load).batch(SIZE)
    made = MapDataset.range(batches).map(batch) if whole else items
    options = MultiprocessingOptions(WORKERS, per_worker_buffer_size=AHEAD // WORKERS)
    loader = iter(made.to_iter_dataset(ReadOptions(0, 0)).mp_prefetch(options))
    yield from loader
    loader.close()


def tf_data(batches: int) -> Iterable[Any]:
    import tensorflow as tf

    def decoded(file: Any) -> Any:
        image = tf.image.resize(tf.io.decode_jpeg(file, channels=3), (SIDE, SIDE))
        return image / (255 * STD) - MEAN / STD

    files = tf.data.Dataset.from_tensor_slices(jpegs()).repeat().take(batches * SIZE)
    made = files.map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(SIZE)
    return made.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def spdl(batches: int, *, whole: bool) -> Iterable[Any]:
    from spdl.pipeline import PipelineBuilder

    options = {"concurrency": WORKERS, "output_order": "input"}
    builder = PipelineBuilder().add_source(range(batches if whole else batches * SIZE))
    builder.pipe(batch if whole else load, **options)
    if not whole:
        builder.aggregate(SIZE).pipe(np.stack)
    line = builder.add_sink(AHEAD).build(num_threads=WORKERS)
    with line.auto_stop():
        yield from line


def batchflow(batches: int, prefetch: int, *, inside: bool = False) -> Iterable[Any]:
    import batchflow as bf
    from batchflow.decorators import inbatch_parallel

    class Photos(bf.Batch):
        @bf.action
        def load_all(self) -> Any:
            self._data = np.stack([load(item) for item in self.indices])
            return self

        @bf.action
        @inbatch_parallel(init="indices", post="put_together", target="threads")
        def load_each(self, item: int) -> Any:
            return load(item)

        def put_together(self, results: Any) -> Any:
            self._data = np.stack(results)
            return self

    pipeline = bf.Dataset(batches * SIZE, Photos).p
    made = pipeline.load_each(n_workers=WORKERS) if inside else pipeline.load_all()
    for one in made.gen_batch(SIZE, n_epochs=1, prefetch=prefetch):
        yield one.data


PEERS: dict[str, Making] = {
    "Grain, per item, 2 threads": grain_item,
    "Grain, per item, 16 threads, its defaults": partial(grain_item, threads=16, buffer=500),
    "Grain, per batch, 2 threads": grain_batch,
    "Grain, per item, 2 processes": partial(grain_processes, whole=False),
    "Grain, per batch, 2 processes": partial(grain_processes, whole=True),
    "PyTorch DataLoader, per item, 2 processes": partial(torch, whole=False),
    "PyTorch DataLoader, per batch, 2 processes": partial(torch, whole=True),
    "tf.data, autotuned": tf_data,
    "SPDL, per item": partial(spdl, whole=False),
    "SPDL, per batch": partial(spdl, whole=True),
    "BatchFlow, prefetch 1": partial(batchflow, prefetch=1),
    "BatchFlow, prefetch 4": partial(batchflow, prefetch=4),
    "BatchFlow, threads in a batch": partial(batchflow, prefetch=0, inside=True),
}
