"""`pad`, `crop` and `flip`, beside references that go item by item."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import flowcore as fc
import flowcore_arrays as arrays
from flowcore.errors import DataError, OptionError

SEEDS = st.integers(0, 2**32 - 1)


def batch(seed=0, **data) -> fc.Batch:
    n = len(next(iter(data.values())))
    return fc.Batch(np.arange(n), data=data, seed=seed)


@st.composite
def item_arrays(draw):
    """Return an array (N, ...) whose elements all differ, so that each place can be told."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=4, max_side=5))
    dtype = draw(st.sampled_from(["int16", "float32"]))
    return (1 + np.arange(np.prod(shape))).reshape(shape).astype(dtype)


@st.composite
def arrays_and_lengths(draw, *, larger):
    """Return an array, and lengths for some of the first axes of its items; None is one to keep."""
    array = draw(item_arrays())
    items = array.shape[1:]
    given_ = draw(st.integers(1, len(items)))
    limits = [(length, length + 4) if larger else (1, length) for length in items[:given_]]
    return array, tuple(draw(st.none() | st.integers(*limit)) for limit in limits)


def full(lengths, items):
    """Return the item shape that ``lengths`` stand for."""
    wanted = [*lengths, *[None] * (len(items) - len(lengths))]
    return tuple(old if new is None else new for new, old in zip(wanted, items, strict=True))


# pad


@settings(deadline=None)
@given(arrays_and_lengths(larger=True), st.sampled_from(["both", "start", "end"]))
def test_pad_is_numpys_pad_of_each_item(array_and_lengths, side):
    array, lengths = array_and_lengths
    room = np.subtract(full(lengths, array.shape[1:]), array.shape[1:])
    before = {"both": room // 2, "start": room, "end": room * 0}[side]
    widths = list(zip(before, room - before, strict=True))

    made = arrays.pad(batch(x=array), lengths, 7, side).x

    assert made.dtype == array.dtype
    for new, old in zip(made, array, strict=True):
        np.testing.assert_array_equal(new, np.pad(old, widths, constant_values=7))


@settings(deadline=None)
@given(arrays_and_lengths(larger=True))
def test_crop_takes_away_what_pad_added(array_and_lengths):
    array, lengths = array_and_lengths
    padded = arrays.pad(batch(x=array), lengths)

    np.testing.assert_array_equal(arrays.crop(padded, array.shape[1:]).x, array)


def test_pad_takes_one_integer_for_items_with_one_axis():
    np.testing.assert_array_equal(arrays.pad(batch(x=[[1, 2]]), 4, -1, "end").x, [[1, 2, -1, -1]])


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint8", -1), ("int32", 0.5), ("int32", np.nan), ("bool", 2), ("f4", "a")]
)
def test_a_value_that_the_dtype_cannot_hold_is_refused(dtype, value):
    with pytest.raises(DataError, match="cannot hold the value"):
        arrays.pad(batch(x=np.zeros((2, 2), dtype)), 3, value)


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint8", 255), ("bool", 1), ("f4", 0.1), ("f4", np.nan), ("U3", "pad")]
)
def test_a_value_that_the_dtype_can_hold_is_taken(dtype, value):
    made = arrays.pad(batch(x=np.zeros((2, 2), dtype)), 3, value).x

    np.testing.assert_array_equal(made[:, -1], np.full(2, value, dtype))


def test_pad_refuses_another_word_for_a_side():
    with pytest.raises(OptionError, match="'both', 'start' or 'end', got 'left'"):
        arrays.pad(batch(x=np.ones((2, 2))), 3, side="left")


# crop


@settings(deadline=None)
@given(arrays_and_lengths(larger=False))
def test_crop_takes_the_centre_of_each_item(array_and_lengths):
    array, lengths = array_and_lengths
    to = full(lengths, array.shape[1:])
    starts = [(old - new) // 2 for old, new in zip(array.shape[1:], to, strict=True)]
    centre = tuple(slice(at, at + new) for at, new in zip(starts, to, strict=True))

    made = arrays.crop(batch(x=array), lengths).x

    np.testing.assert_array_equal(made, [item[centre] for item in array])


@settings(deadline=None)
@given(arrays_and_lengths(larger=False), SEEDS)
def test_a_random_crop_is_a_part_of_its_own_item(array_and_lengths, seed):
    array, lengths = array_and_lengths
    to = full(lengths, array.shape[1:])

    made = arrays.crop(batch(seed, x=array), lengths, random=True).x

    assert (made.shape, made.dtype) == ((len(array), *to), array.dtype)
    for part, item in zip(made, array, strict=True):
        starts = np.argwhere(item == part.flat[0])[0]  # elements differ, so this is the place
        inside = tuple(slice(at, at + new) for at, new in zip(starts, to, strict=True))
        np.testing.assert_array_equal(part, item[inside])


def test_every_place_of_a_random_crop_comes_up_equally_often():
    array = np.tile(np.arange(6), (6000, 1))

    places = arrays.crop(batch(x=array), 3, random=True).x[:, 0]

    # Each of 4 places is binomial(6000, 1/4): 1500, and 200 is six standard deviations.
    np.testing.assert_allclose(np.bincount(places, minlength=4), 1500, atol=200)


def test_components_of_one_call_are_cropped_at_the_same_places():
    images = np.arange(8 * 9 * 9).reshape(8, 9, 9)
    pair = batch(images=images[..., None], masks=-images)

    arrays.crop(pair, (4, 4), random=True, components=("images", "masks"))

    np.testing.assert_array_equal(pair.images[..., 0], -pair.masks)


# flip


@settings(deadline=None)
@given(item_arrays(), st.data())
def test_flip_with_probability_one_reverses_every_item(array, data):
    axis = data.draw(st.integers(1, array.ndim - 1))
    axis = data.draw(st.sampled_from([axis, axis - array.ndim, (axis,)]))

    made = arrays.flip(batch(x=array), axis, 1).x

    np.testing.assert_array_equal(made, np.flip(array, axis))


@settings(deadline=None)
@given(item_arrays(), SEEDS, st.floats(0, 1))
def test_flip_reverses_an_item_or_leaves_it(array, seed, probability):
    assume(array.shape[1] > 1)
    draws = [rng.random() for rng in batch(seed, x=array).item_rngs]

    made = arrays.flip(batch(seed, x=array), 1, probability).x

    for new, old, draw in zip(made, array, draws, strict=True):
        np.testing.assert_array_equal(new, old[::-1] if draw < probability else old)


@pytest.mark.parametrize("action", ["crop", "flip"])
def test_what_is_random_is_the_same_for_an_item_in_whatever_batch_it_is(action):
    images = np.arange(10 * 8 * 8).reshape(10, 8, 8)
    pipeline = fc.Dataset(10, preloaded={"images": images}).p
    pipelines = {"crop": pipeline.arrays.crop((3, 3), random=True), "flip": pipeline.arrays.flip(1)}

    one, two = (
        {
            id_: image.tolist()
            for made in pipelines[action].gen_batch(size, shuffle=True, seed=4)
            for id_, image in zip(made.index.tolist(), made.images, strict=True)
        }
        for size in (3, 10)
    )

    assert one == two


def test_flip_with_probability_zero_leaves_every_item():
    array = np.arange(20).reshape(4, 5)

    np.testing.assert_array_equal(arrays.flip(batch(x=array), 1, 0).x, array)


def test_of_several_axes_an_item_is_reversed_along_all_or_none():
    array = np.arange(40 * 4 * 4).reshape(40, 4, 4)

    made = arrays.flip(batch(x=array), (1, 2)).x

    turned = [(new == old[::-1, ::-1]).all() for new, old in zip(made, array, strict=True)]
    left = [(new == old).all() for new, old in zip(made, array, strict=True)]
    assert np.logical_xor(turned, left).all()
    assert any(turned)
    assert any(left)


def test_components_of_one_call_are_flipped_alike():
    images = np.arange(30 * 4 * 4).reshape(30, 4, 4)
    pair = batch(images=images[..., None], masks=-images)

    arrays.flip(pair, 2, components=("images", "masks"))

    np.testing.assert_array_equal(pair.images[..., 0], -pair.masks)


@pytest.mark.parametrize("probability", [-0.1, 1.1, np.nan, "often", None])
def test_a_probability_is_between_zero_and_one(probability):
    with pytest.raises(OptionError, match="probability must be a number"):
        arrays.flip(batch(x=np.ones((2, 2))), 1, probability)


@pytest.mark.parametrize("axis", [0, -2, (1, 0)])
def test_the_axis_of_the_items_is_not_flipped(axis):
    with pytest.raises(DataError, match="is that of the items"):
        arrays.flip(batch(x=np.ones((2, 2))), axis)


def test_an_axis_that_is_not_there_is_an_error():
    with pytest.raises(DataError, match=r"no axis 2 in an array of shape \(2, 2\)"):
        arrays.flip(batch(x=np.ones((2, 2))), 2)


# shapes


@pytest.mark.parametrize("action", [arrays.pad, arrays.crop])
@pytest.mark.parametrize("shape", [(), 0, (2, -1), 2.5, "22", True, None])
def test_a_shape_is_positive_lengths(action, shape):
    with pytest.raises(OptionError, match="shape"):
        action(batch(x=np.ones((2, 2, 2))), shape)


@pytest.mark.parametrize("action", [arrays.pad, arrays.crop])
@pytest.mark.parametrize("shape", [2, (2, 2, 2)])
def test_a_shape_that_cannot_be_that_of_the_items_is_an_error(action, shape):
    with pytest.raises(DataError, match=r"items, which have shape \(2, 2\)"):
        action(batch(x=np.ones((3, 2, 2))), shape)


def test_pad_and_crop_name_both_shapes_and_each_other():
    with pytest.raises(DataError, match=r"\(2, 2\) cannot be padded to the smaller \(1, 2\)") as e:
        arrays.pad(batch(x=np.ones((3, 2, 2))), (1, 2))
    assert "arrays.crop" in str(e.value)

    with pytest.raises(DataError, match=r"\(2, 2\) have no part of the larger shape \(3, 2\)") as e:
        arrays.crop(batch(x=np.ones((3, 2, 2))), (3, 2))
    assert "arrays.pad" in str(e.value)
