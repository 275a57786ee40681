"""Orders: a permutation that is computed where it is looked at, and as good as one that is drawn.

The quality tests are statistics of samples, each as a z score, which is near 0 for permutations
that are drawn uniformly. `benchmarks/order_quality.py` shows them beside those of NumPy's own.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore import order as orders
from flowcore.errors import OptionError
from flowcore.order import EXACT, Permutation
from flowcore.sampler import Shuffled, seed_sequence

SIZES = [2, 3, 5, 10, 100, 1000, 16384, 16385, 20_000, 100_000, 1_000_000]
LIMIT = 6.0  # a z score beyond it has odds of 2e-9; there are less than 250 of them here
seeds = st.integers(0, 2**64)
lengths = st.one_of(st.integers(1, 50), st.integers(EXACT - 2, EXACT + 2), st.integers(1, 10**5))


def shuffled(n, seed, epoch=0):
    return Shuffled().order(n, seed=seed, epoch=epoch)


# Samples


@dataclass
class Sample:
    """What the statistics are taken of.

    Attributes:
        n: length of the permutations.
        one: permutations of many seeds, each a row.
        two: those of the next epoch of the same seeds.
        firsts: the first two positions of each of many more seeds, each a row.
    """

    n: int
    one: np.ndarray
    two: np.ndarray
    firsts: np.ndarray


def sample(n, permutation=shuffled):
    """Return a sample of ``permutation(n, seed, epoch)``: at least 400,000 values, or 4000 rows."""
    rows = min(4000, max(1, 400_000 // n))
    one, two = (
        np.array([permutation(n, seed, epoch)[0:n] for seed in range(rows)]) for epoch in (0, 1)
    )
    many = range(4000 if n <= 1000 else 1000)
    firsts = np.array([permutation(n, 10**6 + seed, 0)[0:2] for seed in many])
    return Sample(n, one, two, firsts)


# Statistics


def chi_square(counts, expected, freedom, share=1.0):
    """Return the z score of a sum of squares, by the cube root of E. Wilson and M. Hilferty, 1931.

    ``share`` makes up for draws without replacement, where counts vary by n / (n - 1) more.
    """
    spread = 2 / (9 * freedom)
    total = share * np.sum((counts - expected) ** 2 / expected)
    return float((np.cbrt(total / freedom) - 1 + spread) / math.sqrt(spread))


def bins(n, most):
    """Return the bin of each value below n, and the number of values in each bin."""
    of_value = np.arange(n) * min(n, most) // n
    return of_value, np.bincount(of_value)


def cells(rows, columns, n, most):
    """Return how many pairs are in each pair of bins, and the sizes of the bins."""
    of_value, sizes = bins(n, most)
    cell = of_value[rows] * len(sizes) + of_value[columns]
    return np.bincount(cell.ravel(), minlength=len(sizes) ** 2), sizes


def together(one, other, n):
    """Return how far two permutations are from being independent, place by place."""
    counts, sizes = cells(one, other, n, 32)
    expected = np.outer(sizes, sizes).ravel() * (one.size / n**2)
    return chi_square(counts, expected, (len(sizes) - 1) ** 2, (n - 1) / n)


def shift(one, other, n):
    """Return how far their distance on a ring, place by place, is from being uniform."""
    of_value, sizes = bins(n, 32)
    counts = np.bincount(of_value[(other - one) % n].ravel(), minlength=len(sizes))
    return chi_square(counts, sizes * (one.size / n), len(sizes) - 1, (n - 1) / n)


def pairs(one, other, n, most=10, margins=False):
    """Return how far pairs of different values are from being equally frequent.

    ``margins``: each value is in about as many pairs, as where the pairs are all of a permutation.
    """
    counts, sizes = cells(one, other, n, most)
    expected = (np.outer(sizes, sizes) - np.diag(sizes)).ravel() * (one.size / (n * (n - 1)))
    possible = expected > 0
    freedom = (len(sizes) - 1) ** 2 if margins else np.count_nonzero(possible) - 1
    return chi_square(counts[possible], expected[possible], freedom)


def gap(one, other, n):
    """Return how far the distance of different values on a ring is from being uniform."""
    of_value, sizes = bins(n - 1, 32)
    counts = np.bincount(of_value[(other - one) % n - 1].ravel(), minlength=len(sizes))
    return chi_square(counts, sizes * (one.size / (n - 1)), len(sizes) - 1) if n > 2 else 0.0


def neighbours(statistic, lag=lambda n: 1):
    """Return a statistic of values that are ``lag(n)`` places apart."""

    def measure(drawn):
        n = drawn.n
        if n < 1000:  # the pairs of one permutation are not independent: one of each row
            at = max(0, n // 2 - 1)
            return statistic(drawn.one[:, at], drawn.one[:, at + 1], n)
        options = {"most": 16, "margins": True} if statistic is pairs else {}
        return statistic(drawn.one[:, : -lag(n)], drawn.one[:, lag(n) :], n, **options)

    return measure


def inversions(rows):
    """Return how many pairs of each row are out of order, bit by bit of the values."""
    n = rows.shape[1]
    bits = (n - 1).bit_length()
    values = (rows + (np.arange(len(rows))[:, None] << bits)).ravel()
    found = np.zeros(len(rows))
    for bit in reversed(range(bits)):  # values are sorted by the bits above, and stable in each row
        ones = values >> bit & 1
        before = np.cumsum(ones) - ones
        starts = np.flatnonzero(np.diff(values >> (bit + 1), prepend=-1))
        before -= np.repeat(before[starts], np.diff(starts, append=values.size))
        found += np.bincount(values >> bits, weights=before * (1 - ones))
        values = values[np.argsort(values >> bit, kind="stable")]
    return found


def disorder(drawn):
    """Return how far the mean number of inversions is from that of permutations that are drawn."""
    n = drawn.n
    deviations = (inversions(drawn.one) - n * (n - 1) / 4) / math.sqrt(
        n * (n - 1) * (2 * n + 5) / 72
    )
    return float(deviations.sum() / math.sqrt(len(deviations)))


def root(n):
    """Return the number of low digits in the network: places so far apart share one."""
    return math.isqrt(n - 1) + 1


STATISTICS = {
    "positions": lambda drawn: together(places(drawn), drawn.one, drawn.n),
    "displacement": lambda drawn: shift(places(drawn), drawn.one, drawn.n),
    "neighbours": neighbours(pairs),
    "their differences": neighbours(gap),
    "neighbours at the root": neighbours(pairs, root),
    "their differences at the root": neighbours(gap, root),
    "inversions": disorder,
    "pairs over seeds": lambda drawn: pairs(*drawn.firsts.T, drawn.n),
    "two epochs": lambda drawn: together(drawn.one, drawn.two, drawn.n),
    "displacement of two epochs": lambda drawn: shift(drawn.one, drawn.two, drawn.n),
}


def places(drawn):
    return np.broadcast_to(np.arange(drawn.n), drawn.one.shape)


def scores(drawn):
    """Return each statistic of a sample."""
    return {name: statistic(drawn) for name, statistic in STATISTICS.items()}


# Quality


@pytest.mark.parametrize("n", SIZES)
def test_a_permutation_is_as_one_that_is_drawn(n):
    found = scores(sample(n))
    assert max(map(abs, found.values())) < LIMIT, found


@pytest.mark.parametrize("n", [100, 1000, 16384])
def test_the_network_would_do_for_shorter_ones_too(n, monkeypatch):
    monkeypatch.setattr(orders, "EXACT", 0)
    found = scores(sample(n))
    assert max(map(abs, found.values())) < LIMIT, found


@pytest.mark.parametrize("n", [16385, 100_000])
def test_the_network_would_do_with_three_rounds_fewer(n, monkeypatch):
    monkeypatch.setattr(orders, "_ROUNDS", 5)
    found = scores(sample(n))
    assert max(map(abs, found.values())) < LIMIT, found


@pytest.mark.parametrize(("rounds", "n"), [(2, 100_000), (3, 100_000), (4, 100_000)])
def test_the_statistics_find_a_network_of_too_few_rounds(rounds, n, monkeypatch):
    monkeypatch.setattr(orders, "_ROUNDS", rounds)
    found = scores(sample(n))
    assert found["their differences at the root"] > LIMIT, found


@given(st.lists(st.permutations(range(9)), min_size=1, max_size=5))
def test_inversions_are_the_pairs_out_of_order(rows):
    expected = [sum(row[i] > row[j] for i in range(9) for j in range(i, 9)) for row in rows]
    assert inversions(np.array(rows)).tolist() == expected


# What it is


@given(lengths, seeds)
def test_every_position_comes_exactly_once(n, seed):
    assert np.array_equal(np.sort(shuffled(n, seed)[0:n]), np.arange(n))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_the_shortest_have_their_positions_too(n):
    order = shuffled(n, 1)
    assert len(order) == n
    assert sorted(order[0:n].tolist()) == list(range(n))


@pytest.mark.parametrize("n", range(1, 200))
def test_the_network_gives_every_position_exactly_once_too(n, monkeypatch):
    monkeypatch.setattr(orders, "EXACT", 0)
    assert sorted(shuffled(n, n)[0:n].tolist()) == list(range(n))


@given(lengths, seeds, st.data())
def test_a_slice_or_an_array_of_places_gives_what_the_whole_has_there(n, seed, data):
    whole = shuffled(n, seed)[0:n]
    order = shuffled(n, seed)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))
    at = np.array(data.draw(st.lists(st.integers(0, n - 1))), np.int64)
    assert np.array_equal(order[start:stop], whole[start:stop])
    assert np.array_equal(order[at], whole[at])
    assert np.array_equal(order[at], whole[at])  # nothing of the first look is left


@pytest.mark.parametrize("n", [10**9, 2**33 + 1, 2**40 + 7, 2**62 - 1, 2**62])
def test_positions_of_a_long_order_are_different_and_below_its_length(n):
    order = shuffled(n, 1)
    parts = [order[start : start + 50_000] for start in (0, n // 3, n - 50_000)]
    found = np.concatenate(parts)
    assert len(np.unique(found)) == 150_000
    assert found.min() >= 0
    assert found.max() < n
    # ... and all over it: of 16 equal parts, none has more or less than its share.
    counts = np.bincount(found // -(-n // 16), minlength=16)
    assert abs(chi_square(counts, np.full(16, 150_000 / 16), 15)) < LIMIT


@pytest.mark.parametrize("n", [0, 100, EXACT + 1, 2**40])
def test_positions_are_int64(n):
    order = shuffled(n, 1)
    assert order[0:0].dtype == order[0 : min(n, 10)].dtype == np.int64


def test_more_positions_than_two_digits_have_are_refused():
    with pytest.raises(OptionError, match=r"at most 2\*\*62 positions"):
        shuffled(2**62 + 1, 1)


def test_the_order_of_a_seed_never_changes():
    """Resuming counts on it: a change of the network is one of the format of states."""
    assert Permutation(10, seed_sequence(7, 0, 3))[0:10].tolist() == [8, 4, 9, 3, 6, 1, 5, 2, 7, 0]
    order = Permutation(100_000, seed_sequence(7, 0, 3))
    assert order[0:8].tolist() == [71898, 24876, 72837, 59466, 63143, 31953, 70985, 1481]
    whole = order[0:100_000].astype("<i8")
    assert hashlib.sha256(whole).hexdigest()[:16] == "f366563b0aad8083"
