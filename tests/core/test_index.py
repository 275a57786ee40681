"""The index: what it may be made of, and the way between ids and positions."""

import copy
import pickle
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowcore import Index
from flowcore.errors import OptionError

IDS = st.one_of(
    st.lists(st.integers(), unique=True),
    st.lists(st.text(st.characters(exclude_characters="\0")), unique=True),
    st.lists(st.one_of(st.text(), st.integers(), st.tuples(st.integers())), unique=True),
    st.lists(st.dates(), unique=True),
)
DAYS = np.array(["2026-01-03", "2026-01-01"], "M8[D]")


@pytest.mark.parametrize(
    ("made_of", "ids"),
    [
        (3, [0, 1, 2]),
        (np.int64(2), [0, 1]),
        (0, []),
        (range(10, 4, -2), [10, 8, 6]),
        (["b", "a"], ["b", "a"]),
        ((7, 3), [7, 3]),
        (np.array([5, 4], dtype=np.uint8), [5, 4]),
        ([("a", 1), ("a", 2)], [("a", 1), ("a", 2)]),
        ([1, "1"], [1, "1"]),
        (Index(["x"]), ["x"]),
        (list(np.array([5, 4])), [5, 4]),
        (["a", "a\0"], ["a", "a\0"]),
        (DAYS, DAYS.tolist()),
        (list(DAYS), DAYS.tolist()),
    ],
    ids=repr,
)
def test_an_index_is_made_of_a_number_or_of_ids(made_of, ids):
    index = Index(made_of)
    assert list(index) == ids
    assert len(index) == len(ids)


@pytest.mark.parametrize(
    "made_of",
    [
        -1,
        True,
        "abc",
        b"abc",
        {1, 2},
        frozenset({1}),
        {1: 2},
        np.zeros((2, 2)),
        iter([1]),
        2.5,
        None,
        2**70,
        range(2**63, 2**63 + 2),
    ],
    ids=repr,
)
def test_what_has_no_fixed_order_or_length_is_refused(made_of):
    with pytest.raises(OptionError):
        Index(made_of)


def test_repeated_ids_are_refused_with_their_positions():
    with pytest.raises(OptionError, match=r"'a' at positions \[0, 2\]"):
        Index(["a", "b", "a"])


@pytest.mark.parametrize(
    "ids",
    [
        np.array([3, 1, 3]),
        np.array([0.0, -0.0]),
        np.array(["b", "b"]),
        [("a", 1), ("a", 1)],
        [1, 1.0],
    ],
    ids=repr,
)
def test_repeated_ids_of_every_kind_are_refused(ids):
    with pytest.raises(OptionError, match="must be unique"):
        Index(ids)


@pytest.mark.parametrize(
    "ids",
    [
        [1.5, float("nan")],
        np.array([1.0, np.nan]),
        np.array(["2026-01-01", "NaT"], "M8[D]"),
        ["a", np.datetime64("NaT")],
    ],
    ids=repr,
)
def test_a_missing_id_is_refused_with_its_position(ids):
    with pytest.raises(OptionError, match=r"an id cannot be (nan|NaT).* at position 1"):
        Index(ids)


@pytest.mark.parametrize("ids", [np.array([True, False]), [False, True], ["a", True]], ids=repr)
def test_bools_are_no_ids_as_they_were_meant_for_a_mask(ids):
    with pytest.raises(OptionError, match=r"dataset\[mask\]"):
        Index(ids)


@pytest.mark.parametrize("ids", [[[1], [2]], [{}, "a"], [np.arange(2), np.arange(2)]], ids=repr)
def test_ids_that_are_not_hashable_are_refused(ids):
    with pytest.raises(OptionError, match="must be hashable"):
        Index(ids)


@given(IDS)
@example([2**63 + 1, 0])  # no signed integer dtype holds both
def test_positions_are_the_inverse_of_ids(ids):
    index = Index(ids)
    positions = np.arange(len(ids))
    assert index.ids(positions).tolist() == ids
    assert index.positions(ids).tolist() == positions.tolist()


@given(st.integers(-99, 99), st.integers(1, 9), st.integers(0, 50), st.data())
def test_positions_are_the_inverse_of_ids_in_a_range(start, step, length, data):
    index = Index(range(start, start + step * length, step))
    positions = np.array(data.draw(st.permutations(range(length))), dtype=np.int64)
    assert index.positions(index.ids(positions)).tolist() == positions.tolist()


@pytest.mark.parametrize("index", [Index(3), Index(range(0, 9, 3)), Index(["a", "b"])], ids=repr)
def test_an_id_that_is_not_there_is_named(index):
    first = next(iter(index))
    with pytest.raises(KeyError) as raised:
        index.positions([first, "missing"])
    assert raised.value.args == ("missing",)
    assert first in index
    assert "missing" not in index


@pytest.mark.parametrize(
    "id_",
    [
        date(2026, 1, 1),
        datetime(2026, 1, 1),
        np.datetime64("2026-01-01", "ns"),
        np.datetime64("2026-01", "M"),
    ],
    ids=repr,
)
def test_a_date_is_found_by_any_object_that_is_the_same_moment(id_):
    assert Index(DAYS).positions([id_]).tolist() == [1]


@pytest.mark.parametrize(
    "id_",
    [
        np.datetime64("2026-01-01T01"),
        datetime(2026, 1, 1, 1),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(0))),
        np.datetime64("NaT"),
        timedelta(0),
        "2026-01-01",
        20454,
    ],
    ids=repr,
)
def test_a_date_is_not_found_by_another_moment_nor_by_what_is_no_date(id_):
    assert id_ not in Index(DAYS)


def test_what_is_not_hashable_is_in_no_index():
    assert [1] not in Index([1, 2])
    assert [1] not in Index(3)


@given(IDS, st.data())
def test_ids_are_found_or_marked_as_missing(ids, data):
    index = Index(ids)
    wanted = data.draw(st.lists(st.one_of(st.sampled_from(ids), st.text()) if ids else st.text()))
    expected = [ids.index(id_) if id_ in ids else -1 for id_ in wanted]
    assert index.find(wanted).tolist() == expected


@pytest.mark.parametrize("wanted", [np.array([9, 7, -1, 20, 6]), [9, 7, -1, 20, 6]], ids=repr)
def test_ints_in_an_array_are_found_in_a_range_as_those_in_a_list(wanted):
    assert Index(range(9, 0, -3)).find(wanted).tolist() == [0, -1, -1, -1, 1]


def test_large_unsigned_ints_are_not_found_in_a_range():
    assert np.uint64(2**63 + 1) not in Index(10)
    assert Index(10).find(np.array([2**63 + 1, 3], np.uint64)).tolist() == [-1, 3]


def test_positions_are_int64():
    assert Index(["a", "b"]).positions(np.array(["b"])).dtype == np.int64
    assert Index(4).positions([]).dtype == np.int64


def test_a_billion_ids_cost_nothing():
    index = Index(10**9)
    assert index.ids(np.array([10**9 - 1])).tolist() == [10**9 - 1]
    assert index.positions([10**9 - 1]).tolist() == [10**9 - 1]
    assert 10**9 not in index


@given(
    st.integers(-50, 50),
    st.integers(1, 5) | st.integers(-5, -1),
    st.integers(0, 40),
    st.slices(40),
)
def test_a_slice_of_a_range_is_the_range_of_its_ids(start, step, length, chosen):
    ids = range(start, start + step * length, step)
    part = Index(ids).subset(range(length)[chosen])
    assert list(part) == list(ids[chosen])
    assert part == Index(ids[chosen])
    assert len(pickle.dumps(part)) < 200


def test_positions_that_count_up_make_a_range_of_a_range():
    assert repr(Index(10**9).subset(np.arange(5, 9))) == "Index(range(5, 9))"


def test_a_subset_has_its_ids_in_the_order_that_is_asked_for():
    index = Index(["a", "b", "c"]).subset(np.array([2, 0]))
    assert list(index) == ["c", "a"]
    assert index.positions(["a"]).tolist() == [1]
    assert "b" not in index


def test_a_subset_does_not_change_with_the_array_that_it_was_made_of():
    positions = np.array([3, 1])
    index = Index(5).subset(positions)
    positions[0] = 0
    assert list(index) == [3, 1]


def test_a_subset_of_repeated_positions_is_refused():
    with pytest.raises(OptionError, match="'b' at positions"):
        Index(["a", "b"]).subset(np.array([1, 0, 1]))


@given(IDS, IDS)
def test_a_union_has_the_ids_of_both_once_the_first_index_before_the_second(one, other):
    union = Index(one).union(Index(other))
    expected = list(dict.fromkeys([*one, *other]))
    assert list(union) == expected
    assert union.positions(expected).tolist() == list(range(len(expected)))


def test_a_union_of_ranges_that_meet_is_a_range():
    assert repr(Index(range(5)).union(Index(range(5, 10**9)))) == "Index(1000000000)"


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
@pytest.mark.parametrize("index", [Index(10**9), Index(["a", "b"]), Index(DAYS)], ids=repr)
def test_a_copied_index_is_equal_and_finds_its_ids(copied, index):
    last = index.ids(np.array([len(index) - 1]))
    assert last[0] in index
    assert copied(index) == index
    assert copied(index).positions(last).tolist() == [len(index) - 1]


def test_a_foreign_id_is_not_compared_with_every_id_of_a_range():
    class Foreign:
        compared = 0

        def __eq__(self, other):
            Foreign.compared += 1
            return False

        __hash__ = None

    assert Foreign() not in Index(1000)
    assert Foreign.compared < 10


def test_a_numpy_int_is_found_in_a_range_as_fast_as_an_int():
    class Counted(np.int64):
        compared = 0

        def __eq__(self, other):
            Counted.compared += 1
            return super().__eq__(other)

        __hash__ = np.int64.__hash__

    assert Index(1000).positions([Counted(999)]).tolist() == [999]
    assert Counted.compared < 10


def test_an_index_does_not_change_with_the_array_that_it_was_made_of():
    ids = np.array([1, 2, 3])
    index = Index(ids)
    ids[0] = 99
    assert list(index) == [1, 2, 3]


def test_indexes_are_equal_if_their_ids_are_in_the_same_order():
    assert Index(3) == Index([0, 1, 2]) == Index(range(3))
    assert Index(3) != Index([0, 2, 1])
    assert Index(3) != Index(4)
    assert Index(2) != [0, 1]


def test_a_repr_shows_the_first_ids():
    assert repr(Index(5)) == "Index(5)"
    assert repr(Index(range(1, 3))) == "Index(range(1, 3))"
    assert repr(Index(list("abcd"))) == "Index(['a', 'b', 'c', ...], 4 ids)"
