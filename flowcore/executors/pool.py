"""Any `concurrent.futures.Executor` as an executor of flowcore, wherever its workers are."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from concurrent import futures
from concurrent.futures import Future

from flowcore.errors import PipelineError, explain
from flowcore.executors.base import Executor, Outcome, Task, Work

__all__ = ["PoolExecutor"]

# The work of the runs in this process, by key. A pool whose workers are threads finds it here; a
# worker in another process does not, and is then sent it, once.
_WORK: dict[tuple[int, int], Work] = {}
_KEYS = itertools.count()


class PoolExecutor(Executor):
    """Submits tasks to a pool that the user made, and leaves the pool as it is at the end.

    Args:
        pool: the pool; its workers may be threads, processes, or elsewhere.
        num_workers: how many tasks it runs at once, as far as that is known.
    """

    def __init__(self, pool: futures.Executor, num_workers: int) -> None:
        super().__init__(num_workers)
        self._pool = pool

    def start(self, work: Work) -> None:
        """Make the work known to the workers of this process."""
        self._key = (os.getpid(), next(_KEYS))
        _WORK[self._key] = work
        self._lock = threading.Lock()  # completing futures, in whatever threads, may need the pickle
        self._pickle: bytes | None = None
        self._open: set[Future[Outcome | None]] = set()
        self._closed = False

    def submit(self, task: Task) -> Future[Outcome]:
        """Submit the task, and again with the work if the worker does not have it."""
        answer: Future[Outcome] = Future()
        self._send(answer, task, None)
        return answer

    def close(self) -> None:
        """Cancel what has not begun, and wait up to 0.9 s for what has; the pool stays open."""
        self._closed = True
        for future in list(self._open):
            future.cancel()
        futures.wait(list(self._open), timeout=0.9)
        _WORK.pop(self._key, None)

    def _send(self, answer: Future[Outcome], task: Task, work: bytes | None) -> None:
        future = self._pool.submit(_run, self._key, work, task)
        self._open.add(future)
        future.add_done_callback(lambda done: self._receive(done, answer, task))

    def _receive(self, done: Future[Outcome | None], answer: Future[Outcome], task: Task) -> None:
        self._open.discard(done)
        if done.cancelled():
            answer.cancel()
            answer.set_running_or_notify_cancel()
            return
        try:
            outcome = done.result()
            if outcome is not None:
                answer.set_result(outcome)
            elif not self._closed:
                self._send(answer, task, self._pickled())
        except BaseException as error:  # the pool's own: the worker, or the way to it, was lost
            answer.set_exception(error)

    def _pickled(self) -> bytes:
        with self._lock:
            if self._pickle is None:
                try:
                    self._pickle = pickle.dumps(_WORK[self._key])
                except Exception as error:
                    raise PipelineError(
                        explain(
                            f"the pipeline cannot be sent to the workers of {self._pool!r:.80}: "
                            f"{type(error).__name__}: {error}",
                            next="define the batch class and what its actions are given at the top "
                            "level of a module, or use threads",
                        )
                    ) from error
            return self._pickle


def _run(key: tuple[int, int], pickled: bytes | None, task: Task) -> Outcome | None:
    """Run a task in a worker; return ``None`` if the worker has not got the work yet."""
    if pickled is not None:
        for old in [old for old in _WORK if old[0] != os.getpid()]:
            del _WORK[old]  # of a run before this one
        _WORK[key] = pickle.loads(pickled)
    work = _WORK.get(key)
    return None if work is None else work(task)
