"""`cast`, `normalize`, `one_hot`, `apply`: each beside a reference that is written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import flowcore as fc
import flowcore_arrays as arrays
from flowcore.errors import DataError, OptionError

RNG = np.random.default_rng(0)


def batch(array) -> fc.Batch:
    return fc.Batch(np.arange(100, 100 + len(array)), data={"x": array}, seed=0)


def real_arrays(min_dims=1):
    numbers = st.sampled_from(["bool", "uint8", "int16", "int64", "float32", "float64"])
    bounded = {
        "f": st.floats(-1000, 1000, width=32),
        "i": st.integers(-1000, 1000),
        "u": st.integers(0, 255),
        "b": st.booleans(),
    }
    return numbers.flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=min_dims, max_dims=4, max_side=5),
            elements=bounded[np.dtype(dtype).kind],
        )
    )


# cast


def test_cast_is_numpys():
    np.testing.assert_array_equal(arrays.cast(batch([1.9, -1.9]), np.int8).x, np.int8([1, -1]))


@pytest.mark.parametrize("dtype", ["flaot32", None, 3])
def test_cast_refuses_what_is_no_dtype(dtype):
    with pytest.raises(OptionError, match="no NumPy dtype"):
        arrays.cast(batch([1]), dtype)


def test_cast_says_which_values_have_no_counterpart():
    with pytest.raises(DataError, match="cannot be cast to float64") as caught:
        arrays.cast(batch(["1", "two"]), float)

    assert "two" in str(caught.value)


# normalize


@settings(deadline=None)
@given(real_arrays())
def test_normalize_gives_each_feature_the_mean_zero_and_the_deviation_one_or_zero(array):
    made = arrays.normalize(batch(array)).x

    assert made.shape == array.shape
    assert made.dtype == (array.dtype if array.dtype.kind == "f" else np.float32)
    for feature in made.reshape(-1, made.shape[-1] if made.ndim > 1 else 1).T.astype("float64"):
        assert np.isfinite(feature).all()
        spread = np.ptp(feature) > 1e-6
        assert abs(feature.mean()) < 1e-2
        assert feature.std() == pytest.approx(1, abs=1e-2) if spread else feature.std() < 1e-6


@settings(deadline=None)
@given(real_arrays(min_dims=2), st.floats(-10, 10), st.floats(0.25, 10))
def test_normalize_with_numbers_subtracts_and_divides(array, mean, std):
    made = arrays.normalize(batch(array), mean, std).x

    np.testing.assert_allclose(made, (array.astype("float64") - mean) / std, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("axis", "shape"),
    [(None, (3,)), ((0, 1, 2), (3,)), ((0, 2, 3), (4,)), (0, (4, 5, 3)), ((1, -1, 2), (6,))],
)
def test_normalize_takes_statistics_of_the_shape_that_their_axis_leaves(axis, shape):
    images = RNG.random((6, 4, 5, 3))
    axes = (0, 1, 2) if axis is None else axis
    mean, std = images.mean(axes), images.std(axes)
    assert mean.shape == shape

    given_ = arrays.normalize(batch(images), mean, std, axis).x
    computed = arrays.normalize(batch(images), axis=axis).x

    np.testing.assert_allclose(given_, computed)
    np.testing.assert_allclose(computed.mean(axes), 0, atol=1e-12)
    np.testing.assert_allclose(computed.std(axes), 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
def test_a_feature_that_does_not_vary_becomes_zero(dtype):
    # The mean of these in floating point is none of them.
    made = arrays.normalize(batch(np.full((3, 2), 0.1).astype(dtype))).x

    np.testing.assert_allclose(made, 0, atol=1e-7)


def test_a_given_deviation_of_zero_divides_by_nothing():
    made = arrays.normalize(batch([[1.0, 10.0], [3.0, 10.0]]), mean=[1, 8], std=[2, 0]).x

    np.testing.assert_array_equal(made, [[0, 2], [1, 2]])


def test_large_integers_are_told_apart():
    seconds = 1_700_000_000 + np.arange(4)[:, None]

    made = arrays.normalize(batch(seconds), mean=1_700_000_000, std=1).x

    np.testing.assert_array_equal(made[:, 0], np.float32([0, 1, 2, 3]))


def test_normalize_takes_the_batch_and_not_the_dataset():
    pipeline = fc.Dataset(4, preloaded=np.array([[0.0], [2.0], [10.0], [12.0]])).p

    made = [each.data.ravel().tolist() for each in pipeline.arrays.normalize().gen_batch(2)]

    assert made == [[-1, 1], [-1, 1]]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"mean": 0}, "mean needs its other half"),
        ({"std": 1}, "std needs its other half"),
        ({"mean": 0, "std": [1, -1]}, "std must not be negative"),
        ({"mean": "a", "std": 1}, "mean must be numbers"),
        ({"axis": 1.5}, "axis must be an integer"),
        ({"axis": ()}, "axis must be an integer"),
    ],
)
def test_normalize_refuses_options_that_cannot_be_right(options, problem):
    with pytest.raises(OptionError, match=problem):
        arrays.normalize(batch(np.ones((2, 2))), **options)


@pytest.mark.parametrize(
    ("array", "options", "problem"),
    [
        (np.ones((2, 3)), {"mean": [0, 0], "std": 1}, r"shape \(2,\), .* must have \(3,\)"),
        (np.ones((2, 3)), {"axis": 2}, r"no axis 2 in an array of shape \(2, 3\)"),
        (np.array(["a"]), {}, "only real numbers"),
        (np.ones(2, "complex64"), {}, "only real numbers"),
    ],
)
def test_normalize_refuses_arrays_that_do_not_fit(array, options, problem):
    with pytest.raises(DataError, match=problem):
        arrays.normalize(batch(array), **options)


# one_hot


@settings(deadline=None)
@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(
            st.just(n),
            hnp.arrays(
                st.sampled_from(["int8", "uint8", "int64", "uint64"]),
                hnp.array_shapes(max_dims=3, max_side=5),
                elements=st.integers(0, n - 1),
            ),
        )
    ),
    st.sampled_from(["float32", "uint8", "bool"]),
)
def test_one_hot_is_one_at_the_label_and_zero_elsewhere(classes_and_labels, dtype):
    n, labels = classes_and_labels
    made = arrays.one_hot(batch(labels), n, dtype).x

    assert (made.shape, made.dtype) == ((*labels.shape, n), np.dtype(dtype))
    for place in np.ndindex(labels.shape):
        assert [bool(made[place][label]) for label in range(n)] == [
            label == labels[place] for label in range(n)
        ]


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_out_of_range_are_named_with_their_items(wrong):
    with pytest.raises(DataError, match=f"labels out of range: {wrong}; 3 classes are 0 to 2") as e:
        arrays.one_hot(batch([0, wrong, 2]), 3)

    assert "items 101" in str(e.value)


def test_labels_are_integers():
    with pytest.raises(DataError, match=r"must be integers, got float64[\s\S]*cast\('int64'\)"):
        arrays.one_hot(batch([0.0, 1.0]), 2)


@pytest.mark.parametrize("n_classes", [0, -1, 2.0, "3", True])
def test_the_number_of_classes_is_a_positive_integer(n_classes):
    with pytest.raises(OptionError, match="n_classes must be a positive integer"):
        arrays.one_hot(batch([0]), n_classes)


# apply


def test_apply_gives_the_function_the_array_and_its_arguments():
    made = arrays.apply(batch([-5, 5, 50]), np.clip, 0, a_max=10).x

    np.testing.assert_array_equal(made, [0, 5, 10])


def test_a_function_may_write_to_what_it_is_given():
    def zeroed(array):
        array[:] = 0
        return array

    given_ = np.ones(3)

    np.testing.assert_array_equal(arrays.apply(batch(given_), zeroed).x, 0)
    np.testing.assert_array_equal(given_, 1)


@pytest.mark.parametrize("function", [np.sum, np.ndarray.sort, lambda array: array[:1]])
def test_a_function_returns_one_entry_for_each_item(function):
    with pytest.raises(DataError, match="one entry for each of 3 items"):
        arrays.apply(batch(np.arange(3)), function)


def test_what_the_function_raises_arrives_as_it_is():
    def broken(array):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        arrays.apply(batch([1]), broken)


def test_apply_refuses_what_cannot_be_called():
    with pytest.raises(OptionError, match="needs a function"):
        arrays.apply(batch([1]), "clip")
