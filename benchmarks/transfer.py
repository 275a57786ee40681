"""W4: big batches from worker processes: float32 arrays of 38.5 MB, made by one of two workers.

To make a batch takes some milliseconds of Python and a fill. The consumer reads all of it, and sees
that it is the right one. The clock runs from one delivered batch to another in the middle of a
longer run, so neither the start nor the end, when workers go idle, is in it.

The floors are worker processes and a ring of shared memory, written by hand. Nothing is in it but
the transfer: no errors, no retries, no early end. Slots are reused, so their pages are there after
the first round. A slot is given back when the consumer asks for the next batch. Batches come in
order, whichever worker makes them.
"""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from harness import Measure, Target, Work
from transfer_peers import PEERS
from transfer_work import BYTES, SHAPE, WORKERS, Batch, Making, fresh, measured, think

__all__ = ["WORK"]

SLOTS = 4  # of 3 to 8, none was faster
COPIED_IN, IN_PLACE = "floor, ring, copied in", "floor, ring, in place"
MADE, EMPTY = "flowcore, processes", "flowcore, processes, empty"
WORK = Work(
    "W4",
    "big batches: 38.5 MB from 2 worker processes",
    [
        Measure("batches_s", "batches/s", 1, more=True),
        Measure("cpu_ms", "CPU ms a batch", 0),
        Measure("memory_mb", "memory of all, MB", 0),
        Measure("peak_mb", "peak MB of the consumer", 0),
    ],
    packages=["numpy", "flowcore", "flowcore_processes", "torch", "grain", "spdl"],
    references=[COPIED_IN, IN_PLACE],
    targets=[
        Target(MADE, "batches_s", 0.95, of=COPIED_IN),
        Target(EMPTY, "batches_s", 0.9, of=IN_PLACE),
    ],
)


def system(name: str) -> Callable[[Making], Making]:
    """Mark a function that makes so many batches."""

    def mark(make: Making) -> Making:
        WORK.system(name)(lambda short: measured(make, short))
        return make

    return mark


# Floors


def ring(batches: int, write: Callable[[Batch, int], None]) -> Iterator[Batch]:
    """Generate the batches as views of the slots, which workers write to."""
    fork = multiprocessing.get_context("fork")
    memory = mmap.mmap(-1, SLOTS * BYTES)
    slots = np.frombuffer(memory, np.float32).reshape(SLOTS, *SHAPE)
    tasks, done = fork.SimpleQueue(), fork.SimpleQueue()
    arguments = tasks, done, slots, write
    workers = [fork.Process(target=serve, args=arguments, daemon=True) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for number in range(SLOTS):
        tasks.put((number, number))
    yield from in_order(batches, tasks, done, slots)
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()


def in_order(batches: int, tasks: Any, done: Any, slots: Any) -> Iterator[Batch]:
    """Yield each batch in its turn, and have its slot filled with another one after that."""
    waiting: dict[int, int] = {}
    for number in range(batches):
        while number not in waiting:
            found, slot = done.get()
            waiting[found] = slot
        slot = waiting.pop(number)
        yield slots[slot]
        if number + SLOTS < batches:
            tasks.put((number + SLOTS, slot))


def serve(tasks: Any, done: Any, slots: Any, write: Callable[[Batch, int], None]) -> None:
    """Be a worker."""
    while task := tasks.get():
        number, slot = task
        write(slots[slot], number)
        done.put(task)


def copy_in(slot: Batch, number: int) -> None:
    """Make a new array, and copy it into the slot."""
    slot[...] = fresh(number)


def write_in_place(slot: Batch, number: int) -> None:
    """Make the batch in the slot itself."""
    think()
    slot[...] = number


system(COPIED_IN)(partial(ring, write=copy_in))
system(IN_PLACE)(partial(ring, write=write_in_place))


# flowcore


def flowcore(batches: int, **options: Any) -> Iterable[Any]:
    from transfer_flowcore import run

    return run(batches, **options)


system(MADE)(partial(flowcore, executor="processes"))
system(EMPTY)(partial(flowcore, executor="processes", action="fill"))
system("flowcore, threads")(partial(flowcore, executor="threads"))
system("flowcore, serial")(partial(flowcore, executor="serial", prefetch=0))


@system("flowcore, ProcessPoolExecutor")
def flowcore_pool(batches: int) -> Iterable[Any]:
    from transfer_flowcore import pool

    return pool(batches)


for name, peer in PEERS.items():
    system(name)(peer)

if __name__ == "__main__":
    WORK.main()
