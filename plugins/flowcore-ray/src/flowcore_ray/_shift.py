"""What the workers of one run share: its tasks, and how it ends."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeAlias

from flowcore import Outcome, Task
from flowcore.errors import PipelineError

__all__ = ["Job", "Shift"]

Job: TypeAlias = "tuple[Future[Outcome], Task]"


class Shift:
    """The tasks that no worker has yet. Written by the run, read by the seats' threads.

    Args:
        readers: how many threads take from it.

    Attributes:
        closed: the run is over.
        losses: how many workers were lost; one that was idle then is looked at before it goes on.
    """

    def __init__(self, readers: int) -> None:
        self._readers = readers
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # Of the run's thread and those of the seats: no task may come in while the others fail.
        self._lock = threading.Lock()
        self._failure: PipelineError | None = None
        self.closed = False
        self.losses = 0

    def submit(self, task: Task) -> Future[Outcome]:
        """Give a task to the next free worker."""
        future: Future[Outcome] = Future()
        self.put((future, task))
        return future

    def put(self, job: Job) -> None:
        """Leave a task, new or given back, to the next free worker."""
        with self._lock:
            if self._failure is not None:
                job[0].set_exception(self._failure)
            else:
                self._jobs.put(job)

    def take(self) -> Job | None:
        """Return a task, waiting for it; ``None`` at the end."""
        return self._jobs.get()

    def note_loss(self) -> None:
        """Count a worker that was lost."""
        with self._lock:
            self.losses += 1

    def fail(self, error: PipelineError) -> None:
        """Let every task, now and later, have an error; it ends the run."""
        with self._lock:
            self._failure = error
            self._drain(error)

    def close(self) -> None:
        """Cancel what no worker has yet, and let the seats' threads end."""
        self.closed = True
        self._drain(None)

    def _drain(self, error: PipelineError | None) -> None:
        try:
            while True:
                job = self._jobs.get_nowait()
                if job is not None and error is None:
                    job[0].cancel()
                elif job is not None:
                    job[0].set_exception(error)
        except Empty:
            pass
        for _ in range(self._readers):
            self._jobs.put(None)
