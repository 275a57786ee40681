"""Arrays that start at a multiple of 64 bytes, as vector units and frameworks want them.

TensorFlow adopts such an array without a copy; NumPy's own start anywhere, 16 bytes apart.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ALIGNMENT", "Allocate", "Shape", "aligned_empty", "form_of"]

#: What a shape is given as; NumPy's own functions take the same.
Shape: TypeAlias = "int | Iterable[int]"

#: Makes an array of a shape and a dtype, whose values may be anything.
Allocate: TypeAlias = "Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]"

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def aligned_empty(shape: Shape, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Return a C-ordered array, of whatever values, that starts at a multiple of 64 bytes.

    Args:
        shape: of the array.
        dtype: of the array; one of objects is not aligned, and holds ``None``.

    Raises:
        ValueError: a negative length.
    """
    lengths, kind, size = form_of(shape, dtype)
    if kind.hasobject:
        return np.empty(lengths, kind)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(kind).reshape(lengths)


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
