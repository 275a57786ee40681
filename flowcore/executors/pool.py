"""Any `concurrent.futures.Executor` as an executor of flowcore, wherever its workers are."""

from __future__ import annotations

import os
import pickle
import threading
import traceback
import uuid
from concurrent import futures
from concurrent.futures import Future
from typing import Any, TypeAlias

from flowcore.errors import ActionError, PipelineError, explain
from flowcore.executors.base import SENDING, Executor, Outcome, Task, Work
from flowcore.items import Dropped

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
        self._key = f"{os.getpid()}:{uuid.uuid4()}"
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
                answer.set_result(_unpacked(outcome) if isinstance(outcome, bytes) else outcome)
        except BaseException as error:  # the pool's own: the worker, or the way to it, was lost
            answer.set_exception(error)

    def _pickled(self) -> bytes:
        with self._lock:
            if self._pickle is None:
                try:
                    self._pickle = pickle.dumps(_HERE[self._key])
                except Exception as error:
                    raise _unsendable(
                        f"the pipeline cannot be sent to the workers of {self._pool!r:.80}", error
                    ) from error
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
            return _packed_error(
                _unsendable("the pipeline cannot be read in a worker", error), SENDING
            )
        while len(_SENT) > _SENT_MOST:
            del _SENT[next(iter(_SENT))]
    work = _SENT.get(key)
    return None if work is None else _packed(work(task))


def _packed(outcome: Outcome) -> bytes:
    """Return the pickle of an outcome; of what does not pickle, that of an error that says so."""
    try:
        if outcome.error is not None:
            return _packed_error(outcome.error, outcome.step)
        dropped = tuple(
            (item.id, item.position, item.action, _packed_error(item.error, item.action))
            for item in outcome.dropped
        )
        return pickle.dumps((outcome.batch, outcome.items, dropped), protocol=5)
    except Exception as error:
        problem = ActionError(
            explain(
                f"the batch cannot be sent back from its worker: {type(error).__name__}: {error}",
                next="leave nothing on the batch that does not pickle, or use threads",
            )
        )
        return _packed_error(problem, "sending the batch back")


def _packed_error(error: BaseException, step: str) -> bytes:
    trace = "".join(traceback.format_exception(error)).rstrip()
    error.add_note(f"flowcore: its traceback in the worker:\n{trace}")
    # By its own pickle where that keeps all; else by its parts, as a class need not take the
    # arguments that are in `args`; else as an error that has its text.
    text = f"{type(error).__name__}: {error}"
    for made in (
        lambda: (error, step),
        lambda: (type(error), error.args, vars(error), step),
        lambda: (ActionError, (text,), {"__notes__": error.__notes__}, step),
    ):
        try:
            packed = pickle.dumps(made(), protocol=5)
            found = _unpacked(packed).error
        except Exception:
            continue
        if type(found) is ActionError or (
            (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))
        ):
            break
    return packed


def _unpacked(packed: bytes) -> Outcome:
    parts = pickle.loads(packed)
    if isinstance(parts[0], BaseException):
        return Outcome(error=parts[0], step=parts[1])
    if len(parts) == 3:
        batch, items, dropped = parts
        return Outcome(batch, items, dropped=tuple(_dropped(*item) for item in dropped))
    kind, arguments, state, step = parts
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(state)
    return Outcome(error=error, step=step)


def _dropped(id_: Any, position: int, action: str, error: bytes) -> Dropped:
    found: Any = _unpacked(error).error
    return Dropped(id_, position, action, found)


def _unsendable(what: str, error: Exception) -> PipelineError:
    return PipelineError(
        explain(
            f"{what}: {type(error).__name__}: {error}",
            next="define the batch class, and what its actions are given, at the top level of a "
            "module that the workers can import; or use threads",
        )
    )
