"""How a worker process ended, and what it was doing, as text."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

__all__ = ["Death", "own_part"]

_CAUSES = {
    signal.SIGKILL: "the system had no memory left and killed it, or somebody did (kill -9)",
    signal.SIGSEGV: "native code failed: an extension module, or a library that it uses",
    signal.SIGBUS: "native code failed, or a file that it maps was cut short",
    signal.SIGABRT: "native code gave up: an extension module, or a library that it uses",
    signal.SIGILL: "native code was made for another processor",
    signal.SIGFPE: "native code failed in arithmetic",
    signal.SIGTERM: "somebody ended it",
}


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        name: of the worker.
        pid: of the process.
        code: the exit code; a signal's number, negative; ``None`` if it could not be found out.
        peak: the most memory that it had, in bytes; 0 if that is not known.
        stack: where in the code it was when native code failed; empty if it did not.
    """

    name: str
    pid: int
    code: int | None
    peak: int = 0
    stack: str = ""

    def what(self) -> str:
        """Return what happened."""
        if self.code is None:
            how = "is gone"
        elif self.code < 0:
            how = f"was ended by {_signal_name(-self.code)}"
        else:
            how = f"exited with code {self.code}"
        return f"the worker process {self.name} (pid {self.pid}) {how}"

    def why(self) -> str:
        """Return the likely cause, and how much memory it had."""
        if self.code is None or self.code >= 0:
            cause = "something called os._exit, or exit in native code"
        else:
            cause = _CAUSES.get(-self.code, "somebody sent the signal")  # type: ignore[call-overload]
        if self.peak:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            cause += f"; it had up to {_megabytes(self.peak)} of the {_megabytes(total)} there are"
        return cause

    def next(self) -> str:
        """Return what to look at."""
        if self.code == -signal.SIGKILL:
            return "look at its memory use, and at the action"
        return "look at the action, and at what it calls"


def own_part(dump: str, marker: str) -> str:
    """Return, of the stacks of all threads, those of the threads that run tasks.

    Args:
        dump: as `faulthandler` writes it.
        marker: a file that is in those stacks; what is below it there is left out.
    """
    kept = []
    for section in dump.split("\n\n"):
        lines = section.splitlines()
        last = next((at for at, line in enumerate(lines) if marker in line), None)
        if lines and lines[0].startswith("Fatal"):
            kept.append(section)
        elif last is not None and last > 1:  # else it is only the thread that watches the run
            kept.append("\n".join(lines[:last]))
    return "\n".join(kept).strip()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
