"""Without `capacity` and `path`: one array, or one for each component, in memory."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import OptionError
from flowcore_numpy_buffer import NumpyBufferSink

EXECUTORS = [
    pytest.param({"prefetch": 0}, id="inline"),
    pytest.param({"prefetch": 3, "executor": "threads"}, id="threads"),
]


class Numbers(fc.Batch):
    """Items with shape (2,), made from their positions."""

    @fc.action
    def make(self):
        self.data = np.stack([self.positions, -self.positions], axis=1)
        return self

    @fc.action
    def spoil(self):
        self.data[...] = 99
        return self

    @fc.action
    def fail_at(self, number):
        if self.number == number:
            raise ZeroDivisionError("no such batch")
        return self

    @fc.action
    def keep_even(self):
        self.data = self.data[self.positions % 2 == 0]
        return self


class Photos(fc.Batch):
    components = ("images", "labels")


def numbers(length=10):
    return fc.Dataset(length, Numbers).p.make()


def rows(*positions):
    return np.array([[position, -position] for position in positions])


def photos(length=6):
    images, labels = np.arange(length * 4.0).reshape(length, 2, 2), np.arange(length)
    return fc.Dataset(length, Photos, (images, labels)).p


def collect(pipeline, **options):
    return pipeline.put_into_numpy_buffer(**options).run(4).results["numpy-buffer"]


def test_it_is_found_by_its_name():
    assert type(fc.sink("numpy-buffer")) is NumpyBufferSink


@pytest.mark.parametrize("how", EXECUTORS)
@given(
    length=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    n_epochs=st.integers(1, 3),
)
def test_the_result_is_the_batches_joined_in_delivery_order(
    how, length, batch_size, drop_last, shuffle, n_epochs
):
    run = numbers(length).gen_batch(
        batch_size, shuffle, n_epochs, drop_last, seed=1, sink="numpy-buffer", **how
    )
    delivered = [batch.data for batch in run]
    result = run.report.results["numpy-buffer"]
    if delivered:
        np.testing.assert_array_equal(result, np.concatenate(delivered))
    else:
        assert result is None


@given(taken=st.integers(1, 30), batch_size=st.integers(1, 9))
def test_a_run_without_end_has_what_was_delivered_when_it_is_left(taken, batch_size):
    run = numbers().gen_batch(batch_size, n_epochs=None, sink="numpy-buffer")
    with run:
        delivered = [next(run).data for _ in range(taken)]
    np.testing.assert_array_equal(run.report.results["numpy-buffer"], np.concatenate(delivered))


def test_unordered_batches_are_collected_as_they_are_handed_over():
    run = numbers(40).gen_batch(3, prefetch=4, ordered=False, sink="numpy-buffer")
    delivered = [batch.data for batch in run]
    np.testing.assert_array_equal(run.report.results["numpy-buffer"], np.concatenate(delivered))


def test_skipped_batches_are_not_in_the_result():
    report = numbers(6).fail_at(1).put_into_numpy_buffer().run(2, on_error="skip")
    np.testing.assert_array_equal(report.results["numpy-buffer"], rows(0, 1, 4, 5))


def test_actions_may_change_how_many_items_a_batch_has():
    np.testing.assert_array_equal(collect(numbers(7).keep_even()), rows(0, 2, 4, 6))


def test_more_items_than_the_dataset_has_are_all_collected():
    result = collect(numbers(5), get_tensor=lambda batch: np.repeat(batch.data, 3, axis=0))
    np.testing.assert_array_equal(result, np.repeat(rows(*range(5)), 3, axis=0))


def test_a_batch_that_is_left_without_items_adds_none():
    result = collect(numbers(8), get_tensor=lambda batch: [] if batch.number else batch.data)
    np.testing.assert_array_equal(result, rows(0, 1, 2, 3))


def test_batches_that_all_are_without_items_give_an_array_of_their_shape():
    result = collect(numbers(8), get_tensor=lambda batch: np.zeros((0, 3), "float32"))
    assert (result.shape, result.dtype) == ((0, 3), np.float32)


def test_what_a_failed_run_delivered_is_in_the_result():
    sink = fc.sink("numpy-buffer")
    with pytest.raises(ZeroDivisionError):
        numbers(6).fail_at(2).run(2, sink=sink)
    np.testing.assert_array_equal(sink.result, rows(0, 1, 2, 3))


def test_the_result_belongs_to_the_user_after_the_run():
    result = collect(numbers())
    result[...] = 0
    assert not result.any()


def test_during_the_run_the_result_is_a_read_only_view_that_does_not_change():
    seen = []
    run = numbers(5).gen_batch(2, n_epochs=None, sink="numpy-buffer")
    with run:
        for _ in range(3):
            next(run)
            seen.append(run.report.results["numpy-buffer"])
            with pytest.raises(ValueError, match="read-only"):
                seen[-1][...] = 0
    for view, expected in zip(seen, [rows(0, 1), rows(*range(4)), rows(*range(5))], strict=True):
        np.testing.assert_array_equal(view, expected)


def test_room_for_all_items_is_made_once_where_their_number_is_known():
    run = numbers(10).gen_batch(3, sink="numpy-buffer")
    next(run)
    first = run.report.results["numpy-buffer"]
    list(run)
    assert np.shares_memory(first, run.report.results["numpy-buffer"])


@pytest.mark.usefixtures("eager_threads")
def test_another_thread_sees_no_item_before_it_is_whole():
    items, seen, done = {"x": np.ones((20, 10_000)), "y": np.arange(20)}, [], threading.Event()
    sink = NumpyBufferSink()

    def look():
        while not done.is_set():
            result = sink.result
            if result is not None:
                images, labels = result.values()
                seen.append(len(images) == len(labels) and bool((images[-1:, -1] == 1).all()))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(look)
        try:
            for _ in range(50):
                fc.Dataset(20, preloaded=items).p.run(1, sink=sink)
        finally:
            done.set()
        reader.result()
    assert all(seen)


def test_later_steps_that_write_to_the_batch_do_not_reach_the_result():
    pipeline = numbers(4).put_into_numpy_buffer().spoil()
    np.testing.assert_array_equal(pipeline.run(2).results["numpy-buffer"], rows(0, 1, 2, 3))


def test_a_consumer_that_writes_to_the_batch_does_not_reach_the_result():
    run = numbers(4).gen_batch(2, prefetch=2, sink="numpy-buffer")
    for batch in run:
        batch.data[...] = 99
    np.testing.assert_array_equal(run.report.results["numpy-buffer"], rows(0, 1, 2, 3))


def test_several_components_are_a_dict_of_arrays_by_name():
    result = collect(photos())
    assert list(result) == ["images", "labels"]
    np.testing.assert_array_equal(result["images"], np.arange(24.0).reshape(6, 2, 2))
    np.testing.assert_array_equal(result["labels"], np.arange(6))


def test_one_component_is_one_array():
    result = collect(fc.Dataset(5, preloaded={"labels": np.arange(5)}).p)
    np.testing.assert_array_equal(result, np.arange(5))


def test_the_get_tensor_of_the_batch_class_is_the_default():
    class Inverted(Photos):
        def get_tensor(self):
            return 1 - self.images, self.labels

    images, labels = collect(fc.Dataset(5, Inverted, (np.ones(5), np.arange(5))).p)
    np.testing.assert_array_equal(images, np.zeros(5))
    np.testing.assert_array_equal(labels, np.arange(5))


@pytest.mark.parametrize(
    ("get_tensor", "expected"),
    [
        pytest.param(lambda batch: batch.labels, np.arange(6), id="array"),
        pytest.param(lambda batch: batch.labels.tolist(), np.arange(6), id="list"),
        pytest.param(lambda batch: (batch.labels,), (np.arange(6),), id="tuple"),
        pytest.param(lambda batch: {"y": batch.labels}, {"y": np.arange(6)}, id="dict"),
    ],
)
def test_the_result_has_the_form_that_get_tensor_returns(get_tensor, expected):
    result = collect(photos(), get_tensor=get_tensor)
    assert type(result) is type(expected)
    np.testing.assert_equal(result, expected)


def test_get_tensor_may_be_a_method_of_the_batch():
    images, labels = collect(photos(), get_tensor=Photos.get_tensor)
    assert (images.shape, labels.shape) == ((6, 2, 2), (6,))


def test_items_may_come_from_other_processes():
    spawn = multiprocessing.get_context("spawn")
    pipeline = fc.Dataset(9, preloaded=np.arange(9)).p.put_into_numpy_buffer()
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        result = pipeline.run(2, executor=pool, prefetch=2).results["numpy-buffer"]
    np.testing.assert_array_equal(result, np.arange(9))


def test_two_runs_of_one_pipeline_at_once_collect_apart():
    pipeline = numbers(4).put_into_numpy_buffer()
    first, second = pipeline.gen_batch(2), pipeline.gen_batch(1)
    for _ in zip(first, second, strict=False):
        pass
    np.testing.assert_array_equal(first.report.results["numpy-buffer"], rows(0, 1, 2, 3))
    np.testing.assert_array_equal(second.report.results["numpy-buffer"], rows(0, 1))


def test_two_sinks_in_one_pipeline_see_the_batch_at_their_steps():
    pipeline = numbers(2).put_into_numpy_buffer().spoil().put_into_numpy_buffer()
    before, after = pipeline.run(2).results.values()
    np.testing.assert_array_equal(before, rows(0, 1))
    np.testing.assert_array_equal(after, np.full((2, 2), 99))


def test_there_is_no_result_before_a_run():
    assert NumpyBufferSink().result is None


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"get_tensor": "labels"}, id="get_tensor is a name"),
        pytest.param({"capacity": 0}, id="capacity 0"),
        pytest.param({"capacity": True}, id="capacity is a bool"),
        pytest.param({"capacity": "many"}, id="capacity is a text"),
        pytest.param({"capacity": 2, "path": "x.npy"}, id="capacity with path"),
        pytest.param({"path": ""}, id="empty path"),
        pytest.param({"path": "."}, id="path is the current folder"),
        pytest.param({"path": 3}, id="path is a number"),
    ],
)
def test_an_option_that_cannot_be_right_is_refused_where_the_step_is_written(options):
    with pytest.raises(OptionError, match="next:"):
        numbers().put_into_numpy_buffer(**options)
