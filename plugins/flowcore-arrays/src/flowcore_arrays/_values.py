"""Actions that change what the numbers are: `cast`, `normalize`, `one_hot`, `apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flowcore import action
from flowcore.errors import OptionError, explain
from flowcore_arrays._options import axes_of, dtype_of
from flowcore_arrays._parts import AnyBatch, Components, Part, as_items, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["apply", "cast", "normalize", "one_hot"]


@action
def cast(batch: AnyBatch, dtype: DTypeLike, *, components: Components = None) -> AnyBatch:
    """Turn arrays into another dtype, as `numpy.ndarray.astype` does.

    Fractions are cut off on the way to integers, and integers that do not fit wrap around.

    Args:
        batch: arrays ``(N, ...)`` of any dtype; their shape stays.
        dtype: of the new arrays.
        components: which arrays; by default the only one.

    Raises:
        OptionError: ``dtype`` is none.
        DataError: the components, or values that have no counterpart in ``dtype``.
    """
    to = dtype_of(dtype)

    def make(part: Part) -> NDArray[Any]:
        try:
            return part.array.astype(to)
        except (TypeError, ValueError) as error:
            what = f"{part.array.dtype} values cannot be cast to {to}"
            raise part.misfit(what, why=str(error)) from error

    return replace(batch, components, make)


@action
def normalize(
    batch: AnyBatch,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    axis: int | Sequence[int] | None = None,
    *,
    components: Components = None,
) -> AnyBatch:
    """Subtract a mean and divide by a standard deviation.

    Without ``mean`` and ``std`` they are computed from the batch, so an item's values depend on the
    others in its batch; to normalize a dataset as a whole, give its own. A feature that does not
    vary is only centred: where ``std`` is zero it is taken as one, as scikit-learn's scalers do.

    Args:
        batch: real arrays ``(N, ...)``. Floats keep their dtype, integers and bools become float32;
            statistics are computed in float64.
        mean: one number, or an array of the shape that ``array.mean(axis)`` has. Give both it and
            ``std``, or neither.
        std: likewise, not negative.
        axis: the axes of the whole array (0 is the items) that a mean and a deviation are over. By
            default all but the last: one mean per feature of ``(N, F)`` or per channel of
            ``(N, H, W, C)``; of ``(N,)`` the items. Per channel of ``(N, C, H, W)`` it is
            ``(0, 2, 3)``, and ``(1, 2, 3)`` takes each item for itself.
        components: which arrays, each with its own statistics; by default the only one.

    Raises:
        OptionError: one of ``mean`` and ``std`` without the other, a negative ``std``.
        DataError: the components, an array that is not real, an axis that it does not have, a
            ``mean`` or ``std`` of another shape.
    """
    if (mean is None) != (std is None):
        given, other = ("std", "mean=0") if mean is None else ("mean", "std=1")
        raise OptionError(
            explain(f"{given} needs its other half", next=f"give both, {other} does nothing")
        )
    if std is not None and not np.all(_numbers(std, "std") >= 0):
        raise OptionError(f"std must not be negative, got {std!r:.60}")

    def make(part: Part) -> NDArray[Any]:
        array = part.array
        if array.dtype.kind not in "biuf":
            raise part.misfit(
                f"only real numbers can be normalized, the array has dtype {array.dtype}",
                next="cast it first: .arrays.cast('float32')",
            )
        kept = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
        if array.size == 0:
            return array.astype(kept)
        axes = axes_of(part, range(max(array.ndim - 1, 1)) if axis is None else axis)
        if mean is None or std is None:
            centre, scale = _moments(array, axes)
        else:
            centre, scale = _given(part, mean, "mean", axes), _given(part, std, "std", axes)
        # Not less than float32, and float64 where float32 cannot tell two integers apart.
        exact = np.result_type(array.dtype, np.float32)
        scale = scale.astype(exact)
        made: NDArray[Any] = np.subtract(array, centre.astype(exact), dtype=exact)
        made /= np.where(scale == 0, exact.type(1), scale)
        return made.astype(kept, copy=False)

    return replace(batch, components, make)


@action
def one_hot(
    batch: AnyBatch,
    n_classes: int,
    dtype: DTypeLike = np.float32,
    *,
    components: Components = None,
) -> AnyBatch:
    """Turn labels into vectors that are one at the label and zero elsewhere.

    Args:
        batch: integer arrays ``(N, ...)`` of labels in ``0..n_classes-1``, which become
            ``(N, ..., n_classes)``.
        n_classes: the number of classes.
        dtype: of the new arrays.
        components: which arrays; by default the only one.

    Raises:
        OptionError: ``n_classes`` is not a positive integer, ``dtype`` is none.
        DataError: the components, labels that are no integers or out of range.
    """
    if isinstance(n_classes, bool) or not isinstance(n_classes, (int, np.integer)) or n_classes < 1:
        raise OptionError(f"n_classes must be a positive integer, got {n_classes!r:.60}")
    to = dtype_of(dtype)

    def make(part: Part) -> NDArray[Any]:
        labels = part.array
        if labels.dtype.kind not in "iu":
            raise part.misfit(
                f"labels must be integers, got {labels.dtype}",
                next="cast them first: .arrays.cast('int64')",
            )
        outside = (labels < 0) | (labels >= n_classes)
        if outside.any():
            shown = ", ".join(map(str, np.unique(labels[outside])[:5].tolist()))
            rows = np.unique(np.nonzero(outside)[0])
            ids = ", ".join(map(repr, batch.index[rows][:5].tolist()))
            raise part.misfit(
                f"labels out of range: {shown}; {n_classes} classes are 0 to {n_classes - 1}",
                why=f"they are of the items {ids}",
            )
        vectors = np.zeros((*labels.shape, n_classes), to)
        np.put_along_axis(vectors, labels[..., None], 1, axis=-1)
        return vectors

    return replace(batch, components, make)


@action
def apply(
    batch: AnyBatch,
    function: Callable[..., ArrayLike],
    /,
    *args: Any,
    components: Components = None,
    **kwargs: Any,
) -> AnyBatch:
    """Turn arrays into what a function makes of them: ``apply(np.clip, 0, 1)``.

    Args:
        batch: arrays ``(N, ...)`` of any dtype.
        function: called as ``function(array, *args, **kwargs)`` with a copy of the whole array,
            which it may write to. It returns an array with N entries, of any shape and dtype. For
            worker processes it must be picklable: defined in a module, no lambda.
        args: further arguments of ``function``.
        components: which arrays; by default the only one.
        kwargs: further arguments of ``function``, by name.

    Raises:
        OptionError: ``function`` cannot be called.
        DataError: the components, or what ``function`` returned has not N entries.
        Exception: what ``function`` raises.
    """
    if not callable(function):
        raise OptionError(f"apply needs a function of an array, got {function!r:.60}")
    name = getattr(function, "__name__", repr(function))

    def make(part: Part) -> NDArray[Any]:
        made = function(part.array.copy(), *args, **kwargs)
        return as_items(made, len(batch), f"what {name} returned for {part.where}")

    return replace(batch, components, make)


def _moments(array: NDArray[Any], axes: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and deviation over ``axes``, which stay with length one."""
    exact = np.result_type(array.dtype, np.float64)
    mean = array.mean(axes, dtype=exact, keepdims=True)
    std = array.std(axes, dtype=exact, keepdims=True)
    # The rounded mean of equal numbers may differ from them, and then their deviation is not zero.
    std[array.max(axes, keepdims=True) == array.min(axes, keepdims=True)] = 0
    return mean, std


def _given(part: Part, value: ArrayLike, what: str, axes: tuple[int, ...]) -> NDArray[np.float64]:
    given = _numbers(value, what)
    lengths = [1 if at in axes else length for at, length in enumerate(part.array.shape)]
    needed = tuple(length for at, length in enumerate(part.array.shape) if at not in axes)
    if given.ndim == 0 or given.shape == needed:
        return given if given.ndim == 0 else given.reshape(lengths)
    raise part.misfit(
        f"{what} has shape {given.shape}, for axis={axes} it must have {needed}",
        why=f"the array has shape {part.array.shape}",
        next="give one number, or one for each place on the axes that are not in axis=",
    )


def _numbers(value: ArrayLike, what: str) -> NDArray[np.float64]:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"{what} must be numbers, got {value!r:.60}") from None
