"""Memory for arrays: aligned to 64 bytes, used again when it is free, and handed on without a copy.

Vector units and frameworks want arrays that start at a multiple of 64 bytes: TensorFlow adopts such
an array as it is. NumPy's own start anywhere, 16 bytes apart.
"""

from __future__ import annotations

import math
import operator
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "ALIGNMENT",
    "Allocate",
    "Bytes",
    "Lease",
    "Recycler",
    "Shape",
    "aligned_empty",
    "form_of",
    "frozen",
]

#: What a shape is given as; NumPy's own functions take the same.
Shape: TypeAlias = "int | Iterable[int]"

#: Makes an array of a shape and a dtype, whose values may be anything.
Allocate: TypeAlias = "Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]"

Bytes: TypeAlias = "NDArray[np.uint8]"

ALIGNMENT = 64  # bytes: a cache line, and the widest vector

#: Bytes: the system clears new memory, and below this it gives old one anyway.
LARGE = 128 * 1024
_SLACK = 1.25  # how much longer than an array the memory may be that it is given


class Lease:
    """Some memory, as long as arrays look at it.

    Args:
        owner: whose memory it is.
        address: where it begins.
        size: bytes.
        ended: called when the last array is gone, in whatever thread that happens.
    """

    __slots__ = ("__array_interface__", "_ended", "_owner")

    def __init__(
        self, owner: object, address: int, size: int, ended: Callable[[], object] | None = None
    ) -> None:
        # NumPy takes what has this attribute for an array, and keeps the object with each view.
        where = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address, False)}
        self.__array_interface__ = where
        self._owner, self._ended = owner, ended

    def __del__(self) -> None:
        if self._ended is not None:
            self._ended()

    @classmethod
    def of(cls, memory: Bytes, ended: Callable[[], object]) -> Bytes:
        """Return an array of the memory; when it and all views of it are gone, the lease ends."""
        return np.asarray(cls(memory, memory.ctypes.data, len(memory), ended))


class Recycler:
    """Gives out the arrays of a run. The memory of large ones that are gone is used again.

    What is free and what is in use is together never more than was in use at once. Any thread may
    use any method, and nobody waits: where two threads come at the same time, or in a fork of the
    process, one has new memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the three below; only tried
        self._free: list[Bytes] = []  # that came back last at the end
        self._used = self._most = 0  # bytes
        # Without the lock: a collection may give memory back at any place, also inside of it.
        self._back: deque[Bytes] = deque()
        self._closed = False

    def __reduce__(self) -> Any:
        return Recycler, ()  # the memory stays where it is

    def allocate(self, lengths: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
        """Return an array as `aligned_empty` does."""
        size = math.prod(lengths) * kind.itemsize
        if size < LARGE or kind.hasobject or not self._lock.acquire(blocking=False):
            return _new(lengths, kind, size)
        try:
            memory = self._take(size)
        finally:
            self._lock.release()
        return np.ndarray(lengths, kind, Lease.of(memory, partial(self._give_back, memory)))

    def close(self) -> None:
        """Let all memory go that is free, and from now on what becomes free."""
        self._closed = True
        self._back.clear()
        if self._lock.acquire(blocking=False):  # else who has it does the same
            self._free.clear()
            self._lock.release()

    def _give_back(self, memory: Bytes) -> None:
        if not self._closed:
            self._back.append(memory)

    def _take(self, size: int) -> Bytes:
        while self._back:
            self._free.append(self._back.popleft())
            self._used -= len(self._free[-1])
        places = reversed(range(len(self._free)))
        fits = (at for at in places if size <= len(self._free[at]) <= size * _SLACK)
        at = next(fits, None)
        memory = _aligned(size) if at is None else self._free.pop(at)
        self._used += len(memory)
        self._most = max(self._most, self._used)
        while self._free and (self._closed or self._used + sum(map(len, self._free)) > self._most):
            del self._free[0]
        return memory


def aligned_empty(shape: Shape, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Return a C-ordered array, of whatever values, that starts at a multiple of 64 bytes.

    Args:
        shape: of the array.
        dtype: of the array; one of objects is not aligned, and holds ``None``.

    Raises:
        ValueError: a negative length.
    """
    return _new(*form_of(shape, dtype))


def form_of(shape: Shape, dtype: DTypeLike) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return the lengths of an array, the dtype of an element, and how many bytes it takes.

    Raises:
        ValueError: a negative length.
        TypeError: what is no shape, or no dtype.
    """
    given = shape if isinstance(shape, Iterable) else (shape,)
    kind = np.dtype(dtype)
    element, inner = kind.subdtype or (kind, ())
    lengths = *map(operator.index, given), *inner
    if min(lengths, default=0) < 0:
        raise ValueError(f"an array cannot have a negative length, got the shape {lengths}")
    return lengths, element, math.prod(lengths) * element.itemsize


def frozen(array: NDArray[Any], kind: np.dtype[Any], allocate: Allocate) -> NDArray[Any]:
    """Return the values of an array in memory that nobody writes to any more; see `Batch.frozen`.

    Args:
        array: any.
        kind: the dtype to have.
        allocate: makes the array for a copy.
    """
    fits = type(array) is np.ndarray and array.dtype == kind and array.flags.c_contiguous
    if fits and _can_be_frozen(array) and not array.ctypes.data % ALIGNMENT:
        return _freeze(array)
    copy = allocate(array.shape, kind)
    np.copyto(copy, array, casting="same_kind")
    return _freeze(copy)


def _new(lengths: tuple[int, ...], kind: np.dtype[Any], size: int) -> NDArray[Any]:
    if kind.hasobject:
        return np.empty(lengths, kind)
    return np.ndarray(lengths, kind, _aligned(size))


def _aligned(size: int) -> Bytes:
    memory = np.empty(size + ALIGNMENT, np.uint8)
    address = memory.ctypes.data
    return np.asarray(Lease(memory, address + -address % ALIGNMENT, size))


def _can_be_frozen(array: NDArray[Any]) -> bool:
    """Return whether nobody else can write to an array's memory, and it is no ordinary array.

    All views of a lease have the lease's own array as their base, as NumPy skips those in between;
    so the references to that say how many there are.
    """
    if not array.flags.writeable:
        return _is_frozen(array)
    return type(getattr(array.base, "base", None)) is Lease and _references(array) == _ALONE


def _is_frozen(array: Any) -> bool:
    """Return whether all are read-only from an array down to what owns its memory."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        if array.flags.owndata:
            return not array.dtype.hasobject
        array = array.base
    return isinstance(array, (Lease, bytes))


def _freeze(array: NDArray[Any]) -> NDArray[Any]:
    """Make an array read-only; one of a lease for good, as its base is made read-only too."""
    if array.flags.writeable:
        array.flags.writeable = False
        if array.base is not None:
            array.base.flags.writeable = False
    return array


def _references(array: NDArray[Any]) -> int:
    return sys.getrefcount(array.base)


_ALONE = _references(aligned_empty(1, np.uint8))
