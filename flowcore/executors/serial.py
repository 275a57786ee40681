"""The executor without workers: who submits a task runs it. All others must give what it gives."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import AbstractContextManager

from flowcore.executors.base import Executor, Outcome, Task, Work

__all__ = ["SerialExecutor"]


class SerialExecutor(Executor):
    """Runs each task in ``submit``.

    Args:
        num_workers: accepted so that executors can be exchanged by name; there are no workers.
    """

    def __init__(self, num_workers: int = 0) -> None:
        super().__init__(0)

    def start(self, work: Work) -> None:
        """Keep the work."""
        self._work = work
        self._inside: AbstractContextManager[None] | None = None

    def submit(self, task: Task) -> Future[Outcome]:
        """Run the task; the future is done."""
        future: Future[Outcome] = Future()
        future.set_result(self.call(task))
        return future

    def call(self, task: Task) -> Outcome:
        """Run the task; the thread that calls first is the worker."""
        if self._inside is None:
            self._inside = self._work.worker("flowcore-serial")
            self._inside.__enter__()
        return self._work(task)

    def close(self) -> None:
        """Tear the worker down."""
        if self._inside is not None:
            self._inside.__exit__(None, None, None)
            self._inside = None
