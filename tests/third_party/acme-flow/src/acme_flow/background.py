"""An executor with one worker: a thread in the background."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

from flowcore import Executor

__all__ = ["BackgroundExecutor"]


class BackgroundExecutor(Executor):
    """Runs one task after another in a thread: for actions whose library takes only one.

    Args:
        num_workers: accepted so that executors can be exchanged by name; there is one worker.
    """

    def __init__(self, num_workers: int = 1) -> None:
        super().__init__(1)

    def start(self, work: Any) -> None:
        """Start the thread."""
        # Made anew, so that a thread that outlived the last `close` takes nothing of this run.
        self._tasks: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(
            target=_serve, args=(work, self._tasks), name="acme-background", daemon=True
        )
        self._thread.start()

    def submit(self, task: Any) -> Future[Any]:
        """Append the task to those that wait."""
        future: Future[Any] = Future()
        self._tasks.put((future, task))
        return future

    def close(self) -> None:
        """Cancel the tasks that wait, and give the one that runs 0.9 s to end."""
        try:
            while True:
                self._tasks.get_nowait()[0].cancel()
        except Empty:
            self._tasks.put(None)
        self._thread.join(0.9)


def _serve(work: Any, tasks: SimpleQueue[Any]) -> None:
    with work.worker("acme-background"):
        while (job := tasks.get()) is not None:
            future, task = job
            if future.set_running_or_notify_cancel():
                future.set_result(work(task))
            del job, future, task  # a batch is not kept alive while this thread waits
