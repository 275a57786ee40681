"""What becomes of a run whose workers die, hang or fail; and of the workers of a run that dies."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import PipelineError, TimedOut, WorkerLost

pytestmark = pytest.mark.usefixtures("no_leaks")

OPTIONS = {"executor": "processes", "num_workers": 2, "prefetch": 3}


def kill_me(signal_number=signal.SIGKILL):
    os.kill(os.getpid(), signal_number)


def wait_for_ever():
    signal.pause()


class Faulty(fc.Batch):
    @fc.action
    def load(self):
        self.data = self.positions * 2.0 + self.rng.random()
        return self

    @fc.action
    def at(self, number, function, *args):
        if self.number == number:
            function(*args)
        return self

    @fc.action
    def once(self, folder, every, function, *args):
        """Call the function in the first attempt at each ``every``-th batch."""
        path = Path(folder) / str(self.number)
        if self.number % every == 0 and not path.exists():
            path.touch()
            function(*args)
        return self


def pipeline(items=20):
    return fc.Dataset(items, Faulty).p.load()


def seen(batches):
    return [(batch.number, batch.data.tolist()) for batch in batches]


def serial(items=20, **options):
    return seen(pipeline(items).gen_batch(2, seed=1, **options))


def run(pipe, **options):
    return pipe.gen_batch(2, **{**OPTIONS, "seed": 1, **options})


@pytest.mark.parametrize("end", [kill_me, os._exit, os.abort], ids=["kill", "exit", "abort"])
def test_a_worker_that_dies_costs_a_second_attempt_and_nothing_else(tmp_path, end):
    args = (1,) if end is os._exit else ()
    batches = run(pipeline().once(tmp_path, 3, end, *args))
    assert seen(batches) == serial()
    assert not batches.report.skipped


def test_only_the_batch_that_it_was_on_is_made_again(tmp_path):
    def count(folder, number):
        with (Path(folder) / "made").open("a") as file:
            file.write(f"{number}\n")

    class Counted(Faulty):
        @fc.action
        def count(self, folder):
            count(folder, self.number)
            return self

    pipe = fc.Dataset(20, Counted).p.load().count(tmp_path).once(tmp_path, 4, kill_me)
    assert seen(run(pipe)) == serial()
    made = [int(line) for line in (tmp_path / "made").read_text().split()]
    assert sorted(made) == sorted([*range(10), 0, 4, 8])


def test_a_batch_that_kills_its_worker_each_time_is_an_error_in_its_place_that_says_how():
    batches = run(pipeline().at(3, kill_me))
    numbers = []
    with pytest.raises(WorkerLost) as raised:
        numbers.extend(batch.number for batch in batches)
    assert numbers == [0, 1, 2]
    text = "\n".join([str(raised.value), *raised.value.__notes__])
    for part in ("SIGKILL", "in 'at'", "no memory left", "batch 3 of epoch 0, ids [6, 7]"):
        assert part in text
    assert raised.value.action == "at"


def test_retries_count_the_workers_that_were_lost(tmp_path):
    def kill_three_times(folder):
        made = len(list(Path(folder).iterdir()))
        if made < 3:
            (Path(folder) / str(made)).touch()
            kill_me()

    pipe = pipeline().at(3, kill_three_times, tmp_path)
    assert seen(run(pipe, retries=3)) == serial()


def test_with_skip_it_costs_only_itself():
    batches = run(pipeline().at(3, kill_me), on_error="skip")
    assert seen(batches) == [batch for batch in serial() if batch[0] != 3]
    (skipped,) = batches.report.skipped
    assert (skipped.number, type(skipped.error)) == (3, WorkerLost)


def test_a_crash_in_native_code_comes_with_the_place_in_the_code():
    def crash():
        import ctypes

        ctypes.string_at(0)

    with pytest.raises(WorkerLost, match="SIGSEGV") as raised:
        list(run(pipeline().at(1, crash)))
    assert "in crash" in str(raised.value)


def test_the_memory_that_a_worker_had_is_told():
    def grow():
        np.ones(800_000_000 // 8)
        kill_me()

    with pytest.raises(WorkerLost, match=r"it had up to (8|9)\d\d MB|it had up to \d,\d{3} MB"):
        list(run(pipeline().at(1, grow)))


def test_an_idle_worker_that_is_killed_is_replaced():
    class Telling(Faulty):
        @fc.action
        def tell(self):
            self.data = os.getpid()
            return self

    batches = fc.Dataset(40, Telling).p.tell().gen_batch(2, **{**OPTIONS, "prefetch": 1})
    pids = {next(batches).data for _ in range(4)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert [batch.number for batch in batches] == list(range(4, 20))


def test_a_worker_killed_while_it_writes_its_batch_costs_a_second_attempt(tmp_path):
    class Slow:
        """Something that is pickled while the worker dies."""

        def __init__(self, folder):
            self.folder = folder

        def __reduce__(self):
            path = Path(self.folder) / "once"
            if not path.exists():
                path.touch()
                kill_me()
            return str, ("written",)

    class Writing(Faulty):
        @fc.action
        def write(self):
            self.data = np.zeros(100_000)
            self.extra = Slow(tmp_path) if self.number == 2 else None
            return self

    batches = list(run(fc.Dataset(20, Writing).p.write()))
    assert [batch.number for batch in batches] == list(range(10))
    assert batches[2].extra == "written"


class TestTimeout:
    def test_a_batch_that_takes_too_long_is_an_error_with_the_place_in_the_code(self):
        batches = run(pipeline().at(2, wait_for_ever), timeout=0.5)
        with pytest.raises(TimedOut) as raised:
            list(batches)
        assert "longer than 0.5 s" in str(raised.value)
        assert "in wait_for_ever" in str(raised.value)
        assert "batch 2 of epoch 0" in "\n".join(raised.value.__notes__)

    def test_with_skip_the_run_goes_on_with_another_worker(self):
        batches = run(pipeline().at(2, wait_for_ever), timeout=0.5, on_error="skip")
        assert [number for number, _ in seen(batches)] == [0, 1, 3, 4, 5, 6, 7, 8, 9]

    def test_native_code_that_never_lets_python_go_is_ended_too(self):
        def spin():
            7 ** (7**9)

        batches = run(pipeline().at(2, spin), timeout=0.5, on_error="skip")
        assert len(list(batches)) == 9
        assert "in spin" in str(batches.report.skipped[0].error)

    def test_a_start_of_the_worker_does_not_count(self):
        assert len(list(run(pipeline(), timeout=0.05))) == 10


def test_a_stall_warning_says_where_in_the_code_the_worker_is(caplog, tmp_path):
    def wait_for(path):
        while not Path(path).exists():
            time.sleep(0.01)

    batches = run(pipeline().at(2, wait_for, tmp_path / "go"), stall_warning=0.3)
    told = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            if "'at' to finish batch 2" in record.getMessage():
                (tmp_path / "go").touch()
                told.set()

    handler = Handler()
    logging.getLogger("flowcore").addHandler(handler)
    try:
        with caplog.at_level(logging.WARNING, "flowcore"):
            assert len(list(batches)) == 10
    finally:
        logging.getLogger("flowcore").removeHandler(handler)
    assert told.is_set()
    assert "in wait_for" in caplog.text


def test_workers_that_cannot_even_start_are_an_error_not_a_loop(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/no/such/place")
    with pytest.raises(PipelineError, match="before its first batch"):
        list(run(pipeline()))


def test_a_pipeline_that_workers_cannot_read_is_an_error():
    class Unreadable:
        def __reduce__(self):
            return int, ("no int",)

    with pytest.raises(PipelineError, match="cannot be read in a worker: ValueError"):
        list(run(pipeline().at(1, Unreadable())))


def test_a_run_survives_many_kills_with_every_batch_once_and_in_order(tmp_path):
    pipe = pipeline(100).once(tmp_path, 10, kill_me)
    assert seen(run(pipe)) == serial(100)


class TestTheProgramDies:
    """The run's own process is killed: its workers are gone soon, whatever they are doing."""

    PROGRAM = """
        import os, signal, sys, time
        from pathlib import Path
        import flowcore as fc

        class Busy(fc.Batch):
            @fc.action
            def work(self, folder, how):
                (Path(folder) / str(os.getpid())).touch()
                if how == "waits":
                    signal.pause()
                elif how == "never lets go":
                    7 ** (7 ** 9)
                return self

        run = fc.Dataset(9, Busy).p.work(sys.argv[1], sys.argv[2]).gen_batch(
            1, executor="processes", num_workers=2, prefetch=1)
        run.start()
        print("started", flush=True)
        time.sleep(60)
    """

    @pytest.mark.parametrize("how", ["waits", "never lets go", "is idle"])
    def test_its_workers_go_within_two_seconds(self, tmp_path, how):
        program = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(self.PROGRAM), tmp_path, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert program.stdout.readline() == b"started\n"
            end = time.monotonic() + 20
            while not list(tmp_path.iterdir()):
                assert time.monotonic() < end
                time.sleep(0.01)
        finally:
            program.kill()
        _, said = program.communicate(timeout=20)
        end = time.monotonic() + 2
        pids = [int(path.name) for path in tmp_path.iterdir()]
        while any(Path(f"/proc/{pid}/fd").exists() and is_alive(pid) for pid in pids):
            assert time.monotonic() < end, "a worker lives on"
            time.sleep(0.01)
        assert said == b""


def is_alive(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_what_a_worker_started_is_gone_with_it(tmp_path):
    def start_child(folder):
        child = subprocess.Popen(["sleep", "100"])
        (Path(folder) / str(child.pid)).touch()

    assert len(list(run(pipeline().at(1, start_child, tmp_path)))) == 10
    (path,) = tmp_path.iterdir()
    assert not is_alive(int(path.name))


def test_a_worker_that_dies_while_a_child_of_its_holds_the_connection_is_noticed(tmp_path):
    def fork_and_die(folder):
        if (Path(folder) / "once").exists():
            return
        (Path(folder) / "once").touch()
        if os.fork() == 0:
            signal.pause()
        kill_me()

    assert seen(run(pipeline().at(2, fork_and_die, tmp_path))) == serial()


def test_an_executor_that_is_left_ends_a_run_that_is_still_open(tmp_path):
    from flowcore_processes import ProcessesExecutor

    with ProcessesExecutor(2) as executor:
        batches = pipeline(40).at(9, wait_for_ever).gen_batch(2, executor=executor, prefetch=2)
        for _ in range(9):
            next(batches)
    with pytest.raises(WorkerLost):
        list(batches)


def test_many_arrays_are_sent_with_the_recipe():
    arrays = [np.full(20_000, at % 256, np.uint8) for at in range(6_000)]

    def total(arrays):
        if sum(int(array[0]) for array in arrays) != sum(at % 256 for at in range(6_000)):
            raise AssertionError

    assert len(list(run(pipeline().at(1, total, arrays)))) == 10
