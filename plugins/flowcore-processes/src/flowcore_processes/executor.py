"""The executor of processes: for actions that are Python code, and keep the interpreter busy.

Each worker is a process with one or more threads, and each of those has a thread here, which gives
it tasks and waits for what becomes of them. So a worker that is lost is lost with a known task.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, Self

from flowcore import Executor, Outcome, Running, Task, Work
from flowcore.cores import usable_cores
from flowcore.errors import OptionError, PipelineError, explain
from flowcore.executors.wire import unsendable
from flowcore_processes._pickling import Payload, dumps_of_work, write_work
from flowcore_processes._team import Team

__all__ = ["ProcessesExecutor"]

_PATIENCE = 0.4  # seconds that close() waits for actions that are still running
_BEGINS = 5.0  # seconds in which the processes have been started, or have ended


class ProcessesExecutor(Executor):
    """Runs tasks in worker processes, whose batches come back in shared memory.

    By name (``executor="processes"``) the workers are started with the run and end with it. An
    object of this class that is used as a context manager keeps them warm from run to run, as long
    as the runs are of the same pipeline::

        with ProcessesExecutor(4) as executor:
            for epoch in range(10):
                for batch in pipeline.gen_batch(64, executor=executor, prefetch=8): ...

    Args:
        num_workers: number of processes; by default one for each core. No more are started than
            there can be batches in progress.
        threads_per_worker: how many batches each process makes at once, in threads.
        timeout: seconds that a batch may take; then its worker is replaced, and the batch has
            failed with a `TimedOut`. By default no limit.
        native_threads: how many threads native libraries (OpenMP, BLAS, OpenCV) may use in each
            worker; by default the cores divided by the workers. 0 leaves them alone, and so does a
            variable such as ``OMP_NUM_THREADS`` that is set.
        shared_memory: a folder for the file of the shared memory; by default it is in none on
            Linux (``memfd``), elsewhere in the one for temporary files.
        slots: how many batches the shared memory may hold, those in progress and those that
            somebody keeps; what is beyond is copied. By default those in progress, and 16.

    Raises:
        OptionError: a value that cannot be right.
    """

    run_options: ClassVar[dict[str, str]] = {
        "threads_per_worker": "how many batches each process makes at once",
        "timeout": "seconds that a batch may take",
        "native_threads": "threads of OpenMP, BLAS and OpenCV in each process",
        "shared_memory": "a folder for the file of the shared memory",
        "slots": "how many batches the shared memory may hold",
    }

    def __init__(
        self,
        num_workers: int | None = None,
        *,
        threads_per_worker: int = 1,
        timeout: float | None = None,
        native_threads: int | None = None,
        shared_memory: str | os.PathLike[str] | None = None,
        slots: int | None = None,
    ) -> None:
        self.processes = _count(
            "num_workers", usable_cores() if num_workers is None else num_workers
        )
        self._threads = _count("threads_per_worker", threads_per_worker)
        super().__init__(self.processes * self._threads)
        self._timeout = _seconds(timeout)
        share = max(1, usable_cores() // self.processes)
        self._native = (
            share if native_threads is None else _count("native_threads", native_threads, 0)
        )
        self._folder = _folder(shared_memory)
        self._slots = None if slots is None else _count("slots", slots, 0)
        self._warm = False
        self._pid = os.getpid()
        self._team: Team | None = None
        self._payload: Payload | None = None

    @classmethod
    def most_workers(cls) -> int:
        """Return how many workers there are at most where a run does not say: one for each core."""
        return usable_cores()

    def __enter__(self) -> Self:
        self._warm = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._warm = False
        self._end()

    def __del__(self) -> None:
        if getattr(self, "_team", None) is not None:
            with suppress(Exception):  # at the end of the interpreter, what it takes may be gone
                self._end()

    def start(self, work: Work) -> None:
        """Start the processes, or go on with those that are there.

        Raises:
            PipelineError: the work does not pickle, and it says which step and which attribute; or
                no more processes, descriptors or memory can be had.
        """
        if os.getpid() != self._pid:  # a fork of the program, whose workers they are not
            self._team = self._payload = None
        slots = work.window + 16 if self._slots is None else self._slots
        processes = min(self.processes, -(-work.window // self._threads))
        payload = self._written(work)
        if payload is self._payload:
            if self._team is not None and self._team.serves(processes):
                self._team.allow(slots)
                return
            self._payload = None  # other workers go on with it
        self._end()
        self._payload, self._pid = payload, os.getpid()
        try:
            self._hire(payload, processes, slots)
        except OSError as error:
            self._end()
            raise PipelineError(
                explain(
                    f"{self.processes} worker processes cannot be started: {error}",
                    next="num_workers= sets how many; `ulimit -a` shows what one user may have",
                )
            ) from error
        except BaseException:
            self._end()
            raise

    def _hire(self, payload: Payload, processes: int, slots: int) -> None:
        def hire() -> None:
            self._team = Team(
                payload,
                processes=processes,
                threads=self._threads,
                native=self._native,
                folder=self._folder,
                slots=slots,
                timeout=self._timeout,
            )

        _undisturbed(hire)

    def submit(self, task: Task) -> Future[Outcome]:
        """Give the task to the next worker that is free.

        Raises:
            RuntimeError: the ``with`` block of the executor was left, and the run goes on.
        """
        if self._team is None:
            raise RuntimeError("the workers were ended, as the executor's with block was left")
        return self._team.submit(task)

    def running(self) -> Iterable[Running]:
        """Return the tasks that the workers are on."""
        return () if self._team is None else self._team.running()

    def close(self) -> None:
        """Cancel what has not begun, and wait up to 0.4 s for what has; then end the workers.

        Those of an executor that is used as a context manager stay, apart from those that are busy.
        """
        if self._warm and self._team is not None:
            self._team.clear(time.monotonic() + _PATIENCE)
        else:
            self._end()

    def _written(self, work: Work) -> Payload:
        try:
            return write_work(work, self._payload, self._folder)
        except OSError as error:
            raise PipelineError(
                explain(
                    f"there is no shared memory for the pipeline: {error}",
                    next="shared_memory= names another folder; or preload files, not arrays",
                )
            ) from error
        except Exception as error:
            raise unsendable(work, error, dumps_of_work) from error

    def _end(self) -> None:
        team, self._team = self._team, None
        payload, self._payload = self._payload, None
        if os.getpid() != self._pid:
            return  # in a fork of the program, whose workers they are not

        def end() -> None:
            try:
                if team is not None:
                    team.close(time.monotonic() + _PATIENCE)
            finally:
                if payload is not None:
                    payload.close()

        if team is not None or payload is not None:
            _undisturbed(end)


def _undisturbed(function: Callable[[], None]) -> None:
    """Call a function in a thread where no Ctrl-C can come between its steps."""
    if threading.current_thread() is not threading.main_thread():
        function()
        return
    over = threading.Event()
    failed: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)
        finally:
            over.set()

    try:
        threading.Thread(target=call, name="flowcore-undisturbed", daemon=True).start()
        over.wait()
    except KeyboardInterrupt:
        over.wait(_BEGINS)  # it is through in less, if it began at all
        raise
    if failed:
        raise failed[0]


def _count(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} must be an int of at least {least}, got {value!r}")
    return value


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise OptionError(f"timeout must be seconds, more than 0, or None, got {value!r}")
    return float(value)


def _folder(value: Any) -> str | None:
    if value is None:
        return None
    is_path = isinstance(value, (str, os.PathLike))
    if not is_path or not os.path.isdir(value) or not os.access(value, os.W_OK):
        raise OptionError(f"shared_memory must be a folder to write to, got {value!r}")
    return str(os.fspath(value))
