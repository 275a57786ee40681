"""The batch, and the mark of an action: ordinary objects, used here without any pipeline."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore import Batch, action
from flowcore.actions import action_mark
from flowcore.crew import Crew
from flowcore.errors import DataError, OptionError
from flowcore.items import Making
from flowcore.rows import item_stream


class Digits(Batch):
    components = ("images", "labels")

    @action
    def double(self, times=2):
        """Multiply the images."""
        self.images = self.images * times
        return self

    @action(singleton=True)
    def halve_until_odd(self):
        if not (self.images % 2).any():
            self.images = self.images // 2
            self.halve_until_odd()
        return self

    def not_marked(self):
        return self


def test_an_action_is_marked_with_and_without_parentheses():
    assert not action_mark(Digits.double).singleton
    assert action_mark(Digits.halve_until_odd).singleton
    assert action_mark(Digits.not_marked) is None

    @action()
    def pack_action(batch):
        return batch

    assert not action_mark(pack_action).singleton


def test_an_action_stays_an_ordinary_method():
    batch = Digits([0, 1], data=(np.array([1, 2]), np.array([0, 1])))
    assert batch.double(times=3) is batch
    assert batch.images.tolist() == [3, 6]
    assert Digits.double.__doc__ == "Multiply the images."


def test_a_direct_call_of_a_singleton_action_is_not_held_back():
    batch = Digits([0], data=(np.array([8]), np.array([0])))
    assert batch.halve_until_odd().images.tolist() == [1]


def test_a_batch_knows_its_items_and_its_place():
    batch = Batch(["a", "b"], np.array([7, 3]), number=4, epoch=2)
    assert batch.index.tolist() == batch.indices.tolist() == ["a", "b"]
    assert batch.positions.tolist() == [7, 3]
    assert (len(batch), batch.number, batch.epoch) == (2, 4, 2)


def test_positions_are_int64_from_zero_by_default():
    batch = Batch(["a", "b", "c"])
    assert batch.positions.dtype == np.int64
    assert batch.positions.tolist() == [0, 1, 2]


def test_data_without_components_is_one_object():
    batch = Batch([0, 1])
    assert batch.data is None
    batch.data = "anything"
    assert batch.data == batch._data == "anything"


def test_components_are_attributes_and_together_they_are_the_data():
    batch = Digits([0])
    assert batch.data == {}
    batch.images = 1
    assert batch.data == {"images": 1}
    batch.data = (2, 3)
    assert (batch.images, batch.labels) == (2, 3)
    batch.data = {"labels": 4}
    assert batch.data == batch._data == {"images": 2, "labels": 4}


def test_a_dict_names_the_components_of_a_batch_whose_class_declares_none():
    batch = Batch([0], data={"x": 1, "y": 2})
    assert (batch.x, batch.y) == (1, 2)
    assert batch.components == ("x", "y")
    assert Batch.components == ()


def test_a_single_component_may_be_declared_by_a_string_and_set_by_its_value():
    class Images(Batch):
        components = "images"

    batch = Images([0], data=np.arange(3))
    assert Images.components == ("images",)
    assert batch.images.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "data", [{"image": 1}, (1, 2, 3), (1,), np.zeros(2)], ids=["name", "many", "few", "one"]
)
def test_data_that_does_not_fit_the_components_is_refused(data):
    with pytest.raises(DataError, match=r"components \('images', 'labels'\)"):
        Digits([0]).data = data


@pytest.mark.parametrize("names", [("index",), ("rng",), ("data",), ("a", "a")], ids=str)
def test_a_component_name_that_is_taken_is_refused_with_the_class(names):
    with pytest.raises(OptionError, match="components cannot be called"):
        type("Wrong", (Batch,), {"components": names})


def test_a_component_that_is_not_loaded_says_so():
    with pytest.raises(AttributeError, match="component 'images' is not loaded"):
        _ = Digits([0]).images


def test_an_attribute_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'Digits' object has no attribute 'imagse'"):
        _ = Digits([0]).imagse


def test_a_tensor_is_the_data_as_one_array():
    assert Batch([0, 1], data=[1, 2]).get_tensor().tolist() == [1, 2]


def test_a_tensor_of_several_components_is_a_tuple_in_their_order():
    images, labels = Digits([0, 1], data={"labels": [3, 4], "images": [1, 2]}).get_tensor()
    assert images.tolist() == [1, 2]
    assert labels.tolist() == [3, 4]


def test_a_tensor_of_a_single_component_is_an_array():
    assert Batch([0], data={"x": [5]}).get_tensor().tolist() == [5]


@pytest.mark.parametrize("batch", [Batch([0]), Digits([0])], ids=["object", "components"])
def test_a_batch_without_data_has_no_tensor(batch):
    with pytest.raises(DataError, match="no data"):
        batch.get_tensor()


def test_rng_is_a_function_of_seed_epoch_and_number():
    def draw(**place):
        return Batch([0], **place).rng.bytes(8)

    assert draw(seed=1, epoch=2, number=3) == draw(seed=1, epoch=2, number=3)
    others = [{"seed": 1}, {"seed": 2}, {"seed": 1, "epoch": 1}, {"seed": 1, "number": 1}]
    assert len({draw(**place) for place in others}) == len(others)


def test_rng_goes_on_where_it_was():
    batch = Batch([0], seed=1)
    assert batch.rng is batch.rng
    assert batch.rng.bytes(8) != batch.rng.bytes(8)


def test_rng_of_a_batch_without_a_seed_is_fresh():
    assert Batch([0]).rng.bytes(8) != Batch([0]).rng.bytes(8)


def test_a_repr_shows_class_place_and_first_ids():
    shown = repr(Digits(list("abcd"), number=1, epoch=2))
    assert shown == "<Digits 1 of epoch 2, 4 items: ['a', 'b', 'c', ...]>"


@pytest.mark.parametrize("copied", [copy.copy, lambda batch: pickle.loads(pickle.dumps(batch))])
def test_a_batch_can_be_copied_and_pickled(copied):
    batch = Batch(["a"], data={"x": np.arange(2)}, number=3, epoch=1, seed=9)
    twin = copied(batch)
    assert (twin.index.tolist(), twin.number, twin.epoch) == (["a"], 3, 1)
    assert twin.x.tolist() == [0, 1]
    assert twin.rng.bytes(8) == batch.rng.bytes(8)


def test_the_options_of_a_batch_are_those_of_the_run_that_makes_or_made_it():
    batch = Batch([0])
    assert batch.options == {}
    batch._making = Making(Crew(), options={"device": "gpu"})
    assert batch.options == {"device": "gpu"}
    batch._making, batch._options = None, batch.options  # as the run leaves it
    assert batch.options == {"device": "gpu"}  # for who calls an action of it later


# --- a subset -------------------------------------------------------------------------------------


def full(**place):
    data = np.arange(8).reshape(4, 2), ["a", "b", "c", "d"]
    return Digits([5, 6, 7, 8], np.array([0, 2, 4, 6]), data=data, **place)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ([True, False, False, True], [5, 8]),
        (np.array([3, 0]), [8, 5]),
        ([1], [6]),
        (np.array([2], np.uint8), [7]),
        ([], []),
        (np.zeros(4, bool), []),
        (np.ones(4, bool), [5, 6, 7, 8]),
    ],
    ids=repr,
)
def test_a_subset_keeps_items_by_a_mask_or_by_their_places(keep, kept):
    batch = full()
    assert batch.subset(keep) is batch
    assert batch.index.tolist() == kept
    assert batch.positions.tolist() == [2 * (id_ - 5) for id_ in kept]
    assert batch.images.tolist() == [[2 * (id_ - 5), 2 * (id_ - 5) + 1] for id_ in kept]
    assert batch.labels == ["abcd"[id_ - 5] for id_ in kept]


@pytest.mark.parametrize(
    "keep",
    [
        [True, False],
        np.ones((4, 1), bool),
        [0.0, 1.0],
        [float("nan")],
        [-1],
        [4],
        [1, 1],
        ["a"],
        1,
        None,
        True,
        [[0], [1]],
    ],
    ids=repr,
)
def test_what_is_no_mask_and_no_places_is_refused(keep):
    batch = full()
    with pytest.raises(OptionError, match="a subset of 4 items takes 4 bools"):
        batch.subset(keep)
    assert len(batch) == 4


class Column:
    """A sequence of a user's own, which takes one place at a time."""

    def __len__(self):
        return 3

    def __getitem__(self, place):
        return "xyz"[place]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.arange(3), [0, 2]),
        (np.array(["a", None, 3], object), ["a", 3]),
        (["a", "b", "c"], ["a", "c"]),
        (("a", "b", "c"), ("a", "c")),
        (range(3), [0, 2]),
        (Column(), ["x", "z"]),
    ],
    ids=["array", "objects", "list", "tuple", "range", "column"],
)
def test_a_subset_keeps_entries_as_what_they_are(value, kept):
    batch = Digits([0, 1, 2], data={"images": value}).subset([0, 2])
    assert list(batch.images) == list(kept)
    assert isinstance(batch.images, type(value) if isinstance(value, np.ndarray) else type(kept))


def test_a_subset_of_an_array_is_a_copy():
    batch = full()
    images = batch.images
    batch.subset([0, 1]).images[...] = -1
    assert images[0].tolist() == [0, 1]


def test_a_subset_cuts_data_that_is_one_object():
    assert Batch([0, 1], data=np.array([3, 4])).subset([1]).data.tolist() == [4]


def test_a_subset_cuts_each_array_of_data_that_is_a_tuple():
    x, y = Batch([0, 1, 2], data=(np.arange(3), np.ones((3, 2)))).subset([0, 2]).data
    assert (x.tolist(), y.shape) == ([0, 2], (2, 2))


def test_a_subset_of_a_batch_without_data_has_none():
    assert Batch([0, 1]).subset([1]).data is None
    assert Digits([0, 1]).subset([1]).data == {}


def test_a_component_without_an_entry_for_each_item_cannot_be_cut_and_nothing_is():
    batch = Digits([0, 1], data={"images": [1, 2], "labels": [1, 2, 3]})
    with pytest.raises(DataError, match="'labels' has 3 entries for 2 items"):
        batch.subset([0])
    assert (len(batch), batch.images) == (2, [1, 2])


def test_a_generator_of_the_batch_goes_on_over_a_subset():
    batch, twin = full(seed=1), full(seed=1)
    assert batch.rng.bytes(4) == twin.rng.bytes(4)
    assert batch.subset([0]).rng.bytes(4) == twin.rng.bytes(4)


@given(st.permutations(range(4)), st.integers(0, 4), st.sets(st.integers(0, 3)))
def test_the_generators_of_items_stay_with_their_items(order, count, drawn):
    batch, twin = full(seed=1), full(seed=1)
    for row in drawn:
        assert batch.item_rngs[row].bytes(4) == twin.item_rngs[row].bytes(4)
    batch.subset(order[:count])
    for row, place in enumerate(order[:count]):
        assert batch.item_rngs[row].bytes(4) == twin.item_rngs[place].bytes(4)


# --- the generators of items ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ((1, 2, 3), [7776705331278936987, 12484381572970455207, 10188321056272852323]),
        ((2**100, 0, 10**12), [17259495595645631833, 3028499572321389268, 14876781528460623343]),
    ],
    ids=["small", "large"],
)
def test_the_streams_of_items_do_not_change_between_releases(item, words):
    assert item_stream(*item).bit_generator.random_raw(3).tolist() == words


def test_the_stream_of_an_item_is_the_part_of_a_philox_sequence_that_the_item_counts_to():
    key = np.random.SeedSequence(1, spawn_key=(2,)).generate_state(2, np.uint64)
    expected = np.random.Philox(key=key, counter=[0, 0, 3, 2]).random_raw(9)
    assert item_stream(1, 2, 3).bit_generator.random_raw(9).tolist() == expected.tolist()


def test_what_an_item_draws_is_a_function_of_seed_epoch_and_position():
    def draw(position=7, **place):
        return Batch(["a"], np.array([position]), **{"seed": 1, **place}).item_rngs[0].bytes(8)

    assert draw() == draw(number=5)
    assert len({draw(), draw(position=8), draw(seed=2), draw(epoch=1)}) == 4


@given(st.integers(0, 2**130), st.integers(0, 2**40), st.integers(1, 9))
def test_an_item_draws_the_same_in_whatever_batch_it_is(seed, epoch, size):
    whole = Batch(range(9), seed=seed, epoch=epoch)
    expected = [rng.bytes(4) for rng in whole.item_rngs]
    drawn = []
    for at in range(0, 9, size):
        positions = np.arange(9)[at : at + size]
        batch = Batch(positions, positions, number=at // size, seed=seed, epoch=epoch)
        drawn += [rng.bytes(4) for rng in batch.item_rngs]
    assert drawn == expected


def test_keys_stand_in_for_positions_where_a_run_sets_them():
    batch = Batch(["a", "a"], np.array([3, 3]), seed=1)
    batch._keys = np.array([3, 8])
    assert batch.subset([1]).item_rngs[0].bytes(8) == item_stream(1, 0, 8).bytes(8)


def test_a_generator_of_an_item_goes_on_where_it_was():
    batch = Batch([0], seed=1)
    assert batch.item_rngs[0].bytes(8) + batch.item_rngs[0].bytes(8) == (
        item_stream(1, 0, 0).bytes(16)
    )


def test_the_generators_of_items_are_a_sequence():
    rngs = Batch([0, 1, 2], seed=1).item_rngs
    assert len(rngs) == 3
    assert rngs[-1] is rngs[2]
    assert rngs[1:] == [rngs[1], rngs[2]]
    with pytest.raises(IndexError):
        rngs[3]


def test_the_generators_of_items_without_a_seed_are_fresh():
    assert Batch([0]).item_rngs[0].bytes(8) != Batch([0]).item_rngs[0].bytes(8)


def test_the_children_of_an_items_generator_are_a_function_of_the_item_too():
    def children(position):
        first, second = item_stream(1, 0, position).spawn(2)
        return first.bytes(8), second.bytes(8)

    assert children(3) == children(3)
    assert len({*children(3), *children(4)}) == 4


def test_a_generator_of_an_item_goes_on_in_another_process():
    generator = item_stream(1, 0, 3)
    generator.bytes(3)
    generator.spawn(1)
    statement = (
        "import pickle, sys; g = pickle.load(sys.stdin.buffer); "
        "print(g.integers(1000, size=5).tolist(), g.spawn(1)[0].integers(1000, size=5).tolist())"
    )
    there = subprocess.run(
        [sys.executable, "-c", statement],
        input=pickle.dumps(generator),
        capture_output=True,
        check=True,
    )
    child = generator.spawn(1)[0]
    here = f"{generator.integers(1000, size=5).tolist()} {child.integers(1000, size=5).tolist()}"
    assert there.stdout.decode().strip() == here


def test_generators_of_items_are_pickled_as_they_are():
    batch = Batch([0, 1], seed=1)
    batch.item_rngs[1].bytes(4)
    twin = pickle.loads(pickle.dumps(batch))
    assert [rng.bytes(8) for rng in twin.item_rngs] == [rng.bytes(8) for rng in batch.item_rngs]


@pytest.mark.parametrize("along", ["position", "epoch", "seed"])
def test_the_streams_of_neighbours_are_not_correlated(along):
    places = {"seed": 0, "epoch": 0, "position": 0}
    drawn = np.array(
        [item_stream(*{**places, along: at}.values()).standard_normal(2000) for at in range(40)]
    )
    correlations = np.corrcoef(drawn)[np.triu_indices(40, 1)]
    # Of independent streams they are normal with deviation 1/sqrt(2000): five of these in 780 have
    # a chance of 0.0004, and the sum of their squares is chi-square, here within four deviations.
    assert np.abs(correlations).max() < 5 / 2000**0.5
    assert abs((correlations**2).sum() * 2000 - 780) < 4 * (2 * 780) ** 0.5
    first = drawn[:, 0]
    assert abs(first.mean()) < 4 / 40**0.5


# --- a batch in the place of another --------------------------------------------------------------


def test_a_batch_that_takes_the_place_of_another_goes_on_with_its_generators():
    batch = Digits([0, 1], number=3, epoch=2, seed=1)
    first = batch.rng.bytes(4), batch.item_rngs[1].bytes(4)
    other = Batch(batch.index, batch.positions)
    other.take_place_of(batch)
    assert (other.number, other.epoch) == (3, 2)
    assert (other.rng, other.item_rngs) == (batch.rng, batch.item_rngs)
    assert (other.rng.bytes(4), other.item_rngs[1].bytes(4)) != first


def test_a_batch_of_other_length_in_the_place_of_another_has_generators_of_its_own_items():
    batch = Batch([0, 1, 2], seed=1)
    first = batch.item_rngs[2].bytes(8)
    other = Batch([2], np.array([2]))
    other.take_place_of(batch)
    assert other.item_rngs[0].bytes(8) == first
