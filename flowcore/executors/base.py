"""The contract of an executor: tasks go in, `concurrent.futures.Future` objects come out.

A task is plain data and its outcome is a function of it and the recipe alone, so an executor may
run it anywhere, in any order, and again. Order, retries and the size of the window are not its
business: one engine does them for all executors.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from flowcore.batch import Batch
from flowcore.cores import usable_cores
from flowcore.errors import PipelineError, explain
from flowcore.items import Dropped
from flowcore.memory import Allocate

__all__ = [
    "REFUSED",
    "SENDING",
    "Executor",
    "Outcome",
    "Running",
    "Task",
    "TaskGroup",
    "Work",
    "check_singletons",
]

#: The step of an outcome that says: the executor takes no more tasks.
REFUSED = "submitting"

#: The step of an outcome that says: the work cannot reach the workers, so no batch can be made.
SENDING = "sending the work"


@dataclass(slots=True, eq=False)
class Task:
    """One batch to be made, as plain data.

    Attributes:
        epoch: from zero.
        number: of the batch in its epoch, from zero, over all shards.
        positions: int64 positions of its items in the dataset's index.
        seed: of the run.
        filler: it repeats items, so that a shard has as many batches as the others.
        dropping: an item that fails alone is dropped, and the batch goes on without it.
        keys: of the items' random streams, where these are not their positions.
        stage: which part of the recipe makes it: 0 up to the first `rebatch`, and so on.
        parts: what a later stage makes its batch of: batches, each with the range of its items.
        keep: somebody takes the batch, and not only its items and its size.
    """

    epoch: int
    number: int
    positions: NDArray[np.int64]
    seed: int
    filler: bool = False
    dropping: bool = False
    keys: NDArray[np.int64] | None = None
    stage: int = 0
    parts: tuple[tuple[Batch, slice], ...] = ()
    keep: bool = True


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of a task.

    Attributes:
        batch: as the last step left it; ``None`` also if nobody takes the batches of the run.
        items: what each sink's ``prepare`` returned, in the order of the recipe.
        error: what a step raised, with its own traceback; ``None`` if none did.
        step: the name of the step that raised.
        dropped: the items that failed alone, and were dropped.
        size: number of items in the batch; ``None`` if a step raised, or left no item of it.
    """

    batch: Batch | None = None
    items: tuple[Any, ...] = ()
    error: BaseException | None = None
    step: str = ""
    dropped: tuple[Dropped, ...] = ()
    size: int | None = None


class TaskGroup:
    """Tasks that are handed over together, and what becomes of them.

    It is made by the run, and has no lock: each place is written by the worker that took it, and
    read by one thread. That is what a hand-over to a thread of this process needs of a future, for
    a fifth of what a future costs.

    Args:
        tasks: in the order in which their outcomes are awaited.
        ended: called once with the group, in the worker, when it is over.

    Attributes:
        tasks: likewise.
        outcomes: of each task, ``None`` until it is there.
        over: nothing more will come.
        error: why workers were lost; ``None`` if none was.
    """

    __slots__ = ("_begun", "_ended", "_through", "error", "outcomes", "over", "tasks")

    def __init__(self, tasks: Sequence[Task], ended: Callable[[TaskGroup], None]) -> None:
        self.tasks, self._ended = tasks, ended
        self.outcomes: list[Outcome | None] = [None] * len(tasks)
        self.over = False
        self.error: BaseException | None = None
        self._begun, self._through = itertools.count(), itertools.count(1)

    def take(self) -> int | None:
        """Return the place of a task that nobody has taken, ``None`` if there is none.

        Several workers may share a group.
        """
        at = next(self._begun)
        return at if at < len(self.tasks) else None

    def set(self, at: int, outcome: Outcome) -> None:
        """Give the outcome of the task at a place; the last one ends the group."""
        self.outcomes[at] = outcome
        if next(self._through) == len(self.tasks):
            self.end()

    def end(self, error: BaseException | None = None) -> None:
        """End it, as its worker was lost; tasks that have no outcome were in progress there.

        What the error says is as with the future of a single task: see `Executor.submit`.
        """
        self.error, self.over = error, True
        self._ended(self)


@dataclass(frozen=True, slots=True)
class Running:
    """A task in progress.

    Attributes:
        task: what was submitted.
        step: the step that it is in; empty if that is not known.
        since: when it began, by `time.monotonic`.
        stack: returns where in the code it is, as text; empty if that is not known.
    """

    task: Task
    step: str
    since: float
    stack: Callable[[], str] = str


class Work(Protocol):
    """A recipe made ready to run: called with a task in a worker. Picklable if its parts are.

    Attributes:
        window: how many tasks are at most submitted, and their batches not delivered.
        singletons: the names of its actions that let only one batch in at a time.
    """

    window: int
    singletons: tuple[str, ...]

    def __call__(self, task: Task, /) -> Outcome:
        """Make the task's batch. What a step raises is in the outcome, never raised here."""
        ...

    def worker(
        self,
        name: str,
        *,
        note: Callable[[str], None] | None = None,
        allocate: Allocate | None = None,
    ) -> AbstractContextManager[None]:
        """Return what a worker is inside of while it serves: its set-up and tear-down.

        Enter it in the thread that then calls the work. It never raises: a set-up that fails is
        the error of the tasks that follow in that thread.

        Args:
            name: of the worker.
            note: called with the name of each step, in that thread, as the step begins.
            allocate: what `Batch.empty` calls, in whatever thread, with a shape and a dtype.
        """
        ...

    def parts(self) -> Iterator[tuple[str, object]]:
        """Generate what the work is made of, each part with what to call it in a message."""
        ...


class Executor(ABC):
    """Runs tasks. Subclass it, and declare the class in ``flowcore.executors``.

    One object serves one run at a time; after ``close`` it may be started again.

    Args:
        num_workers: how many tasks to run at once.

    Attributes:
        num_workers: how many tasks run at once; 0 says that ``submit`` itself runs the task.
    """

    #: The options of a run that the constructor takes, with what they are.
    run_options: ClassVar[Mapping[str, str]] = {}

    #: In how many processes the workers are: of more than one, none can run one at a time.
    processes: int = 1

    #: How many tasks to hand over at once: more than one where that takes longer than they do. 0
    #: says that tasks are handed to ``submit`` and not to ``submit_group``.
    group_size: int = 0

    num_workers: int

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    @classmethod
    def most_workers(cls) -> int:
        """Return how many workers there are at most where a run does not say: cores + 4."""
        return usable_cores() + 4

    @abstractmethod
    def start(self, work: Work) -> None:
        """Make the workers ready. Called once, in the thread that starts the run.

        Whatever it raises is raised to that thread, and the run does not start.
        """

    @abstractmethod
    def submit(self, task: Task) -> Future[Outcome]:
        """Have ``work(task)`` called in a worker.

        Called from one thread at a time. The future's result is the outcome. A future that raises
        says that the worker was lost. A `WorkerLost` says that it was lost by this very task, which
        is submitted again; any other error, that it may have been lost by any of those in progress,
        which are then submitted one at a time. One that raises a `PipelineError` says that the work
        could not be sent, which ends the run.
        """

    def submit_group(self, group: TaskGroup) -> None:
        """Have workers take the group's tasks, call ``work`` with each, and set the outcomes.

        It is called in place of ``submit`` where `group_size` is not 0.
        """
        raise NotImplementedError

    def running(self) -> Iterable[Running]:
        """Return the tasks that run outside of this process. Called in any thread; none here."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Let the workers go: cancel what has not begun, and return within a second.

        Called once for each ``start``, also on a failed or left run.
        """


def check_singletons(work: Work, processes: int) -> None:
    """Refuse actions that must run one at a time where no lock reaches all workers.

    Raises:
        PipelineError: there is such an action, and more than one process.
    """
    if work.singletons and processes > 1:
        raise PipelineError(
            explain(
                f"action {work.singletons[0]!r} is a singleton, and the workers are {processes} "
                "processes",
                why="it lets one batch in at a time in each process, so as many as there are",
                next="num_workers=1, for processes with threads_per_worker=; or threads; or do "
                "without singleton=True",
            )
        )
