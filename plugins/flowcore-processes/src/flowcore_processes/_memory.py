"""Memory that the workers and the run share: one file without a name, cut into slots.

A slot begins at a place of its own, far from the others, so that it can grow: what is not used of
the file takes no memory. Memory is reserved before it is used, as memory that turns out not to be
there ends a process without a word.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile

import numpy as np

from flowcore.memory import Bytes

__all__ = [
    "ROOM",
    "SMALL",
    "above_standard",
    "map_slot",
    "new_file",
    "read_slot",
    "reserve",
]

#: Bytes; smaller arrays travel in the message, which is cheaper than to keep a slot for them.
SMALL = 16 * 1024

#: Bytes from one slot to the next: the arrays of a batch that are beyond are copied.
ROOM = 1 << 36

_POPULATE = getattr(mmap, "MAP_POPULATE", 0)  # on Linux: all pages at once, not one fault for each
_CHUNK = 1 << 20


def new_file(name: str, folder: str | None = None) -> int:
    """Return the descriptor of a new file that has no name, so that nothing of it can be left.

    Args:
        name: what tools call it.
        folder: where it is; by default in no file system, where the system has that (``memfd``),
            else in ``/dev/shm``, or the folder for temporary files.
    """
    if folder is None and hasattr(os, "memfd_create"):
        return above_standard(os.memfd_create(f"flowcore-{name}", os.MFD_CLOEXEC))
    if folder is None and os.access("/dev/shm", os.W_OK):
        folder = "/dev/shm"
    with tempfile.TemporaryFile(prefix=f"flowcore-{name}-", dir=folder) as file:
        return above_standard(os.dup(file.fileno()))


def above_standard(fd: int) -> int:
    """Return a descriptor that a child process will not take for its input or output.

    It is the one given, but for a program that has closed those of its own.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def reserve(fd: int, slot: int, start: int, end: int) -> None:
    """Have memory for a part of a slot, now.

    Raises:
        OSError: there is not as much.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, slot * ROOM + start, end - start)
        return
    for at in range(start, end, _CHUNK):
        os.pwrite(fd, bytes(min(_CHUNK, end - at)), slot * ROOM + at)


def map_slot(fd: int, slot: int, length: int) -> Bytes:
    """Return the first ``length`` bytes of a slot, which are reserved, as an array that is shared.

    Raises:
        OSError, ValueError: no descriptor, or no address space, is left.
    """
    flags = mmap.MAP_SHARED | _POPULATE
    return np.frombuffer(mmap.mmap(fd, length, flags, offset=slot * ROOM), np.uint8)


def read_slot(fd: int, slot: int, length: int) -> Bytes:
    """Return a copy of the first ``length`` bytes of a slot."""
    copy = np.empty(length, np.uint8)
    done = 0
    while done < length:  # one call reads no more than 2 GB
        done += os.preadv(fd, [copy.data[done:]], slot * ROOM + done)
    return copy
