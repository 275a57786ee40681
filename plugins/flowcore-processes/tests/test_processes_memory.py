"""How arrays come back: in slots of shared memory, as views, without a copy where that can be."""

import gc
import logging
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import flowcore as fc
from flowcore_processes import ProcessesExecutor

pytestmark = pytest.mark.usefixtures("no_leaks")

BIG = 100_000  # float64 values of one batch: what is smaller travels in the message


class Big(fc.Batch):
    @fc.action
    def fresh(self):
        self.data = np.full(BIG, self.number, float)
        return self

    @fc.action
    def in_place(self):
        self.data = self.empty(BIG)
        self.data[...] = self.number
        return self

    @fc.action
    def strided(self):
        self.data = np.arange(2.0 * BIG).reshape(BIG, 2)[::2, ::-1] + self.number
        self.data = self.data[:, ::-1]
        return self

    @fc.action
    def fortran(self):
        self.data = np.asfortranarray(np.arange(1.0 * BIG).reshape(100, -1) + self.number)
        return self

    @fc.action
    def twice(self):
        self.data = np.full(BIG, self.number, float)
        self.again = self.data
        return self

    @fc.action
    def objects(self):
        self.data = np.array([{"a": self.number}, np.full(BIG, self.number)], dtype=object)
        return self

    @fc.action
    def add_steps(self, times):
        for _ in range(times):
            out = self.empty(BIG)
            np.add(self.data, 1, out=out)
            self.data = out
        return self

    @fc.action
    def keep(self):
        kept.append(self.data)
        return self


kept = []


def pipeline(batches=12):
    return fc.Dataset(batches, Big).p


def run(pipe, **options):
    return pipe.gen_batch(
        1, **{"executor": "processes", "num_workers": 2, "prefetch": 2, **options}
    )


def shared(array, name="flowcore-batches"):
    """Return whether an array is in the memory that is shared with the workers."""
    address = array.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(bound, 16) for bound in line.split()[0].split("-"))
        if name in line and first <= address < last:
            return True
    return False


@pytest.mark.parametrize("action", ["fresh", "in_place", "twice"])
def test_an_array_is_a_view_of_shared_memory(action):
    for batch in run(getattr(pipeline(), action)()):
        assert shared(batch.data)
        assert (batch.data == batch.number).all()
        assert batch.data.flags.writeable
        assert batch.data.ctypes.data % 64 == 0


def test_one_array_in_two_places_comes_back_as_one():
    for batch in run(pipeline().twice()):
        assert batch.again is batch.data


@pytest.mark.parametrize("action", ["strided", "fortran"])
def test_an_array_in_another_order_has_the_same_values_and_is_shared(action):
    expected = list(getattr(pipeline(), action)().gen_batch(1))
    for batch, other in zip(run(getattr(pipeline(), action)()), expected, strict=True):
        np.testing.assert_array_equal(batch.data, other.data)
        assert shared(batch.data)


def test_arrays_inside_of_objects_are_shared_too():
    for batch in run(pipeline().objects()):
        assert batch.data[0] == {"a": batch.number}
        assert shared(batch.data[1])


def test_a_small_array_is_no_view():
    for batch in run(fc.Dataset(4, preloaded=np.arange(4)).p):
        assert not shared(batch.data)


def test_arrays_of_one_task_use_what_those_before_them_left():
    # Twenty arrays of 0.8 MB, of which two are needed at a time.
    executor = ProcessesExecutor(1)
    with executor:
        batches = run(pipeline(3).fresh().add_steps(20), executor=executor)
        for batch in batches:
            assert (batch.data == batch.number + 20).all()
            size = 3 * batch.data.nbytes
            lines = Path("/proc/self/maps").read_text().splitlines()
            mapped = [line.split()[0].split("-") for line in lines if "flowcore-batches" in line]
            assert max(int(last, 16) - int(first, 16) for first, last in mapped) <= size
            del batch
        batches.close()


def test_a_slot_is_used_again_when_the_last_view_is_gone():
    addresses = set()
    for batch in run(pipeline(60).fresh()):
        addresses.add(batch.data.ctypes.data)
        del batch
    assert len(addresses) < 30


def test_batches_that_are_kept_do_not_stop_the_run_and_are_not_overwritten(caplog):
    with caplog.at_level(logging.WARNING, "flowcore"):
        batches = list(run(pipeline(40).fresh(), slots=4))
    assert all((batch.data == batch.number).all() for batch in batches)
    assert sum(shared(batch.data) for batch in batches) == 4
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "somebody keeps" in messages[0]


def test_a_batch_can_be_kept_after_the_run():
    batches = run(pipeline().in_place())
    batch = next(batches)
    batches.close()
    del batches
    gc.collect()
    assert (batch.data == 0).all()
    batch.data += 1
    assert (batch.data == 1).all()


def test_an_array_that_an_action_keeps_does_not_change_a_batch(caplog):
    pipe = pipeline(20).in_place().keep()
    with caplog.at_level(logging.WARNING, "flowcore"):
        batches = list(run(pipe))
    assert all((batch.data == batch.number).all() for batch in batches)
    assert "an action keeps an array of batch.empty" in caplog.text


def test_without_slots_all_is_copied_and_right():
    batches = list(run(pipeline().in_place(), slots=0))
    assert all((batch.data == batch.number).all() for batch in batches)
    assert not any(shared(batch.data) for batch in batches)


def test_the_number_of_descriptors_does_not_grow_with_the_batches():
    counts = []
    for batch in run(pipeline(80).fresh()):
        counts.append(len(os.listdir("/proc/self/fd")))
        del batch
    assert max(counts[40:]) <= max(counts[:40])


def test_a_batch_that_nobody_takes_is_not_sent(monkeypatch):
    seen = []
    unpack = fc.executors.wire.unpack
    monkeypatch.setattr(
        "flowcore_processes._lane.unpack",
        lambda packed, buffers: seen.append((len(packed), len(buffers))) or unpack(packed, buffers),
    )
    report = pipeline().fresh().run(1, executor="processes", num_workers=2, prefetch=2)
    assert report.batches == report.items == 12
    assert len(seen) == 12
    assert all(length < 1000 and not buffers for length, buffers in seen)


class TestAFolder:
    def test_the_memory_may_be_a_file_in_a_folder_and_nothing_of_it_is_left(self, tmp_path):
        batches = list(run(pipeline().in_place(), shared_memory=tmp_path))
        assert all((batch.data == batch.number).all() for batch in batches)
        assert not list(tmp_path.iterdir())

    def test_a_file_system_that_is_full_costs_a_copy_and_a_warning_with_the_numbers(
        self, small_folder, caplog
    ):
        with caplog.at_level(logging.WARNING, "flowcore"):
            batches = list(run(pipeline(30).fresh(), shared_memory=small_folder))
        assert all((batch.data == batch.number).all() for batch in batches)
        assert 0 < sum(shared(batch.data, str(small_folder)) for batch in batches) <= 5
        assert "bytes of shared memory" in caplog.text


@pytest.fixture
def small_folder(tmp_path):
    """Return a folder with room for 4 MB, which is five batches."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "flowcore-test", tmp_path],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("it takes the right to mount a file system")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)
