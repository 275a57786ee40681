"""Which item positions a batch holds, as a function of (seed, epoch) and the batch's number.

Nothing here counts on what came before: batch k of epoch e is computed, so that any batch can be
made again, alone. The order of an epoch is kept while that epoch lasts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import DataError, OptionError, explain

__all__ = ["Order", "Sampler", "Shuffle", "draw_seed", "random_stream"]

Order: TypeAlias = "Callable[[NDArray[np.int64]], NDArray[np.int64]]"
Shuffle: TypeAlias = "bool | np.random.Generator | np.random.RandomState | Order"

_ORDER, _BATCH = 0, 1  # what a random stream is for: the same seed must not serve two ends


def random_stream(seed: int, epoch: int, number: int | None = None) -> np.random.Generator:
    """Return the generator of an epoch's order, or with ``number`` that of one of its batches.

    The streams are children of one `numpy.random.SeedSequence`, so they are independent.
    """
    key = (_ORDER, epoch) if number is None else (_BATCH, epoch, number)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw_seed(shuffle: Shuffle, seed: int | None) -> int:
    """Return the seed of a run: the one given, or one drawn from ``shuffle`` or the system."""
    if seed is not None:
        return seed
    if isinstance(shuffle, np.random.Generator):
        return int(shuffle.integers(2**32))
    if isinstance(shuffle, np.random.RandomState):
        return int(shuffle.randint(2**32, dtype=np.uint32))
    return secrets.randbits(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """The batches of a run, as positions: ``n_epochs`` passes over ``length`` items.

    Attributes:
        length: number of items of the index.
        batch_size: items in a batch; the last batch of an epoch may be shorter.
        shuffle: ``False`` for the index's own order, ``True`` for a fresh permutation each epoch,
            or a callable that is given ``arange(length)`` once an epoch and returns a permutation.
        seed: of the permutations.
        n_epochs: passes over the index; ``None`` has no end.
        drop_last: leave a last short batch out.
    """

    length: int
    batch_size: int
    shuffle: bool | Order = False
    seed: int = 0
    n_epochs: int | None = 1
    drop_last: bool = False
    _kept: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.n_epochs is None and not self.epoch_batches:
            raise OptionError(
                explain(
                    "an endless run (n_epochs=None) whose epoch holds no batch",
                    why=f"{self.length} items, batch_size={self.batch_size}, "
                    f"drop_last={self.drop_last}",
                    next="give it data, a smaller batch_size, or drop_last=False",
                )
            )

    @property
    def epoch_batches(self) -> int:
        """Number of batches in an epoch."""
        rounding = 0 if self.drop_last else self.batch_size - 1
        return (self.length + rounding) // self.batch_size

    @property
    def epoch_items(self) -> int:
        """Number of items in an epoch: those dropped with a last short batch left out."""
        return min(self.length, self.epoch_batches * self.batch_size)

    @property
    def batches(self) -> int | None:
        """Number of batches in the run, ``None`` if it has no end."""
        return None if self.n_epochs is None else self.n_epochs * self.epoch_batches

    @property
    def items(self) -> int | None:
        """Number of items in the run, ``None`` if it has no end."""
        return None if self.n_epochs is None else self.n_epochs * self.epoch_items

    def __iter__(self) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Generate (epoch, number in the epoch, positions), from the first batch on."""
        epoch = 0
        while self.n_epochs is None or epoch < self.n_epochs:
            for number in range(self.epoch_batches):
                yield epoch, number, self.positions(epoch, number)
            epoch += 1

    def positions(self, epoch: int, number: int) -> NDArray[np.int64]:
        """Return the positions of one batch: int64, at most ``batch_size``, read-only."""
        start = number * self.batch_size
        stop = min(start + self.batch_size, self.length)
        positions = np.arange(start, stop) if not self.shuffle else self._order(epoch)[start:stop]
        positions.flags.writeable = False  # an action must not change what a retry reads
        return positions

    def _order(self, epoch: int) -> NDArray[np.int64]:
        order = self._kept.get(epoch)
        if order is None:
            self._kept.clear()
            if callable(self.shuffle):
                order = _checked(self.shuffle(np.arange(self.length)), self.length, epoch)
            else:
                order = random_stream(self.seed, epoch).permutation(self.length)
            self._kept[epoch] = order
        return order


def _checked(order: Any, length: int, epoch: int) -> NDArray[np.int64]:
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
