"""The plan of a run: which batches there are, what is in each, and whose they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import DataError, OptionError
from flowcore.run.plan import Plan, Position
from flowcore.sampler import BatchSampler, InOrder, Reordered, Sampler, Shuffled
from flowcore.shard import Shard

lengths = st.integers(0, 100)
sizes = st.integers(1, 30)
seeds = st.integers(0, 2**64)
epochs = st.integers(0, 5)


def make(shuffle=False, **arguments):
    """Return a plan, its sampler as ``shuffle=`` of a run says it."""
    sampler = Reordered(shuffle) if callable(shuffle) else Shuffled() if shuffle else InOrder()
    return Plan(sampler=sampler, **arguments)


def tasks(plan):
    return [task for _, task in plan]


def order(plan, epoch):
    """Return the positions of an epoch, batch after batch."""
    batches = [plan.positions(epoch, number) for number in range(plan.epoch_batches)]
    return np.concatenate([np.arange(0), *batches]).tolist()


@given(lengths, sizes, seeds, epochs)
def test_every_epoch_is_a_permutation_of_the_whole_index(length, batch_size, seed, epoch):
    plan = make(length=length, batch_size=batch_size, shuffle=True, seed=seed)
    assert sorted(order(plan, epoch)) == list(range(length))


@given(lengths, sizes, sizes, seeds, epochs)
def test_the_order_does_not_depend_on_the_batch_size(length, one, other, seed, epoch):
    orders = [
        order(make(length=length, batch_size=batch_size, shuffle=True, seed=seed), epoch)
        for batch_size in (one, other)
    ]
    assert orders[0] == orders[1]


@given(st.integers(1, 100), sizes, seeds, st.data())
def test_a_batch_is_a_function_of_seed_epoch_and_number_alone(length, batch_size, seed, data):
    def new():
        return make(length=length, batch_size=batch_size, shuffle=True, seed=seed, n_epochs=3)

    expected = {(task.epoch, task.number): task.positions.tolist() for task in tasks(new())}
    asked_for = data.draw(st.permutations(sorted(expected)))
    plan = new()
    assert {at: plan.positions(*at).tolist() for at in asked_for} == expected


@given(lengths, sizes, st.booleans(), st.integers(0, 3))
def test_batches_and_items_are_counted_as_they_come(length, batch_size, drop_last, n_epochs):
    plan = make(length=length, batch_size=batch_size, drop_last=drop_last, n_epochs=n_epochs)
    found = tasks(plan)
    assert plan.batches == len(found)
    assert plan.items == sum(len(task.positions) for task in found)


def test_without_shuffle_the_order_is_that_of_the_index():
    assert order(make(length=5, batch_size=2), 3) == [0, 1, 2, 3, 4]


def test_each_epoch_has_an_order_of_its_own():
    plan = make(length=50, batch_size=7, shuffle=True, seed=1)
    assert len({tuple(order(plan, epoch)) for epoch in range(10)}) == 10


def test_each_seed_has_orders_of_its_own():
    plans = [make(length=50, batch_size=7, shuffle=True, seed=seed) for seed in range(10)]
    assert len({tuple(order(plan, 0)) for plan in plans}) == 10


def test_the_last_batch_is_short():
    plan = make(length=7, batch_size=3)
    assert [len(task.positions) for task in tasks(plan)] == [3, 3, 1]


def test_drop_last_leaves_the_short_batch_out():
    plan = make(length=7, batch_size=3, drop_last=True)
    assert [len(task.positions) for task in tasks(plan)] == [3, 3]


def test_drop_last_keeps_a_last_batch_that_is_whole():
    plan = make(length=6, batch_size=3, drop_last=True)
    assert [len(task.positions) for task in tasks(plan)] == [3, 3]


def test_a_plan_without_end_goes_on_through_the_epochs():
    plan = make(length=3, batch_size=2, n_epochs=None)
    found = [task for _, (_, task) in zip(range(5), plan, strict=False)]
    assert [(task.epoch, task.number) for task in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert plan.batches is None
    assert plan.items is None


@pytest.mark.parametrize("empty", [{"length": 0}, {"length": 3, "drop_last": True}])
def test_a_plan_without_end_whose_epoch_holds_no_batch_is_an_error(empty):
    with pytest.raises(OptionError, match="endless"):
        make(batch_size=4, n_epochs=None, **empty)


def test_a_shuffle_callable_is_asked_once_an_epoch_with_all_positions():
    asked = []

    def reverse(order):
        asked.append(order.tolist())
        return order[::-1]

    plan = make(length=5, batch_size=2, shuffle=reverse, n_epochs=2)
    assert [task.positions.tolist() for task in tasks(plan)] == [[4, 3], [2, 1], [0]] * 2
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
        make(length=4, batch_size=2, shuffle=shuffle).positions(0, 0)


def test_what_a_shuffle_callable_does_later_to_the_order_has_no_effect():
    kept = []

    def keep(order):
        kept.append(order)
        return order

    plan = make(length=4, batch_size=2, shuffle=keep)
    first = plan.positions(0, 0).tolist()
    kept[0][:] = 0
    assert plan.positions(0, 0).tolist() == first == [0, 1]


# Shards

worlds = st.integers(1, 8)
unevens = st.sampled_from(["pad", "drop", "short"])


def shards(world, uneven="pad", **arguments):
    return [make(shard=Shard(rank, world), uneven=uneven, **arguments) for rank in range(world)]


@given(lengths, sizes, worlds, st.booleans())
def test_together_the_shards_have_each_item_once_apart_from_fillers(
    length, batch_size, world, shuffle
):
    plans = shards(world, length=length, batch_size=batch_size, shuffle=shuffle)
    found = [task.positions for plan in plans for task in tasks(plan) if not task.filler]
    assert sorted(np.concatenate([np.arange(0), *found]).tolist()) == list(range(length))


@given(lengths, sizes, worlds, st.sampled_from(["pad", "drop"]))
def test_each_shard_has_as_many_batches_as_the_others(length, batch_size, world, uneven):
    plans = shards(world, uneven, length=length, batch_size=batch_size, n_epochs=2)
    assert len({len(tasks(plan)) for plan in plans}) == 1


@given(lengths, sizes, worlds, unevens, st.integers(0, 3), st.data())
def test_the_batches_and_items_of_a_shard_are_counted_as_they_come(
    length, batch_size, world, uneven, n_epochs, data
):
    batch = data.draw(st.integers(0, -(-length // batch_size))) if n_epochs else 0
    for plan in shards(
        world,
        uneven,
        length=length,
        batch_size=batch_size,
        n_epochs=n_epochs,
        start=Position(0, batch),
    ):
        found = tasks(plan)
        assert plan.batches == len(found)
        assert plan.items == sum(len(task.positions) for task in found)


@given(st.integers(1, 60), sizes, worlds)
def test_the_batches_of_the_shards_are_those_of_one_run(length, batch_size, world):
    whole = {
        task.number: task.positions.tolist()
        for task in tasks(make(True, length=length, batch_size=batch_size))
    }
    plans = shards(world, length=length, batch_size=batch_size, shuffle=True)
    found = [task for plan in plans for task in tasks(plan) if not task.filler]
    assert {task.number: task.positions.tolist() for task in found} == whole


def test_a_filler_repeats_a_batch_of_its_epoch_and_says_so():
    plan = make(length=5, batch_size=2, shard=Shard(1, 2))
    assert [(task.positions.tolist(), task.filler) for task in tasks(plan)] == [
        ([2, 3], False),
        ([0, 1], True),
    ]


def test_drop_leaves_out_a_last_round_that_is_not_full():
    assert [len(tasks(plan)) for plan in shards(2, "drop", length=5, batch_size=2)] == [1, 1]


def test_short_gives_the_last_shards_a_batch_less():
    assert [len(tasks(plan)) for plan in shards(2, "short", length=5, batch_size=2)] == [2, 1]


# Positions


@given(
    st.integers(1, 60),
    sizes,
    st.integers(0, 4),
    st.lists(st.tuples(worlds, st.integers(0, 9)), max_size=5),
)
def test_worlds_that_change_on_the_way_have_each_item_once(length, batch_size, epochs, stops):
    """Run for some rounds with one world, then go on from there with another."""
    counts = np.zeros((epochs, length), int)
    at = Position()
    for world, rounds in [*stops, (1, 10**6)]:
        plans = [
            make(
                True,
                length=length,
                batch_size=batch_size,
                n_epochs=epochs,
                shard=Shard(rank, world),
                uneven="pad",
                start=at,
            )
            for rank in range(world)
        ]
        for plan in plans:
            for task in tasks(plan)[:rounds]:
                if not task.filler:
                    counts[task.epoch, task.positions] += 1
        at = plans[0].position(min(rounds, plans[0].batches))
    assert (counts == 1).all()


@given(st.integers(1, 60), sizes, worlds, unevens, st.integers(1, 4))
def test_a_plan_that_starts_where_another_is_has_the_rest_of_it(
    length, batch_size, world, uneven, n_epochs
):
    same = {"length": length, "batch_size": batch_size, "n_epochs": n_epochs, "uneven": uneven}
    shard = Shard(world - 1, world) if uneven != "short" else Shard(0, world)
    whole = make(True, **same, shard=shard)
    all_of_it = [(task.epoch, task.number, task.positions.tolist()) for task in tasks(whole)]
    for done in range(len(all_of_it) + 1):
        rest = tasks(make(True, **same, shard=shard, start=whole.position(done)))
        assert [(task.epoch, task.number, task.positions.tolist()) for task in rest] == (
            all_of_it[done:]
        )


def test_a_start_behind_the_last_batch_is_an_error():
    with pytest.raises(OptionError, match="which has 3"):
        make(length=5, batch_size=2, start=Position(0, 4))


def test_a_start_behind_the_last_epoch_is_an_error():
    with pytest.raises(OptionError, match="cannot start in epoch 2"):
        make(length=5, batch_size=2, n_epochs=1, start=Position(2))


# Samplers of a user


class Twice(Sampler):
    """Each item twice, as an array."""

    def size(self, length):
        return 2 * length

    def order(self, length, *, seed, epoch):
        return np.repeat(np.arange(length), 2)


def test_a_sampler_says_how_long_an_epoch_is():
    plan = Plan(sampler=Twice(), length=3, batch_size=4)
    assert [task.positions.tolist() for task in tasks(plan)] == [[0, 0, 1, 1], [2, 2]]
    assert (plan.batches, plan.items) == (2, 6)


class Given(Sampler):
    def __init__(self, order):
        self._order = order

    def order(self, length, *, seed, epoch):
        return self._order


@pytest.mark.parametrize(
    "order",
    [[0, 1], [0, 1, 3], [0, 1, -1], [0.0, 1.0, 2.0], [[0], [1], [2]]],
    ids=["too few", "behind the end", "negative", "floats", "a matrix"],
)
def test_a_sampler_that_gives_no_positions_of_the_index_is_an_error(order):
    with pytest.raises(DataError, match="sampler"):
        tasks(Plan(sampler=Given(np.array(order)), length=3, batch_size=2))


class ByHand(BatchSampler):
    def __init__(self, *epochs):
        self._epochs = epochs

    def batches(self, length, batch_size, *, seed, epoch):
        return [np.array(batch) for batch in self._epochs[epoch]]


def test_a_batch_sampler_forms_the_batches_itself():
    plan = Plan(sampler=ByHand([[2, 0], [1]], [[0], [1, 2]]), length=3, batch_size=9, n_epochs=2)
    assert [task.positions.tolist() for task in tasks(plan)] == [[2, 0], [1], [0], [1, 2]]
    assert plan.batches == 4


def test_a_batch_sampler_whose_epochs_differ_in_number_is_an_error():
    plan = Plan(sampler=ByHand([[0], [1]], [[0, 1]]), length=2, batch_size=1, n_epochs=2)
    with pytest.raises(DataError, match="1 batches in epoch 1, not 2"):
        tasks(plan)


def test_a_batch_sampler_leaves_no_last_batch_to_drop():
    with pytest.raises(OptionError, match="drop_last"):
        Plan(sampler=ByHand([[0]]), length=1, batch_size=1, drop_last=True)
