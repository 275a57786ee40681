"""The recipe: sources and their preloaded data, and the arguments of actions, checked at once."""

import dataclasses

import numpy as np
import pytest

from flowcore import Batch, Dataset, action
from flowcore.errors import ArgumentError, DataError, FlowcoreError, PipelineError


class Digits(Batch):
    components = ("images", "labels")

    @action
    def scale(self, factor, *, dtype="float32"):
        self.images = (self.images * factor).astype(dtype)
        return self

    @action
    def spoil(self):
        self.images[...] = -1
        return self


def data():
    return {"images": np.arange(8).reshape(4, 2), "labels": np.array([0, 1, 0, 1])}


class Table:
    """Preloaded data of one's own: read by positions, without a length."""

    def __init__(self):
        self.asked = []

    def __getitem__(self, positions):
        self.asked.append(positions)
        return np.stack([np.full(2, position) for position in positions])  # needs one at least


def test_preloaded_data_is_read_by_position():
    dataset = Dataset(["a", "b", "c"], preloaded=np.array([10, 20, 30]))
    assert dataset.create_batch(["c", "a"]).data.tolist() == [30, 10]


@pytest.mark.parametrize(
    "preloaded",
    [data(), tuple(data().values()), {name: part.tolist() for name, part in data().items()}],
    ids=["dict", "tuple", "dict of lists"],
)
def test_preloaded_data_goes_to_its_components(preloaded):
    batch = Dataset(4, Digits, preloaded).create_batch([1, 3])
    assert batch.images.tolist() == [[2, 3], [6, 7]]
    assert batch.labels.tolist() == [1, 1]


def test_a_preloaded_dict_names_the_components_of_a_class_that_declares_none():
    batch = Dataset(4, preloaded=data()).create_batch([2])
    assert batch.components == ("images", "labels")
    assert batch.labels.tolist() == [0]


def test_preloaded_data_may_be_any_object_that_is_read_by_positions():
    table = Table()
    batch = next(Dataset(5, preloaded=table).p.gen_batch(2, n_epochs=1))
    assert batch.data.tolist() == [[0, 0], [1, 1]]
    positions, first = table.asked[:2]  # the first is asked for alone once, to see that it agrees
    assert (positions.dtype, positions.tolist(), first) == (np.int64, [0, 1], 0)


def test_preloaded_data_is_not_read_before_it_is_needed():
    table = Table()
    Dataset(5, preloaded=table).p.gen_batch(2)
    assert table.asked == []


def test_a_batch_gets_a_copy_of_preloaded_data():
    preloaded = data()
    Dataset(4, Digits, preloaded).p.spoil().run(3)
    assert np.array_equal(preloaded["images"], data()["images"])


@pytest.mark.parametrize(
    "preloaded",
    [
        np.zeros(3),
        {"images": np.zeros(4), "labels": np.zeros(5)},
        (np.zeros(4), np.zeros(3)),
        [1, 2, 3],
    ],
    ids=["array", "dict", "tuple", "list"],
)
def test_preloaded_data_of_another_length_than_the_index_is_refused(preloaded):
    with pytest.raises(DataError, match="the index has 4"):
        Dataset(4, preloaded=preloaded)


@pytest.mark.parametrize(
    "preloaded",
    [{"images": np.zeros(4), "label": np.zeros(4)}, (np.zeros(4),), np.zeros(4)],
    ids=["unknown name", "too few", "one array"],
)
def test_preloaded_data_that_does_not_fit_the_components_is_refused(preloaded):
    with pytest.raises(DataError, match="components"):
        Dataset(4, Digits, preloaded)


@pytest.mark.parametrize("preloaded", [3, "text", np.float64(1), np.array(1), object()], ids=repr)
def test_preloaded_data_that_cannot_be_read_by_positions_is_refused(preloaded):
    with pytest.raises(DataError):
        Dataset(4, preloaded=preloaded)


@pytest.mark.parametrize("batch_class", [Digits([0]), int, None, "Digits"], ids=repr)
def test_a_batch_class_that_is_none_is_refused(batch_class):
    with pytest.raises(PipelineError, match=r"subclass of flowcore\.Batch"):
        Dataset(4, batch_class)


def test_an_action_that_a_pipeline_could_not_name_is_refused_with_the_dataset():
    class Wrong(Batch):
        @action
        def run(self):
            return self

    with pytest.raises(PipelineError, match="an action cannot be called 'run'"):
        Dataset(4, Wrong)


def test_a_batch_of_an_unknown_id_is_a_key_error():
    with pytest.raises(KeyError, match="missing"):
        Dataset(["a"]).create_batch(["missing"])


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "missing a required argument: 'factor'"),
        ((1, 2), {}, "too many positional arguments"),
        ((1,), {"dtyp": "int8"}, "unexpected keyword argument 'dtyp'"),
    ],
)
def test_arguments_that_an_action_does_not_take_are_refused_where_they_are_written(
    args, kwargs, problem
):
    with pytest.raises(ArgumentError, match=problem) as raised:
        Dataset(4, Digits).p.scale(*args, **kwargs)
    assert isinstance(raised.value, TypeError)
    assert "scale(factor, *, dtype='float32')" in str(raised.value)


def test_a_recipe_reads_like_the_program_that_wrote_it():
    pipe = Dataset(4, Digits).p.scale(np.zeros((2, 3)), dtype="int8").spoil()
    assert str(pipe) == repr(pipe)
    assert str(pipe).splitlines() == [
        "Pipeline over 4 items, Digits",
        "  1. .scale(<array float64 (2, 3)>, dtype='int8')",
        "  2. .spoil()",
    ]


def test_a_step_cannot_be_changed():
    step = Dataset(4, Digits).p.scale(2).steps[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.args = (3,)


def test_every_refusal_is_a_flowcore_error():
    with pytest.raises(FlowcoreError):
        Dataset(4, preloaded=np.zeros(1))


@pytest.mark.parametrize("kind", ["an object array", "a loader"])
def test_what_an_action_writes_does_not_reach_preloaded_objects(kind):
    class Writing(Batch):
        @action
        def spoil(self):
            for array in self.data:
                array[...] = -1
            return self

    class Loader:
        def __init__(self, array):
            self.array = array

        def __len__(self):
            return 2

        def __getitem__(self, positions):
            return self.array  # its own, whatever is asked for

    arrays = [np.arange(2.0), np.arange(3.0)]
    ragged = np.empty(2, object)
    ragged[:] = arrays
    own = np.arange(4.0).reshape(2, 2)
    Dataset(2, Writing, ragged if kind == "an object array" else Loader(own)).p.spoil().run(2)
    assert [array.tolist() for array in arrays] == [[0, 1], [0, 1, 2]]
    assert own.tolist() == [[0, 1], [2, 3]]
