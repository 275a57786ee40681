"""The samplers that ship: how often an item comes, what is together, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import OptionError
from flowcore.fingerprint import digest
from flowcore.samplers import Balanced, ByLength, Weighted

seeds = st.integers(0, 2**64)
epochs = st.integers(0, 5)
numbers = st.integers(0, 30) | st.floats(0, 1e300)
weights = st.lists(numbers, min_size=1, max_size=40).filter(any)
labels = st.lists(st.sampled_from("abcde"), min_size=1, max_size=60)
lengths = st.lists(st.integers(0, 50), min_size=1, max_size=80)
buckets = st.integers(1, 12) | st.lists(
    st.integers(0, 60), min_size=1, max_size=5, unique=True
).map(sorted)


def order(sampler, length, seed=0, epoch=0):
    """Return the positions of an epoch, as one array."""
    return sampler.order(length, seed=seed, epoch=epoch)[0 : sampler.size(length)]


def batches(sampler, length, batch_size=4, seed=0, epoch=0):
    """Return the positions of the batches of an epoch."""
    found = sampler.batches(length, batch_size, seed=seed, epoch=epoch)
    return [found[number].tolist() for number in range(len(found))]


def first(sampler, length):
    """Return the first positions of an epoch."""
    if isinstance(sampler, ByLength):
        return sampler.batches(length, 4, seed=0, epoch=0)[0]
    return sampler.order(length, seed=0, epoch=0)[0:4]


def of_each_kind(length):
    """Return a sampler of each kind for an index of ``length`` ids."""
    return [
        Weighted(np.arange(1, length + 1)),
        Balanced(np.arange(length) ** 2 % 7),
        ByLength(np.arange(length) % 11),
    ]


# All


@given(st.data(), seeds, epochs)
def test_a_part_of_an_order_is_that_part_of_the_whole(data, seed, epoch):
    sampler = data.draw(st.sampled_from(of_each_kind(60)[:2]))
    whole = order(sampler, 60, seed, epoch)
    looked_at = sampler.order(60, seed=seed, epoch=epoch)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    places = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1))), np.int64)
    assert np.array_equal(looked_at[start:stop], whole[start:stop])
    assert np.array_equal(looked_at[places], whole[places])


@pytest.mark.parametrize("sampler", of_each_kind(50_000)[:2], ids=str)
def test_a_long_order_is_the_same_in_pieces(sampler):
    looked_at = sampler.order(50_000, seed=1, epoch=1)
    pieces = [looked_at[start : start + 777] for start in range(0, len(looked_at), 777)]
    assert np.array_equal(np.concatenate(pieces), order(sampler, 50_000, 1, 1))


@given(seeds, st.data())
def test_a_batch_is_the_same_whichever_was_looked_at_before(seed, data):
    expected = batches(ByLength(np.arange(60) % 11), 60, seed=seed)
    found = ByLength(np.arange(60) % 11).batches(60, 4, seed=seed, epoch=0)
    for number in data.draw(st.permutations(range(len(expected)))):
        assert found[number].tolist() == expected[number]


@pytest.mark.parametrize("sampler", of_each_kind(60)[:2], ids=str)
def test_each_seed_and_each_epoch_has_an_order_of_its_own(sampler):
    orders = {order(sampler, 60, *at).tobytes() for at in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]}
    assert len(orders) == 5


@pytest.mark.parametrize("sampler", of_each_kind(60), ids=str)
def test_positions_are_int64(sampler):
    assert first(sampler, 60).dtype == np.int64


@pytest.mark.parametrize("sampler", of_each_kind(60), ids=str)
@pytest.mark.parametrize("length", [0, 1, 59, 61])
def test_an_index_of_another_length_is_refused_with_both_lengths(sampler, length):
    with pytest.raises(OptionError, match=f"has 60 .*, and the index {length} ids"):
        sampler.size(length)
    with pytest.raises(OptionError, match=f"has 60 .*, and the index {length} ids"):
        first(sampler, length)


def test_only_samplers_that_draw_say_that_items_repeat():
    assert [sampler.repeats for sampler in of_each_kind(60)] == [True, True, False]


def test_a_sampler_says_its_arguments_in_a_line():
    assert [str(sampler) for sampler in of_each_kind(60)] == [
        "Weighted(60 weights, size=60)",
        "Balanced(60 labels, size=60)",
        "ByLength(60 lengths, tokens=None, buckets=10, shuffle=True)",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Weighted([1, 2]), Weighted([2, 1])),
        (Weighted([1, 2]), Weighted([1, 2], size=3)),
        (Balanced(list("aab")), Balanced(list("abb"))),
        (Balanced(list("aab")), Balanced(list("aab"), size=2)),
        (ByLength([1, 2, 3]), ByLength([3, 2, 1])),
        (ByLength([1, 2, 3]), ByLength([1, 2, 3], tokens=6)),
        (ByLength([1, 2, 3]), ByLength([1, 2, 3], buckets=2)),
        (ByLength([1, 2, 3]), ByLength([1, 2, 3], shuffle=False)),
    ],
)
def test_samplers_that_give_other_orders_have_other_fingerprints(one, other):
    assert digest(one) != digest(other)


def test_equal_samplers_have_equal_fingerprints():
    assert list(map(digest, of_each_kind(60))) == list(map(digest, of_each_kind(60)))


@pytest.mark.parametrize("name", ["weights", "lengths"])
@pytest.mark.parametrize(
    "bad",
    [[], 3, None, "1,2", [[1, 2]], [[1], [1, 2]], [1, None], ["1"], [True, False], [1j], {1, 2}],
)
def test_amounts_that_are_no_numbers_in_a_row_are_refused(name, bad):
    make = {"weights": Weighted, "lengths": ByLength}[name]
    with pytest.raises(OptionError, match=f"{name} must be a one-dimensional array"):
        make(bad)


@pytest.mark.parametrize("name", ["weights", "lengths"])
@pytest.mark.parametrize("bad", [-1, -0.5, math.nan, math.inf])
def test_amounts_that_are_negative_or_not_finite_are_refused_and_listed(name, bad):
    make = {"weights": Weighted, "lengths": ByLength}[name]
    with pytest.raises(
        OptionError, match=rf"{name} must be finite[\s\S]*{bad} at position 2, {bad} at position 4$"
    ):
        make([1, 1, bad, 1, bad])


# Weighted


@given(weights, st.integers(1, 200), seeds, epochs)
def test_every_draw_is_of_an_item_with_a_weight(weights, size, seed, epoch):
    drawn = order(Weighted(weights, size), len(weights), seed, epoch)
    assert len(drawn) == size
    assert all(weights[at] > 0 for at in drawn)


def test_the_only_item_with_a_weight_is_always_drawn():
    for at in range(5):
        drawn = order(Weighted(np.eye(5)[at], size=2000), 5)
        assert set(drawn.tolist()) == {at}


def test_items_are_drawn_as_often_as_their_weights_say():
    weights = np.array([0, 1, 2, 0, 3, 4, 90, 0])
    counts = np.bincount(order(Weighted(weights, size=100_000), 8, seed=3), minlength=8)
    expected = weights * 1000
    drawn = weights > 0
    chi_square = np.sum((counts - expected)[drawn] ** 2 / expected[drawn])
    assert counts[~drawn].sum() == 0
    assert chi_square < 40  # of 4 degrees of freedom: odds of 4e-8


def test_draws_at_neighbouring_places_are_independent():
    drawn = order(Weighted(np.ones(10), size=100_000), 10, seed=4)
    counts = np.bincount(drawn[:-1] * 10 + drawn[1:], minlength=100)
    assert np.sum((counts - 1000) ** 2 / 1000) < 180  # of 99 degrees of freedom: odds of 1e-6


@pytest.mark.parametrize("scale", [1e-300, 5e-324, 1.0, 1e300])
def test_only_the_proportions_of_weights_count(scale):
    weights = np.array([1.0, 0, 1, 1, 1])
    assert np.array_equal(order(Weighted(weights * scale), 5), order(Weighted(weights), 5))


def test_the_size_of_an_epoch_is_the_number_of_weights_unless_given():
    assert (Weighted([1, 2, 3]).size(3), Weighted([1, 2, 3], size=7).size(3)) == (3, 7)


def test_weights_that_are_all_0_are_refused():
    with pytest.raises(OptionError, match="the 3 weights are all 0"):
        Weighted([0, 0.0, 0])


@pytest.mark.parametrize("sampler", [Weighted, Balanced])
@pytest.mark.parametrize("bad", [0, -1, True, 2.0, "2", math.nan])
def test_a_size_that_is_no_count_is_refused(sampler, bad):
    with pytest.raises(OptionError, match="size must be an int of at least 1"):
        sampler([1, 2], size=bad)


def test_weights_are_not_those_of_an_array_that_changes_later():
    weights = np.ones(5)
    sampler = Weighted(weights)
    before = order(sampler, 5)
    weights[:] = [1, 0, 0, 0, 0]
    assert np.array_equal(order(sampler, 5), before)


def test_the_draws_of_a_seed_never_change():
    assert order(Weighted([1, 2, 3, 4], size=12), 4, seed=1, epoch=2).tolist() == [
        2,
        3,
        0,
        2,
        2,
        3,
        2,
        1,
        3,
        2,
        3,
        3,
    ]


# Balanced


@given(labels, st.integers(1, 30), seeds, epochs)
def test_every_class_comes_equally_often_and_its_items_as_evenly_as_can_be(
    labels, each, seed, epoch
):
    sampler = Balanced(labels, size=each * len(set(labels)))
    counts = np.bincount(order(sampler, len(labels), seed, epoch), minlength=len(labels))
    for label in set(labels):
        of_class = counts[[one == label for one in labels]]
        assert of_class.sum() == each
        assert of_class.max() - of_class.min() <= 1


@given(labels)
def test_by_default_an_epoch_is_the_least_that_is_not_shorter_than_the_index(labels):
    size, classes = Balanced(labels).size(len(labels)), len(set(labels))
    assert size % classes == 0
    assert len(labels) <= size < len(labels) + classes


def test_classes_are_shuffled_together():
    classes = order(Balanced([0] * 10 + [1] * 10_000, size=20_000), 10_010, seed=1) >= 10
    assert np.count_nonzero(classes[1:] != classes[:-1]) == pytest.approx(10_000, abs=500)


def test_another_part_of_a_frequent_class_comes_in_each_epoch():
    sampler = Balanced([0] + [1] * 100, size=20)
    parts = [set(order(sampler, 101, epoch=epoch).tolist()) for epoch in range(3)]
    assert len(parts[0] & parts[1]) < 11
    assert parts[0] != parts[1] != parts[2]


def test_items_of_a_class_are_drawn_equally_often_over_the_epochs():
    sampler = Balanced([0] + [1] * 20, size=10)
    drawn = [order(sampler, 21, seed=2, epoch=epoch) for epoch in range(2000)]
    counts = np.bincount(np.concatenate(drawn), minlength=21)[1:]
    assert np.sum((counts - 500) ** 2 / 500) < 75  # of 19 degrees of freedom at most: odds of 1e-8


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["a", "b", "a"]),
        np.array([1.5, 2.5, 1.5], np.float32),
        np.array([True, False, True]),
        np.array(["2020-01-01", "2020-01-02", "2020-01-01"], "M8[D]"),
        np.array([(1, "a"), (2, "b"), (1, "a")], "i4,U1"),
        np.array(["a", ("b",), "a"], object),
        [("x", 1), None, ("x", 1)],
        [1, "1", 1],
        [True, False, True],
    ],
    ids=str,
)
def test_labels_are_any_values_that_are_equal_or_not(labels):
    counts = np.bincount(order(Balanced(labels, size=4), 3), minlength=3)
    assert counts.tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    "bad", [[], 3, None, "aab", b"ab", {1, 2}, {1: 2}, iter([1, 2]), [[1], [2]], np.eye(2)]
)
def test_labels_that_are_no_values_in_a_row_are_refused(bad):
    with pytest.raises(OptionError, match="labels must have"):
        Balanced(bad)


@pytest.mark.parametrize(
    "bad", [[1.0, math.nan], np.array([1, math.nan]), np.array(["2020", "NaT"], "M8[D]")]
)
def test_a_label_that_is_missing_is_refused_with_its_position(bad):
    with pytest.raises(OptionError, match="labels has 1 missing values, the first at position 1"):
        Balanced(bad)


def test_a_size_that_is_no_multiple_of_the_classes_is_refused_with_the_next_one():
    with pytest.raises(
        OptionError, match=r"size=7 is not a multiple of the 3 classes[\s\S]*size=9"
    ):
        Balanced([0, 1, 2], size=7)


def test_the_order_of_a_seed_and_its_classes_never_changes():
    assert order(Balanced([0, 1, 1, 1, 2, 2], size=12), 6, seed=1, epoch=2).tolist() == [
        1,
        0,
        4,
        5,
        2,
        3,
        4,
        1,
        0,
        5,
        0,
        0,
    ]


# ByLength


@given(lengths, st.integers(50, 200) | st.none(), buckets, st.booleans(), seeds, epochs)
def test_every_item_comes_exactly_once(lengths, tokens, buckets, shuffle, seed, epoch):
    sampler = ByLength(lengths, tokens, buckets, shuffle=shuffle)
    found = batches(sampler, len(lengths), 4, seed, epoch)
    assert all(found)
    assert sorted(at for batch in found for at in batch) == list(range(len(lengths)))


@given(lengths, st.integers(50, 200), buckets, seeds, epochs)
def test_a_padded_batch_never_costs_more_than_the_budget(lengths, tokens, buckets, seed, epoch):
    for batch in batches(ByLength(lengths, tokens, buckets), len(lengths), 1, seed, epoch):
        assert len(batch) * max(lengths[at] for at in batch) <= tokens


@given(st.lists(st.floats(0, 3), min_size=1, max_size=50), st.floats(3, 20), buckets)
def test_a_budget_in_fractions_is_kept_too(lengths, tokens, buckets):
    for batch in batches(ByLength(lengths, tokens, buckets), len(lengths)):
        assert len(batch) * max(lengths[at] for at in batch) <= tokens


@given(lengths, st.integers(1, 9), buckets, seeds, st.booleans())
def test_every_epoch_has_as_many_batches(lengths, batch_size, buckets, seed, with_tokens):
    sampler = ByLength(lengths, 60 if with_tokens else None, buckets)
    counts = {len(batches(sampler, len(lengths), batch_size, seed, epoch)) for epoch in range(4)}
    assert len(counts) == 1


@given(
    lengths, st.integers(1, 9), st.lists(st.integers(0, 60), min_size=1, unique=True).map(sorted)
)
def test_the_items_of_a_batch_are_between_the_same_bounds(lengths, batch_size, bounds):
    for batch in batches(ByLength(lengths, buckets=bounds), len(lengths), batch_size):
        assert len({np.searchsorted(bounds, lengths[at]) for at in batch}) == 1


def test_a_bound_lets_in_what_is_as_long_and_the_rest_has_a_bucket_of_its_own():
    sampler = ByLength([1, 2, 3, 4, 5], buckets=[2, 4], shuffle=False)
    assert batches(sampler, 5) == [[0, 1], [2, 3], [4]]


def test_a_number_of_buckets_is_filled_equally():
    sampler = ByLength(np.arange(100) * 37 % 100, buckets=4, shuffle=False)
    found = batches(sampler, 100, batch_size=100)
    assert [len(batch) for batch in found] == [25] * 4


def test_items_of_one_length_stay_together_whatever_the_number_of_buckets():
    assert batches(ByLength([7] * 9, buckets=5, shuffle=False), 9, 9) == [list(range(9))]


def test_without_shuffle_items_and_batches_are_in_order():
    sampler = ByLength([5, 1, 5, 1, 5, 1], buckets=[1], shuffle=False)
    assert batches(sampler, 6, 2) == [[1, 3], [5], [0, 2], [4]]


def test_a_batch_has_as_many_items_as_the_budget_allows_whatever_the_batch_size():
    sampler = ByLength([1] * 10 + [5] * 10, tokens=12, buckets=[1], shuffle=False)
    assert [len(batch) for batch in batches(sampler, 20, 3)] == [10, 2, 2, 2, 2, 2]


def test_batches_of_all_buckets_are_shuffled_among_each_other():
    found = batches(ByLength(np.arange(4000) % 2, buckets=[0]), 4000, 1, seed=1)
    parity = np.concatenate(found) % 2
    assert np.count_nonzero(parity[1:] != parity[:-1]) == pytest.approx(2000, abs=200)


def test_each_epoch_has_items_together_that_were_not():
    sampler = ByLength([1] * 100, buckets=1)
    epochs = [
        {frozenset(batch) for batch in batches(sampler, 100, epoch=epoch)} for epoch in (0, 1)
    ]
    assert len(epochs[0] & epochs[1]) < 5


@given(lengths, st.integers(50, 200) | st.none(), buckets, st.booleans(), st.data())
def test_the_sizes_of_batches_are_known_without_forming_them(
    lengths, tokens, buckets, shuffle, data
):
    sampler = ByLength(lengths, tokens, buckets, shuffle=shuffle)
    found = sampler.batches(len(lengths), 4, seed=1, epoch=2)
    expected = np.array([len(batch) for batch in found])
    at = np.array(data.draw(st.lists(st.integers(0, len(found) - 1))), np.int64)
    assert np.array_equal(found.sizes(slice(0, len(found))), expected)
    assert np.array_equal(found.sizes(at), expected[at])


def test_batches_can_be_looked_at_as_a_list():
    sampler = ByLength([1, 2, 3], buckets=1, shuffle=False)
    assert [batch.tolist() for batch in sampler.batches(3, 2, seed=0, epoch=0)] == [[0, 1], [2]]


def test_an_item_longer_than_the_budget_is_refused_and_listed():
    with pytest.raises(
        OptionError,
        match=r"2 items are longer than tokens=8[\s\S]*9 at position 1, 10 at position 3\n",
    ):
        ByLength([1, 9, 8, 10], tokens=8)


def test_of_many_items_longer_than_the_budget_the_first_are_listed():
    with pytest.raises(OptionError, match=r"2 at position 4, and 95 more"):
        ByLength([2] * 100, tokens=1)


@pytest.mark.parametrize("bad", [0, -1, True, "8", math.nan, math.inf, [8]])
def test_a_budget_that_is_no_amount_is_refused(bad):
    with pytest.raises(OptionError, match="tokens must be a finite number above 0"):
        ByLength([1, 2], tokens=bad)


@pytest.mark.parametrize("bad", [0, -1, True, 2.0, None, {1, 2}])
def test_a_number_of_buckets_that_is_no_count_is_refused(bad):
    with pytest.raises(OptionError, match="buckets must be an int of at least 1"):
        ByLength([1, 2], buckets=bad)


@pytest.mark.parametrize("bad", [[3, 2], [2, 2], np.array([1, 2, 1], np.uint8)])
def test_bounds_that_do_not_increase_are_refused(bad):
    with pytest.raises(OptionError, match="bounds of buckets must increase"):
        ByLength([1, 2], buckets=bad)


@pytest.mark.parametrize("bad", [[], "12", [1, math.nan], [-1, 2], [[1], [2]]])
def test_bounds_that_are_no_amounts_are_refused(bad):
    with pytest.raises(OptionError, match="buckets must be"):
        ByLength([1, 2], buckets=bad)


@pytest.mark.parametrize("bad", [None, 1, "yes"])
def test_a_shuffle_that_is_no_bool_is_refused(bad):
    with pytest.raises(OptionError, match="shuffle must be True or False"):
        ByLength([1, 2], shuffle=bad)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64, np.float16, np.float64])
def test_lengths_and_budget_may_be_of_any_dtype(dtype):
    sampler = ByLength(np.array([1, 2, 200], dtype), tokens=np.int16(30_000), shuffle=False)
    assert batches(sampler, 3) == batches(ByLength([1, 2, 200], tokens=30_000, shuffle=False), 3)


def test_the_batches_of_a_seed_never_change():
    assert batches(ByLength([1, 9, 2, 8, 3, 7, 4], buckets=2), 7, 2, seed=1, epoch=2) == [
        [4, 0],
        [1, 5],
        [3],
        [2, 6],
    ]
