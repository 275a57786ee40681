"""The sampler: which positions a batch holds, as a function of (seed, epoch, number)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import DataError, OptionError
from flowcore.sampler import Sampler, draw_seed, random_stream

lengths = st.integers(0, 100)
sizes = st.integers(1, 30)
seeds = st.integers(0, 2**64)
epochs = st.integers(0, 5)


def order(sampler, epoch):
    """Return the positions of an epoch, batch after batch."""
    batches = [sampler.positions(epoch, number) for number in range(sampler.epoch_batches)]
    return np.concatenate([np.arange(0), *batches]).tolist()


@given(lengths, sizes, seeds, epochs)
def test_every_epoch_is_a_permutation_of_the_whole_index(length, batch_size, seed, epoch):
    sampler = Sampler(length=length, batch_size=batch_size, shuffle=True, seed=seed)
    assert sorted(order(sampler, epoch)) == list(range(length))


@given(lengths, sizes, sizes, seeds, epochs)
def test_the_order_does_not_depend_on_the_batch_size(length, one, other, seed, epoch):
    orders = [
        order(Sampler(length=length, batch_size=batch_size, shuffle=True, seed=seed), epoch)
        for batch_size in (one, other)
    ]
    assert orders[0] == orders[1]


@given(st.integers(1, 100), sizes, seeds, st.data())
def test_a_batch_is_a_function_of_seed_epoch_and_number_alone(length, batch_size, seed, data):
    def new():
        return Sampler(length=length, batch_size=batch_size, shuffle=True, seed=seed, n_epochs=3)

    expected = {(epoch, number): positions.tolist() for epoch, number, positions in new()}
    asked_for = data.draw(st.permutations(sorted(expected)))
    sampler = new()
    assert {at: sampler.positions(*at).tolist() for at in asked_for} == expected


@given(lengths, sizes, st.booleans(), st.integers(0, 3))
def test_batches_and_items_are_counted_as_they_come(length, batch_size, drop_last, n_epochs):
    sampler = Sampler(length=length, batch_size=batch_size, drop_last=drop_last, n_epochs=n_epochs)
    batches = [positions for _, _, positions in sampler]
    assert sampler.batches == len(batches)
    assert sampler.items == sum(map(len, batches))


def test_without_shuffle_the_order_is_that_of_the_index():
    assert order(Sampler(length=5, batch_size=2), 3) == [0, 1, 2, 3, 4]


def test_each_epoch_has_an_order_of_its_own():
    sampler = Sampler(length=50, batch_size=7, shuffle=True, seed=1)
    assert len({tuple(order(sampler, epoch)) for epoch in range(10)}) == 10


def test_each_seed_has_orders_of_its_own():
    samplers = [Sampler(length=50, batch_size=7, shuffle=True, seed=seed) for seed in range(10)]
    assert len({tuple(order(sampler, 0)) for sampler in samplers}) == 10


def test_the_last_batch_is_short():
    sampler = Sampler(length=7, batch_size=3)
    assert [len(positions) for _, _, positions in sampler] == [3, 3, 1]


def test_drop_last_leaves_the_short_batch_out():
    sampler = Sampler(length=7, batch_size=3, drop_last=True)
    assert [len(positions) for _, _, positions in sampler] == [3, 3]


def test_drop_last_keeps_a_last_batch_that_is_whole():
    sampler = Sampler(length=6, batch_size=3, drop_last=True)
    assert [len(positions) for _, _, positions in sampler] == [3, 3]


def test_a_sampler_without_end_goes_on_through_the_epochs():
    sampler = Sampler(length=3, batch_size=2, n_epochs=None)
    batches = iter(sampler)
    assert [next(batches)[:2] for _ in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert sampler.batches is None
    assert sampler.items is None


@pytest.mark.parametrize("empty", [{"length": 0}, {"length": 3, "drop_last": True}])
def test_a_sampler_without_end_whose_epoch_holds_no_batch_is_an_error(empty):
    with pytest.raises(OptionError, match="endless"):
        Sampler(batch_size=4, n_epochs=None, **empty)


def test_a_shuffle_callable_is_asked_once_an_epoch_with_all_positions():
    asked = []

    def reverse(order):
        asked.append(order.tolist())
        return order[::-1]

    sampler = Sampler(length=5, batch_size=2, shuffle=reverse, n_epochs=2)
    assert [positions.tolist() for _, _, positions in sampler] == [[4, 3], [2, 1], [0]] * 2
    assert asked == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize(
    "shuffle",
    [
        lambda order: None,
        lambda order: order[1:],
        lambda order: order + 1,
        lambda order: order * 0,
        lambda order: order / 1,
        lambda order: order.reshape(1, -1),
        lambda order: order.fill(0),
    ],
    ids=["nothing", "too few", "out of range", "repeats", "floats", "a matrix", "in place"],
)
def test_a_shuffle_callable_must_return_a_permutation(shuffle):
    with pytest.raises(DataError, match="permutation"):
        Sampler(length=4, batch_size=2, shuffle=shuffle).positions(0, 0)


def test_what_a_shuffle_callable_does_later_to_the_order_has_no_effect():
    kept = []

    def keep(order):
        kept.append(order)
        return order

    sampler = Sampler(length=4, batch_size=2, shuffle=keep)
    first = sampler.positions(0, 0).tolist()
    kept[0][:] = 0
    assert sampler.positions(0, 0).tolist() == first == [0, 1]


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_the_seed_and_the_same_one_when_it_starts_the_same(make):
    generator = make(5)
    first, second = draw_seed(generator, None), draw_seed(generator, None)
    assert first != second
    assert draw_seed(make(5), None) == first


def test_a_seed_that_is_given_is_the_seed():
    assert draw_seed(True, 17) == 17


def test_without_a_seed_each_run_has_another():
    assert len({draw_seed(True, None) for _ in range(5)}) == 5


@given(seeds, epochs, st.integers(0, 5))
def test_a_random_stream_is_a_function_of_its_arguments(seed, epoch, number):
    draws = [random_stream(seed, epoch, number).integers(2**63, size=4) for _ in range(2)]
    assert np.array_equal(*draws)


def test_random_streams_for_different_ends_differ():
    arguments = [(1, 0), (1, 1), (2, 0), (1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)]
    assert len({random_stream(*one).bytes(8) for one in arguments}) == len(arguments)
