"""Large arrays of items are written to where they belong, one by one."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

import flowcore as fc

SHAPE = (200, 200)  # of float64: large enough to be written at once
WAYS = pytest.mark.parametrize("way", [{}, {"prefetch": 2}], ids=["inline", "threads"])


def made(function, concurrency=None, length=4, **way):
    """Return the data of a batch, whose items a function of a position makes."""

    class Made(fc.Batch):
        @fc.action(each="item", concurrency=concurrency)
        def make(item):
            return function(item.position)

    return fc.Dataset(length, Made).p.make().next_batch(length, **way).data


def full(position, dtype=float):
    return np.full(SHAPE, position, dtype)


@WAYS
@pytest.mark.parametrize("concurrency", [None, 3])
def test_large_arrays_are_stacked_as_small_ones_are(way, concurrency):
    data = made(full, concurrency, **way)
    assert data.dtype == float
    assert np.array_equal(data, np.stack([full(at) for at in range(4)]))


@WAYS
def test_an_items_large_array_is_gone_before_the_next_item_is_made(way):
    alive = []

    def make(position):
        assert [one() for one in alive] == [None] * position
        array = full(position)
        alive.append(weakref.ref(array))
        return array

    assert made(make, **way).shape == (4, *SHAPE)


@pytest.mark.parametrize("last", ["int16", ">f8", "complex128"])
def test_large_arrays_of_several_dtypes_are_stacked_in_one_that_holds_all(last):
    dtypes = ["float32", "float32", "float32", last]
    data = made(lambda position: full(position, dtypes[position]))
    assert data.dtype == np.result_type(*dtypes)
    assert np.array_equal(data[:, 0, 0], range(4))


def test_large_arrays_of_several_shapes_are_objects_that_keep_no_others_memory():
    data = made(lambda position: np.full((200 + position // 2, 200), position, float))
    assert data.dtype == object
    assert [one.shape[0] for one in data] == [200, 200, 201, 201]
    assert [one[0, 0] for one in data] == [0, 1, 2, 3]
    assert not any(np.may_share_memory(data[0], one) for one in data[1:])


@WAYS
def test_a_dropped_item_leaves_no_row_of_its_large_array(way):
    class Some(fc.Batch):
        @fc.action(each="item")
        def make(item):
            if item.position == 1:
                raise ValueError("bad")
            return full(item.position)

    run = fc.Dataset(4, Some).p.make().gen_batch(4, on_error="skip_items", **way)
    assert [batch.data[:, 0, 0].tolist() for batch in run] == [[0, 2, 3]]


@WAYS
def test_a_sink_takes_the_array_of_items_as_it_is(way):
    addresses = []

    class Kept(fc.Batch):
        @fc.action(each="item")
        def make(item):
            return full(item.position)

        @fc.action
        def look(self):
            addresses.append(self.data.ctypes.data)
            addresses.append(self.frozen(self.data).ctypes.data)
            return self

    fc.Dataset(4, Kept).p.make().look().next_batch(4, **way)
    assert addresses[0] == addresses[1]
