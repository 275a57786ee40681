"""Labels of items as numbers: the same number for the same value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import OptionError, explain
from flowcore.ids import id_array, is_missing

__all__ = ["codes"]


def codes(values: Any, option: str, n: int | None = None) -> NDArray[np.int64]:
    """Return labels as int64 numbers from 0, in the order of the items.

    Args:
        values: a one-dimensional array, or a sequence of hashable values.
        option: what they are called in errors.
        n: how many there must be; ``None`` for at least one.

    Raises:
        OptionError: they are something else, another number, not hashable, or some are missing.
    """
    array = _column(values, option, n)
    missing: NDArray[np.bool_] = array != array
    if array.dtype.kind == "O":
        missing = np.array([is_missing(value) for value in array], bool)
    if missing.any():
        raise OptionError(
            explain(
                f"{option} has {missing.sum()} missing values, the first at position "
                f"{int(missing.argmax())}",
                next="leave these items out, or give them a value of their own",
            )
        )
    return _numbered(array, option)


def _numbered(array: NDArray[Any], option: str) -> NDArray[np.int64]:
    if array.dtype.kind != "O":
        return np.unique(array, return_inverse=True)[1]
    seen: dict[Any, int] = {}
    try:
        return np.array([seen.setdefault(value, len(seen)) for value in array], np.int64)
    except TypeError as error:
        raise OptionError(f"{option} must have values that are hashable: {error}") from None


def _column(values: Any, option: str, n: int | None) -> NDArray[Any]:
    array = np.empty((), object)
    if hasattr(values, "__array__"):
        array = np.asarray(values)
    elif hasattr(values, "__len__") and not isinstance(values, (str, bytes, dict, set)):
        array = id_array(list(values))
    if array.ndim == 1 and len(array) == (max(1, len(array)) if n is None else n):
        return array
    items = "each item" if n is None else f"each of the {n} items"
    raise OptionError(
        explain(
            f"{option} must have one value for {items}, got {type(values).__name__} of shape "
            f"{array.shape}",
            next="give an array of their number, in the order of the index",
        )
    )
