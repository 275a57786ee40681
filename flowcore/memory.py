"""Arrays that start at a multiple of 64 bytes, as vector units and frameworks want them.

TensorFlow adopts such an array without a copy; NumPy's own start anywhere, 16 bytes apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ALIGNMENT", "Allocate", "aligned_empty", "length_of"]

#: Makes an array of a shape and a dtype, whose values may be anything.
Allocate: TypeAlias = "Callable[[int | tuple[int, ...], np.dtype[Any]], NDArray[Any]]"

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def aligned_empty(shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Return a C-ordered array, of whatever values, that starts at a multiple of 64 bytes.

    Args:
        shape: of the array.
        dtype: of the array; one of objects is not aligned, and holds ``None``.
    """
    kind = np.dtype(dtype)
    if kind.hasobject:
        return np.empty(shape, kind)
    size = length_of(shape, kind)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(kind).reshape(shape)


def length_of(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return how many bytes an array takes."""
    lengths = (shape,) if isinstance(shape, (int, np.integer)) else shape
    return math.prod(map(int, lengths)) * dtype.itemsize
