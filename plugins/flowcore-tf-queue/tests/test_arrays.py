"""What the workers do: batches to arrays that fit the queue. No TensorFlow is needed here."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import flowcore as fc
from flowcore.errors import DataError
from flowcore_tf_queue._arrays import Fitter, Slots

SHAPES = hnp.array_shapes(min_dims=0, min_side=0)


def slots(*dtypes, shapes=None, names=None):
    return Slots(tuple(np.dtype(dtype) for dtype in dtypes), shapes or (None,) * len(dtypes), names)


def fit(tensor, *dtypes, many=False, **rest):
    return Fitter(lambda batch: tensor, slots(*dtypes, **rest), many)(fc.Batch(range(2)))


@given(hnp.arrays(hnp.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc"), SHAPES))
def test_what_is_made_of_an_array_has_its_bytes_at_a_multiple_of_64(array):
    assume(array.dtype.itemsize <= 16 and array.dtype.char not in "gG")
    (item,) = fit(array, array.dtype)
    assert item.tobytes() == array.tobytes()
    assert item.shape == array.shape
    assert item.size == 0 or item.ctypes.data % 64 == 0
    assert not np.shares_memory(item, array)


def test_an_array_of_empty_is_taken_as_it_is_and_nobody_can_write_to_it_any_more():
    batch = fc.Batch(range(2))
    batch.data = batch.empty((2, 3), np.float32)
    (item,) = Fitter(None, slots("float32"), False)(batch)
    assert item is batch.data
    with pytest.raises(ValueError, match="read-only"):
        batch.data += 1


def test_an_array_of_empty_that_has_another_view_is_copied():
    batch = fc.Batch(range(2))
    batch.data = batch.empty((2, 3), np.float32)
    batch.first = batch.data[:1]
    (item,) = Fitter(None, slots("float32"), False)(batch)
    assert not np.shares_memory(item, batch.data)
    batch.data += 1


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("float64", "float32"), ("int32", "int64"), ("int64", "int32"), ("uint8", "float32")],
)
def test_a_cast_of_the_same_kind_is_made(found, wanted):
    (item,) = fit(np.array([1, 2], found), wanted)
    assert item.dtype == wanted
    assert item.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("found", "wanted"), [("float32", "int32"), ("complex64", "float32"), ("int64", "bool")]
)
def test_another_cast_is_refused_with_both_dtypes_and_the_cast_to_write(found, wanted):
    with pytest.raises(DataError) as caught:
        fit(np.zeros(2, found), wanted)
    message = str(caught.value)
    assert f"component 0 has dtype {found}, the queue takes {wanted}" in message
    assert f"array.astype('{wanted}')" in message
    assert "<Batch 0 of epoch 0, 2 items: [0, 1]>" in message


def test_strings_go_into_a_string_queue_and_into_no_other():
    (item,) = fit(["a", "bc"], object)
    assert item.tolist() == [b"a", b"bc"]
    with pytest.raises(DataError, match=r"dtype string \(object\), the queue takes float32"):
        fit(["a", "bc"], "float32")
    with pytest.raises(DataError, match=r"dtype int64, the queue takes string \(object\)"):
        fit(np.arange(2), object)


def test_bytes_keep_the_nuls_at_their_end():
    (item,) = fit([b"a\0", b"bc\0\0"], object)
    assert item.tolist() == [b"a\0", b"bc\0\0"]
    (item,) = fit(b"a\0", object)
    assert item.item() == b"a\0"


def test_an_integer_that_the_queues_dtype_does_not_hold_is_refused_and_not_wrapped():
    with pytest.raises(DataError, match="values that int32 does not hold") as caught:
        fit(np.array([1, 2**40]), "int32")
    assert "from 1 to 1099511627776" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [None, 1],
        [{}],
        np.array([1, 2], object),
        (),
        np.array(["2026-01-01"], "M8[D]"),
        "\ud800",
    ],
    ids=repr,
)
@pytest.mark.parametrize("known", [True, False])
def test_content_that_no_queue_takes_is_an_error_of_its_batch(content, known):
    fitter = Fitter(lambda batch: content, slots(object) if known else None, False)
    with pytest.raises(DataError, match="Batch 0 of epoch 0"):
        fitter(fc.Batch(range(2)))


def test_a_name_of_the_queue_that_is_no_component_is_told_with_those_that_are():
    batch = fc.Batch(range(2), data={"images": np.ones(2)})
    with pytest.raises(DataError, match="the name 'labels', and the batch no such component"):
        Fitter(None, slots("float64", "int64", names=("images", "labels")), False)(batch)


def test_a_list_is_one_tensor_and_a_tuple_several():
    assert [part.shape for part in fit([[1.0], [2.0]], "float64")] == [(2, 1)]
    assert [part.shape for part in fit(([1.0], [2.0, 3.0]), "float64", "float64")] == [(1,), (2,)]


def test_a_wrong_number_of_components_is_refused():
    with pytest.raises(DataError, match="returned 2 components, the queue takes 1"):
        fit((np.zeros(1), np.zeros(1)), "float64")


def test_a_shape_that_the_queue_does_not_take_is_refused_with_both():
    with pytest.raises(DataError, match=r"has shape \(2, 3\), the queue takes \(4, 3\)") as caught:
        fit(np.zeros((2, 3)), "float64", shapes=((4, 3),))
    assert "drop_last=True" in str(caught.value)
    with pytest.raises(DataError, match="many=True"):
        fit(np.zeros((2, 3)), "float64", shapes=((3,),))


def test_an_open_dimension_takes_any_length():
    assert fit(np.zeros((2, 3)), "float64", shapes=((None, 3),))[0].shape == (2, 3)


def test_names_take_a_dict_in_any_order_and_nothing_else():
    named = {"names": ("images", "labels")}
    items = fit({"labels": [1], "images": [0.5]}, "float64", "int64", **named)
    assert [item.tolist() for item in items] == [[0.5], [1]]
    with pytest.raises(DataError, match=r"keys.*'x'.*the queue's names are"):
        fit({"x": [1], "images": [0.5]}, "float64", "int64", **named)
    with pytest.raises(DataError, match="the queue has names"):
        fit(([0.5], [1]), "float64", "int64", **named)
    with pytest.raises(DataError, match="the queue has no names"):
        fit({"images": [0.5]}, "float64")


def test_without_get_tensor_names_are_the_batchs_components():
    batch = fc.Batch(range(2), data={"labels": np.arange(2), "images": np.ones(2), "more": [0, 0]})
    items = Fitter(None, slots("float64", "int64", names=("images", "labels")), False)(batch)
    assert [item.tolist() for item in items] == [[1.0, 1.0], [0, 1]]


def test_many_needs_equal_first_axes():
    with pytest.raises(DataError, match=r"\(2, 3\), \(3,\)"):
        fit((np.zeros((2, 3)), np.zeros(3)), "float64", "float64", many=True)
    with pytest.raises(DataError, match="one entry for each item"):
        fit(np.float64(1), "float64", many=True)


@given(st.lists(st.integers(1, 3), min_size=2, max_size=4).filter(lambda x: len(set(x)) > 1))
def test_lists_of_unequal_lengths_are_no_array(lengths):
    with pytest.raises(DataError, match="is no array"):
        fit([[0.0] * length for length in lengths], "float64")


def test_a_fitter_is_sent_to_a_worker_that_has_no_need_of_tensorflow(tmp_path):
    sent = tmp_path / "fitter"
    sent.write_bytes(pickle.dumps(Fitter(None, slots("float32"), False)))
    program = (
        "import pickle, sys, pathlib, flowcore as fc\n"
        f"fit = pickle.loads(pathlib.Path({str(sent)!r}).read_bytes())\n"
        "print(fit(fc.Batch(range(2), data=[1.0, 2.0])), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(array([1., 2.], dtype=float32),) False"
