"""Outcomes as bytes: what comes back from a worker in another process, whatever is in them."""

import copyreg
import pickle
import threading

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import ActionError, PipelineError
from flowcore.executors.wire import pack, unpack, unsendable
from flowcore.items import Dropped


class Mine(Exception):
    """An exception as users write them: its arguments are not those of its constructor."""

    def __init__(self, code, *, text):
        super().__init__(text)
        self.code = code


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Unreadable(Exception):
    def __reduce__(self):
        return int, ("no int",)


class WithoutText(Exception):
    def __str__(self):
        raise LookupError("no text")


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def sent(error):
    outcome = unpack(pack(fc.Outcome(error=raised(error), step="load")))
    assert outcome.step == "load"
    return outcome.error


def test_a_batch_and_its_items_come_back():
    batch = fc.Batch([3, 4], data=np.arange(2))
    outcome = unpack(pack(fc.Outcome(batch, (np.arange(3),), size=2)))
    assert outcome.batch.index.tolist() == [3, 4]
    assert outcome.batch.data.tolist() == [0, 1]
    assert outcome.items[0].tolist() == [0, 1, 2]
    assert (outcome.size, outcome.error) == (2, None)


def test_buffers_can_be_left_elsewhere():
    buffers = []

    def dumps(value):
        return pickle.dumps(value, protocol=5, buffer_callback=buffers.append)

    packed = pack(fc.Outcome(fc.Batch([0], data=np.arange(9)), size=1), dumps_batch=dumps)
    elsewhere = [np.frombuffer(bytearray(buffer.raw()), np.uint8) for buffer in buffers]
    data = unpack(packed, elsewhere).batch.data
    assert data.tolist() == list(range(9))
    assert any(np.shares_memory(data, buffer) for buffer in elsewhere)


def test_an_error_keeps_its_class_its_arguments_and_its_attributes():
    found = sent(Mine(7, text="in the worker"))
    assert (type(found), str(found), found.code) == (Mine, "in the worker", 7)


def test_an_error_has_the_traceback_in_the_worker_as_a_note():
    (note,) = sent(Mine(7, text="in the worker")).__notes__
    assert "raise error" in note


def test_an_error_that_does_not_pickle_comes_back_as_a_stand_in_of_its_name():
    found = sent(Unpicklable("why"))
    assert type(found).__name__ == "Unpicklable"
    assert isinstance(found, ActionError)
    assert str(found) == "why"
    assert "raise error" in found.__notes__[0]
    assert "stands for it" in found.__notes__[-1]


def test_an_error_whose_own_pickle_cannot_be_read_is_made_again_of_its_parts():
    found = sent(Unreadable("why"))
    assert (type(found), str(found)) == (Unreadable, "why")


class Holding(Exception):
    def __init__(self, held):
        super().__init__("holding")
        self.held = held


class Prefixed(Exception):
    """An exception that is another one if it is made of its arguments."""

    def __init__(self, text):
        super().__init__(f"x{text}")


@pytest.mark.parametrize("held", [float("nan"), np.arange(3), object(), {1, 2}], ids=repr)
def test_an_error_is_what_it_is_whatever_its_attributes_compare_as(held):
    found = sent(Holding(held))
    assert type(found) is Holding
    assert type(found.held) is type(held)


def test_an_error_with_an_argument_whose_text_has_an_address_is_what_it_is():
    found = sent(ValueError("bad", object()))
    assert type(found) is ValueError
    assert found.args[0] == "bad"


def test_an_error_that_changes_its_arguments_comes_back_with_those_that_it_has():
    assert str(sent(Prefixed("a"))) == "xa"


def test_an_error_of_the_system_keeps_what_it_knows():
    found = sent(FileNotFoundError(2, "No such file", "a.txt"))
    assert (type(found), found.errno, found.filename) == (FileNotFoundError, 2, "a.txt")
    text = sent(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"))
    assert (text.start, text.reason) == (0, "invalid")


def test_an_error_of_the_system_is_what_it_is_though_a_library_pickles_it_otherwise(monkeypatch):
    def bare(error):
        return UnicodeDecodeError.__new__, (UnicodeDecodeError,)

    monkeypatch.setitem(copyreg.dispatch_table, UnicodeDecodeError, bare)
    found = sent(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"))
    assert (found.start, found.reason) == (0, "invalid")


def test_an_error_keeps_what_it_was_raised_from():
    try:
        raise ValueError("bad") from Mine(7, text="first")
    except ValueError as error:
        found = unpack(pack(fc.Outcome(error=error, step="load"))).error
    assert type(found.__cause__) is Mine
    assert found.__cause__.code == 7


def test_an_error_that_is_raised_again_and_again_has_one_traceback_as_a_note():
    error = LookupError("the same object")
    error.add_note("a note of the user's")
    for _ in range(5):
        found = sent(error)
    assert len(found.__notes__) == 2
    assert found.__notes__[0] == "a note of the user's"


def test_an_error_without_a_text_comes_back_too():
    assert type(sent(WithoutText())) is WithoutText


def test_an_error_that_only_the_worker_can_read_comes_back_as_a_stand_in(monkeypatch):
    packed = pack(fc.Outcome(error=raised(Mine(7, text="why")), step="load"))
    monkeypatch.delattr(f"{__name__}.Mine")
    found = unpack(packed).error
    assert (type(found).__name__, str(found)) == ("Mine", "why")


def test_a_batch_that_does_not_pickle_is_an_error_that_says_where():
    batch = fc.Batch([0])
    batch.client = {"lock": threading.Lock()}
    outcome = unpack(pack(fc.Outcome(batch, size=1)))
    assert isinstance(outcome.error, ActionError)
    assert "batch.client['lock']" in str(outcome.error)
    assert outcome.step == "sending the batch back"


def test_dropped_items_come_back_with_their_errors():
    item = Dropped("a", 3, "load", raised(Mine(7, text="why")))
    (dropped,) = unpack(pack(fc.Outcome(fc.Batch([0]), size=1, dropped=(item,)))).dropped
    assert (dropped.id, dropped.position, dropped.action, dropped.error.code) == ("a", 3, "load", 7)


class Holder:
    __slots__ = ("inside",)

    def __init__(self, inside):
        self.inside = inside


class Work:
    """A work of named parts."""

    def __init__(self, **parts):
        self._parts = parts

    def parts(self):
        yield from self._parts.items()


def closing_over(value):
    return lambda: value


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("value", "way"),
    [
        (LOCK, "part, which is"),
        ([1, {"a": LOCK}], "part[1]['a'], which is"),
        (Holder({"b": LOCK}), "part.inside['b'], which is"),
        (closing_over(LOCK), "part, its variable value, which is"),
        (lambda: LOCK, "part, the global LOCK, which is"),
    ],
    ids=["itself", "containers", "slots", "closure", "global"],
)
def test_the_error_of_a_work_names_the_innermost_thing_that_does_not_pickle(value, way):
    dumps = pytest.importorskip("cloudpickle").dumps if callable(value) else pickle.dumps
    error = unsendable(Work(good=1, part=value), TypeError("cannot pickle"), dumps)
    assert isinstance(error, PipelineError)
    assert way in str(error)
