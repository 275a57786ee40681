"""Permutations that are computed where they are looked at: no array of their length is ever made.

Up to `EXACT` positions an order is a table, drawn uniformly from all permutations. Above, it is a
Feistel network over pairs of digits, with tables for its round functions, and walked along its
cycles where a pair stands for no position (J. Black and P. Rogaway, "Ciphers with arbitrary finite
domains", CT-RSA 2002). Both draw only raw 64-bit words, whose stream NumPy keeps as it is, so that
an order of today is that of a later NumPy.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT", "Permutation"]

EXACT = 1 << 14  # positions; a table of so many takes 128 KB and less than 2 ms
_ROUNDS = 8  # of the network


class Permutation:
    """A pseudo-random permutation of ``0..length-1``, looked at by slices or arrays of places.

    It holds 8 tables of about the square root of ``length`` entries: 1 MB for 10**9.

    Args:
        length: number of positions, below 2**63.
        seed: of the permutation: the same one gives the same permutation.
    """

    def __init__(self, length: int, seed: np.random.SeedSequence) -> None:
        self._length = length
        bits = np.random.PCG64(seed)
        self._table: NDArray[np.int64] | None = None
        if length <= EXACT:
            self._table = np.argsort(bits.random_raw(length), kind="stable").astype(np.int64)
            return
        # A position is a pair of digits, position = high * _low + low, with high < _high.
        self._low = math.isqrt(length - 1) + 1
        self._high = -(-length // self._low)
        self._rounds = [
            _digits(bits, base, count)
            for base, count in [(self._high, self._low), (self._low, self._high)] * (_ROUNDS // 2)
        ]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions at ``places``: a slice with step 1, or an int64 array."""
        if self._table is not None:
            return self._table[places]
        if isinstance(places, slice):
            start, stop, _ = places.indices(self._length)
            places = np.arange(start, stop, dtype=np.int64)
        found = self._network(places)
        while (outside := np.flatnonzero(found >= self._length)).size:
            found[outside] = self._network(found[outside])
        return found

    def _network(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        high, low = np.divmod(values, self._low)
        dtype = self._rounds[0].dtype
        high, low = high.astype(dtype), low.astype(dtype)
        bases = dtype.type(self._high), dtype.type(self._low)
        spare = np.empty_like(high)
        for number, table in enumerate(self._rounds):
            one, other, base = (low, high, bases[0]) if number % 2 == 0 else (high, low, bases[1])
            other += table[one]
            # Unsigned, so what is below the base wraps to more than it: the smaller is the rest.
            np.subtract(other, base, out=spare)
            np.minimum(other, spare, out=other)
        return high.astype(np.int64) * self._low + low


def _digits(bits: np.random.PCG64, base: int, count: int) -> NDArray[np.unsignedinteger]:
    """Draw ``count`` digits below ``base``, by multiplying the high half of raw words."""
    words = bits.random_raw(count) >> np.uint64(32)
    return ((words * np.uint64(base)) >> np.uint64(32)).astype(np.uint32)
