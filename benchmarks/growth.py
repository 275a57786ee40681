"""W9: growth: what a batch costs as actions, threads and ids become more.

An action counts itself, and nothing is loaded, so that what is measured is flowcore's own. A system
is an endless run, and the clock runs for pieces of it; the median of the pieces counts. The floors
are the least that does as much: a loop of calls, and a pool with a window of twice its threads.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from harness import Measure, Measures, Target, Work, cpu_seconds

__all__ = ["WORK"]

SIZE, IDS = 32, 10**6
PIECES, PIECE = 7, (0.2, 0.05)  # how many, and their seconds in a long run and in a short one
WORK = Work(
    "W9",
    "growth: us a batch as actions, threads and ids become more",
    [
        Measure("us", "us a batch", 2),
        Measure("cpu_us", "CPU us a batch", 2),
        Measure("each", "us for each action but the first", 3),
    ],
    targets=[
        Target("flowcore, 10 actions", "each", 0.3),
        Target("flowcore, 100 actions", "each", 0.3),
        Target("flowcore, 16 threads", "us", 1.3, of="flowcore, 2 threads"),
        Target("flowcore, 64 threads", "us", 1.3, of="flowcore, 2 threads"),
        Target("flowcore, 10^9 ids", "us", 1.2, of="flowcore, 10^3 ids"),
        Target("flowcore, 10^9 ids", "us", 1.2, of="flowcore, 10^6 ids"),
    ],
)


@dataclass
class Endless:
    """Endless batches, of which pieces are measured.

    Attributes:
        made: the batches.
        place: returns which of the batches one is; raises, if it is not right.
        done: how many have come.
    """

    made: Iterator[Any]
    place: Callable[[Any], int]
    done: int = 0

    def piece(self, batches: int) -> tuple[float, float]:
        """Return the seconds, and the CPU seconds, of each of the batches that come next."""
        start, cpu = time.perf_counter(), cpu_seconds()
        for _ in range(batches):
            last = next(self.made)
        took, cpu = time.perf_counter() - start, cpu_seconds() - cpu
        self.done += batches
        assert self.place(last) == self.done - 1
        return took / batches, cpu / batches

    def enough(self, short: bool) -> int:
        """Return how many batches a piece has; they are also a warm-up."""
        return max(200, int(PIECE[short] / self.piece(500)[0]))


def measured(run: Endless, short: bool) -> Measures:
    """Return the medians of the pieces of a run."""
    batches = run.enough(short)
    took, cpu = zip(*(run.piece(batches) for _ in range(PIECES)), strict=True)
    return {"us": statistics.median(took) * 1e6, "cpu_us": statistics.median(cpu) * 1e6}


def with_each(make: Callable[[int], Endless], actions: int, short: bool) -> Measures:
    """Return the same of a run of some actions, and what each costs that one of one has not.

    The pieces of the two take turns, as a machine's speed changes.
    """
    one, all_ = make(1), make(actions)
    sizes = one.enough(short), all_.enough(short)
    pieces = [(one.piece(sizes[0])[0], *all_.piece(sizes[1])) for _ in range(PIECES)]
    base, took, cpu = map(statistics.median, zip(*pieces, strict=True))
    found = {"us": took * 1e6, "cpu_us": cpu * 1e6}
    return found if actions == 1 else {**found, "each": (took - base) * 1e6 / (actions - 1)}


# Floors


class Box:
    """What a floor has in place of a batch."""

    calls = 0

    def __init__(self, place: int) -> None:
        self.place = place

    def counted(self) -> Box:
        self.calls += 1
        return self


def floor_calls(calls: int) -> Endless:
    functions = [Box.counted] * calls

    def boxes() -> Iterator[Box]:
        for place in count():
            box = Box(place)
            for function in functions:
                box = function(box)
            yield box

    def place(box: Box) -> int:
        assert box.calls == calls
        return box.place

    return Endless(boxes(), place)


def floor_pool(threads: int) -> Endless:
    def boxes() -> Iterator[Box]:
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[Box]] = deque()
            for place in count():
                waiting.append(pool.submit(Box(place).counted))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()

    return Endless(boxes(), lambda box: int(box.place))


# flowcore


def flowcore(actions: int = 1, *, ids: int = IDS, **options: Any) -> Endless:
    """Return an endless run, in the calling thread if the options do not say otherwise."""
    import flowcore as fc

    class Counted(fc.Batch):
        calls = 0

        @fc.action
        def counted(self) -> Counted:
            self.calls += 1
            return self

    pipe: Any = fc.Dataset(ids, Counted).p
    for _ in range(actions):
        pipe = pipe.counted()

    def place(batch: Any) -> int:
        assert batch.calls == actions
        return int(batch.epoch * -(-ids // SIZE) + batch.number)

    return Endless(pipe.gen_batch(SIZE, n_epochs=None, **{"prefetch": 0, **options}), place)


def of_actions(make: Callable[[int], Endless], actions: int) -> Callable[[bool], Measures]:
    return lambda short: with_each(make, actions, short)


def of_run(make: Callable[[], Endless]) -> Callable[[bool], Measures]:
    return lambda short: measured(make(), short)


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


WORK.system("floor, 100 calls")(of_actions(floor_calls, 100))
for number in (1, 10, 100):
    WORK.system(f"flowcore, {counted(number, 'action')}")(of_actions(flowcore, number))
for number in (1, 2, 4, 16, 64):
    WORK.system(f"floor, pool of {number}")(of_run(partial(floor_pool, number)))
for number in (1, 2, 4, 16, 64):
    threads: dict[str, Any] = {"num_workers": number, "prefetch": 2 * number}
    WORK.system(f"flowcore, {counted(number, 'thread')}")(of_run(partial(flowcore, **threads)))
for number in range(3, 10):
    order: dict[str, Any] = {"ids": 10**number, "shuffle": True, "seed": 1}
    WORK.system(f"flowcore, 10^{number} ids")(of_run(partial(flowcore, **order)))

if __name__ == "__main__":
    WORK.main()
