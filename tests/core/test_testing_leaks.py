"""What a test leaves behind is an error that names it: threads, processes, memory, descriptors."""

import mmap
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import pytest

import flowcore as fc
from flowcore.testing import leaves_nothing
from flowcore.testing.meeting import until

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the system does not show it")

WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def later():
    """Ends, after the test, what it has left on purpose."""
    with ExitStack() as stack:
        yield stack


def waiting_thread(name, later):
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name=name, daemon=True)
    later.callback(thread.join, 10)
    later.callback(end.set)
    thread.start()


def waiting_process(later):
    process = subprocess.Popen(WAITS, stdin=subprocess.PIPE)
    later.callback(process.communicate)
    return process


def complaint(leak):
    """Return what `leaves_nothing` says of a leak."""
    with pytest.raises(AssertionError) as raised, leaves_nothing():
        leak()
    assert "left 1 s after the end:" in str(raised.value)
    assert "next:" in str(raised.value)
    return str(raised.value)


def test_what_leaves_nothing_passes():
    with leaves_nothing(), open(os.devnull) as file:
        assert file.read() == ""
        subprocess.run([sys.executable, "-c", ""], check=True)


def test_a_thread_of_flowcore_is_named(later):
    said = complaint(lambda: waiting_thread("flowcore-stray", later))
    assert "thread flowcore-stray" in said


def test_a_thread_of_somebody_else_is_not_flowcores(later):
    with leaves_nothing():
        waiting_thread("mine", later)


def test_a_process_is_named_with_its_command_line(later):
    process = waiting_process(later)
    said = complaint(lambda: waiting_process(later))
    assert "import sys; sys.stdin.read()" in said
    assert f"process {process.pid} " not in said


def test_a_process_of_a_process_is_named(later):
    program = f"import subprocess; subprocess.run({WAITS!r})"

    def leak():
        parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
        later.callback(parent.communicate)

    assert complaint(leak).count("sys.stdin.read()") == 2


def test_a_process_that_has_ended_and_was_not_waited_for_is_named(later):
    def leak():
        process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
        later.callback(process.communicate)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert "which has ended and was not waited for" in complaint(leak)


@on_linux
def test_shared_memory_with_a_name_is_shown_by_its_path(later):
    def leak():
        segment = shared_memory.SharedMemory(create=True, size=100, name=f"flowcore-{os.getpid()}")
        segment.close()
        later.callback(segment.unlink)

    assert f"shared memory /dev/shm/flowcore-{os.getpid()}" in complaint(leak)


@on_linux
def test_memory_without_a_name_is_shown_while_it_is_open(later):
    def leak():
        later.callback(os.close, os.memfd_create("flowcore-slot"))

    assert "shared memory /memfd:flowcore-slot (deleted)" in complaint(leak)


@on_linux
def test_memory_without_a_name_is_shown_while_it_is_mapped(later):
    def leak():
        number = os.memfd_create("flowcore-slot")
        os.ftruncate(number, 4096)
        later.callback(mmap.mmap(number, 4096).close)
        os.close(number)

    assert "shared memory /memfd:flowcore-slot (deleted)" in complaint(leak)


STRANGER = """
import mmap, os, sys

path, ready, hold = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "wb+") as file:
    file.truncate(4096)
    held = mmap.mmap(file.fileno(), 4096)
if os.fork() == 0:  # an orphan: no child of the test's
    os.write(ready, b"mapped")
    os.read(hold, 1)
    os.unlink(path)
"""


@on_linux
def test_memory_that_another_program_has_mapped_is_not_ours():
    path = Path(f"/dev/shm/flowcore-of-another-{os.getpid()}")
    (is_ready, ready), (hold, let_go) = os.pipe(), os.pipe()
    with leaves_nothing():
        command = [sys.executable, "-c", STRANGER, str(path), str(ready), str(hold)]
        subprocess.run(command, pass_fds=[ready, hold], check=True)
        assert os.read(is_ready, 6) == b"mapped"
    assert path.exists()
    os.close(let_go)
    until(lambda: not path.exists(), "the stranger did not end")
    for number in (is_ready, ready, hold):
        os.close(number)


def test_a_descriptor_is_shown_with_what_it_leads_to(later, tmp_path):
    path = tmp_path / "left open"

    def leak():
        file = path.open("w")
        later.enter_context(file)

    said = complaint(leak)
    assert "descriptor" in said
    assert str(path) in said or sys.platform != "linux"


def test_a_descriptor_that_is_closed_and_opened_anew_is_no_leak(tmp_path, later):
    file = (tmp_path / "log.1").open("w")
    with leaves_nothing():
        file.close()
        file = later.enter_context((tmp_path / "log.2").open("w"))


def test_a_worker_that_is_replaced_is_no_leak(later):
    process = waiting_process(later)
    with leaves_nothing():
        process.communicate()
        waiting_process(later)


def test_what_was_there_before_may_stay(later, tmp_path):
    waiting_thread("flowcore-before", later)
    waiting_process(later)
    with (tmp_path / "open").open("w"), leaves_nothing():
        pass


def test_what_the_standard_library_starts_once_for_all_is_no_leak(monkeypatch):
    tracker = resource_tracker.ResourceTracker()
    monkeypatch.setattr(resource_tracker, "_resource_tracker", tracker)
    with leaves_nothing():
        tracker.ensure_running()
    tracker._stop()


def test_garbage_is_collected_before_it_is_called_a_leak(later, tmp_path):
    with leaves_nothing():
        run = fc.Dataset(20).p.gen_batch(1, n_epochs=None, prefetch=2)
        next(run)
        circle = [run]
        circle.append(circle)
        del run, circle


def test_an_exception_inside_goes_on_as_it_is(later):
    def fail():
        with leaves_nothing():
            waiting_thread("flowcore-stray", later)
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_all_that_is_left_is_named_at_once(later, tmp_path):
    def leak():
        waiting_thread("flowcore-one", later)
        waiting_thread("flowcore-two", later)
        later.enter_context((tmp_path / "open").open("w"))

    said = complaint(leak)
    assert all(text in said for text in ("flowcore-one", "flowcore-two", "descriptor"))
