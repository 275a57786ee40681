"""Classes that cannot be imported elsewhere, through cloudpickle: once by value, then by number."""

import dataclasses
import io
import pickle

import cloudpickle
import pytest

from flowcore.executors.by_number import ByNumber, Numbering, forget, remember


class WorkPickler(Numbering, cloudpickle.Pickler):
    def __init__(self, out):
        super().__init__(out, protocol=5)
        self.classes = []


class Pickler(ByNumber, cloudpickle.Pickler):
    def __init__(self, out, key):
        super().__init__(out, protocol=5)
        self.number(key)


def of_work(value):
    """Return a value as a work is pickled, and the classes that went by value."""
    out = io.BytesIO()
    pickler = WorkPickler(out)
    pickler.dump(value)
    return out.getvalue(), pickler.classes


def dumps(value, key):
    out = io.BytesIO()
    Pickler(out, key).dump(value)
    return out.getvalue()


@pytest.fixture
def local():
    """Return a class that no module has, and the key that it is remembered by."""

    class Local:
        text = "of the class" * 100

    remember("key", of_work(Local)[1])
    yield Local
    forget("key")


def test_a_class_that_no_module_has_is_collected_and_one_that_a_module_has_is_not(local):
    _, classes = of_work([local, pytest.Item, local()])
    assert classes == [local]


def test_an_object_of_it_goes_by_number_and_comes_back_as_what_it_is(local):
    packed = dumps(local(), "key")
    assert type(pickle.loads(packed)) is local
    assert b"of the class" not in packed


def test_under_another_key_it_goes_by_value(local):
    assert b"of the class" in dumps(local(), "another")


def test_what_was_forgotten_cannot_be_read(local):
    packed = dumps(local(), "key")
    forget("key")
    with pytest.raises(KeyError):
        pickle.loads(packed)


def test_a_class_is_made_with_its_slots_where_nothing_is_known_of_it():
    @dataclasses.dataclass(slots=True)
    class Slotted:
        first: int

    packed, _ = of_work(Slotted(7))
    tracked = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
    known = dict(tracked)
    tracked.clear()  # as in another process
    try:
        again = pickle.loads(packed)
    finally:
        tracked.update(known)
    assert type(again) is not Slotted
    assert again.first == 7
    assert not hasattr(again, "__dict__")
