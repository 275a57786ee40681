"""The floors of `transfer.py`: worker processes and a ring of shared memory, written by hand.

Nothing in it but the transfer: no errors, no retries, no early end. Slots are reused, so their
pages are there after the first round. A slot is given back when the consumer asks for the next
batch. Batches come in order, whichever worker makes them.
"""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from transfer_work import BYTES, SHAPE, WORKERS, Batch, fresh, think

__all__ = ["ring"]

SLOTS = 4  # of 3 to 8, none was faster


def ring(batches: int, *, in_place: bool) -> Iterator[Batch]:
    """Yield the batches as views of the slots.

    Args:
        batches: how many.
        in_place: the workers write into the slot, and not into a new array that is copied there.
    """
    fork = multiprocessing.get_context("fork")
    memory = mmap.mmap(-1, SLOTS * BYTES)
    slots = np.frombuffer(memory, np.float32).reshape(SLOTS, *SHAPE)
    tasks, done = fork.SimpleQueue(), fork.SimpleQueue()
    write = write_in_place if in_place else copy_in
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
