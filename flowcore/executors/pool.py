"""Any `concurrent.futures.Executor` as an executor of flowcore, wherever its workers are."""

from __future__ import annotations

import os
import pickle
import threading
from concurrent import futures
from concurrent.futures import Future
from typing import TypeAlias

from flowcore.errors import PipelineError, explain
from flowcore.executors.base import SENDING, Executor, Outcome, Task, Work, check_singletons
from flowcore.executors.wire import pack, unpack, unsendable

__all__ = ["PoolExecutor"]

_Answer: TypeAlias = "Outcome | bytes | None"

# The work of the runs of this process, by key. A pool whose workers are threads finds it here; a
# worker in another process does not, and is then sent it, once.
_HERE: dict[str, Work] = {}
_SENT: dict[str, Work] = {}
_PATIENCE = 0.4  # seconds that `close` waits for tasks that are still running
_SENT_MOST = 4  # runs that may share a pool without sending their work more than once to a worker


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
        self._key = f"{os.getpid()}:{os.urandom(16).hex()}"
        _HERE[self._key] = work
        self._lock = (
            threading.Lock()
        )  # completing futures, in whatever threads, may need the pickle
        self._pickle: bytes | None = None
        self._open: set[Future[_Answer]] = set()
        self._closed = False

    def submit(self, task: Task) -> Future[Outcome]:
        """Submit the task, and again with the work if the worker does not have it."""
        answer: Future[Outcome] = Future()
        self._send(answer, task, None)
        return answer

    def close(self) -> None:
        """Cancel what has not begun, and wait up to 0.4 s for what has; the pool stays open."""
        self._closed = True
        for future in list(self._open):
            future.cancel()
        futures.wait(list(self._open), timeout=_PATIENCE)
        _HERE.pop(self._key, None)

    def _send(self, answer: Future[Outcome], task: Task, work: bytes | None) -> None:
        future = self._pool.submit(_run, self._key, work, task)
        self._open.add(future)
        future.add_done_callback(lambda done: self._receive(done, answer, task))

    def _receive(self, done: Future[_Answer], answer: Future[Outcome], task: Task) -> None:
        self._open.discard(done)
        if done.cancelled() or self._closed:
            answer.cancel()
            answer.set_running_or_notify_cancel()
            return
        try:
            outcome = done.result()
            if outcome is None:
                self._send(answer, task, self._pickled())
            else:
                answer.set_result(unpack(outcome) if isinstance(outcome, bytes) else outcome)
        except BaseException as error:  # the pool's own: the worker, or the way to it, was lost
            answer.set_exception(error)

    def _pickled(self) -> bytes:
        with self._lock:
            if self._pickle is None:
                work = _HERE[self._key]
                check_singletons(work, self.num_workers)
                try:
                    self._pickle = pickle.dumps(work, protocol=5)
                except Exception as error:
                    raise unsendable(work, error) from error
            return self._pickle


def _run(key: str, pickled: bytes | None, task: Task) -> _Answer:
    """Run a task in a worker; return ``None`` if the worker has not got the work yet.

    From another process the outcome comes back as our own pickle: what does not pickle, or not
    unpickle, is then the error of its batch, and does not break the pool.
    """
    if key in _HERE and key.startswith(f"{os.getpid()}:"):
        return _HERE[key](task)
    if pickled is not None:
        try:
            _SENT[key] = pickle.loads(pickled)
        except Exception as error:
            return pack(Outcome(error=_unreadable(error), step=SENDING))
        while len(_SENT) > _SENT_MOST:
            del _SENT[next(iter(_SENT))]
    work = _SENT.get(key)
    return None if work is None else pack(work(task))


def _unreadable(error: Exception) -> PipelineError:
    return PipelineError(
        explain(
            f"the pipeline cannot be read in a worker: {type(error).__name__}: {error}",
            next="define the batch class, and what its actions are given, at the top level of a "
            "module that the workers can import; or use threads",
        )
    )
