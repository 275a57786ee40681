"""What a test leaves behind: threads, processes, shared memory, descriptors, each by its name."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import TypeAlias

import psutil
import pytest

from flowcore.errors import explain

__all__ = ["leaves_nothing", "no_leaks", "watched"]

_PATIENCE = 1.0  # seconds in which a run that is left must be gone
_SHARED = "/dev/shm"  # where Linux shows shared memory that has a name

_Things: TypeAlias = "dict[Hashable, str]"  # what tells each from others, and what to call it


@contextmanager
def leaves_nothing(*, sockets: bool = True) -> Iterator[None]:
    """Fail if something that was begun inside is there one second after the end.

    That is: threads called ``flowcore-*``; child processes and theirs, also those that have ended
    and that nobody has waited for; shared memory, by its name in ``/dev/shm``, or open or mapped
    here without one and with ``flowcore`` in what it is called; open descriptors.

    What was there before may stay, or be replaced by as many: a pool that is warm before may go on,
    and replace its workers. Memory that another program has mapped is not of this one. Garbage is
    collected first. Memory is seen on Linux, descriptors also on macOS. An exception inside goes on
    as it is, and nothing is looked for.

    Args:
        sockets: look for open sockets too. Not where a library of a cluster opens connections to
            its own servers when it likes.

    Raises:
        AssertionError: something is left; it names each, and says what to do.
    """
    before = [look() for look in _LOOKS]
    yield
    end = time.monotonic() + _PATIENCE
    at_end = _segments()  # a name that comes later is of another program
    while (left := _left(before, at_end, sockets)) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    if left:
        raise AssertionError(
            explain(
                f"left {_PATIENCE:g} s after the end: {'; '.join(left)}",
                why="a run, an executor or a pool was not closed, or did not let go of its parts",
                next="use each in a with block, or close() it; what is to stay is begun before",
            )
        )


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if it leaves threads, processes, shared memory or descriptors behind.

    See `leaves_nothing`, which does the same for a part of a test.
    """
    yield from watched(request)


def watched(request: pytest.FixtureRequest, *, sockets: bool = True) -> Iterator[None]:
    """Run a test, as a fixture does, and see what it leaves."""
    with leaves_nothing(sockets=sockets):
        yield
        request.node.funcargs.clear()  # pytest holds what the fixtures gave for longer


def _left(before: list[_Things], at_end: _Things, sockets: bool) -> list[str]:
    left: list[str] = []
    for look, old in zip(_LOOKS, before, strict=True):
        now = look()
        if not sockets:
            now = {key: text for key, text in now.items() if ": socket:" not in text}
            old = {key: text for key, text in old.items() if ": socket:" not in text}
        if len(now) > len(old):  # else what is new has replaced what was there: a worker, say
            new = (key for key in now if key not in old)
            left += [now[key] for key in new if not _is_foreign(key, at_end)]
    return left


def _threads() -> _Things:
    return {
        thread: f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread.name.startswith("flowcore-")
    }


def _processes() -> _Things:
    found: _Things = {}
    for child in psutil.Process().children(recursive=True):
        # Not those that the standard library starts once, for the rest of the program.
        if child.pid not in (
            getattr(resource_tracker._resource_tracker, "_pid", None),
            getattr(forkserver._forkserver, "_forkserver_pid", None),
        ):
            with suppress(psutil.NoSuchProcess):  # it ends while we look
                found[child] = _described(child)
    return found


def _described(process: psutil.Process) -> str:
    called = f"process {process.pid} {process.name()!r}"
    if process.status() == psutil.STATUS_ZOMBIE:
        return f"{called}, which has ended and was not waited for"
    return f"{called}: {' '.join(process.cmdline())}"


def _segments() -> _Things:
    found: _Things = {}
    with suppress(OSError):
        found.update((entry.path, f"shared memory {entry.path}") for entry in os.scandir(_SHARED))
    for path, inode in [*_mapped(), *((path, inode) for _, path, inode in _opened())]:
        if "flowcore" in path and path.startswith(("/memfd:", f"{_SHARED}/")):
            found.setdefault(path if path in found else (path, inode), f"shared memory {path}")
    return found


def _descriptors() -> _Things:
    of_library = (
        getattr(resource_tracker._resource_tracker, "_fd", None),
        getattr(forkserver._forkserver, "_forkserver_alive_fd", None),
    )
    return {
        (number, path, inode): f"descriptor {number}: {path}"
        for number, path, inode in _opened()
        if number not in of_library
    }


def _opened() -> Iterator[tuple[int, str, int]]:
    """Generate the open descriptors: number, what it leads to, inode."""
    with suppress(OSError):  # a system that does not show them
        for number in map(int, os.listdir("/dev/fd")):
            with suppress(OSError):  # that of the listing itself
                inode = os.fstat(number).st_ino
                path = f"inode {inode}"
                with suppress(OSError):
                    path = os.readlink(f"/dev/fd/{number}")
                yield number, path, inode


def _mapped(process: str = "self") -> Iterator[tuple[str, int]]:
    """Generate what a process has mapped: path, inode."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/maps").read_text("utf-8", "replace").splitlines():
            parts = line.split(None, 5)
            if len(parts) == 6:
                yield parts[5], int(parts[4])


def _is_foreign(key: Hashable, at_end: _Things) -> bool:
    """Return whether a thing is a name in ``/dev/shm``, and of another program."""
    if not isinstance(key, str):
        return False
    if key not in at_end:
        return True
    try:
        inode = os.stat(key).st_ino  # a semaphore is mapped by another name than it has in the end
    except OSError:  # it went while we looked
        return True
    here = psutil.Process()
    ours = {here.pid, *(child.pid for child in here.children(recursive=True))}
    others = (str(pid) for pid in psutil.pids() if pid not in ours)
    return any(found == inode for pid in others for _, found in _mapped(pid))


_LOOKS = (_threads, _processes, _segments, _descriptors)
