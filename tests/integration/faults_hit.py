"""Starts a program of a user, has something happen to it, and says what becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from faults_batches import until, workers
from faults_ways import THREADS

__all__ = ["HITS", "happens_to"]

_PROGRAM = Path(__file__).with_name("faults_program.py")
_SOON = 2.0  # seconds in which the workers of a program that is gone are gone

# Faults from outside: the signal, whether it is sent as a terminal does, to all that the program
# started too, and the file that says that it is time.
HITS = {
    "ctrl-c waiting": (signal.SIGINT, os.killpg, "waits"),
    "ctrl-c working": (signal.SIGINT, os.killpg, "works"),
    "terminated": (signal.SIGTERM, os.kill, "waits"),
    "killed": (signal.SIGKILL, os.kill, "waits"),
}


def happens_to(executor, fault, folder):
    """Return what the program has seen, or that it has died; and what it leaves and says."""
    command = [sys.executable, _PROGRAM, executor, fault, folder]
    with (folder / "stderr").open("w") as stderr:  # no pipe: workers that stay would hold it open
        program = subprocess.Popen(command, stderr=stderr, start_new_session=True)
    try:
        if fault in HITS:
            number, send, sign = HITS[fault]
            until(lambda: _is_time(program, folder, sign), "the program did not begin", 30)
            send(program.pid, number)
        program.wait(40)
        left = _left(program.pid, folder)
        return _said(executor, program.returncode, left, folder)
    finally:
        for process in _processes(program.pid, folder):
            process.kill()
        program.kill()
        program.wait()


def _is_time(program, folder, sign):
    assert program.poll() is None, (folder / "stderr").read_text()
    return (folder / "taken").exists() and (folder / sign).exists()


def _said(executor, code, left, folder):
    errors = (folder / "stderr").read_text()
    if (folder / "seen").exists():
        return (folder / "seen").read_text() + _printed(executor, errors)
    if executor == "ray" and code > 0:
        return f"{_ended_by_ray(code, errors)}; its workers {'stay' if left else 'go'}"
    if code >= 0:
        return f"the program ends with code {code}: {errors}"
    ends = "" if executor in THREADS else f"; its workers {'stay' if left else 'go'}"
    return f"the program dies{ends}{_printed(executor, errors)}"


def _ended_by_ray(code, errors):
    is_known = "*** SIGTERM received" in errors or "mmap failed" in errors
    return "Ray ends the program" if is_known else f"the program ends with code {code}: {errors}"


def _printed(executor, errors):
    if executor == "ProcessPoolExecutor" and "Process-" in errors:
        return ""  # its workers print tracebacks: those that are idle, or start
    return f"; it says {errors}" if errors else ""


def _left(session, folder):
    """Return what a program has left after two seconds: of its session, and its workers."""
    end = time.monotonic() + _SOON
    while (left := list(_processes(session, folder))) and time.monotonic() < end:
        time.sleep(0.01)
    return left


def _processes(session, folder):
    pids = workers(folder) | {pid for pid in psutil.pids() if _session(pid) == session}
    for pid in pids - {session}:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            # That one ends when the others have, and removes what they leave.
            is_tracker = "multiprocessing.resource_tracker" in " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and not is_tracker:
                yield process


def _session(pid):
    try:
        return os.getsid(pid)
    except OSError:
        return None
