"""One worker process, as the run sees it; and the one that takes its place when it dies."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from flowcore_processes._death import Death, own_part
from flowcore_processes._memory import new_file
from flowcore_processes._pickling import Payload

__all__ = ["Hire", "Process"]

# The worker's own imports must find what this process finds, so its path is set before them.
_BOOT = (
    "import json, sys; hire = json.loads(sys.argv[2]); sys.path[:] = hire['path']; "
    "from flowcore_processes._worker import main; main(hire)"
)

_FLAGS = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []

# What limits the threads of native libraries must be there before they are loaded.
_NATIVE = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)

_PATIENCE = 0.5  # seconds in which a process has written its stack, or is gone
_POLL = 0.005
_MAXRSS = 1 if sys.platform == "darwin" else 1024  # bytes


@dataclass(frozen=True, slots=True)
class Hire:
    """What a worker process is told when it begins, as plain data.

    Attributes:
        number: of the worker.
        threads: how many serve in it.
        native: how many threads native libraries may use; 0 for as many as they like.
        memory: descriptor of the shared file.
        payload: descriptor of the file with the work.
        key, length, end: of the work; see `Payload`.
    """

    number: int
    threads: int
    native: int
    memory: int
    payload: int
    key: str
    length: int
    end: int

    @classmethod
    def of(cls, payload: Payload, **rest: int) -> Hire:
        """Return it for a work."""
        return cls(
            payload=payload.fd,
            key=payload.key,
            length=payload.length,
            end=payload.end,
            **rest,
        )

    @property
    def name(self) -> str:
        """The name of the process."""
        return f"flowcore-worker-{self.number}"


class Process:
    """A worker process with one connection for each of its threads.

    Any thread may use any method.

    Attributes:
        hire: what it is told.
        generation: how many took its place so far.
    """

    def __init__(self, hire: Hire) -> None:
        self.hire = hire
        self.generation = -1
        # Those that no lane has taken; a lane closes its own, as it may be reading.
        self._connections: list[Connection[Any, Any] | None] = []
        self._lock = threading.Lock()  # of the threads that wait for the process, and who closes
        self._deaths: list[Death] = []
        self._stacks = new_file("stacks")
        self._popen: subprocess.Popen[bytes] | None = None
        self._closed = False
        try:
            self._start()
        except BaseException:
            os.close(self._stacks)
            raise

    @property
    def pid(self) -> int:
        """The id of the process that lives now."""
        return 0 if self._popen is None else self._popen.pid

    def take_connection(self, at: int) -> Connection[Any, Any] | None:
        """Return the connection to a thread of the process that lives now, for the lane to close.

        It is ``None`` if there is no process.
        """
        with self._lock:
            taken, self._connections[at] = self._connections[at], None
            return taken

    def after(self, generation: int) -> Death:
        """Have another process in place of one that died; return how it died.

        Whoever of its threads comes first replaces it; the others are told the same.

        Raises:
            OSError: no process can be started.
        """
        with self._lock:
            if generation == len(self._deaths):
                self._deaths.append(self._buried())
                if not self._closed:
                    self._start()
            return self._deaths[generation]

    def kill(self, generation: int) -> None:
        """End the process, and those that it started, at once."""
        with self._lock:
            if generation == self.generation:
                self._kill()

    def stack(self) -> str:
        """Return where in the code the process is; empty if it does not say."""
        with self._lock:
            os.ftruncate(self._stacks, 0)
            with suppress(OSError):
                os.lseek(self._stacks, 0, os.SEEK_SET)
                os.kill(self.pid, signal.SIGUSR1)
                return own_part(self._written(), "_worker.py")
            return ""

    def close(self, until: float) -> None:
        """Have no other process in place of this one; end it if it is there after ``until``."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if len(self._deaths) == self.generation:
                self._deaths.append(self._buried(until))
            os.close(self._stacks)

    def _start(self) -> None:
        """Start a process. Not `multiprocessing`: that runs the user's script again in each."""
        pairs = [socket.socketpair() for _ in range(self.hire.threads)]
        reader, self._lifeline = os.pipe()
        try:
            os.ftruncate(self._stacks, 0)
            theirs = [there.fileno() for _, there in pairs]
            told = {
                **asdict(self.hire),
                "name": self.hire.name,
                "connections": theirs,
                "lifeline": reader,
                "stacks": self._stacks,
                "path": [entry for entry in sys.path if isinstance(entry, str)],
            }
            kept = [*theirs, reader, self._stacks, self.hire.memory, self.hire.payload]
            self._popen = subprocess.Popen(
                [sys.executable, *_FLAGS, "-c", _BOOT, self.hire.name, json.dumps(told)],
                stdin=subprocess.DEVNULL,
                env=self._environment(),
                pass_fds=kept,
                process_group=0,  # a Ctrl-C in the terminal is for the program, which ends us
            )
        except BaseException:
            os.close(self._lifeline)
            for here, _ in pairs:
                here.close()
            raise
        finally:
            os.close(reader)
            for _, there in pairs:
                there.close()
        self._inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS
        self._connections = [Connection(here.detach()) for here, _ in pairs]
        threading.Thread(
            target=self._watch,
            args=(self._popen.pid, len(self._deaths)),
            name="flowcore-watch-process",
            daemon=True,
        ).start()
        self.generation += 1

    def _watch(self, pid: int, generation: int) -> None:
        """Wait until the process ends, and end what it started.

        A child of the worker may hold the connections open, so that their end is not seen here.
        """
        if not hasattr(os, "waitid"):
            return
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            if generation == len(self._deaths):  # else its number may be another's by now
                self._kill()

    def _environment(self) -> dict[str, str]:
        limits = dict.fromkeys(_NATIVE if self.hire.native else (), str(self.hire.native))
        return {**limits, **os.environ}

    def _kill(self) -> None:
        if self._popen is not None and self._popen.returncode is None:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def _buried(self, until: float | None = None) -> Death:
        """Wait for a process that ends to be gone; end it if it is there after ``until``."""
        popen = self._popen
        assert popen is not None
        until = time.monotonic() + _PATIENCE if until is None else until
        while not _has_ended(popen.pid) and time.monotonic() < until:
            time.sleep(_POLL)
        self._kill()  # and what it started, and left behind
        code, peak = None, 0
        try:
            _, status, usage = os.wait4(popen.pid, 0)
            code = popen.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * _MAXRSS
        except ChildProcessError:  # somebody else in this program has waited for it
            popen.returncode = -1
        os.close(self._lifeline)
        for connection in filter(None, self._connections):
            connection.close()
        size = os.fstat(self._stacks).st_size
        dump = os.pread(self._stacks, size, 0).decode(errors="replace")
        fatal = own_part(dump, "_worker.py") if code is not None and code < 0 else ""
        # The system counts the memory of who started it as its own, so less than that says nothing.
        known = peak if peak > self._inherited else 0
        return Death(self.hire.name, popen.pid, code, known, fatal)

    def _written(self) -> str:
        """Return what the process writes of its stack, when no more comes."""
        end = time.monotonic() + _PATIENCE
        size = 0
        while time.monotonic() < end:
            time.sleep(_POLL)
            found = os.fstat(self._stacks).st_size
            if found and found == size:
                break
            size = found
        return os.pread(self._stacks, size, 0).decode(errors="replace")


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended; it stays there to be waited for."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
