"""The workers of one executor: their processes, the lanes to them, and the memory they share."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import Future

from flowcore import Outcome, Running, Task
from flowcore_processes._incarnation import Hire
from flowcore_processes._jobs import Job, Jobs
from flowcore_processes._lane import Lane
from flowcore_processes._memory import new_file
from flowcore_processes._pickling import Payload
from flowcore_processes._process import Process
from flowcore_processes._slots import Slots

__all__ = ["Team"]

_log = logging.getLogger("flowcore")

_POLL = 0.005


class Team:
    """Worker processes that have one work.

    Args:
        payload: the work.
        processes: how many there are.
        threads: how many serve in each.
        native: how many threads native libraries may use in each.
        folder: of the shared file.
        slots: how many batches the shared memory may hold.
        timeout: seconds that a batch may take.

    Raises:
        OSError: no more processes, descriptors or memory can be had.
    """

    def __init__(
        self,
        payload: Payload,
        *,
        processes: int,
        threads: int,
        native: int,
        folder: str | None,
        slots: int,
        timeout: float | None,
    ) -> None:
        self._jobs = Jobs()
        self._processes: list[Process] = []
        self._lanes: list[Lane] = []
        self._threads: list[threading.Thread] = []
        self._warned: set[str] = set()
        self._fd = new_file("batches", folder)
        self._slots = Slots(self._fd, slots)
        try:
            for number in range(processes):
                hire = Hire.of(
                    payload, number=number, threads=threads, native=native, memory=self._fd
                )
                process = Process(hire)
                self._processes.append(process)
                for at in range(threads):
                    lane = Lane(
                        process,
                        at,
                        self._fd,
                        jobs=self._jobs,
                        slots=self._slots,
                        timeout=timeout,
                        warn=self._warn,
                    )
                    self._lanes.append(lane)
            for lane in self._lanes:
                thread = threading.Thread(target=lane.serve, name="flowcore-lane", daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close(time.monotonic())
            raise

    def submit(self, task: Task) -> Future[Outcome]:
        """Give the task to the next lane that is free."""
        future: Future[Outcome] = Future()
        self._jobs.put(Job(task, future))
        return future

    def running(self) -> list[Running]:
        """Return what the workers are on."""
        return [running for lane in self._lanes if (running := lane.running()) is not None]

    def clear(self, until: float) -> None:
        """Drop what there is to do, and be idle: those still busy after ``until`` are replaced."""
        self._jobs.clear()
        while time.monotonic() < until and any(lane.sent for lane in self._lanes):
            time.sleep(_POLL)
        for lane in self._lanes:
            if lane.sent:
                lane.kill()

    def close(self, until: float) -> None:
        """Let the workers go; end those still busy after ``until``."""
        self._jobs.close()
        for process in self._processes:
            process.close(until)
        for thread in self._threads:
            if thread is not threading.current_thread():  # closed by a collection in a lane
                thread.join(until + 1.0 - time.monotonic())
        self._lanes.clear()  # at once, not when this circle is collected: they map memory too
        self._slots.close()
        os.close(self._fd)

    def serves(self, processes: int) -> bool:
        """Return whether so many processes, at least, are there, and none is gone for good."""
        whole = not any(lane.is_broken for lane in self._lanes)
        return whole and len(self._processes) >= processes

    def allow(self, slots: int) -> None:
        """Let the shared memory hold at least so many batches."""
        self._slots.most = max(self._slots.most, slots)

    def _warn(self, text: str) -> None:
        kind = text[:60]  # the numbers that follow may differ
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s", text)
