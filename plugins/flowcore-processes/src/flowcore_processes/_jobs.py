"""The tasks that no worker has yet, and what is known of each that one has."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

from flowcore import Outcome, Task

__all__ = ["Job", "Jobs"]


@dataclass(slots=True, eq=False)
class Job:
    """A task, and who waits for it.

    Attributes:
        task: as it was submitted.
        future: of its outcome.
        number: its number among those that its process was given, from 1.
        slot: that its process may write to; ``None`` if none was free.
        since: when it began, as far as that is known here, by `time.monotonic`.
        is_dropped: nobody waits for it any more.
    """

    task: Task
    future: Future[Outcome]
    number: int = 0
    slot: int | None = None
    since: float = 0.0
    is_dropped: bool = False

    def begins(self) -> bool:
        """Return whether it is still wanted; from then on it cannot be cancelled."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def drop(self) -> None:
        """Wait for it no longer."""
        self.is_dropped = True
        self.future.cancel()


class Jobs:
    """A queue of jobs, which can be closed."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        # Guards all of it. Who submits adds, the lanes take; a lane that lost its worker puts back.
        self._changed = threading.Condition()
        self.closed = False

    def put(self, job: Job, *, first: bool = False) -> None:
        """Add a job, at the end or before all others."""
        with self._changed:
            if first:
                self._jobs.appendleft(job)
            else:
                self._jobs.append(job)
            self._changed.notify()

    def take(self, *, wait: bool) -> Job | None:
        """Return the next job; ``None`` if there is none, or if the queue was closed."""
        with self._changed:
            while wait and not self._jobs and not self.closed:
                self._changed.wait()
            return self._jobs.popleft() if self._jobs else None

    def clear(self) -> None:
        """Drop all jobs."""
        with self._changed:
            jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            job.drop()

    def close(self) -> None:
        """Drop all jobs, and have nobody wait for others."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self.clear()
