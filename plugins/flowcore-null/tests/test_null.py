"""The null sink, through real pipelines."""

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import OptionError
from flowcore.testing import SinkContract
from flowcore_null import Counts, NullSink


class TestTheContract(SinkContract):
    keeps_items = False

    @pytest.fixture
    def sink(self):
        return NullSink()


def images() -> fc.Dataset:
    return fc.Dataset(
        10,
        preloaded={"images": np.zeros((10, 4, 4), "uint8"), "labels": np.zeros(10, "int64")},
    )


def test_it_is_found_by_its_name():
    assert type(fc.sink("null")) is NullSink


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_it_counts_the_batches_the_items_and_the_bytes_of_the_data(executor):
    report = images().p.put_into_null().run(batch_size=4, executor=executor, prefetch=2)

    assert report.results["null"] == Counts(batches=3, items=10, bytes=10 * (16 + 8))


@pytest.mark.parametrize(
    ("get_tensor", "bytes_of_an_item"),
    [
        pytest.param(lambda batch: batch.labels, 8, id="array"),
        pytest.param(lambda batch: (batch.images, batch.labels), 16 + 8, id="tuple"),
        pytest.param(lambda batch: {"x": batch.images.astype("float32")}, 64, id="dict"),
        pytest.param(fc.Batch.get_tensor, 16 + 8, id="method of the batch"),
    ],
)
def test_with_get_tensor_the_bytes_are_those_of_the_tensor(get_tensor, bytes_of_an_item):
    report = images().p.put_into_null(get_tensor=get_tensor).run(batch_size=4)

    assert report.results["null"].bytes == 10 * bytes_of_an_item


def test_a_batch_without_data_has_no_bytes():
    assert fc.Dataset(10).p.run(batch_size=5, sink="null").results["null"] == Counts(2, 10, 0)


def test_the_counts_are_up_to_date_while_the_run_goes_on():
    with images().p.put_into_null().gen_batch(4) as run:
        seen = [run.report.results["null"].items for _ in run]

    assert seen == [4, 8, 10]


def test_each_run_counts_from_zero():
    counting = images().p.put_into_null()

    assert counting.run(batch_size=5).results == counting.run(batch_size=5).results

    sink = fc.sink("null")
    for _ in range(2):
        assert images().p.run(batch_size=5, sink=sink).results["null"].batches == 2


def test_what_get_tensor_raises_is_an_error_of_that_batch():
    def broken(batch):
        raise ZeroDivisionError("no such tensor")

    with pytest.raises(ZeroDivisionError, match="no such tensor"):
        images().p.put_into_null(get_tensor=broken).run(batch_size=4)


def test_a_get_tensor_that_cannot_be_called_is_refused_where_it_is_written():
    with pytest.raises(OptionError, match="must be a function of a batch"):
        images().p.put_into_null(get_tensor="images")


def test_only_the_counts_leave_the_worker():
    item = NullSink(get_tensor=fc.Batch.get_tensor).prepare(images().create_batch([0, 1]))

    assert item == (2, 2 * (16 + 8))


def test_the_counts_read_well():
    assert str(Counts(1000, 64000, 2048)) == "1,000 batches, 64,000 items, 2,048 bytes"
