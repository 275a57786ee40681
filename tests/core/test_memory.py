"""Memory for arrays: whose it is, when it is used again, and who may write to it."""

import os
import pickle
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import flowcore as fc
from flowcore.memory import Lease, Recycler, frozen

BIG = 64 * 1024  # float64 values: half a megabyte
FLOATS = np.dtype(np.float64)

VIEWS = {
    "a slice": lambda array: array[:1],
    "the transposed": lambda array: array.T,
    "a slice of another shape": lambda array: array.reshape(-1)[3:4],
    "another dtype": lambda array: array.view(np.uint8)[0],
    "a view of views": lambda array: array[...][...][...],
}
LOOKS = {
    "a view": lambda array: array[5:6],
    "a memoryview": memoryview,
    "a subclass": lambda array: array.view(np.matrix),
    "strides": lambda array: np.lib.stride_tricks.as_strided(array, (1,), (8,)),
}


def address(array):
    return array.ctypes.data


@pytest.fixture
def batch():
    return fc.Batch([0])


def is_frozen_for_good(array):
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 0
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        array.flags.writeable = True
    return True


class TestFrozen:
    @pytest.mark.parametrize("size", [0, 1, 100, BIG])
    def test_an_array_of_empty_is_taken_as_it_is_and_is_read_only_for_all(self, batch, size):
        array = batch.empty(size)
        array[...] = 3
        assert batch.frozen(array) is array
        assert size == 0 or is_frozen_for_good(array)

    def test_a_later_view_of_it_is_read_only_too(self, batch):
        array = batch.frozen(batch.empty((4, 16)))
        assert is_frozen_for_good(array[1:])

    def test_it_is_taken_again_by_another_sink_and_so_is_an_aligned_view_of_it(self, batch):
        array = batch.frozen(batch.empty((4, 16)))
        assert batch.frozen(array) is array
        view = array[1:]
        assert batch.frozen(view) is view

    @pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
    def test_another_view_of_its_memory_forces_a_copy_and_stays_writeable(self, batch, view):
        array = batch.empty((4, 16))
        array[...] = 3
        other = view(array)
        taken = batch.frozen(array)
        assert not np.shares_memory(taken, array)
        other[...] = 4
        assert (taken == 3).all()
        assert is_frozen_for_good(taken)

    def test_a_view_that_is_the_last_one_is_taken(self, batch):
        view = batch.empty((4, 16))[1:]
        assert batch.frozen(view) is view

    def test_any_other_array_is_copied_once_and_stays_writeable(self, batch):
        for array in (np.ones((4, 16)), np.ones((16, 4)).T, np.ones(8)[::2], np.ones(64)):
            taken = batch.frozen(array)
            assert not np.shares_memory(taken, array)
            assert address(taken) % 64 == 0
            assert taken.flags.c_contiguous
            assert np.array_equal(taken, array)
            assert is_frozen_for_good(taken)
            array[...] = 2

    def test_a_temporary_whose_memory_is_numpys_is_copied(self, batch):
        array = np.ones(BIG).reshape(4, -1)  # nobody else looks at it, but it is the user's
        assert batch.frozen(array) is not array
        assert array.flags.writeable

    def test_another_dtype_is_a_copy(self, batch):
        array = batch.empty(4)
        array[...] = 3
        taken = batch.frozen(array, np.float32)
        assert taken.dtype == np.float32
        assert taken.tolist() == [3] * 4
        array[...] = 4

    def test_a_cast_of_another_kind_is_refused(self, batch):
        with pytest.raises(TypeError, match="same_kind"):
            batch.frozen(np.ones(3), int)

    def test_an_array_that_is_read_only_down_to_its_owner_is_taken(self, batch):
        owner = batch.empty(64).base.base._owner  # NumPy's own memory: all of it, not aligned
        owner = np.ones(owner.nbytes, np.uint8)
        start = -address(owner) % 64
        view = owner[start : start + 64]
        view.flags.writeable = False
        assert batch.frozen(view) is not view  # the owner can still be written to
        owner.flags.writeable = False
        assert batch.frozen(view) is view

    def test_an_array_over_bytes_is_taken_if_it_is_aligned(self, batch):
        whole = np.frombuffer(bytes(256), np.uint8)
        aligned = whole[-address(whole) % 64 :]
        assert batch.frozen(aligned) is aligned

    def test_a_read_only_view_of_writeable_memory_is_copied(self, batch):
        for owner in (bytearray(256), memoryview(bytearray(256)).toreadonly()):
            array = np.frombuffer(owner, np.uint8)[-address(np.frombuffer(owner, np.uint8)) % 64 :]
            array.flags.writeable = False
            assert not np.shares_memory(batch.frozen(array), array)

    def test_a_subclass_is_copied_to_an_array(self, batch):
        assert type(batch.frozen(np.ones((2, 2)).view(np.matrix))) is np.ndarray

    def test_objects_are_copied_and_read_only(self, batch):
        array = np.array([{}, "a"], object)
        taken = batch.frozen(array)
        assert taken is not array
        assert taken.tolist() == [{}, "a"]
        assert not taken.flags.writeable

    def test_what_is_no_array_is_made_one(self, batch):
        assert batch.frozen([1.0, 2.0]).tolist() == [1.0, 2.0]

    def test_memory_that_is_not_ours_is_only_made_read_only(self):
        taken = frozen(np.ones(3), FLOATS, np.empty)
        assert taken.tolist() == [1] * 3
        assert not taken.flags.writeable

    def test_a_frozen_array_is_read_only_after_pickling_out_of_band(self, batch):
        array = batch.frozen(batch.empty(BIG))
        buffers = []
        packed = pickle.dumps(array, protocol=5, buffer_callback=buffers.append)
        copies = [bytearray(buffer.raw()) for buffer in buffers]
        again = pickle.loads(packed, buffers=[memoryview(c).toreadonly() for c in copies])
        assert is_frozen_for_good(again)


def test_a_lease_ends_with_the_last_view_of_its_memory():
    ended = threading.Event()
    array = Lease.of(np.zeros(64, np.uint8), ended.set)
    view = array.view(float)[2:]
    del array
    assert not ended.is_set()
    del view
    assert ended.is_set()


class TestRecycler:
    def test_the_memory_of_an_array_that_is_gone_is_used_again(self):
        recycler = Recycler()
        array = recycler.allocate((BIG,), FLOATS)
        first = address(array)
        del array
        assert address(recycler.allocate((BIG // 2, 2), FLOATS)) == first

    @pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
    def test_it_is_not_used_again_while_anything_looks_at_it(self, look):
        recycler = Recycler()
        array = recycler.allocate((BIG,), FLOATS)
        first, looking = address(array), look(array)
        del array
        other = recycler.allocate((BIG,), FLOATS)
        assert address(other) != first
        del looking
        assert address(recycler.allocate((BIG,), FLOATS)) == first

    def test_a_recycled_array_can_be_frozen_and_its_successor_is_writeable(self):
        recycler = Recycler()
        for number in range(3):
            array = recycler.allocate((BIG,), FLOATS)
            array[...] = number
            assert frozen(array, FLOATS, recycler.allocate) is array
            del array

    def test_a_shorter_array_uses_it_if_it_is_not_much_shorter(self):
        recycler = Recycler()
        array = recycler.allocate((BIG,), FLOATS)
        first = address(array)
        del array
        assert address(recycler.allocate((BIG - BIG // 8,), FLOATS)) == first
        assert address(recycler.allocate((BIG // 2,), FLOATS)) != first

    def test_what_is_free_after_the_end_is_let_go(self):
        recycler = Recycler()
        array, kept = (recycler.allocate((BIG,), FLOATS) for _ in range(2))
        owners = [weakref.ref(one.base.base._owner) for one in (array, kept)]
        del array
        recycler.close()
        assert owners[0]() is None
        del kept  # after the end
        assert owners[1]() is None

    def test_after_the_end_it_goes_on_with_new_memory(self):
        recycler = Recycler()
        recycler.close()
        array = recycler.allocate((BIG,), FLOATS)
        array[...] = 1
        owner = weakref.ref(array.base.base._owner)
        del array
        assert owner() is None

    def test_pickled_it_has_no_memory(self):
        again = pickle.loads(pickle.dumps(Recycler()))
        assert again.allocate((3,), FLOATS).shape == (3,)

    def test_who_comes_while_another_is_in_has_new_memory_and_does_not_wait(self):
        recycler = Recycler()
        with recycler._lock:  # as a fork in the middle of a call would find it
            array = recycler.allocate((BIG,), FLOATS)
            recycler.close()
        assert array.shape == (BIG,)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
    def test_a_fork_does_not_see_what_is_written_here_nor_the_other_way(self):
        recycler = Recycler()
        array = recycler.allocate((BIG,), FLOATS)
        array[...] = 1
        pid = os.fork()
        if not pid:
            array[...] = 2
            os._exit(0)
        os.waitpid(pid, 0)
        assert (array == 1).all()

    def test_threads_that_share_one_never_see_each_others_values(self):
        recycler, start, wrong = Recycler(), threading.Barrier(4, timeout=30), []

        def work(own):
            start.wait()
            for number in range(200):
                array = recycler.allocate((BIG // 4 + own * 100,), FLOATS)
                array[...] = own + number
                kept = array[::7]
                del array
                if not (kept == own + number).all():
                    wrong.append((own, number))

        threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


class Lives(RuleBasedStateMachine):
    """Arrays and views live and die at random: none ever has a value that was not put into it."""

    def __init__(self):
        super().__init__()
        self.recycler, self.alive, self.number = Recycler(), [], 0

    @rule(length=st.integers(BIG // 4, BIG // 2), freezes=st.booleans())
    def allocate(self, length, freezes):
        array = self.recycler.allocate((length,), FLOATS)
        self.number += 1
        array[...] = self.number
        if freezes:
            array = frozen(array, FLOATS, self.recycler.allocate)
        self.alive.append((array, self.number))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def look(self, data):
        array, number = data.draw(st.sampled_from(self.alive))
        self.alive.append((array[:: data.draw(st.integers(1, 9))], number))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def die(self, data):
        del self.alive[data.draw(st.integers(0, len(self.alive) - 1))]

    @rule()
    def close(self):
        self.recycler.close()
        self.recycler = Recycler()

    @invariant()
    def every_array_has_its_own_values(self):
        assert all((array == number).all() for array, number in self.alive)

    @invariant()
    def what_is_free_and_in_use_is_never_more_than_was_in_use_at_once(self):
        free = sum(map(len, self.recycler._free))
        assert self.recycler._used + free <= max(self.recycler._most, self.recycler._used)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@given(
    lengths=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    dtype=st.sampled_from(["f4", "i1", "U3", "S5", "O", "M8[s]", "c16", [("a", "f4")]]),
)
def test_what_is_frozen_has_the_values_that_were_given(lengths, dtype):
    array = np.zeros(lengths, dtype)
    taken = fc.Batch([0]).frozen(array)
    assert (taken.shape, taken.dtype) == (array.shape, array.dtype)
    assert taken.tolist() == array.tolist()
