"""Samplers: what turns (index, seed, epoch) into the order of item positions.

Nothing here counts on what came before: any part of any epoch is computed when it is asked for, so
that a run can begin anywhere, and any batch can be made again, alone. The random streams of a run
are here too, each a function of its seed and of what it is for.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import DataError, explain
from flowcore.order import Permutation

__all__ = [
    "BatchSampler",
    "Batches",
    "InOrder",
    "Order",
    "Reordered",
    "Sampler",
    "Shuffle",
    "Shuffled",
    "draw_seed",
    "random_stream",
    "seed_sequence",
]

Shuffle: TypeAlias = (
    "bool | np.random.Generator | np.random.RandomState | "
    "Callable[[NDArray[np.int64]], NDArray[np.int64]]"
)

# What a random stream is for: the same seed must not serve two ends.
# 2 is in `flowcore.rows`, 3 in `values`, 4 in `split`, 5 in `interleave`, 6 in `run.program`.
_ORDER, _BATCH = 0, 1


def seed_sequence(seed: int, *key: int) -> np.random.SeedSequence:
    """Return the seed of one of a run's streams, by what it is for.

    The streams are children of one `numpy.random.SeedSequence`, so they are independent.
    """
    return np.random.SeedSequence(seed, spawn_key=key)


def random_stream(seed: int, epoch: int, number: int) -> np.random.Generator:
    """Return the generator of one batch of a run."""
    return np.random.default_rng(seed_sequence(seed, _BATCH, epoch, number))


def draw_seed(shuffle: Shuffle, seed: int | None) -> int:
    """Return the seed of a run: the one given, or one drawn from ``shuffle`` or the system."""
    if seed is not None:
        return seed
    if isinstance(shuffle, bool):  # first: to look at the others loads `numpy.random`, for 6 ms
        return int.from_bytes(os.urandom(4), "big")
    if isinstance(shuffle, np.random.Generator):
        return int(shuffle.integers(2**32))
    if isinstance(shuffle, np.random.RandomState):
        return int(shuffle.randint(2**32, dtype=np.uint32))
    return draw_seed(True, None)


class Order(Protocol):
    """The order of an epoch: a NumPy array of positions, or what is looked at as one."""

    def __len__(self) -> int:
        """Return how many positions an epoch has."""
        ...

    def __getitem__(self, places: Any, /) -> NDArray[np.int64]:
        """Return the positions at ``places``: a slice with step 1, or an int64 array."""
        ...


class Batches(Protocol):
    """The batches of an epoch: a list of arrays of positions, or what is looked at as one.

    It may have a method ``sizes(numbers)``, which returns the sizes of some batches, where that is
    faster than forming them.
    """

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        ...

    def __getitem__(self, number: int, /) -> NDArray[np.int64]:
        """Return the positions of one batch."""
        ...


class Sampler(ABC):
    """What orders the items of each epoch. Subclass it, and pass an object as ``sampler=``.

    It is a description, as a recipe is: it keeps no state that a run changes, and gives the same
    order for the same (length, seed, epoch), in whatever process. Positions may repeat, or be left
    out; ``size`` says how many an epoch has. For samplers that form whole batches see
    `BatchSampler`.
    """

    #: Whether an epoch may have an item more than once.
    repeats: bool = False

    def size(self, length: int) -> int:
        """Return how many positions each epoch has, for an index of ``length`` ids.

        The same number for every epoch, as a run says how many batches it has before it starts.
        """
        return length

    @abstractmethod
    def order(self, length: int, *, seed: int, epoch: int) -> Order:
        """Return the order of an epoch: ``size(length)`` positions, each in ``0..length-1``.

        Called once for an epoch in a run, and whenever one of its batches is made again. An array
        is fine; for an index too long for one, return an object that computes what it is asked for.

        Args:
            length: of the index.
            seed: of the run, an int of any size. Derive streams from it with
                ``numpy.random.default_rng([epoch, seed])``.
            epoch: from zero.
        """

    def fingerprint_parts(self) -> Any:
        """Return what tells it from other samplers, so that a state of theirs is refused.

        By default all its attributes; override it, if some of them are only kept for speed.
        """
        return vars(self)

    def __str__(self) -> str:
        return type(self).__name__


class BatchSampler(Sampler):
    """A sampler that says which items are together in a batch, as by their length.

    Such a sampler decides the size of the batches; the run's ``batch_size`` is what it may make of
    it.
    """

    def order(self, length: int, *, seed: int, epoch: int) -> Order:
        """Raise a `TypeError`: what is asked for are the batches."""
        raise TypeError(f"{self} forms batches, and has no order of items")

    @abstractmethod
    def batches(self, length: int, batch_size: int, *, seed: int, epoch: int) -> Batches:
        """Return the batches of an epoch, as many in every epoch; none is empty.

        Raises:
            OptionError: they cannot be formed from such an index.
        """


class InOrder(Sampler):
    """The index's own order: ``shuffle=False``."""

    def order(self, length: int, *, seed: int, epoch: int) -> Order:
        """Return ``0..length-1``."""
        return _Range(length)


class Shuffled(Sampler):
    """A fresh permutation of the whole index in each epoch: ``shuffle=True``."""

    def order(self, length: int, *, seed: int, epoch: int) -> Order:
        """Return the permutation of (seed, epoch), computed where it is looked at."""
        return Permutation(length, seed_sequence(seed, _ORDER, epoch))


class Reordered(Sampler):
    """A function's permutation of the index: ``shuffle=function``.

    Args:
        function: given ``arange(length)``, once an epoch; returns a permutation of it.
    """

    def __init__(self, function: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        self.function = function

    def order(self, length: int, *, seed: int, epoch: int) -> Order:
        """Return what the function returns.

        Raises:
            DataError: it is no permutation.
        """
        return _permutation(self.function(np.arange(length)), length, epoch)

    def __str__(self) -> str:
        return getattr(self.function, "__qualname__", "...")


class _Range:
    """``0..length-1``, as an order."""

    def __init__(self, length: int) -> None:
        self._range = range(length)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        if isinstance(places, slice):
            found = self._range[places]
            return np.arange(found.start, found.stop)
        return places


def checked_positions(found: Any, length: int, where: str) -> NDArray[np.int64]:
    """Return what a sampler gave as int64 positions.

    Raises:
        DataError: it is no array of positions of an index of ``length`` ids.
    """
    array = np.asarray(found)
    if array.ndim == 1 and (array.dtype.kind in "iu" or not array.size):
        if not array.size or (array.min() >= 0 and array.max() < length):
            return array.astype(np.int64, copy=False)
        why = f"it has positions from {array.min()} to {array.max()}"
    else:
        why = f"it gave {type(found).__name__} of shape {array.shape}, dtype {array.dtype}"
    raise DataError(
        explain(
            f"a sampler must give int positions in 0..{length - 1}, in one dimension",
            where=where,
            why=why,
        )
    )


def _permutation(order: Any, length: int, epoch: int) -> NDArray[np.int64]:
    array = np.asarray(order)
    if (
        array.shape == (length,)
        and array.dtype.kind in "iu"
        and np.array_equal(np.sort(array), np.arange(length))
    ):
        return array.astype(np.int64, copy=True)
    raise DataError(
        explain(
            f"the shuffle callable did not return a permutation of 0..{length - 1}",
            where=f"epoch {epoch}",
            why=f"it returned {type(order).__name__} of shape {array.shape}, dtype {array.dtype}",
            next="return every position exactly once: lambda order: order[::-1]",
        )
    )
