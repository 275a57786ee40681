"""W5: waiting: 64 items are waited for at once, 5 ms each, and come in order.

An item is a number; after its wait it is squared. All must come, in order and right. The clock runs
when 512 have come, up to the last. With 5 ms each, 64 at once give at most 12,800 items a second.
An event loop gives fewer: it rounds a sleep up to its clock, so that 5 ms are nearly 6.

An item is a batch of its own, made by one of 64 workers; or the items of a larger batch are waited
for together. A batch ends when all of its items are there, and then the next begins: so two of 256
are made at once, with 32 items in progress each. One of 64 shows what such a stop costs. Their
floors do so too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
from harness import Measure, Target, Work
from waiting_peers import FAST, SLOW
from waiting_work import AT_ONCE, Making, measured, wait, wait_async

__all__ = ["WORK"]

ITEMS = 12_800, 2_560  # in a long run, and in a short one
FEWER = 3_200, 1_280  # of the systems that take long

POOL, ASYNC = "floor, pool of 64, window of 128", "floor, asyncio, 64 at once"
ONE, TWO = "1 batch of 64", "2 batches of 256"
EACH_POOL, ASYNC_TWO = f"floor, 2 pools of 32, {TWO}", f"floor, asyncio, {TWO}"
EACH, EACH_ASYNC = f"flowcore, per item, threads, {TWO}", f"flowcore, per item, async def, {TWO}"
TARGETS = (
    ("flowcore, threads", POOL),
    ("flowcore, threads, prefetch 64", "floor, pool of 64, window of 64"),
    ("flowcore, async def", ASYNC),
    (EACH, EACH_POOL),
    (EACH_ASYNC, ASYNC_TWO),
)
WORK = Work(
    "W5",
    "waiting: 64 items of 5 ms at once, in order",
    [
        Measure("items_s", "items/s", 0, more=True),
        Measure("cpu_us", "CPU us an item"),
    ],
    packages=[
        *("numpy", "flowcore", "torch", "torchdata", "grain", "spdl"),
        *("tensorflow_cpu", "batchflow"),
    ],
    references=[POOL, ASYNC],
    targets=[Target(name, "items_s", 0.97, of=of) for name, of in TARGETS],
)


def system(name: str, *, items: tuple[int, int] = ITEMS) -> Callable[[Making], Making]:
    """Mark a function that makes so many items: results, or arrays of them."""

    def mark(make: Making) -> Making:
        WORK.system(name)(lambda short: measured(make, items[short]))
        return make

    return mark


# Floors


def windowed(items: int, window: int) -> Iterator[int]:
    """Generate in order what 64 threads make of items, of which so many are in the window."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: deque[Future[int]] = deque()
        for item in range(items):
            waiting.append(pool.submit(wait, item))
            if len(waiting) == window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@system("floor, pool of 64, window of 64")
def floor_64(items: int) -> Iterable[Any]:
    return windowed(items, AT_ONCE)


@system(POOL)
def floor_128(items: int) -> Iterable[Any]:
    return windowed(items, 2 * AT_ONCE)


def barred(items: int, size: int, lanes: int) -> Iterator[Any]:
    """Generate batches, so many made at once, each of items that its share of 64 threads makes."""
    with ExitStack() as open_:
        outer = open_.enter_context(ThreadPoolExecutor(lanes))
        pools = [open_.enter_context(ThreadPoolExecutor(AT_ONCE // lanes)) for _ in range(lanes)]

        def batch(start: int) -> np.ndarray:
            pool = pools[start // size % lanes]
            return np.array(list(pool.map(wait, range(start, start + size))))

        waiting: deque[Future[np.ndarray]] = deque()
        for start in range(0, items, size):
            waiting.append(outer.submit(batch, start))
            if len(waiting) > 2 * lanes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@system(f"floor, pool of 64, {ONE}")
def floor_one(items: int) -> Iterable[Any]:
    return barred(items, AT_ONCE, 1)


@system(EACH_POOL)
def floor_two(items: int) -> Iterable[Any]:
    return barred(items, 4 * AT_ONCE, 2)


async def one_of(item: int, room: asyncio.Semaphore) -> int:
    async with room:
        found: int = await wait_async(item)
        return found


async def batch_of(start: int, lanes: asyncio.Semaphore) -> np.ndarray:
    async with lanes:
        room = asyncio.Semaphore(AT_ONCE // 2)
        tasks = [asyncio.create_task(one_of(start + at, room)) for at in range(4 * AT_ONCE)]
        return np.array(await asyncio.gather(*tasks))


def looped(make: Callable[..., Any], places: range, room: int, window: int) -> Iterator[Any]:
    """Generate in order what tasks of an event loop, in a thread, make of places."""
    done: SimpleQueue[Any] = SimpleQueue()

    async def serve() -> None:
        free = asyncio.Semaphore(room)
        waiting: deque[asyncio.Task[Any]] = deque()
        for place in places:
            waiting.append(asyncio.create_task(make(place, free)))
            if len(waiting) == window:
                done.put(await waiting.popleft())
        for task in waiting:
            done.put(await task)

    Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    for _ in places:
        yield done.get()


@system(ASYNC)
def floor_async(items: int) -> Iterable[Any]:
    return looped(one_of, range(items), AT_ONCE, 2 * AT_ONCE)


@system(ASYNC_TWO)
def floor_async_two(items: int) -> Iterable[Any]:
    return looped(batch_of, range(0, items, 4 * AT_ONCE), 2, 5)


# flowcore


def numbers(items: int, at_once: int = 1) -> Any:
    """Return a pipeline, without steps, of batches with the actions that wait.

    Args:
        items: in the dataset.
        at_once: of a batch, for the actions of items.
    """
    import flowcore as fc

    class Numbers(fc.Batch):
        @fc.action
        def wait(self) -> Numbers:
            self.data = wait(self.positions)
            return self

        @fc.action
        async def wait_async(self) -> Numbers:
            self.data = await wait_async(self.positions)
            return self

        @fc.action(each="item", concurrency=at_once)
        def wait_each(item: Any) -> Any:
            return wait(item.position)

        @fc.action(each="item", concurrency=at_once)
        async def wait_each_async(item: Any) -> Any:
            return await wait_async(item.position)

    return fc.Dataset(items, Numbers).p


def arrays(run: Iterable[Any]) -> Iterable[Any]:
    return (batch.data for batch in run)


@system("flowcore, threads")
def flowcore_threads(items: int) -> Iterable[Any]:
    return arrays(numbers(items).wait().gen_batch(1, num_workers=AT_ONCE))


@system("flowcore, threads, prefetch 64")
def flowcore_threads_64(items: int) -> Iterable[Any]:
    run = numbers(items).wait().gen_batch(1, num_workers=AT_ONCE, prefetch=AT_ONCE)
    return arrays(run)


@system("flowcore, async def")
def flowcore_async(items: int) -> Iterable[Any]:
    return arrays(numbers(items).wait_async().gen_batch(1, num_workers=AT_ONCE))


@system(f"flowcore, per item, threads, {ONE}")
def flowcore_each_one(items: int) -> Iterable[Any]:
    run = numbers(items, AT_ONCE).wait_each().gen_batch(AT_ONCE, num_workers=1)
    return arrays(run)


@system(EACH)
def flowcore_each_two(items: int) -> Iterable[Any]:
    run = numbers(items, AT_ONCE // 2).wait_each().gen_batch(4 * AT_ONCE, num_workers=2)
    return arrays(run)


@system(f"flowcore, per item, async def, {ONE}")
def flowcore_each_async_one(items: int) -> Iterable[Any]:
    run = numbers(items, AT_ONCE).wait_each_async().gen_batch(AT_ONCE, num_workers=1)
    return arrays(run)


@system(EACH_ASYNC)
def flowcore_each_async_two(items: int) -> Iterable[Any]:
    run = numbers(items, AT_ONCE // 2).wait_each_async().gen_batch(4 * AT_ONCE, num_workers=2)
    return arrays(run)


for name, make in FAST.items():
    system(name)(make)
for name, make in SLOW.items():
    system(name, items=FEWER)(make)

if __name__ == "__main__":
    WORK.main()
