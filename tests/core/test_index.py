"""The index: what it may be made of, and the way between ids and positions."""

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
)


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
    ],
    ids=repr,
)
def test_what_has_no_fixed_order_or_length_is_refused(made_of):
    with pytest.raises(OptionError):
        Index(made_of)


def test_repeated_ids_are_refused_with_their_positions():
    with pytest.raises(OptionError, match=r"'a' at positions \[0, 2\]"):
        Index(["a", "b", "a"])


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


def test_positions_are_int64():
    assert Index(["a", "b"]).positions(np.array(["b"])).dtype == np.int64
    assert Index(4).positions([]).dtype == np.int64


def test_a_billion_ids_cost_nothing():
    index = Index(10**9)
    assert index.ids(np.array([10**9 - 1])).tolist() == [10**9 - 1]
    assert index.positions([10**9 - 1]).tolist() == [10**9 - 1]
    assert 10**9 not in index


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
