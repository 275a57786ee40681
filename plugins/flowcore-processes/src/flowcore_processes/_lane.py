"""A lane: one thread of a worker process, and the thread here that gives it tasks and waits for it.

It may send a second task while the first is in progress, so that a worker which makes many small
batches need not wait for this side. When the process dies, the task that it had begun is the one it
is lost with; the other is given to whoever is free.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from flowcore import Outcome, Running, aligned_empty
from flowcore.errors import ActionError, PipelineError, TimedOut, WorkerLost, explain
from flowcore.executors.wire import unpack
from flowcore.memory import Bytes
from flowcore_processes._board import Board
from flowcore_processes._death import Death
from flowcore_processes._jobs import Job, Jobs
from flowcore_processes._memory import read_slot
from flowcore_processes._pickling import dumps
from flowcore_processes._process import Process
from flowcore_processes._slots import Slots

__all__ = ["Lane"]

_log = logging.getLogger("flowcore")

_QUICK = 0.05  # seconds; a batch that takes longer is not waited behind
_TOGETHER = 32 * 1024  # bytes; a longer message could wait for the worker, which waits for us
_LONGEST_POLL = 3600.0  # seconds; the system takes no number that is much larger
_START = 60.0  # seconds that a new process has to begin its first job, if timeout= is shorter
_LOOK = 0.05  # seconds between looks whether it has
_RECEIVING = "receiving the batch"  # the step of an outcome that cannot be had here
_STILLBORN = 3  # processes that end before their first task: no more are tried

_Head = tuple[bytes, list[tuple[int, int] | None], list[int], int, bool, str]


class Lane:
    """Takes jobs, has them done by one thread of a worker process, and settles them.

    Args:
        process: the worker.
        at: the number of its thread.
        fd: of the shared file.
        jobs: where to take from.
        slots: for their batches.
        timeout: seconds that a job may take.
        warn: says something once.
    """

    def __init__(
        self,
        process: Process,
        at: int,
        fd: int,
        *,
        jobs: Jobs,
        slots: Slots,
        timeout: float | None,
        warn: Callable[[str], None],
    ) -> None:
        self._process, self._at, self._fd = process, at, fd
        self._jobs, self._slots, self._timeout, self._warn = jobs, slots, timeout, warn
        self._board = Board(fd, process.hire.number * process.hire.threads + at)
        # Written by the thread of the lane; others look at the first.
        self.sent: deque[Job] = deque()
        self._held: Job | None = None  # that is about to be sent
        self._connection: Connection[Any, Any] | None = None
        self._generation = self._stillborn = 0
        self._quick = self._over = False
        self._connect()

    def serve(self) -> None:
        """Be the thread of the lane, until the queue is closed."""
        while not self._over:
            try:
                self._step()
            except Exception as error:  # a mistake of ours; but nobody may be left waiting
                _log.exception("a lane to a worker failed")
                held = [self._held] if self._held is not None else []
                self._fail([*self.sent, *held], f"{type(error).__name__}: {error}")
                self.sent, self._held = deque(), None
        for job in self.sent:
            if not job.future.done() and job.begins():
                job.future.set_exception(ChildProcessError("the workers were ended"))
        if self._connection is not None:
            with suppress(OSError):
                self._connection.send_bytes(b"")  # the worker may leave
            self._connection.close()

    def _step(self) -> None:
        self._held = self._jobs.take(wait=not self.sent)
        if self._held is not None:
            self._give(self._held)
            self._held = None
            if self._quick and len(self.sent) == 1:
                return  # there may be another, to be sent ahead
        elif not self.sent:
            self._over = True
        if self.sent:
            self._receive()

    @property
    def is_broken(self) -> bool:
        """Whether its process is gone, and no other could be started."""
        return self._connection is None

    def running(self) -> Running | None:
        """Return what the worker is on; called in any thread."""
        with suppress(IndexError):
            job = self.sent[0]
            task, step = self._board.read()
            if task >= job.number:
                return Running(job.task, step, job.since, self._process.stack)
        return None

    def kill(self) -> None:
        """End the process, as nobody waits for what it does."""
        for job in list(self.sent):
            job.drop()
        self._process.kill(self._generation)

    def _connect(self) -> None:
        """Go on with the process that lives now."""
        if self._connection is not None:
            self._connection.close()
        self._generation = self._process.generation
        self._connection = self._process.connection(self._at)
        self._number = self._answered = 0
        self._board.begin(0, "")

    # There

    def _give(self, job: Job) -> None:
        if not self._can_send(job) or not job.begins():
            return
        job.slot = self._slots.take(self._process.hire.number)
        if job.slot is None and self._slots.most:
            self._warn(
                f"flowcore copies batches from their workers, as each of the {self._slots.most} "
                "slots of their shared memory holds a batch that somebody keeps; slots= sets how "
                "many there are"
            )
        try:
            message = _message(job, self._process.hire.key)
        except Exception as error:
            self._slots.give_back(job.slot, self._process.hire.number)
            job.future.set_result(Outcome(error=error, step="sending the batch to a worker"))
            return
        while self.sent and len(message) > _TOGETHER:
            self._receive()
        if not self._can_send(job):  # the process was lost in between
            return
        self._number += 1
        job.number, job.since = self._number, time.monotonic()
        self.sent.append(job)
        try:
            assert self._connection is not None
            self._connection.send_bytes(message)
        except OSError:
            self._lost()

    def _can_send(self, job: Job) -> bool:
        if self._connection is None:
            self._fail([job], "no worker process can be started")
        return self._connection is not None

    # And back

    def _receive(self) -> None:
        job, connection = self.sent[0], self._connection
        assert connection is not None
        try:
            if self._timeout is not None and not self._in_time(job, connection, self._timeout):
                return
            head: _Head = pickle.loads(connection.recv_bytes())
            loose = [_received(connection, size) for size in head[2]]
        except (EOFError, OSError):
            self._lost()
            return
        except Exception as error:  # no memory for it; the rest of it is still to come
            self._process.kill(self._generation)
            self._lost(Outcome(error=error, step=_RECEIVING))
            return
        outcome = self._outcome(job, head, loose)
        self.sent.popleft()
        self._answered += 1
        now = time.monotonic()
        self._quick, self._stillborn = now - job.since < _QUICK, 0
        if self.sent:
            self.sent[0].since = now
        job.future.set_result(outcome)

    def _outcome(self, job: Job, head: _Head, loose: list[Bytes]) -> Outcome:
        packed, places, _, reserved, kept, problem = head
        if problem:
            self._warn(
                f"flowcore copies batches from their workers, as a worker cannot have {problem}; "
                "shared_memory= names a folder with more room"
            )
        try:
            buffers = self._buffers(job, places, loose, reserved, kept)
            return unpack(packed, buffers)
        except BaseException as error:  # whatever the classes of a stranger raise
            failed = ActionError(
                explain(
                    f"the batch cannot be received: {type(error).__name__}: {error}",
                    next="what is on it must be of classes that this process can import",
                )
            )
            failed.__cause__ = error
            return Outcome(error=failed, step=_RECEIVING)

    def _buffers(
        self,
        job: Job,
        places: list[tuple[int, int] | None],
        loose: list[Bytes],
        reserved: int,
        kept: bool,
    ) -> list[Bytes]:
        """Return the buffers of a batch, each a view of its slot, or loose."""
        used = max((sum(place) for place in places if place is not None), default=0)
        worker = self._process.hire.number
        whole = np.empty(0, np.uint8)
        if job.slot is not None and kept:  # it may still be written to: it is not used again
            self._warn(
                "an action keeps an array of batch.empty, or a view of it: its batch is copied, "
                "and that memory is lost to others; let it keep a copy"
            )
            whole = read_slot(self._fd, job.slot, used)
        elif job.slot is not None and used:
            whole = self._slots.batch(job.slot, worker, used, reserved)
        else:
            self._slots.give_back(job.slot, worker)
        rest = iter(loose)
        return [next(rest) if place is None else whole[place[0] : sum(place)] for place in places]

    def _in_time(self, job: Job, connection: Connection[Any, Any], timeout: float) -> bool:
        """Wait for an answer; return whether it is there. A worker that is late is replaced."""
        task, _ = self._board.read()
        if task < job.number and not self._answered:
            return self._in_time_to_begin(job, connection, timeout)
        left = job.since + timeout - time.monotonic()
        if connection.poll(max(0.0, min(left, _LONGEST_POLL))):
            return True
        if left > _LONGEST_POLL:
            return False
        task, step = self._board.read()
        if task < job.number:  # it does not even begin: somebody has stopped the process
            self._process.kill(self._generation)
            self._lost()
            return False
        stack = self._process.stack()
        error = TimedOut(
            explain(
                f"the batch took longer than {timeout:g} s",
                where=f"in {step!r}, in its worker:\n{stack}" if stack else f"in {step!r}",
                next="timeout= says how long a batch may take; on_error='skip' leaves it out",
            )
        )
        self._process.kill(self._generation)
        self._lost(Outcome(error=error, step=step))
        return False

    def _in_time_to_begin(self, job: Job, connection: Connection[Any, Any], timeout: float) -> bool:
        """Wait a little for a new process to begin its first job; return whether it answered."""
        if connection.poll(_LOOK):
            return True
        task, _ = self._board.read()
        now = time.monotonic()
        if task >= job.number:
            job.since = now
        elif now - job.since > max(timeout, _START):
            self._process.kill(self._generation)
            self._lost()
        return False

    # When the process is gone

    def _lost(self, outcome: Outcome | None = None) -> None:
        """Have another process, and settle, or put back, what the last one had.

        Args:
            outcome: of the job that it was on, which is why it was ended.
        """
        task, step = self._board.read()
        try:
            death = self._process.after(self._generation)
        except Exception as error:
            self._connection = None
            self._fail(self.sent, f"no worker process can be started: {error}")
            self.sent = deque()
            return
        for job in self.sent:  # only now: until then it may write to them
            self._slots.give_back(job.slot, self._process.hire.number)
        self._connect()
        if self._jobs.closed:
            self._over = True  # what was sent, nobody will do
            return
        jobs, self.sent = list(self.sent), deque()
        if outcome is not None:
            jobs.pop(0).future.set_result(outcome)
        elif jobs and task >= jobs[0].number and not jobs[0].is_dropped:
            self._settle_lost(jobs.pop(0), death, step)
        elif jobs:
            self._stillborn += 1
            if self._stillborn >= _STILLBORN:
                what = f"{death.what()} before its first batch, and so did those before it"
                self._fail([jobs.pop(0)], what)
        for job in reversed(jobs):
            if not job.is_dropped:
                self._jobs.put(job, first=True)

    def _settle_lost(self, job: Job, death: Death, step: str) -> None:
        self._stillborn = 0
        where = f"in {step!r}" + (f":\n{death.stack}" if death.stack else "")
        text = explain(
            death.what(),
            where=where,
            why=death.why(),
            next=f"{death.next()}; on_error='skip' leaves the batch out",
        )
        if self._process.hire.threads > 1:  # each of its threads had one, and any may be the cause
            job.future.set_exception(ChildProcessError(text))
            return
        lost = WorkerLost(text)
        lost.action = step
        job.future.set_exception(lost)

    def _fail(self, jobs: Iterable[Job], what: str) -> None:
        error = PipelineError(
            explain(what, next="what it wrote, if anything, is on the standard error output")
        )
        for job in jobs:
            if not job.future.done() and job.begins():
                job.future.set_exception(error)


def _message(job: Job, key: str) -> bytes:
    told = job.slot, job.task
    if job.task.parts:  # batches, whose classes may be of a script
        return dumps(told, key)
    return pickle.dumps(told, protocol=5)


def _received(connection: Connection[Any, Any], size: int) -> Bytes:
    buffer = aligned_empty(size, np.uint8)
    connection.recv_bytes_into(buffer)
    return buffer
