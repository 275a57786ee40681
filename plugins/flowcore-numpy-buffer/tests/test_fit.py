"""Batches that do not fit together are errors that name the batch, the component and both sides."""

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import DataError

HOW = [pytest.param({"prefetch": 0}, id="inline"), pytest.param({"prefetch": 2}, id="threads")]


def run(tensors, how=None, **options):
    """Run three batches, the tensor of each as given."""
    pipeline = fc.Dataset(3).p.put_into_numpy_buffer(
        get_tensor=lambda batch: tensors[batch.number], **options
    )
    return pipeline.run(1, **(how or {})).results["numpy-buffer"]


def refused(tensors, *words, **options):
    """Run, and check that it fails of a DataError with these words; say what to do."""
    with pytest.raises(DataError) as raised:
        run(tensors, **options)
    for word in (*words, "next:"):
        assert word in str(raised.value)


@pytest.mark.parametrize("how", HOW)
def test_items_of_another_shape_than_the_first_batch(how):
    tensors = [{"x": np.zeros((1, 3))}, {"x": np.zeros((2, 3))}, {"x": np.zeros((1, 4))}]
    refused(tensors, "(3,)", "(4,)", "batch 2 of epoch 0", "component 'x'", how=how)


@pytest.mark.parametrize("how", HOW)
def test_components_of_unequal_length(how):
    tensors = [{"x": np.zeros((2, 3)), "y": np.zeros(1)}] * 3
    words = "component 'x' has shape (2, 3)", "component 'y' has shape (1,)", "batch 0 of epoch 0"
    refused(tensors, *words, how=how)


def test_components_of_unequal_length_can_be_skipped_as_they_are_errors_of_their_batch():
    tensors = [(np.zeros(1), np.zeros(1)), (np.zeros(2), np.zeros(1)), (np.ones(1), np.ones(1))]
    pipeline = fc.Dataset(3).p.put_into_numpy_buffer(get_tensor=lambda batch: tensors[batch.number])
    report = pipeline.run(1, on_error="skip")
    assert [trouble.number for trouble in report.skipped] == [1]
    np.testing.assert_equal(report.results["numpy-buffer"], (np.array([0, 1]), np.array([0, 1])))


def test_items_of_different_shapes_within_a_batch():
    tensors = [[np.zeros(3), np.zeros(3), np.zeros(4)]] * 3
    refused(tensors, "(3,) and (4,)", "batch 0 of epoch 0")


def test_a_value_without_an_items_axis():
    refused([(np.zeros(1), 5)] * 3, "shape ()", "array 1 of the tuple")


def test_other_components_than_the_first_batch():
    tensors = [{"x": np.zeros(1)}, {"y": np.zeros(1)}, None]
    refused(tensors, "the components 'y'", "the components 'x'", "batch 1 of epoch 0")


def test_a_tuple_after_an_array():
    refused([np.zeros(1), (np.zeros(1), np.zeros(1)), None], "a tuple of 2 arrays", "one array")


@pytest.mark.parametrize("tensor", [None, (), {}, {1: np.zeros(1)}], ids=repr)
def test_what_cannot_be_collected(tensor):
    refused([tensor] * 3, "batch 0 of epoch 0")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(np.array([1.5], "f4"), np.array([1.1], "f8"), id="float64 in float32"),
        pytest.param(np.array([1.5], "f8"), np.array([2], "i8"), id="int in float"),
        pytest.param(np.array([1], "i2"), np.array([300], "i8"), id="a small int64 in int16"),
        pytest.param(np.array([1], "<i4"), np.array([2], ">i4"), id="another byte order"),
        pytest.param(np.array(["abc"]), np.array(["d"]), id="a shorter text"),
        pytest.param(np.array(["2020"], "M8[s]"), np.array(["NaT"], "M8[ns]"), id="NaT"),
    ],
)
def test_a_dtype_that_numpy_casts_takes_that_of_the_first_batch(first, second):
    result = run([first, second, first])
    assert result.dtype == first.dtype
    np.testing.assert_array_equal(
        result, np.concatenate([first, second.astype(first.dtype), first])
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(np.array([1]), np.array([1.5]), id="float in int"),
        pytest.param(np.array([1.0]), np.array(["a"]), id="text in float"),
        pytest.param(np.array([1], "i1"), np.array([300], "i8"), id="an int that is too large"),
        pytest.param(np.array(["abc"]), np.array(["abcd"]), id="a text that is too long"),
    ],
)
def test_a_dtype_that_does_not_fit_the_first_batch(first, second):
    refused([first, second, first], str(first.dtype), str(second.dtype), "batch 1 of epoch 0")


def test_a_batch_that_does_not_fit_leaves_the_result_as_it_was():
    sink = fc.sink("numpy-buffer", get_tensor=lambda batch: {"x": [1], "y": [[2] * batch.epoch]})
    with pytest.raises(DataError):
        fc.Dataset(1).p.run(1, n_epochs=2, sink=sink)
    assert sink.result["x"].shape == (1,)
    assert sink.result["y"].shape == (1, 0)


def test_the_batches_of_a_bounded_buffer_are_independent_of_each_other():
    tensors = [np.zeros((1, 3)), np.zeros((1, 4)), np.array(["a"])]
    assert [tensor.shape for tensor in run(tensors, capacity=3)] == [(1, 3), (1, 4), (1,)]
