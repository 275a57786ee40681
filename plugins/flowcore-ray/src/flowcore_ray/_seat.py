"""A worker as the run sees it: an actor, and another one when that is lost.

A seat has two threads. One waits for the actor while the other fetches what it made before, so that
a batch crosses the network while the next is in the making. The actor has one task at a time: if it
is lost, that task was on it, and no other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayTaskError

from flowcore import Outcome, Running
from flowcore.errors import PipelineError, WorkerLost, explain
from flowcore.executors.wire import unpack
from flowcore_ray._actors import check_connected, kill
from flowcore_ray._shift import Job, Shift

__all__ = ["Seat"]

_TRIES = 3  # to have a worker, one after the other, before the run fails
_SHOWN = 600  # characters of what Ray says
_RECEIVING = "receiving the batch"  # the step of an outcome that cannot be read here


class Seat:
    """One worker of a run.

    Args:
        name: of the worker.
        shift: where its tasks come from.
        hire: makes an actor, and returns it with an object that is why it cannot work, or ''.

    Attributes:
        actor: ``None`` until there is one, and when it was lost.
        running: the task that it is on.
    """

    def __init__(self, name: str, shift: Shift, hire: Callable[[str], tuple[Any, Any]]) -> None:
        self.actor: Any = None
        self.running: Running | None = None
        self._name, self._shift, self._hire = name, shift, hire
        self._losses = 0  # those of the shift when the actor was looked at last
        self._turn = threading.Lock()  # of the two threads: who has it has the actor
        self.threads = [
            threading.Thread(target=self._serve, name=f"{name}-{at}", daemon=True)
            for at in range(2)
        ]

    def start(self) -> None:
        """Have a worker, and tasks for it."""
        for thread in self.threads:
            thread.start()

    def _serve(self) -> None:
        while True:
            with self._turn:
                job = self._next()
                if job is None:
                    return
                made = self._run(job)
            if made is not None:
                self._fetch(job, *made)
            del job, made  # a batch is not kept alive while this thread waits

    def _next(self) -> Job | None:
        """Return a task when there is a worker for it; ``None`` at the end."""
        while self._has_worker():
            job = self._shift.take()
            if job is None:
                return None
            if self._losses != self._shift.losses:
                self._shift.put(job)  # our node may be the one that is gone: look first
                self._look()
            elif job[0].set_running_or_notify_cancel():
                return job
        return None

    def _has_worker(self) -> bool:
        """Have an actor that is ready; return whether there is one."""
        error: object = None
        for _ in range(_TRIES):
            if self._shift.closed or self.actor is not None:
                break
            try:
                self.actor, ready = self._hire(self._name)
                # One that `close` did not see yet is not waited for: it may never be there.
                error = self._shift.closed or ray.get(ready)
            except BaseException as problem:  # Ray raises SystemExit where it was shut down
                error = problem
            if error:
                self._dismiss()
            self._losses = self._shift.losses
        if self.actor is None and not self._shift.closed:
            self._shift.fail(_unfit(self._name, error))
        return self.actor is not None and not self._shift.closed

    def _look(self) -> None:
        """Find out whether the actor is still there."""
        self._losses = self._shift.losses
        try:
            check_connected()
            ray.get(self.actor.look.remote())
        except BaseException:
            self._dismiss()

    def _run(self, job: Job) -> tuple[bytes, Any] | None:
        """Have a task run; return its outcome, and where its buffers are."""
        future, task = job
        self.running = Running(task, "", time.monotonic(), self._stack)
        try:
            check_connected()
            packed, buffers = self.actor.run.options(num_returns=2).remote(task)
            return ray.get(packed), buffers
        except RayTaskError as error:  # the actor lives: its answer could not be stored
            future.set_exception(_lost("the batch was", error))
        except BaseException as error:
            self._shift.note_loss()
            self._dismiss()
            future.set_exception(_lost(f"{self._name} was", error))
        finally:
            self.running = None
        return None

    def _fetch(self, job: Job, packed: bytes, buffers: Any) -> None:
        try:
            check_connected()
            here = ray.get(buffers)
        except BaseException as error:  # its node is gone
            job[0].set_exception(_lost("the batch was", error))
            return
        try:
            job[0].set_result(unpack(packed, here))
        except Exception as error:
            job[0].set_result(Outcome(error=error, step=_RECEIVING))

    def _dismiss(self) -> None:
        actor, self.actor = self.actor, None
        if actor is not None:
            kill(actor)

    def _stack(self) -> str:
        with suppress(Exception):
            return str(
                ray.get(self.actor.stack.options(concurrency_group="aside").remote(), timeout=1)
            )
        return ""


def _lost(what: str, error: BaseException) -> WorkerLost:
    said = " ".join(str(error).split())[:_SHOWN]
    lost = WorkerLost(
        explain(
            f"{what} lost with its node or its process",
            why=f"Ray says: {type(error).__name__}: {said}",
            next="look at its memory use; retries=2 has it made again more often; on_error='skip' "
            "leaves the batch out",
        )
    )
    lost.__cause__ = error
    return lost


def _unfit(name: str, error: object) -> PipelineError:
    said = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
    return PipelineError(
        explain(
            f"{name} cannot start",
            why=f"after {_TRIES} tries: {said}",
            next="if something cannot be imported: install flowcore-ray, and what the pipeline "
            "imports, on each node, or name it in runtime_env=; a class of a script needs nothing",
        )
    )
