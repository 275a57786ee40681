"""The executor of threads: for actions that wait, or let go of the interpreter as NumPy does."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeAlias

from flowcore.executors.base import Executor, Outcome, Task, Work

__all__ = ["ThreadsExecutor"]

_Job: TypeAlias = "tuple[Future[Outcome], Task]"
_PATIENCE = 0.4  # seconds that close() waits for actions that are still running


class ThreadsExecutor(Executor):
    """Runs tasks in ``num_workers`` threads of this process.

    Not `concurrent.futures.ThreadPoolExecutor`: that has no tear-down of a worker, waits without
    limit in ``shutdown``, and its threads hold up the interpreter's exit. A thread that is still in
    an action when the executor is closed ends with that action.
    """

    def start(self, work: Work) -> None:
        """Start the threads."""
        # Each start has a queue of its own: a thread that is late for the last close cannot take
        # from the next run. Written by the thread that submits, read by the workers.
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
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

    def submit(self, task: Task) -> Future[Outcome]:
        """Give the task to the next free thread."""
        future: Future[Outcome] = Future()
        self._jobs.put((future, task))
        return future

    def close(self) -> None:
        """Cancel what has not begun, and wait up to 0.4 s for what has."""
        try:
            while (job := self._jobs.get_nowait()) is not None:
                job[0].cancel()
        except Empty:
            pass
        for _ in range(self.num_workers):
            self._jobs.put(None)
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            if thread is not threading.current_thread():  # closed by a collection in an action
                thread.join(max(0.0, end - time.monotonic()))


def _serve(jobs: SimpleQueue[_Job | None], work: Work, name: str) -> None:
    with work.worker(name):
        while (job := jobs.get()) is not None:
            future, task = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(task))
                except BaseException as error:  # it raises none; but a thread that dies is a hang
                    future.set_exception(error)
            del job, future, task  # do not keep a batch alive while waiting
