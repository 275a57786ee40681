"""One worker process, from its start until it has been waited for."""

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
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from flowcore_processes._death import Death, own_part
from flowcore_processes._memory import above_standard
from flowcore_processes._pickling import Payload

__all__ = ["PATIENCE", "POLL", "Hire", "Incarnation", "read_all"]

PATIENCE = 0.5  # seconds in which a process has written its stack, or is gone
POLL = 0.005  # seconds between looks, in those

# The worker's own imports must find what this process finds, so its path is set before them.
_BOOT = (
    "import json, sys; hire = json.loads(sys.argv[2]); sys.path[:] = hire['path']; "
    "from flowcore_processes._worker import main; main(hire)"
)
# -P: a file of the current folder may be called as a module that these lines need.
_FLAGS = ["-P", *(["-" + "O" * sys.flags.optimize] if sys.flags.optimize else [])]

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

_MAXRSS = 1 if sys.platform == "darwin" else 1024  # bytes

_live: weakref.WeakSet[Incarnation] = weakref.WeakSet()


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


class Incarnation:
    """A process that serves, and its connections. Whoever uses it holds the lock of its owner.

    Not `multiprocessing`: that runs the user's script again in each process.

    Args:
        hire: what it is told.
        stacks: descriptor of a file for its stack.

    Attributes:
        connections: one to each of its threads. Who reads from one closes it.

    Raises:
        OSError, RuntimeError: no more processes, descriptors or threads can be had.
    """

    def __init__(self, hire: Hire, stacks: int) -> None:
        self._hire, self._stacks = hire, stacks
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self.connections: list[Connection[Any, Any]] = []
        # The system counts the memory of who started a process as its own.
        self._inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS
        theirs: list[int] = []
        reader, self._lifeline = os.pipe()
        try:
            theirs.append(above_standard(reader))
            for _ in range(hire.threads):
                here, there = socket.socketpair()
                self._sockets.append(here)
                theirs.append(above_standard(there.detach()))
            os.ftruncate(stacks, 0)
            self._popen = self._started(*theirs)
        except BaseException:
            self._close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        try:
            self.connections = [Connection(os.dup(one.fileno())) for one in self._sockets]
            threading.Thread(target=self._watch, name="flowcore-watch-process", daemon=True).start()
        except BaseException:
            self.buried(time.monotonic())
            raise
        _live.add(self)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._popen.pid

    def kill(self) -> None:
        """End the process, and those that it started, at once."""
        if not self._over.is_set():
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def interrupt(self) -> bool:
        """Have it write its stack; return whether it is there to do so."""
        if self._over.is_set():
            return False
        with suppress(OSError):
            os.kill(self.pid, signal.SIGUSR1)
            return True
        return False

    def buried(self, until: float) -> Death:
        """Wait for a process that ends to be gone; end it if it is there after ``until``."""
        while not _has_ended(self.pid) and time.monotonic() < until:
            time.sleep(POLL)
        self.kill()  # and what it started, and left behind
        code, peak = None, 0
        with suppress(ChildProcessError):  # else somebody else in this program has waited for it
            _, status, usage = os.wait4(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * _MAXRSS
        self._over.set()
        self._popen.returncode = -1 if code is None else code
        self._close()
        dump = read_all(self._stacks)
        fatal = own_part(dump, "_worker.py") if code is not None and code < 0 else ""
        known = peak if peak > self._inherited else 0
        return Death(self._hire.name, self.pid, code, known, fatal)

    def forget(self) -> None:
        """Let go of it in a forked process, which must not keep it, or its connections, alive."""
        self._over.set()
        self._popen.returncode = 0
        self._close()
        for connection in self.connections:
            connection.close()

    def _started(self, lifeline: int, *connections: int) -> subprocess.Popen[bytes]:
        hire = self._hire
        told = {
            **asdict(hire),
            "name": hire.name,
            "connections": connections,
            "lifeline": lifeline,
            "stacks": self._stacks,
            "path": [entry for entry in sys.path if isinstance(entry, str)],
        }
        limits = dict.fromkeys(_NATIVE if hire.native else (), str(hire.native))
        return subprocess.Popen(
            [sys.executable, *_FLAGS, "-c", _BOOT, hire.name, json.dumps(told)],
            stdin=subprocess.DEVNULL,
            env={**limits, **os.environ},
            pass_fds=[lifeline, *connections, self._stacks, hire.memory, hire.payload],
            process_group=0,  # a Ctrl-C in the terminal is for the program, which ends us
        )

    def _watch(self) -> None:
        """Wait until the process ends, and have everybody see it.

        What it started may hold the connections open, so that they do not end by themselves.
        """
        if not hasattr(os, "waitid"):
            return
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)
        for one in self._sockets:
            one.close()


def read_all(fd: int) -> str:
    """Return what is in a file of text."""
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended; it stays there to be waited for."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _forget_all() -> None:
    for one in list(_live):
        one.forget()


os.register_at_fork(after_in_child=_forget_all)
