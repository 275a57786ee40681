"""Actions that change where the numbers are: `pad`, `crop`, `flip`.

What is random is drawn from the batch's own generator, once for all components of a call: so a mask
goes with its image, and every executor gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from flowcore import action
from flowcore.errors import OptionError
from flowcore_arrays._options import axes_of, integers
from flowcore_arrays._parts import AnyBatch, Components, Part, replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["crop", "flip", "pad"]

Lengths: TypeAlias = "int | Sequence[int | None]"


@action
def pad(
    batch: AnyBatch,
    shape: Lengths,
    value: float = 0,
    side: Literal["both", "start", "end"] = "both",
    *,
    components: Components = None,
) -> AnyBatch:
    """Make items larger by adding a constant around them.

    Args:
        batch: arrays ``(N, ...)`` of any dtype, which stays.
        shape: of the new items: the lengths of their first axes, ``None`` for one that stays; axes
            after them stay too, so ``(32, 32)`` does for ``(N, 28, 28)`` and ``(N, 28, 28, 3)``.
            One integer is for items with one axis.
        value: what is added.
        side: where: on ``"both"`` sides, an odd one at the end, so that `crop` takes it away again;
            or all at the ``"start"`` or the ``"end"`` of each axis.
        components: which arrays; by default the only one.

    Raises:
        OptionError: ``shape`` is no positive lengths, ``side`` is another word.
        DataError: the components, items that are larger than ``shape`` or have fewer axes, a
            ``value`` that the array's dtype cannot hold.
    """
    if side not in ("both", "start", "end"):
        raise OptionError(f"side must be 'both', 'start' or 'end', got {side!r:.60}")
    lengths = _lengths(shape)

    def make(part: Part) -> NDArray[Any]:
        to = _item_shape(part, shape, lengths)
        room = [wide - length for wide, length in zip(to, part.item_shape, strict=True)]
        if min(room) < 0:
            raise part.misfit(
                f"items of shape {part.item_shape} cannot be padded to the smaller {to}",
                next="crop them first: .arrays.crop(...)",
            )
        starts = {"both": [width // 2 for width in room], "start": room, "end": [0] * len(room)}
        made = np.full((len(part.array), *to), _fill(part, value), part.array.dtype)
        made[_inside(starts[side], part.item_shape)] = part.array
        return made

    return replace(batch, components, make)


@action
def crop(
    batch: AnyBatch, shape: Lengths, random: bool = False, *, components: Components = None
) -> AnyBatch:
    """Cut a smaller part out of each item.

    Args:
        batch: arrays ``(N, ...)`` of any dtype, which stays.
        shape: of the new items, as for `pad`.
        random: cut each item at a place that is drawn from its own generator, every place equally
            likely; else in the centre. Components of one item shape are cut at the same places.
        components: which arrays; by default the only one.

    Raises:
        OptionError: ``shape`` is no positive lengths.
        DataError: the components, items that are smaller than ``shape`` or have fewer axes.
    """
    lengths = _lengths(shape)
    draws = _draws(batch, len(lengths)) if random else None

    def make(part: Part) -> NDArray[Any]:
        to = _item_shape(part, shape, lengths)
        room = [length - short for length, short in zip(part.item_shape, to, strict=True)]
        if min(room) < 0:
            raise part.misfit(
                f"items of shape {part.item_shape} have no part of the larger shape {to}",
                next="pad them first: .arrays.pad(...)",
            )
        if draws is None:
            return part.array[_inside([width // 2 for width in room], to)].copy()
        places = np.array(room[: len(lengths)]) + 1
        return _cut(part.array, (draws * places).astype(np.intp), to[: len(lengths)])

    return replace(batch, components, make)


@action
def flip(
    batch: AnyBatch,
    axis: int | Sequence[int],
    probability: float = 0.5,
    *,
    components: Components = None,
) -> AnyBatch:
    """Reverse items along an axis, each with a probability.

    Args:
        batch: arrays ``(N, ...)`` of any dtype; shape and dtype stay.
        axis: of the whole array, where 0 is the items: for ``(N, H, W, C)``, 2 mirrors left and
            right, 1 up and down. Of several axes an item is reversed along all or along none.
        probability: of each item to be reversed, drawn from its own generator; 1 reverses all.
        components: which arrays; by default the only one. An item is reversed in all or in none.

    Raises:
        OptionError: ``probability`` is not in 0..1, ``axis`` is no integers.
        DataError: the components, an axis that the array does not have, or that of the items.
    """
    if not isinstance(probability, (int, float, np.number)) or not 0 <= probability <= 1:
        raise OptionError(f"probability must be a number in 0..1, got {probability!r:.60}")
    chosen = _draws(batch, 1)[:, 0] < probability

    def make(part: Part) -> NDArray[Any]:
        axes = axes_of(part, axis)
        if 0 in axes:
            raise part.misfit(
                f"axis {axis} of an array of shape {part.array.shape} is that of the items",
                why="to reverse it would give items to the ids of others",
                next="axis=1 is the first axis of an item",
            )
        made = part.array.copy()
        made[chosen] = np.flip(part.array, axes)[chosen]
        return made

    return replace(batch, components, make)


def _draws(batch: AnyBatch, count: int) -> NDArray[np.float64]:
    """Draw numbers for each item, the same in whatever batch it is."""
    return np.array([rng.random(count) for rng in batch.item_rngs]).reshape(len(batch), count)


def _lengths(shape: Lengths) -> tuple[int | None, ...]:
    lengths = integers(shape, "shape")
    if any(length is not None and length < 1 for length in lengths):
        raise OptionError(f"the lengths in a shape must be positive, got {shape!r:.60}")
    return lengths


def _item_shape(part: Part, shape: Lengths, lengths: tuple[int | None, ...]) -> tuple[int, ...]:
    """Return the whole shape of an item that ``lengths`` ask for."""
    old = part.item_shape
    alone = hasattr(shape, "__index__")  # 24 could mean (24,) or (24, 24) where there are two axes
    if len(lengths) > len(old) or (alone and len(old) > 1):
        raise part.misfit(
            f"shape={shape} cannot be that of items, which have shape {old}",
            next="give the lengths of their first axes, None for one that stays",
        )
    new = (now if wanted is None else wanted for wanted, now in zip(lengths, old, strict=False))
    return (*new, *old[len(lengths) :])


def _inside(starts: Sequence[int], lengths: Sequence[int]) -> tuple[slice, ...]:
    """Return the index, in an array of items, of a box at ``starts`` of each item."""
    box = (slice(at, at + length) for at, length in zip(starts, lengths, strict=True))
    return (slice(None), *box)


def _cut(array: NDArray[Any], starts: NDArray[np.intp], lengths: tuple[int, ...]) -> NDArray[Any]:
    """Return of each item the box at its row of ``starts``, for the first axes of an item."""
    axes = len(lengths)
    windows = sliding_window_view(array, lengths, tuple(range(1, axes + 1)))
    # Now (N, places..., other axes..., lengths...): the box goes before the axes that are not cut.
    windows = np.moveaxis(windows, range(-axes, 0), range(axes + 1, 2 * axes + 1))
    boxes: NDArray[Any] = windows[(np.arange(len(array)), *starts.T)]
    return boxes


def _fill(part: Part, value: float) -> Any:
    """Return ``value`` in the dtype of the array.

    Integers would take -1 for 255 and 0.5 for 0 without a word, so there it must fit exactly.
    """
    dtype = part.array.dtype
    try:
        with np.errstate(all="ignore"):
            filler = np.asarray(value).astype(dtype)
        if filler.ndim == 0 and (dtype.kind not in "biu" or filler == value):
            return filler
    except (TypeError, ValueError):
        pass
    raise part.misfit(
        f"an array of {dtype} cannot hold the value {value!r:.60}",
        next="cast it first, .arrays.cast('float32'), or give another value",
    )
