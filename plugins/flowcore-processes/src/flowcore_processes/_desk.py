"""The slot that a worker writes a batch into."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore import aligned_empty
from flowcore.memory import ALIGNMENT, Bytes, Lease, form_of
from flowcore_processes._memory import ROOM, SMALL, map_slot, reserve

__all__ = ["Desk"]


class Desk:
    """Gives out parts of one slot after the other. The threads of one task may use it at once.

    Args:
        fd: of the shared file.

    Attributes:
        problem: why memory of the slot could not be had for the task; empty if it could.
        reserved: bytes of the slot that are.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()  # of the threads that an action runs its items in
        self._maps: dict[int, list[Bytes]] = {}  # by slot; the last is the longest
        self._slot: int | None = None
        # The parts that arrays look at: where each begins and ends. A collection takes them out.
        self._taken: dict[int, tuple[int, int]] = {}
        self._numbers = 0
        self._placed: list[Bytes] = []
        self.problem = ""
        self.reserved = 0

    def begin(self, slot: int | None) -> None:
        """Go on with a slot that nothing is in; ``None`` if there is none."""
        with self._lock:
            self._slot, self._taken, self.problem, self.reserved = slot, {}, "", 0
            if slot is not None:
                maps = self._maps.setdefault(slot, [])
                del maps[:-1]
                self.reserved = len(maps[-1]) if maps else 0

    def end(self) -> bool:
        """Let the batch go; return whether something in this process still looks at it.

        A thread that the batch left behind is given no more of the slot.
        """
        with self._lock:
            self._slot = None
            self._placed.clear()
            return bool(self._taken)

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array in the slot; a small one, or one that finds no room, in other memory."""
        size = 0 if dtype.hasobject else form_of(shape, dtype)[2]
        part = self._part(size) if size >= SMALL else None
        return aligned_empty(shape, dtype) if part is None else part.view(dtype).reshape(shape)

    def copied(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a copy in the order of C, in the slot if it can be."""
        copy = self.allocate(array.shape, array.dtype)
        copy[...] = array
        return copy

    def place(self, data: memoryview) -> tuple[int, int] | None:
        """Have bytes in the slot: return where they begin, and how many; ``None`` if no room is.

        Bytes of an array that was allocated here are there already.
        """
        source = np.frombuffer(data, np.uint8)
        start = self._found(source)
        if start is None:
            part = self._part(len(source))
            if part is None:
                return None
            part[...] = source
            self._placed.append(part)  # so that its place is not given out again
            start = self._found(part)
        assert start is not None
        return start, len(source)

    def _found(self, array: Bytes) -> int | None:
        """Return where in the slot an array begins; ``None`` if it is not in there."""
        for memory in self._maps.get(self._slot or 0, ()):
            start = array.ctypes.data - memory.ctypes.data
            if 0 <= start < len(memory):
                return int(start)
        return None

    def _part(self, size: int) -> Bytes | None:
        with self._lock:
            if self._slot is None:
                return None
            start = self._gap(size)
            if start + size > self.reserved and not self._grow(self._slot, start + size):
                return None
            self._numbers += 1
            number, taken = self._numbers, self._taken
            taken[number] = start, start + size
            memory = self._maps[self._slot][-1][start : start + size]
            return Lease.of(memory, lambda: taken.pop(number))

    def _gap(self, size: int) -> int:
        """Return where as many bytes are free."""
        start = 0
        for begin, end in sorted(self._taken.copy().values()):
            if begin - start >= size:
                break
            start = max(start, -(-end // ALIGNMENT) * ALIGNMENT)
        return start

    def _grow(self, slot: int, length: int) -> bool:
        """Reserve, and map, more of the slot; return whether there is as much."""
        page = 4096
        length = -(-length // page) * page
        try:
            if length > ROOM:
                raise OSError(f"a batch has room for {ROOM:,} bytes")
            reserve(self._fd, slot, self.reserved, length)
            self._maps[slot].append(map_slot(self._fd, slot, length))
            self.reserved = length
        except (OSError, ValueError) as error:
            self.problem = f"{length:,} bytes of shared memory: {error}"
            return False
        return True
