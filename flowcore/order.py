"""Orders that are computed where they are looked at: nothing of their length is ever made.

A `Permutation` is the base of all. Up to `EXACT` positions it is a table, drawn uniformly from all
permutations. Above, it is a Feistel network over pairs of digits, walked along its cycles where a
pair stands for no position (J. Black and P. Rogaway, "Ciphers with arbitrary finite domains",
CT-RSA 2002). All orders are made from the raw words of a NumPy bit generator, whose stream NumPy
keeps as it is, so that an order of today is that of a later NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import OptionError

if TYPE_CHECKING:
    from flowcore.sampler import Order

__all__ = ["EXACT", "Buckets", "Draws", "Groups", "Permutation", "Turns"]

EXACT = 1 << 14  # positions; a table of so many takes 128 KB and about 1 ms
# Places that go through the network at once. They stay in the cache, and each array is below the
# 128 KB from which on an allocator takes memory from the system and gives it back, every time.
_BLOCK = 1 << 13
_ROUNDS = 8  # of the network; it needs 5, see tests/core/test_order.py
_LONGEST = 1 << 62  # so that two digits have a sum of 32 bits
_HALF = np.uint64(32)


class Permutation:
    """A pseudo-random permutation of ``0..length-1``, looked at by slices or arrays of places.

    Up to `EXACT` it holds its table, and above eight random words, whatever the length.

    Args:
        length: number of positions, at most 2**62.
        seed: of the permutation: the same one gives the same permutation.

    Raises:
        OptionError: a longer one.
    """

    def __init__(self, length: int, seed: np.random.SeedSequence) -> None:
        if length > _LONGEST:
            raise OptionError(f"at most 2**62 positions can be shuffled, got {length}")
        self._length = length
        bits = np.random.PCG64(seed)
        self._table: NDArray[np.int64] | None = None
        if length <= EXACT:
            self._table = np.argsort(bits.random_raw(length), kind="stable").astype(np.int64)
            self._table.flags.writeable = False  # parts of it are handed out
            return
        # A position is a pair of digits, position = high * _low + low, with high < _high.
        self._low = np.uint64(math.isqrt(length - 1) + 1)
        high = np.uint64(-(-length // int(self._low)))
        words = bits.random_raw(_ROUNDS)
        # Of each round: a number, made odd so that no two values become one, another, and the base.
        odd, more, bases = _upper(words) | np.uint32(1), words.astype(np.uint32), (high, self._low)
        self._rounds = list(zip(odd, more, bases * _ROUNDS, strict=False))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions at ``places``: a slice with step 1, or an int64 array."""
        if self._table is not None:
            return self._table[places]
        places = _places(places, self._length)
        if len(places) <= _BLOCK:
            return self._walk(places)
        blocks = range(0, len(places), _BLOCK)
        return np.concatenate([self._walk(places[at : at + _BLOCK]) for at in blocks])

    def _walk(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        found = self._network(values)
        while found.size and found.max() >= self._length:
            outside = np.flatnonzero(found >= self._length)
            found[outside] = self._network(found[outside])
        return found

    def _network(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        # Unsigned, as that is divided in half the time, and in place, as arrays take time to make.
        whole = values.view(np.uint64)
        upper = whole // self._low
        high = upper.astype(np.uint32)
        upper *= self._low
        low = (whole - upper).astype(np.uint32)
        one, other = low, high
        for odd, more, base in self._rounds:
            other += _digits(one, odd, more, base)
            # What is below the base wraps to more than it: the smaller is the rest.
            np.minimum(other, other - base.astype(np.uint32), out=other)
            one, other = other, one
        found = high.astype(np.int64)
        found *= int(self._low)
        found += low.astype(np.int64)
        return found


class Groups:
    """Items by group: those of group g are ``items[starts[g] : starts[g] + sizes[g]]``, in order.

    Args:
        codes: the number of each item's group. A number that none has is left out.
    """

    def __init__(self, codes: NDArray[np.int64]) -> None:
        self.items: NDArray[np.int64] = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes)
        self.sizes = sizes[sizes > 0]
        self.starts = np.cumsum(self.sizes) - self.sizes

    def at(self, groups: int | NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the items of such numbers in their groups."""
        found: NDArray[np.int64] = self.items[self.starts[groups] + numbers]
        return found


class Draws:
    """Draws with replacement: place -> a random number below the sum -> the item that has it.

    Args:
        cumulated: the sum of the weights up to each item.
        size: number of places.
        seed: of the draws.
    """

    def __init__(
        self, cumulated: NDArray[np.float64], size: int, seed: np.random.SeedSequence
    ) -> None:
        self._cumulated = cumulated
        self._size = size
        self._key = seed.generate_state(1, np.uint64).astype(np.uint64)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the items drawn at ``places``: a slice with step 1, or an int64 array."""
        words = _words(self._key, _places(places, self._size))
        # 53 bits make a float below 1, so what is drawn is below the sum. Where a weight is 0, the
        # sum is that of the item before, and the first sum that is greater is never the second.
        drawn = (words >> np.uint64(11)) * (self._cumulated[-1] * 2.0**-53)
        found: NDArray[np.int64] = np.searchsorted(self._cumulated, drawn, side="right")
        return found


class Turns:
    """Groups in turn: place -> a turn of a group -> one of its items, each as often as can be.

    Args:
        groups: of items.
        size: number of places, a multiple of the number of groups.
        seed: gives the seed of one of the permutations that this takes, by its number.
    """

    def __init__(
        self, groups: Groups, size: int, seed: Callable[[int], np.random.SeedSequence]
    ) -> None:
        self._groups = groups
        self._seed = seed
        self._all = Permutation(size, seed(0))
        self._within: dict[int, Permutation] = {}  # by group, made when it is first met

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the items at ``places``: a slice with step 1, or an int64 array."""
        turns, groups = np.divmod(self._all[places], len(self._groups.sizes))
        found = turns % self._groups.sizes[groups]
        by_group = np.argsort(groups, kind="stable")
        for part in np.split(by_group, np.flatnonzero(np.diff(groups[by_group])) + 1):
            if part.size:
                found[part] = self._shuffled(int(groups[part[0]]))[found[part]]
        return self._groups.at(groups, found)

    def _shuffled(self, group: int) -> Permutation:
        if group not in self._within:
            length = int(self._groups.sizes[group])
            self._within[group] = Permutation(length, self._seed(group + 1))
        return self._within[group]


class Buckets:
    """Groups cut into batches: number -> a batch of a group -> a part of the group's order.

    Args:
        groups: of items.
        caps: the most items that a batch of each group may have.
        order: gives the order of so many batches, or items of a group, by its number.
    """

    def __init__(
        self, groups: Groups, caps: NDArray[np.int64], order: Callable[[int, int], Order]
    ) -> None:
        self._groups = groups
        self._caps = caps
        counts = -(-groups.sizes // caps)
        self._firsts = np.cumsum(counts) - counts
        self._all = order(int(counts.sum()), 0)
        self._within = [order(size, at) for at, size in enumerate(groups.sizes.tolist(), start=1)]

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> NDArray[np.int64]:
        """Return the items of a batch.

        Raises:
            IndexError: there is none of that number.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        at = int(self._all[number : number + 1][0])
        group = int(np.searchsorted(self._firsts, at, side="right")) - 1
        cap = int(self._caps[group])
        start = (at - int(self._firsts[group])) * cap
        within = self._within[group][start : start + cap]
        return self._groups.at(group, within)

    def sizes(self, numbers: slice | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many items the batches of such numbers have, without forming them."""
        at = self._all[numbers]
        groups = np.searchsorted(self._firsts, at, side="right") - 1
        caps = self._caps[groups]
        left = self._groups.sizes[groups] - (at - self._firsts[groups]) * caps
        found: NDArray[np.int64] = np.minimum(caps, left)
        return found


def _digits(
    values: NDArray[np.uint32], odd: np.uint32, more: np.uint32, base: np.uint64
) -> NDArray[np.uint32]:
    """Return a random digit below ``base`` for each value: the function of a round.

    It is a keyed line, whose high bits are the better ones, folded onto the low ones and spread
    again; one of the multipliers that C. Wellons found, "Prospecting for hash functions", 2018.
    """
    words = values * odd
    words += more
    words ^= words >> 15
    words *= np.uint32(0x846CA68B)
    wide = words.astype(np.uint64)  # one by one and in place: NumPy buffers what mixes types
    wide *= base
    return _upper(wide)


def _upper(words: NDArray[np.uint64]) -> NDArray[np.uint32]:
    return (words >> _HALF).astype(np.uint32)


def _places(places: slice | NDArray[np.int64], size: int) -> NDArray[np.int64]:
    if isinstance(places, slice):
        return np.arange(*places.indices(size), dtype=np.int64)
    return places


def _words(key: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a random 64-bit word for each place.

    It is the generator of G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014, whose n-th word needs none of those before.
    """
    words: NDArray[np.uint64] = key + places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words
