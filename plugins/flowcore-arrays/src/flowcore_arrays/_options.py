"""The options that several actions have, checked: a dtype, axes, the lengths of axes."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from flowcore.errors import OptionError, explain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from flowcore_arrays._parts import Part

__all__ = ["axes_of", "dtype_of", "integers"]


def dtype_of(dtype: DTypeLike) -> np.dtype[Any]:
    """Return ``dtype`` as NumPy's own.

    Raises:
        OptionError: it is none.
    """
    try:
        if dtype is not None:  # which NumPy would take for float64
            return np.dtype(dtype)
    except (TypeError, ValueError):
        pass
    raise OptionError(
        explain(f"{dtype!r:.60} is no NumPy dtype", next="pass 'float32', np.uint8, ...")
    )


def integers(value: int | Sequence[int | None], what: str) -> tuple[int | None, ...]:
    """Return one integer, or several, as a tuple; ``None`` among several stays.

    Raises:
        OptionError: something else, or none at all.
    """
    try:
        given = [value] if hasattr(value, "__index__") else list(value)
        numbers = tuple(None if number is None else operator.index(number) for number in given)
    except TypeError:
        numbers = ()
    if not numbers or isinstance(value, bool):
        raise OptionError(f"{what} must be an integer or several, got {value!r:.60}")
    return numbers


def axes_of(part: Part, axis: int | Sequence[int]) -> tuple[int, ...]:
    """Return axes of the whole array as numbers from zero; negative ones count from the end.

    Raises:
        OptionError: no integers.
        DataError: the array has no such axis.
    """
    ndim = part.array.ndim
    axes = integers(axis, "axis")
    wrong = [axis for axis in axes if axis is None or not -ndim <= axis < ndim]
    if wrong:
        raise part.misfit(
            f"there is no axis {wrong[0]} in an array of shape {part.array.shape}",
            next=f"axes are 0 (the items) to {ndim - 1}",
        )
    return tuple(sorted({axis % ndim for axis in axes if axis is not None}))
