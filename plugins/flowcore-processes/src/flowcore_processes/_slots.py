"""The slots as the run sees them: which are free, and the batches in those that are not."""

from __future__ import annotations

import threading
from collections import deque

from flowcore.memory import Bytes, Lease
from flowcore_processes._memory import map_slot, read_slot

__all__ = ["Slots"]


class Slots:
    """Gives out free slots, and has each back when the last view of its batch is collected.

    Any thread may use any method.

    Args:
        fd: of the shared file.
        most: how many slots there may be. Memory is used by those alone that were needed at once.

    Attributes:
        most: likewise; it may be raised.
    """

    def __init__(self, fd: int, most: int) -> None:
        self._fd, self.most = fd, most
        # Of the threads that wait for the workers. Reentrant: a collection inside may close it.
        self._lock = threading.RLock()
        self._free: dict[int, int] = {}  # with the worker that had it last, whose pages are warm
        # Those that came back, put here without the lock: a collection may happen inside of it.
        self._back: deque[tuple[int, int]] = deque()
        self._maps: dict[int, Bytes] = {}
        self._made = 0

    def take(self, worker: int) -> int | None:
        """Return a free slot; ``None`` if there is none.

        It is the one that came back last, of those that the worker had before if there are any: the
        fewer slots are in use, the more of them are in the caches.
        """
        with self._lock:
            while self._back:
                slot, last = self._back.popleft()
                self._free[slot] = last
            own = (slot for slot, last in reversed(self._free.items()) if last == worker)
            free = next(own, None) or next(reversed(self._free), None)
            if free is not None:
                del self._free[free]
            elif self._made < self.most:
                self._made += 1
                free = self._made  # from 1 on: what would be slot 0 is the board
            return free

    def close(self) -> None:
        """Let the memory go, but for that of batches that somebody keeps."""
        with self._lock:
            self._maps.clear()

    def give_back(self, slot: int | None, worker: int) -> None:
        """Have a slot back that nothing is in."""
        if slot is not None:
            self._back.append((slot, worker))

    def batch(self, slot: int, worker: int, length: int, reserved: int) -> Bytes:
        """Return the first bytes of a slot, which comes back when no view of them is left."""
        with self._lock:
            memory = self._maps.get(slot)
            if memory is None or len(memory) < length:
                try:
                    memory = self._maps[slot] = map_slot(self._fd, slot, reserved)
                except (OSError, ValueError):  # no descriptor, or address space, is left
                    memory = None
        if memory is None:
            copy = read_slot(self._fd, slot, length)
            self.give_back(slot, worker)
            return copy
        back = self._back  # not this object: an array may live longer than the run
        return Lease.of(memory[:length], lambda: back.append((slot, worker)))
