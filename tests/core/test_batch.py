"""The batch, and the mark of an action: ordinary objects, used here without any pipeline."""

import copy
import pickle

import numpy as np
import pytest

from flowcore import Batch, action
from flowcore.batch import action_mark
from flowcore.errors import DataError, OptionError


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
