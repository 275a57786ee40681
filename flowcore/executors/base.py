"""The contract of an executor: tasks go in, `concurrent.futures.Future` objects come out.

A task is plain data and its outcome is a function of it and the recipe alone, so an executor may
run it anywhere, in any order, and again. Order, retries and the size of the window are not its
business: one engine does them for all executors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from flowcore.batch import Batch
from flowcore.items import Dropped

__all__ = ["REFUSED", "SENDING", "Executor", "Outcome", "Task", "Work"]

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


@dataclass(slots=True, eq=False)
class Outcome:
    """What became of a task.

    Attributes:
        batch: as the last step left it; ``None`` if a step raised, or left no item of it.
        items: what each sink's ``prepare`` returned, in the order of the recipe.
        error: what a step raised, with its own traceback; ``None`` if none did.
        step: the name of the step that raised.
        dropped: the items that failed alone, and were dropped.
    """

    batch: Batch | None = None
    items: tuple[Any, ...] = ()
    error: BaseException | None = None
    step: str = ""
    dropped: tuple[Dropped, ...] = ()


class Work(Protocol):
    """A recipe made ready to run: called with a task in a worker. Picklable if its parts are."""

    def __call__(self, task: Task, /) -> Outcome:
        """Make the task's batch. What a step raises is in the outcome, never raised here."""
        ...

    def worker(self, name: str) -> AbstractContextManager[None]:
        """Return what a worker is inside of while it serves: the set-up and tear-down hooks.

        Enter it in the thread that then calls the work. It never raises: a set-up that fails is
        the error of the tasks that follow in that thread.
        """
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

    num_workers: int

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    @abstractmethod
    def start(self, work: Work) -> None:
        """Make the workers ready. Called once, in the thread that starts the run.

        Whatever it raises is raised to that thread, and the run does not start.
        """

    @abstractmethod
    def submit(self, task: Task) -> Future[Outcome]:
        """Have ``work(task)`` called in a worker.

        Called from one thread at a time. The future's result is the outcome. A future that raises
        says that the worker was lost with the task, which is then submitted again; one that raises
        a `PipelineError` says that the work could not be sent, which ends the run.
        """

    @abstractmethod
    def close(self) -> None:
        """Let the workers go: cancel what has not begun, and return within a second.

        Called once for each ``start``, also on a failed or left run.
        """
