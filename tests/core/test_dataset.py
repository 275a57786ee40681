"""The dataset: its parts by ids, masks and slices, and what is made of several."""

import copy
import pickle
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore import Batch, Dataset, Index, action
from flowcore.errors import OptionError

NAMES = ["a", "b", "c", "d", "e"]
IDS = st.lists(st.integers(0, 20), unique=True)


class Other(Batch):
    """Another batch class."""


class Failing(Batch):
    @action
    def fail(self):
        if self.number % 2:
            raise ValueError(self.number)
        return self


@pytest.fixture
def dataset():
    return Dataset(NAMES, preloaded={"x": np.arange(5) * 10})


def contents(dataset):
    """Return a dataset's ids and data."""
    batch = dataset.create_batch(list(dataset))
    return dict(zip(batch.index.tolist(), batch.x.tolist(), strict=True))


def test_a_dataset_iterates_over_its_ids_and_knows_which_it_has(dataset):
    assert list(dataset) == NAMES
    assert "c" in dataset
    assert "z" not in dataset
    assert len(dataset) == 5
    assert repr(dataset) == "<Dataset: 5 items, Batch>"


# Parts


@pytest.mark.parametrize(
    ("items", "ids"),
    [
        (["d", "a"], ["d", "a"]),
        (np.array(["d", "a"]), ["d", "a"]),
        (Index(["d", "a"]), ["d", "a"]),
        (Dataset(["d", "a"]), ["d", "a"]),
        (iter(["d", "a"]), ["d", "a"]),
        ([], []),
        (np.array([]), []),
        ([True, False, False, True, False], ["a", "d"]),
        (np.array([False] * 5), []),
        (slice(1, 3), ["b", "c"]),
        (slice(None, None, -2), ["e", "c", "a"]),
        (slice(-1, None), ["e"]),
        (slice(9, 12), []),
        (slice(np.int64(1), np.int64(2)), ["b"]),
    ],
    ids=repr,
)
def test_a_part_is_named_by_ids_by_a_mask_or_by_a_slice_of_positions(dataset, items, ids):
    part = dataset[items]
    assert list(part) == ids
    assert contents(part) == {id_: NAMES.index(id_) * 10 for id_ in ids}


def test_ints_in_brackets_are_ids_and_not_positions():
    dataset = Dataset([30, 10, 20])
    assert list(dataset[[10, 30]]) == [10, 30]
    assert list(dataset[np.array([20])]) == [20]
    assert list(dataset[range(10, 21, 10)]) == [10, 20]
    with pytest.raises(OptionError, match="2 of 2 ids are not in the dataset: 0, 1"):
        dataset[[0, 1]]


def test_tuples_in_a_list_are_ids():
    assert list(Dataset([("a", 1), ("b", 2)])[[("b", 2)]]) == [("b", 2)]


def test_dates_are_ids():
    days = np.arange("2026-01-01", "2026-01-05", dtype="M8[D]")
    assert list(Dataset(days)[[date(2026, 1, 3)]]) == [date(2026, 1, 3)]
    assert list(Dataset(days)[days > days[2]]) == [days[3]]


@pytest.mark.parametrize("items", ["a", b"a", 3, ("a", "b"), None, date(2026, 1, 1), 1.5], ids=repr)
def test_a_single_id_gets_told_how_to_ask_for_it(dataset, items):
    with pytest.raises(OptionError, match=r"dataset\[\[id\]\]"):
        dataset[items]


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (["a", "zz"], "1 of 2 ids are not in the dataset: 'zz'"),
        (["d", "a", "d"], r"'d' at positions \[0, 2\]"),
        ([["a"]], "hashable"),
        (np.array([["a"]]), "shape"),
        ({"a", "b"}, "set has no order"),
        ({"a": 1}, "dict has no order"),
        (np.array([True, False]), "a bool for each of the 5 items, got 2"),
        ([True, False, 1, 0, 1], "a bool for each of the 5 items"),
        (np.array([0.0, 1, 1, 0, 0]), "ids of dtype float64"),
        (slice("a", "c"), "a slice of a dataset is one of positions"),
        (slice(0, 3, 0), "step cannot be zero"),
    ],
    ids=str,
)
def test_what_names_no_part_is_refused(dataset, items, problem):
    with pytest.raises(OptionError, match=problem):
        dataset[items]


def test_a_mask_of_floats_is_not_taken_for_the_ids_0_and_1():
    with pytest.raises(OptionError, match=r"mask\.astype\(bool\)"):
        Dataset(np.array([1, 0]))[np.array([1.0, 0.0])]


def test_floats_are_ids_where_the_ids_are_floats():
    assert list(Dataset([0.5, 1.5])[np.array([1.5])]) == [1.5]


def test_a_near_miss_gets_a_suggestion():
    with pytest.raises(OptionError, match=r"did you mean 'cat\.png'"):
        Dataset(["cat.png", "dog.png"])[["cat.jpg"]]


def test_only_the_first_of_many_unknown_ids_are_named():
    with pytest.raises(OptionError, match=r"5 of 5 ids are not in the dataset: 9, 10, 11, \.\.\."):
        Dataset(3)[range(9, 14)]


def test_a_part_of_a_part_reads_the_data_of_its_items(dataset):
    part = dataset[::-1][["c", "b", "a"]][1:]
    assert contents(part) == {"b": 10, "a": 0}


def test_positions_in_a_batch_are_those_in_the_part(dataset):
    batch = dataset[["d", "b"]].create_batch(["b"])
    assert batch.positions.tolist() == [1]


def test_a_part_of_a_range_costs_nothing():
    part = Dataset(10**9)[5 : 10**8][10:]
    assert repr(part.index) == "Index(range(15, 100000000))"
    assert len(pickle.dumps(part)) < 500


def test_a_part_does_not_copy_the_data():
    source = Counted()
    part = Dataset(10, preloaded=source)[2:8][[7, 2]]
    assert source.asked == []
    assert part.create_batch([7]).data.tolist() == [7]
    assert source.asked == [[7]]


class Counted:
    def __init__(self):
        self.asked = []

    def __getitem__(self, positions):
        self.asked.append(positions.tolist())
        return positions


def test_a_part_keeps_the_batch_class():
    assert Dataset(3, Other)[1:].batch_class is Other


def test_an_empty_part_is_a_dataset_of_no_batches(dataset):
    assert list(dataset[[]].p.gen_batch(2)) == []


# Without


@pytest.mark.parametrize(
    "ids", [["b", "d"], np.array(["d", "b", "d"]), Dataset(["b", "d"])], ids=repr
)
def test_ids_are_left_out_however_often_they_are_named(dataset, ids):
    assert contents(dataset.without(ids)) == {"a": 0, "c": 20, "e": 40}


def test_nothing_left_out_is_everything(dataset):
    assert contents(dataset.without([])) == contents(dataset)


def test_what_a_run_skipped_is_left_out():
    dataset = Dataset(6, Failing)
    report = dataset.p.fail().run(2, on_error="skip", n_epochs=2)
    assert len(report.skipped) == 2
    assert list(dataset.without(report.skipped)) == [0, 1, 4, 5]
    assert list(dataset.without(report.skipped[0])) == [0, 1, 4, 5]


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        (["z"], "1 of 1 ids are not in the dataset: 'z'"),
        ("a", r"dataset\[\[id\]\]"),
        ([True, False, False, False, False], r"dataset\[~mask\]"),
        (np.array([True] * 5), r"dataset\[~mask\]"),
    ],
    ids=str,
)
def test_what_cannot_be_left_out_is_refused(dataset, ids, problem):
    with pytest.raises(OptionError, match=problem):
        dataset.without(ids)


# Several datasets


@given(IDS, IDS)
def test_datasets_are_combined_by_id_as_sets_are_in_the_order_of_the_left(one, other):
    whole = Dataset(range(21), preloaded={"x": np.arange(21) * 2})
    left, right = whole[one], whole[other]
    cases = {
        "|": (left | right, [*one, *(id_ for id_ in other if id_ not in one)]),
        "&": (left & right, [id_ for id_ in one if id_ in other]),
        "-": (left - right, [id_ for id_ in one if id_ not in other]),
    }
    for made, ids in cases.values():
        assert list(made) == ids
        assert contents(made) == {id_: id_ * 2 for id_ in ids}


def test_what_was_split_is_put_together_again(dataset):
    train, test = dataset.split(0.6)
    assert contents(train | test) == contents(dataset)
    assert list(train & test) == []
    assert contents(dataset - test) == contents(train)


def test_ranges_that_were_split_are_one_range_again():
    train, test = Dataset(10**9).split(0.8, seed=None)
    assert repr((train | test).index) == "Index(1000000000)"


def test_datasets_of_ids_alone_make_one_if_their_batch_class_is_the_same():
    assert list(Dataset(["a", "b"], Other) | Dataset(["b", "c"], Other)) == ["a", "b", "c"]
    with pytest.raises(OptionError, match=r"not the same batch class.*\n.*\n.*fc\.concat"):
        Dataset(["a"]) | Dataset(["b"], Other)


def test_datasets_with_other_data_do_not_make_one(dataset):
    for other in (Dataset(["z"]), Dataset(["z"], preloaded={"x": [1]})):
        with pytest.raises(OptionError, match=r"not the same data.*\n.*\n.*fc\.concat"):
            dataset | other


def test_any_dataset_says_which_ids_to_keep_or_to_leave_out(dataset):
    other = Dataset(["e", "b", "z"], Other)
    assert contents(dataset & other) == {"b": 10, "e": 40}
    assert contents(dataset - other) == {"a": 0, "c": 20, "d": 30}


@pytest.mark.parametrize("operator", ["__or__", "__and__", "__sub__"])
def test_a_dataset_combines_with_datasets_only(dataset, operator):
    assert getattr(dataset, operator)(["a"]) is NotImplemented


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_a_copied_part_has_its_items(dataset, copied):
    part = dataset[["d", "b"]]
    assert contents(copied(part)) == contents(part) == {"d": 30, "b": 10}


def test_a_part_runs_as_a_dataset_does(dataset):
    part = dataset[["e", "c", "a"]]
    seen = [(batch.index.tolist(), batch.x.tolist()) for batch in part.p.gen_batch(2, prefetch=2)]
    assert seen == [(["e", "c"], [40, 20]), (["a"], [0])]
