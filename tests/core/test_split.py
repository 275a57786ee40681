"""Splits: which items go into which part, and that they stay there."""

import subprocess
import sys
from collections import Counter
from datetime import date, datetime

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flowcore import Dataset
from flowcore.errors import OptionError

SHARES = [0.7, 0.2, 0.1]
LABELS = np.array(["cat"] * 60 + ["dog"] * 30 + ["owl"] * 10)
GROUPS = np.arange(100) // 4
WAYS = {
    "shuffled": {},
    "in order": {"seed": None},
    "by labels": {"by": LABELS},
    "by labels in order": {"by": LABELS, "seed": None},
    "by groups": {"groups": GROUPS},
    "by labels and groups": {"by": LABELS, "groups": GROUPS},
    "by hash": {"by": "hash"},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def ids(datasets):
    return [list(dataset) for dataset in datasets]


# Sizes


@every_way
@pytest.mark.parametrize("shares", [0.8, SHARES, [0.5, 0.5], [1 / 3] * 3], ids=str)
def test_every_item_is_in_one_part_and_parts_keep_the_order(way, shares):
    parts = Dataset(100).split(shares, **way)
    assert sorted(id_ for part in parts for id_ in part) == list(range(100))
    assert all(list(part) == sorted(part) for part in parts)


@given(st.integers(1, 300), st.lists(st.integers(1, 20), min_size=1, max_size=6), st.booleans())
def test_a_part_has_its_share_rounded_up_or_down(n, weights, shuffled):
    shares = [weight / sum(weights) for weight in weights]
    assume(all(share * n >= 1 for share in shares))
    parts = Dataset(n).split(shares, seed=0 if shuffled else None)
    assert sum(map(len, parts)) == n
    assert all(abs(len(part) - share * n) < 1 for part, share in zip(parts, shares, strict=True))


def test_a_float_is_a_share_and_what_is_left():
    assert [len(part) for part in Dataset(10).split(0.8)] == [8, 2]


def test_what_is_missing_to_one_is_left_out():
    parts = Dataset(100).split([0.5, 0.2])
    assert [len(part) for part in parts] == [50, 20]


def test_shares_that_sum_to_one_but_for_rounding_leave_nothing_out():
    assert sum(SHARES) != 1
    assert [len(part) for part in Dataset(1000).split(SHARES)] == [700, 200, 100]


def test_without_a_seed_parts_are_pieces_of_the_order():
    assert ids(Dataset(10).split(SHARES, seed=None)) == [[0, 1, 2, 3, 4, 5, 6], [7, 8], [9]]


def test_by_default_parts_are_drawn_at_random_and_again_the_same():
    one, again, other = (Dataset(1000).split(0.5, seed=seed)[0] for seed in (0, 0, 1))
    assert list(one) == list(again) == list(Dataset(1000).split(0.5)[0])
    assert len(one & other) < 350
    assert 150 < sum(id_ < 500 for id_ in one) < 350


def test_a_billion_ids_are_split_in_order_at_no_cost():
    train, test = Dataset(10**9).split(0.8, seed=None)
    assert (len(train), len(test)) == (800_000_000, 200_000_000)
    assert 799_999_999 in train
    assert 800_000_000 in test


# Labels


@given(st.lists(st.sampled_from("abcde"), min_size=20, max_size=120), st.integers(0, 9))
def test_the_items_of_each_label_are_divided_by_the_shares(labels, seed):
    parts = Dataset(len(labels)).split([0.6, 0.4], seed=seed, by=labels)
    for part, share in zip(parts, [0.6, 0.4], strict=True):
        found = Counter(labels[id_] for id_ in part)
        for label, count in Counter(labels).items():
            assert abs(found[label] - share * count) < 1


def test_labels_of_one_item_each_do_not_all_go_into_the_largest_part():
    parts = Dataset(100).split(SHARES, by=[f"label {item}" for item in range(100)])
    assert [len(part) for part in parts] == [70, 20, 10]


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS.tolist(),
        LABELS == "cat",
        [("a", label) for label in LABELS.tolist()],
        np.repeat(np.array(["2026-01-01", "2026-01-02"], "M8[D]"), 50),
        [None] * 50 + [1] * 50,
    ],
    ids=["array", "list", "bools", "tuples", "dates", "None"],
)
def test_labels_may_be_of_any_kind(labels):
    (part,) = Dataset(100).split([0.5], by=labels)
    values = list(labels) if isinstance(labels, list) else labels.tolist()
    found = Counter(values[id_] for id_ in part)
    assert found == {label: count // 2 for label, count in Counter(values).items()}


def test_labels_are_those_of_the_part_that_is_split():
    train, _ = Dataset(100).split(0.5, seed=None)
    one, other = train.split(0.5, by=LABELS[:50])
    assert (len(one), len(other)) == (25, 25)


# Groups


@given(st.lists(st.integers(0, 30), min_size=60, max_size=200), st.booleans())
def test_the_items_of_a_group_go_together(groups, labelled):
    assume(len(set(groups)) >= 8)
    by = [group % 3 for group in groups] if labelled else None
    parts = Dataset(len(groups)).split([0.5, 0.5], groups=groups, by=by)
    found = [{groups[id_] for id_ in part} for part in parts]
    assert not found[0] & found[1]
    assert found[0] | found[1] == set(groups)


def test_parts_of_groups_are_near_their_shares():
    groups = np.random.default_rng(0).integers(0, 50, 1000)
    parts = Dataset(1000).split(SHARES, groups=groups)
    largest = max(Counter(groups.tolist()).values())
    for part, share in zip(parts, SHARES, strict=True):
        assert abs(len(part) - share * 1000) < largest


def test_groups_are_chosen_so_that_labels_are_near_their_shares_too():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 200, 2000)
    labels = (rng.random(2000) < np.where(groups % 2, 0.9, 0.1)).astype(int)
    for part in Dataset(2000).split([0.5, 0.5], groups=groups, by=labels):
        found = np.bincount(labels[list(part)])
        assert np.all(np.abs(found / np.bincount(labels) - 0.5) < 0.02)


def test_a_seed_draws_other_groups():
    one, other = (set(Dataset(100).split(0.5, groups=GROUPS, seed=seed)[0]) for seed in (0, 1))
    assert one != other


# Hash


def test_by_hash_items_that_are_added_move_none_across():
    names = [f"{number}.png" for number in range(2000)]
    before = Dataset(names[::2]).split(SHARES, by="hash")
    after = Dataset(names).split(SHARES, by="hash")
    assert all(set(one) <= set(other) for one, other in zip(before, after, strict=True))
    assert [round(len(part) / 2000, 1) for part in after] == SHARES


def test_by_hash_another_seed_gives_other_parts():
    one, other = (set(Dataset(1000).split(0.5, by="hash", seed=seed)[0]) for seed in (0, 1))
    assert len(one & other) < 350


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (range(200), np.arange(200, dtype="uint8")),
        (range(200), [float(number) for number in range(200)]),
        (
            np.arange("2026-01-01", "2026-07-01", dtype="M8[D]"),
            np.arange("2026-01-01", "2026-07-01", dtype="M8[D]").astype("M8[ns]"),
        ),
        (
            [date(2026, month, 10) for month in range(1, 13)],
            [datetime(2026, month, 10) for month in range(1, 13)],
        ),
        (
            [datetime(2026, 1, 10, hour, 30) for hour in range(24)],
            np.array([f"2026-01-10T{hour:02}:30" for hour in range(24)], "M8[m]"),
        ),
        ([(number, "a") for number in range(200)], [(np.int8(n % 128), "a") for n in range(128)]),
    ],
    ids=["ints", "floats", "days", "dates", "times", "tuples"],
)
def test_by_hash_equal_ids_of_other_types_are_in_the_same_part(one, other):
    first, second = (Dataset(index).split(0.5, by="hash") for index in (one, other))
    for left, right in zip(first, second, strict=True):
        assert {plain(id_) for id_ in right} <= {plain(id_) for id_ in left}


def plain(id_):
    if isinstance(id_, tuple):
        return tuple(map(int, id_[:1]))
    return np.datetime64(id_, "ns") if isinstance(id_, (date, np.datetime64)) else id_


@pytest.mark.parametrize(
    "index",
    [["a", 1, b"a", 1.5, ("a", 1), ("a", ("b",)), np.datetime64("2026-01-01")], range(7)],
    ids=str,
)
def test_by_hash_parts_are_the_same_in_every_process_and_version(index):
    first, _ = Dataset(index).split(0.5, by="hash", seed=3)
    assert list(map(str, first)) == FROZEN[type(index)]


FROZEN = {list: ["b'a'", "('a', ('b',))", "2026-01-01"], range: ["3", "5"]}


def test_by_hash_ids_without_a_value_of_their_own_are_refused():
    with pytest.raises(OptionError, match="an id of type Odd has no hash"):
        Dataset([Odd(), Odd()]).split(0.5, by="hash")


class Odd:
    pass


# Folds


@every_way
def test_every_item_is_tested_in_one_fold_and_trained_on_in_the_others(way):
    folds = Dataset(100).kfold(5, **way)
    assert sorted(id_ for _, test in folds for id_ in test) == list(range(100))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(100))


def test_folds_are_of_one_size_and_have_as_many_of_each_label():
    for _, test in Dataset(100).kfold(5, by=LABELS):
        assert Counter(LABELS[list(test)].tolist()) == {"cat": 12, "dog": 6, "owl": 2}


def test_a_group_is_tested_in_one_fold():
    folds = Dataset(100).kfold(5, groups=GROUPS)
    tested = [group for _, test in folds for group in {int(GROUPS[id_]) for id_ in test}]
    assert sorted(tested) == list(range(25))


def test_there_may_be_as_many_folds_as_items():
    assert [len(test) for _, test in Dataset(7).kfold(7)] == [1] * 7


def test_parts_of_a_dataset_with_data_share_it():
    dataset = Dataset(list("abcd"), preloaded=np.arange(4))
    for part in (*dataset.split(0.5), *dataset.kfold(2)[0]):
        assert part.create_batch(list(part)).data.tolist() == ["abcd".index(id_) for id_ in part]


# Mistakes


@pytest.mark.parametrize(
    "shares",
    [
        0.0,
        1.0,
        1.5,
        -0.1,
        float("nan"),
        1,
        True,
        "0.8",
        None,
        [],
        [0.5, 0.6],
        [0.5, 0],
        [0.5, -0.1],
        [8, 2],
        [0.5, float("nan")],
        [True],
        ["a"],
        [[0.5]],
    ],
    ids=repr,
)
def test_shares_that_cannot_be_right_are_refused(shares):
    with pytest.raises(OptionError, match="the shares of a split"):
        Dataset(10).split(shares)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "0", np.random.default_rng()], ids=type)
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(OptionError, match="seed must be"):
        Dataset(10).split(0.5, seed=seed)


@pytest.mark.parametrize("option", ["by", "groups"])
@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([1, 2], "one value for each of the 4 items, got list of shape"),
        (np.zeros((4, 1)), r"shape \(4, 1\)"),
        ({1, 2, 3, 4}, "got set"),
        (3, "got int"),
        ([1.0, float("nan"), 2.0, 3.0], "1 missing values, the first at position 1"),
        (np.array([1, 2, np.nan, np.nan]), "2 missing values, the first at position 2"),
        (np.array(["NaT"] * 4, "M8[D]"), "4 missing values"),
        ([[1], [2], [3], [4]], "hashable"),
    ],
    ids=repr,
)
def test_labels_and_groups_that_cannot_be_right_are_refused(option, values, problem):
    with pytest.raises(OptionError, match=f"{option} .*{problem}"):
        Dataset(4).split(0.5, **{option: values})


@pytest.mark.parametrize(
    "options",
    [
        {"by": "labels"},
        {"by": "hash", "groups": [1] * 10},
        {"by": "hash", "seed": None},
        {"groups": "abcdefghij"},
    ],
    ids=repr,
)
def test_options_that_do_not_go_together_are_refused(options):
    with pytest.raises(OptionError):
        Dataset(10).split(0.5, **options)


@pytest.mark.parametrize(
    ("dataset", "shares", "options"),
    [
        (Dataset(10), 0.99, {}),
        (Dataset(0), 0.5, {}),
        (Dataset(10), [1 / 3] * 3, {"groups": [0, 1] * 5}),
        (Dataset(1), 0.5, {"by": "hash"}),
    ],
    ids=repr,
)
def test_a_part_that_would_be_empty_is_refused(dataset, shares, options):
    with pytest.raises(OptionError, match="would have none of"):
        dataset.split(shares, **options)


@pytest.mark.parametrize("k", [0, 1, -2, 11, True, 2.0, "2", None], ids=repr)
def test_a_number_of_folds_that_cannot_be_right_is_refused(k):
    with pytest.raises(OptionError, match="k must be an int from 2 to the 10 items"):
        Dataset(10).kfold(k)


def test_more_folds_than_groups_are_refused():
    with pytest.raises(OptionError, match="in their groups"):
        Dataset(10).kfold(3, groups=[0, 1] * 5)


def test_parts_do_not_depend_on_the_hashes_of_strings_of_a_process():
    program = (
        "import flowcore as fc; d = fc.Dataset([f'{n}' for n in range(50)]); "
        "labels = [(str(n % 3),) for n in range(50)]; "
        "print([list(map(str, p)) for p in d.split(0.5, by=labels)])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            check=True,
            timeout=50,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] != b""
