"""Samplers that ship: weighted draws, balanced classes, and batches of items of like length.

Each is planned when it is made, so that every epoch has as many batches, and each computes any part
of an epoch where it is looked at, without what came before. A sampler holds a few numbers for each
item, and shares nothing that changes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowcore.errors import OptionError, explain
from flowcore.labels import codes
from flowcore.order import Buckets, Draws, Groups, Permutation, Turns
from flowcore.sampler import Batches, BatchSampler, InOrder, Order, Sampler, seed_sequence

__all__ = ["Balanced", "ByLength", "Weighted"]


class Weighted(Sampler):
    """Draws items with replacement, each with odds in proportion to its weight.

    Each place of an epoch is a draw of its own, a function of (seed, epoch, place). An item of
    weight 0 is never drawn.

    Args:
        weights: one for each item of the index: a one-dimensional array of finite ints or floats,
            none negative, one at least positive. Kept as 8 bytes an item.
        size: how many positions an epoch has; by default the length of the index.

    Raises:
        OptionError: other weights, or a ``size`` that is no int of at least 1.
    """

    repeats = True

    def __init__(self, weights: ArrayLike, size: int | None = None) -> None:
        array = _amounts("weights", weights)
        if not array.max() > 0:
            raise OptionError(
                explain(
                    f"the {len(array)} weights are all 0",
                    why="an item of weight 0 is never drawn, so none could be",
                )
            )
        # The largest is 1: so the sum stays finite, and has all its bits.
        self._cumulated = np.cumsum(array / array.max())
        self._size = len(array) if size is None else _count("size", size)

    def size(self, length: int) -> int:
        """Return the ``size`` given, or ``length``.

        Raises:
            OptionError: there are not as many weights as ids in the index.
        """
        _check_length("weights", len(self._cumulated), length)
        return self._size

    def order(self, length: int, *, seed: int, epoch: int) -> Order:
        """Return the draws of an epoch."""
        return Draws(self._cumulated, self.size(length), _stream(seed, epoch, 0))

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what determines the draws, with the seed: an array and a number."""
        return self._cumulated, self._size

    def __str__(self) -> str:
        return f"Weighted({len(self._cumulated)} weights, size={self._size})"


class Balanced(Sampler):
    """Gives every class equally often, whatever the number of its items.

    In an epoch each class has the same number of places, and each item of a class comes as often as
    the others of it, or once more: those of a rare class repeat, of those of a frequent one a part
    comes. All classes are shuffled together.

    Args:
        labels: the class of each item of the index: a one-dimensional array, or a sequence of
            hashable values. Kept as 8 bytes an item; in an epoch as much again comes to it.
        size: how many positions an epoch has, a multiple of the number of classes; by default the
            least multiple that is not below the length of the index.

    Raises:
        OptionError: labels that are no classes, or a ``size`` that is not such a multiple.
    """

    repeats = True

    def __init__(self, labels: ArrayLike | Sequence[Hashable], size: int | None = None) -> None:
        self._groups = Groups(codes(labels, "labels"))
        classes = len(self._groups.sizes)
        self._size = -(-len(self._groups.items) // classes) * classes
        if size is None:
            return
        self._size = _count("size", size)
        if self._size % classes:
            raise OptionError(
                explain(
                    f"size={size} is not a multiple of the {classes} classes",
                    why="in an epoch every class has the same number of places",
                    next=f"the next multiple is size={-(-self._size // classes) * classes}",
                )
            )

    def size(self, length: int) -> int:
        """Return the ``size`` given, or the least multiple of the number of classes for ``length``.

        Raises:
            OptionError: there are not as many labels as ids in the index.
        """
        _check_length("labels", len(self._groups.items), length)
        return self._size

    def order(self, length: int, *, seed: int, epoch: int) -> Order:
        """Return the order of an epoch: every class equally often, shuffled."""
        size = self.size(length)
        return Turns(self._groups, size, partial(_stream, seed, epoch))

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what determines the order, with the seed: arrays and a number."""
        return self._groups.items, self._groups.sizes, self._size

    def __str__(self) -> str:
        return f"Balanced({len(self._groups.items)} labels, size={self._size})"


class ByLength(BatchSampler):
    """Forms batches of items of like length, so that little of them is padding.

    The items are sorted into buckets by length. In an epoch each bucket is shuffled and cut into
    batches, of which the last may be short, and the batches of all buckets are shuffled among each
    other. Every item comes exactly once.

    Args:
        lengths: of each item of the index: a one-dimensional array of finite ints or floats, none
            negative. Kept as 8 bytes an item.
        tokens: the most that a batch may cost when it is padded: its number of items times the
            length of the bucket's longest item. The batches of a bucket then have as many items as
            that allows, whatever the run's ``batch_size``. By default they have ``batch_size``
            items.
        buckets: a number of buckets, filled equally as far as items of one length allow, which stay
            together; or the increasing bounds of buckets, each the longest that is let in: what
            is longer than the last bound has a bucket of its own.
        shuffle: ``False`` keeps the items of a bucket in the order of the index, and has the
            batches from the bucket of the shortest to that of the longest.

    Raises:
        OptionError: an item that is longer than ``tokens``, or an argument that cannot be right.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        tokens: float | None = None,
        buckets: int | Sequence[float] | NDArray[Any] = 10,
        *,
        shuffle: bool = True,
    ) -> None:
        if not isinstance(shuffle, (bool, np.bool_)):
            raise OptionError(f"shuffle must be True or False, got {shuffle!r}")
        array = _amounts("lengths", lengths)
        bounds = _bounds(array, buckets)
        self._groups = Groups(np.searchsorted(bounds, array))
        self._shuffle = bool(shuffle)
        self._tokens = tokens
        self._caps = None if tokens is None else self._most(array, _amount("tokens", tokens))

    def _most(self, lengths: NDArray[Any], tokens: float) -> NDArray[np.int64]:
        """Return how many items the batches of each bucket may have."""
        if (long := lengths > tokens).any():
            raise OptionError(
                explain(
                    f"{long.sum()} items are longer than tokens={tokens}",
                    where=_shown(lengths, long),
                    next="raise tokens, or leave these items out of the dataset",
                )
            )
        longest = np.maximum.reduceat(lengths[self._groups.items], self._groups.starts)
        each = zip(self._groups.sizes.tolist(), longest.tolist(), strict=True)
        return np.array([int(min(size, tokens // most)) if most else size for size, most in each])

    def size(self, length: int) -> int:
        """Return ``length``: every item comes once.

        Raises:
            OptionError: there are not as many lengths as ids in the index.
        """
        _check_length("lengths", len(self._groups.items), length)
        return length

    def batches(self, length: int, batch_size: int, *, seed: int, epoch: int) -> Batches:
        """Return the batches of an epoch, each of items from one bucket."""
        self.size(length)
        caps = np.full(len(self._groups.sizes), batch_size) if self._caps is None else self._caps

        def order(length: int, part: int) -> Order:
            if self._shuffle:
                return Permutation(length, _stream(seed, epoch, part))
            return InOrder().order(length, seed=seed, epoch=epoch)

        return Buckets(self._groups, caps, order)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what determines the batches, with seed and batch size: arrays and a bool."""
        return self._groups.items, self._groups.sizes, self._caps, self._shuffle

    def __str__(self) -> str:
        return (
            f"ByLength({len(self._groups.items)} lengths, tokens={self._tokens}, "
            f"buckets={len(self._groups.sizes)}, shuffle={self._shuffle})"
        )


def _stream(seed: int, epoch: int, part: int) -> np.random.SeedSequence:
    return seed_sequence(seed, 0, epoch, part)  # 0 is for orders


def _check_length(name: str, found: int, length: int) -> None:
    if found != length:
        raise OptionError(
            explain(
                f"the sampler has {found} {name}, and the index {length} ids",
                next=f"give it one of the {name} for each id of the dataset, in the same order",
            )
        )


def _count(name: str, value: Any) -> int:
    if not isinstance(value, (bool, np.bool_)):
        try:
            if (count := operator.index(value)) >= 1:
                return count
        except TypeError:
            pass
    raise OptionError(f"{name} must be an int of at least 1, got {value!r:.80}")


def _amount(name: str, value: Any) -> float:
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if is_number and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value) if isinstance(value, (float, np.floating)) else int(value)
    raise OptionError(f"{name} must be a finite number above 0, got {value!r:.80}")


def _amounts(name: str, values: Any) -> NDArray[Any]:
    """Return finite numbers that are not negative, as an array of one dimension and their dtype."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists in a list, of several lengths
        array = np.empty((1, 0))
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not array.size:
        raise OptionError(
            explain(
                f"{name} must be a one-dimensional array of ints or floats, with at least one",
                why=f"got {type(values).__name__} {values!r:.80}".split("\n")[0],
            )
        )
    if (bad := ~(np.isfinite(array) & (array >= 0))).any():
        raise OptionError(
            explain(f"{name} must be finite and not negative", where=_shown(array, bad))
        )
    return array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array


def _shown(array: NDArray[Any], bad: NDArray[np.bool_]) -> str:
    """Return where the first of the bad values are, and what they are."""
    at = np.flatnonzero(bad)
    shown = ", ".join(f"{array[one]} at position {one}" for one in at[:5])
    return shown + (f", and {len(at) - 5} more" if len(at) > 5 else "")


def _bounds(lengths: NDArray[Any], buckets: Any) -> NDArray[Any]:
    """Return the longest that each bucket lets in, but for the last."""
    if isinstance(buckets, (Sequence, np.ndarray)):
        bounds = _amounts("buckets", buckets)
        if (bounds[1:] > bounds[:-1]).all():
            return bounds
        raise OptionError(f"the bounds of buckets must increase, got {buckets!r:.80}")
    count = _count("buckets", buckets)
    return np.unique(np.quantile(lengths, np.arange(1, count) / count, method="inverted_cdf"))
