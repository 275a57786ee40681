"""A worker process, as the run sees it; and those that take its place when it dies."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from flowcore_processes._death import Death, own_part
from flowcore_processes._incarnation import PATIENCE, POLL, Hire, Incarnation, read_all
from flowcore_processes._memory import new_file

__all__ = ["Process"]


class Process:
    """A worker process, always there until it is closed. Any thread may use any method.

    Attributes:
        hire: what it is told.
        generation: how many took its place so far.

    Raises:
        OSError, RuntimeError: no more processes, descriptors or threads can be had.
    """

    def __init__(self, hire: Hire) -> None:
        self.hire = hire
        self.generation = 0
        # Of the threads that wait for the process, and who closes. Reentrant: a collection
        # inside of it may be what closes.
        self._lock = threading.RLock()
        self._deaths: list[Death] = []
        self._closed = False
        self._stacks = new_file("stacks")
        try:
            self._lives = Incarnation(hire, self._stacks)
        except BaseException:
            os.close(self._stacks)
            raise

    def connection(self, at: int) -> Connection[Any, Any]:
        """Return the connection to a thread of the process, for the lane to close."""
        with self._lock:
            return self._lives.connections[at]

    def after(self, generation: int) -> Death:
        """Have another process in place of one that died; return how it died.

        Whoever of its threads comes first replaces it; the others are told the same.

        Raises:
            OSError, RuntimeError: no process can be started.
        """
        with self._lock:
            if generation == len(self._deaths):
                self._deaths.append(self._lives.buried(time.monotonic() + PATIENCE))
                if not self._closed:
                    self._lives = Incarnation(self.hire, self._stacks)
                    self.generation += 1
            return self._deaths[generation]

    def kill(self, generation: int) -> None:
        """End the process, and those that it started, at once."""
        with self._lock:
            if generation == len(self._deaths):
                self._lives.kill()

    def stack(self) -> str:
        """Return where in the code the process is; empty if it does not say."""
        with self._lock:
            if self._closed:
                return ""
            os.ftruncate(self._stacks, 0)
            os.lseek(self._stacks, 0, os.SEEK_SET)
            written = self._lives.interrupt() and self._written()
            return own_part(written or "", "_worker.py")

    def close(self, until: float) -> None:
        """Have no other process in place of this one; end it if it is there after ``until``."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if len(self._deaths) == self.generation:
                self._deaths.append(self._lives.buried(until))
            with suppress(OSError):
                os.close(self._stacks)

    def _written(self) -> str:
        """Return what the process writes of its stack, when no more comes."""
        end = time.monotonic() + PATIENCE
        size = 0
        while time.monotonic() < end:
            time.sleep(POLL)
            found = os.fstat(self._stacks).st_size
            if found and found == size:
                break
            size = found
        return read_all(self._stacks)
