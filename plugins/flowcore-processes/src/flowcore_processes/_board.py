"""What each worker is at, in shared memory: it can be read when the worker is dead."""

from __future__ import annotations

import struct

from flowcore_processes._memory import map_slot, reserve

__all__ = ["LENGTH", "Board"]

#: Bytes of one entry: the number of the task, the length of the step's name, and the name.
LENGTH = 512

_ENTRY = struct.Struct("<QH")
_SLOT = 0  # the first slot of the shared file


class Board:
    """One worker's entry on the board. The worker writes it, the run reads it.

    Args:
        fd: of the shared file.
        entry: its number.
    """

    def __init__(self, fd: int, entry: int) -> None:
        reserve(fd, _SLOT, 0, (entry + 1) * LENGTH)
        self._memory = map_slot(fd, _SLOT, (entry + 1) * LENGTH).data[entry * LENGTH :]
        self._task = 0
        self._names: dict[str, bytes] = {}

    def begin(self, task: int, step: str) -> None:
        """Note that a task begins."""
        self._task = task
        self.note(step)

    def note(self, step: str) -> None:
        """Note that a step begins."""
        name = self._names.get(step)
        if name is None:
            name = step.encode()[: LENGTH - _ENTRY.size]
            self._names[step] = name
        self._memory[_ENTRY.size : _ENTRY.size + len(name)] = name
        _ENTRY.pack_into(self._memory, 0, self._task, len(name))

    def read(self) -> tuple[int, str]:
        """Return the number of the task that began last, and the step that did."""
        task, length = _ENTRY.unpack_from(self._memory)
        name = bytes(self._memory[_ENTRY.size : _ENTRY.size + length])
        return task, name.decode(errors="replace")
