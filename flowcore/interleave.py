"""The order of a mixture: its parts' items in turn, in fixed proportions, each in its own order.

One row of the pattern holds as many places of each part as its weight says, spread as evenly as can
be. So the item at a place follows from the place, and nothing that came before is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import OptionError, explain
from flowcore.order import Permutation
from flowcore.sampler import Order, Sampler, seed_sequence

__all__ = ["Interleaved", "Stop", "in_turn"]

Stop = Literal["first", "all"]

_ROW = 1000  # places in a row, at most: weights are kept to about a thousandth
_PART = 5  # what these streams are for; the other purposes are those of `flowcore.sampler`


def in_turn(weights: Sequence[float], parts: int) -> tuple[int, ...]:
    """Return how many places of a row each part has, in the shortest row that fits ``weights``.

    Raises:
        OptionError: not one weight above 0 for each part.
    """
    try:
        shares = np.asarray(weights, float)
    except (TypeError, ValueError):
        shares = np.empty(0)
    if shares.shape != (parts,) or not np.isfinite(shares).all() or not (shares > 0).all():
        raise OptionError(
            explain(
                f"mix needs a weight above 0 for each of {parts} pipelines, got {weights!r:.80}",
                next="leave out a pipeline that nothing is wanted of",
            )
        )
    shares = shares / shares.sum()
    for row in range(1, _ROW + 1):
        counts = np.rint(shares * row)
        if counts.all() and np.allclose(counts, shares * row, rtol=0, atol=1e-9 * row):
            break
    return tuple(max(1, int(count)) for count in counts)


class Interleaved(Sampler):
    """The parts of a mixture in turn.

    Args:
        sizes: number of items of each part, which follow each other in the index.
        counts: places that each part has in a row.
        shuffle: a fresh permutation of each part in each epoch.
        stop: the epoch ends when the ``"first"`` part has no item left, or when ``"all"`` were gone
            through once; the shorter ones then start over.
    """

    def __init__(
        self, sizes: Sequence[int], counts: Sequence[int], *, shuffle: bool, stop: Stop = "first"
    ) -> None:
        self._sizes, self._counts = tuple(sizes), tuple(counts)
        self._shuffle, self._stop = shuffle, stop
        self.repeats = stop == "all"
        self._starts = np.cumsum([0, *sizes])
        # A part's k-th place of a row is at (k + 1/2) / count of it: sorted, that is the row.
        spread = [
            ((at + 0.5) / count, part) for part, count in enumerate(counts) for at in range(count)
        ]
        self._of = np.array([part for _, part in sorted(spread)])  # the part of each place
        self._nth = np.array([np.sum(self._of[:at] == part) for at, part in enumerate(self._of)])
        self._total = self._count_places()

    def _count_places(self) -> int:
        """Return how many places an epoch has."""
        ends = []
        for part, (size, count) in enumerate(zip(self._sizes, self._counts, strict=True)):
            places = np.flatnonzero(self._of == part)
            wanted = size if self._stop == "first" else size - 1  # the item that ends the epoch
            rows, nth = divmod(wanted, count)
            ends.append(rows * len(self._of) + int(places[nth]))
        return min(ends) if self._stop == "first" else max(ends) + 1

    def size(self, length: int) -> int:
        """Return how many places an epoch has."""
        return self._total

    def order(self, length: int, *, seed: int, epoch: int) -> Order:
        """Return the order of an epoch."""
        return _InTurn(self, seed, epoch)

    def places(self, at: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the positions of some places of an epoch."""
        rows, columns = np.divmod(at, len(self._of))
        of = self._of[columns]
        nth = rows * np.asarray(self._counts)[of] + self._nth[columns]
        found = np.empty(len(at), np.int64)
        for part in np.unique(of).tolist():
            here = np.flatnonzero(of == part)
            found[here] = self._starts[part] + self._inside(part, nth[here], seed, epoch)
        return found

    def _inside(
        self, part: int, nth: NDArray[np.int64], seed: int, epoch: int
    ) -> NDArray[np.int64]:
        passes, places = np.divmod(nth, self._sizes[part])
        if not self._shuffle:
            return places
        found = np.empty_like(places)
        for one in np.unique(passes).tolist():
            here = passes == one
            stream = seed_sequence(seed, _PART, epoch, part, one)
            found[here] = Permutation(self._sizes[part], stream)[places[here]]
        return found

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what tells it from other samplers."""
        return self._sizes, self._counts, self._shuffle, self._stop

    def __str__(self) -> str:
        shares = ":".join(str(count // math.gcd(*self._counts)) for count in self._counts)
        return f"a mixture {shares}"


class _InTurn:
    """The places of one epoch of a mixture, as an order."""

    def __init__(self, sampler: Interleaved, seed: int, epoch: int) -> None:
        self._sampler, self._seed, self._epoch = sampler, seed, epoch

    def __len__(self) -> int:
        return self._sampler.size(0)

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        if isinstance(places, slice):
            places = np.arange(*places.indices(len(self)))
        return self._sampler.places(places, self._seed, self._epoch)
