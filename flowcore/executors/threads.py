"""The executor of threads: for actions that wait, or let go of the interpreter as NumPy does."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from flowcore.executors.base import Executor, Outcome, Task, TaskGroup, Work

__all__ = ["ThreadsExecutor"]

_PATIENCE = 0.4  # seconds that close() waits for actions that are still running

# To wake a thread takes tens of microseconds, so tasks that take less are handed over together: as
# many as take so many seconds, and not more than so many.
_WORTH, _MOST = 100e-6, 16
_LONG = 1e-3  # seconds of one task, after which others may share its group
_WEIGHT = 0.2  # of what was measured last, in the mean


class ThreadsExecutor(Executor):
    """Runs tasks in ``num_workers`` threads of this process.

    Not `concurrent.futures.ThreadPoolExecutor`: that has no tear-down of a worker, waits without
    limit in ``shutdown``, and its threads hold up the interpreter's exit. A thread that is still in
    an action when the executor is closed ends with that action.
    """

    _takes_groups = True

    def __init__(self, num_workers: int) -> None:
        super().__init__(num_workers)
        self._jobs = _Jobs()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "submit" in vars(cls) and "submit_group" not in vars(cls):
            cls._takes_groups = False  # it is to be called with each task

    def start(self, work: Work) -> None:
        """Start the threads."""
        # Each start has jobs of its own: a thread that is late for the last close cannot take from
        # the next run.
        self._jobs = _Jobs()
        self._threads: list[threading.Thread] = []
        try:
            for number in range(self.num_workers):
                name = f"flowcore-worker-{number}"
                thread = threading.Thread(
                    target=_serve,
                    args=(self._jobs, work, name),
                    name=name,
                    daemon=True,  # an action that never returns must not hold up the exit
                )
                thread.start()
                self._threads.append(thread)
        except BaseException:  # no more threads to be had, or a Ctrl-C
            self.close()
            raise

    @property
    def group_size(self) -> int:  # type: ignore[override]
        """How many tasks are worth one hand-over, by what they have taken so far."""
        return self._jobs.group_size if self._takes_groups else 0

    def submit(self, task: Task) -> Future[Outcome]:
        """Give the task to the next free thread."""
        future: Future[Outcome] = Future()
        self.submit_group(TaskGroup([task], partial(_resolve, future)))
        return future

    def submit_group(self, group: TaskGroup) -> None:
        """Give the tasks to the next free thread."""
        self._jobs.queue.put(group)

    def close(self) -> None:
        """Drop what has not begun, and wait up to 0.4 s for what has."""
        self._jobs.closed = True
        try:
            while self._jobs.queue.get_nowait() is not None:
                continue
        except Empty:
            pass
        self._jobs.queue.put(None)
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            if thread is not threading.current_thread():  # closed by a collection in an action
                thread.join(max(0.0, end - time.monotonic()))


class _Jobs:
    """What the threads of one start share: the jobs, and what they have taken so far.

    Written by the thread that submits (the queue, ``closed``) and by the workers (the others): a
    measure that is lost as two write at once does no harm.
    """

    def __init__(self) -> None:
        self.queue: SimpleQueue[TaskGroup | None] = SimpleQueue()
        self.closed = False
        self.group_size = 1
        # The mean of the logarithms of what a task takes: some that wait, for the interpreter's
        # lock as a rule, must not hide that most are short. At first it is a second: unknown ones
        # are handed over one by one.
        self._log_seconds = 0.0

    def note(self, seconds: float) -> None:
        """Note what a task took."""
        self._log_seconds += _WEIGHT * (math.log(max(seconds, 1e-9)) - self._log_seconds)
        self.group_size = max(1, min(_MOST, int(_WORTH / math.exp(self._log_seconds))))


def _serve(jobs: _Jobs, work: Work, name: str) -> None:
    with work.worker(name):
        while (group := jobs.queue.get()) is not None:
            try:
                _run(group, jobs, work)
            except BaseException as error:  # work raises none; but a thread that dies is a hang
                group.end(error)
            del group  # do not keep a batch alive while waiting
        jobs.queue.put(None)  # for the next thread, so that nothing can come between


def _run(group: TaskGroup, jobs: _Jobs, work: Work) -> None:
    count, start = 0, time.perf_counter()
    since = start
    while not jobs.closed and (at := group.take()) is not None:
        group.set(at, work(group.tasks[at]))
        count, before, since = count + 1, since, time.perf_counter()
        if since - before > _LONG and at + 1 < len(group.tasks):
            jobs.queue.put(group)  # others may share what is left: it takes longer than it did
    if count:
        jobs.note((since - start) / count)


def _resolve(future: Future[Outcome], group: TaskGroup) -> None:
    if group.error is not None:
        future.set_exception(group.error)
    elif group.outcomes[0] is not None:
        future.set_result(group.outcomes[0])
