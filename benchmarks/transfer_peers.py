"""How `transfer.py` makes its batches with flowcore's peers, each as its documentation advises.

Each peer is imported when it is called, so that one that is not installed is found out alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from transfer_work import BYTES, SHAPE, WAITING, WORKERS, Batch, Making, fresh

__all__ = ["PEERS"]


class Whole:
    """A data set of PyTorch whose items are whole batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, number: int) -> Any:
        return fresh(number)


class Tensors(Whole):
    """The same, of tensors, which PyTorch sends in shared memory."""

    def __getitem__(self, number: int) -> Any:
        import torch

        return torch.from_numpy(fresh(number))


class Items(Whole):
    """The same items one by one, which the loader stacks in shared memory."""

    def __len__(self) -> int:
        return self.batches * SHAPE[0]

    def __getitems__(self, items: list[int]) -> list[Any]:
        import torch

        return list(torch.from_numpy(fresh(items[0] // SHAPE[0])))


def torch_arrays(batches: int) -> Iterator[Batch]:
    yield from torch_loader(Whole(batches), collate_fn=as_they_are)


def torch_tensors(batches: int) -> Iterator[Batch]:
    yield from torch_loader(Tensors(batches))


def torch_collated(batches: int) -> Iterator[Batch]:
    yield from torch_loader(Items(batches), batch_size=SHAPE[0])


def torch_loader(dataset: Any, batch_size: int | None = None, **options: Any) -> Iterator[Batch]:
    from torch.utils.data import DataLoader

    options |= {"num_workers": WORKERS, "prefetch_factor": WAITING // WORKERS}
    for batch in DataLoader(dataset, batch_size, **options):
        yield np.asarray(batch)  # the tensor's own memory


def as_they_are(batch: Any) -> Any:
    """Keep the arrays, where the loader would make tensors of them."""
    return batch


def grain(batches: int) -> Iterator[Batch]:
    from absl import flags
    from grain import MapDataset, MultiprocessingOptions, ReadOptions

    flags.FLAGS(["transfer"])  # its worker processes read absl's flags
    made = MapDataset.range(batches).map(fresh).to_iter_dataset(ReadOptions(0, 0))
    options = MultiprocessingOptions(WORKERS, per_worker_buffer_size=WAITING // WORKERS)
    loader = iter(made.mp_prefetch(options))
    yield from loader
    loader.close()


def spdl(batches: int, *, arena: bool) -> Iterator[Batch]:
    from spdl.pipeline import SharedMemorySegmentPool, iterate_in_subprocess

    waiting = WAITING // WORKERS
    workers = [
        iter(
            iterate_in_subprocess(
                partial(every_other, worker, batches),
                buffer_size=waiting,
                arena=SharedMemorySegmentPool(BYTES + 4096, waiting + 1) if arena else None,
            )
        )
        for worker in range(WORKERS)
    ]
    for number in range(batches):
        yield next(workers[number % WORKERS])


def every_other(first: int, batches: int) -> Iterator[Batch]:
    return map(fresh, range(first, batches, WORKERS))


PEERS: dict[str, Making] = {
    "PyTorch DataLoader, tensors": torch_tensors,
    "PyTorch DataLoader, collated": torch_collated,
    "PyTorch DataLoader, arrays": torch_arrays,
    "Grain, mp_prefetch": grain,
    "SPDL, SharedMemorySegmentPool": partial(spdl, arena=True),
    "SPDL, no arena": partial(spdl, arena=False),
}
