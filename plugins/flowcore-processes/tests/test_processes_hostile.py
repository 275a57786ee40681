"""What programs do that nobody expects: each of these once lost, mixed up or stopped something."""

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
from flowcore.errors import ActionError, PipelineError
from flowcore_processes import ProcessesExecutor
from flowcore_processes._incarnation import Incarnation

pytestmark = pytest.mark.usefixtures("no_leaks")

OPTIONS = {"executor": "processes", "num_workers": 1, "prefetch": 3}


class Numbered(fc.Batch):
    @fc.action
    def call(self, number, function, *args):
        if self.number == number:
            function(*args)
        self.data = np.full(100_000, self.number)
        return self


def numbers(function, *args, at=1, **options):
    """Return the number that stands in each batch, where batch 1 calls a function."""
    pipe = fc.Dataset(20, Numbered).p.call(at, function, *args)
    batches = list(pipe.gen_batch(2, **{**OPTIONS, **options}))
    assert all((batch.data == batch.data[0]).all() for batch in batches)
    return [int(batch.data[0]) for batch in batches]


@pytest.mark.parametrize("end", ["returns", "raises", "exits"])
def test_the_child_of_an_action_that_forks_gives_no_answer(end):
    def fork():
        if os.fork():
            os.wait()
        elif end == "raises":
            raise LookupError
        elif end == "exits":
            sys.exit(0)

    assert numbers(fork) == list(range(10))


@pytest.mark.parametrize("way", ["program", "fork"])
def test_a_daemon_that_an_action_starts_does_not_hide_that_the_worker_died(way, tmp_path):
    def die():
        if (tmp_path / "once").exists():
            return
        (tmp_path / "once").touch()
        if way == "program":
            os.system("setsid sleep 100 & echo $! > " + str(tmp_path / "pid"))
        elif os.fork() == 0:
            os.setsid()
            if pid := os.fork():
                (tmp_path / "pid").write_text(str(pid))
                os._exit(0)
            signal.pause()
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        assert numbers(die) == list(range(10))
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_thread_that_an_action_leaves_behind_gets_no_memory_of_a_batch(tmp_path):
    class Late(fc.Batch):
        @fc.action
        def make(self):
            def later():
                while not (tmp_path / f"go-{self.number}").exists():
                    time.sleep(0.01)
                self.empty(100_000)[...] = -99
                (tmp_path / f"done-{self.number}").touch()

            threading.Thread(target=later).start()
            other = type(self)(self.index)
            other.data = self.empty(100_000)
            other.data[...] = self.number
            return other

    run = fc.Dataset(9, Late).p.make().gen_batch(1, **{**OPTIONS, "prefetch": 1})
    for batch in (next(run) for _ in range(3)):
        (tmp_path / f"go-{batch.number}").touch()
        while not (tmp_path / f"done-{batch.number}").exists():
            time.sleep(0.01)
        assert (batch.data == batch.number).all()
    run.close()


@pytest.mark.parametrize("timeout", [1e7, 1e12])
def test_a_long_timeout_is_no_problem_for_the_system(timeout):
    assert numbers(id, 0, timeout=timeout) == list(range(10))


PROGRAM = """
    import os, sys
    import numpy as np
    import flowcore as fc

    class Numbered(fc.Batch):
        @fc.action
        def load(self):
            print("loads")
            self.data = np.full(100_000, self.number)
            return self

    pipe = fc.Dataset(8, Numbered).p.load()
    batches = list(pipe.gen_batch(2, executor="processes", num_workers=2, prefetch=2))
    assert [int(batch.data[0]) for batch in batches] == [0, 1, 2, 3]
    open(sys.argv[1], "w").close()
"""


def test_a_program_that_has_closed_its_input_and_output_has_workers(tmp_path):
    closed = "import os\nfor fd in 0, 1, 2: os.close(fd)\n" + textwrap.dedent(PROGRAM)
    subprocess.run([sys.executable, "-c", closed, tmp_path / "done"], check=False, timeout=50)
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("flags", [["-O"], ["-P"], ["-I"]], ids=str)
def test_a_program_with_flags_has_workers(tmp_path, flags):
    program = textwrap.dedent(PROGRAM)
    subprocess.run(
        [sys.executable, *flags, "-c", program, tmp_path / "done"], check=True, timeout=50
    )
    assert (tmp_path / "done").exists()


def test_a_stack_that_is_asked_for_after_the_end_touches_nothing(tmp_path):
    executor = ProcessesExecutor(1)
    with executor:
        batches = fc.Dataset(4, Numbered).p.call(9, id).gen_batch(1, executor=executor, prefetch=2)
        list(batches)
        (process,) = executor._team._processes
    files = [(tmp_path / str(at)).open("w+") for at in range(30)]
    for file in files:
        file.write("precious")
        file.flush()
    assert process.stack() == ""
    assert all((tmp_path / str(at)).read_text() == "precious" for at in range(30))
    for file in files:
        file.close()


def test_a_worker_that_cannot_be_replaced_is_an_error_not_a_hang(monkeypatch):
    def refuse(*args):
        raise RuntimeError("can't start new thread")

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    pipe = fc.Dataset(20, Numbered).p.call(3, kill)
    batches = pipe.gen_batch(2, **OPTIONS)
    batches.start()
    monkeypatch.setattr(Incarnation, "_started", refuse)
    with pytest.raises(PipelineError, match="can't start new thread"):
        list(batches)


class Evil:
    """Something that ends the program where it is unpickled."""

    def __init__(self, error):
        self.error = error

    def __setstate__(self, state):
        raise state["error"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_a_class_raises_when_it_is_received_is_the_error_of_its_batch(error):
    class Holding(fc.Batch):
        @fc.action
        def hold(self):
            self.evil = Evil(error()) if self.number == 2 else None
            return self

    with pytest.raises(ActionError, match="cannot be received") as raised:
        list(fc.Dataset(9, Holding).p.hold().gen_batch(1, **OPTIONS))
    assert "batch 2 of epoch 0" in "\n".join(raised.value.__notes__)


FORKING = """
    import os, signal, sys, time
    import flowcore as fc
    from flowcore_processes import ProcessesExecutor

    class Telling(fc.Batch):
        @fc.action
        def tell(self):
            self.data = os.getpid()
            return self

    with ProcessesExecutor(2) as executor:
        pids = set()
        for batch in fc.Dataset(40, Telling).p.tell().gen_batch(1, executor=executor, prefetch=2):
            pids.add(batch.data)
            if batch.number == 10:
                child = os.fork()
                if not child and sys.argv[1] == "exits":
                    sys.exit(0)
                if not child:
                    time.sleep(100)
                if sys.argv[1] == "exits":
                    os.waitpid(child, 0)
                else:
                    print(child, *pids, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
        assert len(pids) == 2, pids
    print("right")
"""


def forking(how):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKING), how],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_fork_of_the_program_that_ends_leaves_the_workers_to_the_program():
    with forking("exits") as program:
        assert program.communicate(timeout=50)[0] == "right\n"


def test_the_workers_go_with_the_program_though_a_fork_of_it_lives():
    with forking("stays") as program:
        child, *pids = map(int, program.stdout.readline().split())
        program.wait(timeout=20)
        end = time.monotonic() + 2
        try:
            while any(Path(f"/proc/{pid}").exists() for pid in pids):
                assert time.monotonic() < end, "a worker lives on"
                time.sleep(0.01)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_run_that_is_closed_and_kept_keeps_no_shared_memory():
    run = fc.Dataset(20, Numbered).p.call(99, id).gen_batch(2, **OPTIONS)
    next(run)
    run.close()
    assert "flowcore-batches" not in Path("/proc/self/maps").read_text()
    assert list(run) == []


def test_a_worker_that_is_stopped_while_it_is_idle_is_replaced_in_time(tmp_path):
    class Telling(fc.Batch):
        @fc.action
        def tell(self):
            self.data = os.getpid()
            (tmp_path / str(self.number)).touch()
            return self

    with ProcessesExecutor(1, timeout=1.0) as executor:
        run = fc.Dataset(20, Telling).p.tell().gen_batch(1, executor=executor, prefetch=1)
        pid = next(run).data
        while not (tmp_path / "1").exists() or list(executor.running()):
            time.sleep(0.01)  # until it has made all that was asked for
        os.kill(pid, signal.SIGSTOP)
        rest = list(run)
    assert [batch.number for batch in rest] == list(range(1, 20))
    assert rest[-1].data != pid


def test_objects_of_a_script_with_slots_come_back():
    class Slotted:
        __slots__ = ("first", "second")

    class Holding(fc.Batch):
        @fc.action
        def hold(self):
            self.held = Slotted()
            self.held.first, self.held.second = self.number, [1]
            return self

    for batch in fc.Dataset(3, Holding).p.hold().gen_batch(1, **OPTIONS):
        assert type(batch.held) is Slotted
        assert (batch.held.first, batch.held.second) == (batch.number, [1])


def test_a_program_with_many_open_files_has_quiet_workers(tmp_path):
    program = """
        import os, sys
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    """
    whole = textwrap.dedent(program) + textwrap.dedent(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-c", whole, tmp_path / "done"],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stderr == ""


def values(array, **options):
    pipe = fc.Dataset(len(array), preloaded=array).p
    return np.concatenate([batch.data for batch in pipe.gen_batch(2, **OPTIONS, **options)])


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_memory_map_of_a_file_that_is_another_now_gives_what_it_has(tmp_path, change):
    path = tmp_path / "data.bin"
    np.arange(50.0).tofile(path)
    array = np.memmap(path, float, "r")
    if change == "replaced":
        np.full(50, -7.0).tofile(tmp_path / "new.bin")
        os.replace(tmp_path / "new.bin", path)
    else:
        path.unlink()
    np.testing.assert_array_equal(values(array), np.arange(50.0))


def test_a_module_that_hides_another_of_its_name_is_the_one_that_workers_have(
    tmp_path, monkeypatch
):
    import importlib.util

    for folder, value in ("loaded", 1), ("found", -1):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "hidden_helpers.py").write_text(f"def value():\n    return {value}\n")
    monkeypatch.syspath_prepend(tmp_path / "found")
    spec = importlib.util.spec_from_file_location(
        "hidden_helpers", tmp_path / "loaded" / "hidden_helpers.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hidden_helpers", module)
    spec.loader.exec_module(module)

    class Calling(fc.Batch):
        @fc.action
        def call(self, function):
            self.data = function(), module.value()
            return self

    found = [b.data for b in fc.Dataset(3, Calling).p.call(module.value).gen_batch(1, **OPTIONS)]
    assert found == [(1, 1)] * 3


def test_files_of_the_current_folder_do_not_hide_the_standard_library(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    assert numbers(id, 0) == list(range(10))


def test_tuples_and_enums_of_a_script_come_back():
    import enum
    import typing

    class Pair(typing.NamedTuple):
        first: int
        second: str

    class Colour(enum.Enum):
        RED = 1

    class Holding(fc.Batch):
        @fc.action
        def hold(self):
            self.held = Pair(self.number, "a"), Colour.RED
            return self

    for batch in fc.Dataset(3, Holding).p.hold().gen_batch(1, **OPTIONS):
        assert batch.held == (Pair(batch.number, "a"), Colour.RED)


def test_a_batch_that_a_worker_cannot_read_is_the_error_of_that_batch():
    class Picky:
        """Something that can be read once: in the process of the run."""

        def __init__(self, number):
            self.number, self.reads = number, 0

        def __getstate__(self):
            return {"number": self.number, "reads": self.reads + 1}

        def __setstate__(self, state):
            if state["number"] == 2 and state["reads"] == 2:
                raise LookupError("read twice")
            vars(self).update(state)

    class Holding(fc.Batch):
        @fc.action
        def hold(self):
            self.data = np.array([Picky(self.number)], dtype=object)
            return self

    pipe = fc.Dataset(6, Holding).p.hold().rebatch(1)
    run = pipe.gen_batch(1, **OPTIONS, on_error="skip")
    assert [batch.number for batch in run] == [0, 1, 3, 4, 5]
    assert type(run.report.skipped[0].error) is LookupError


def test_warm_workers_that_could_not_be_replaced_are_there_for_the_next_run(monkeypatch):
    def refuse(*args):
        raise OSError("no more processes")

    def kill(path):
        if Path(path).exists():
            os.kill(os.getpid(), signal.SIGKILL)

    with ProcessesExecutor(1) as executor:
        pipe = fc.Dataset(20, Numbered).p.call(3, kill, "/proc/self")
        with monkeypatch.context() as patch:
            batches = pipe.gen_batch(2, executor=executor, prefetch=2, on_error="skip")
            batches.start()
            patch.setattr(Incarnation, "_started", refuse)
            with pytest.raises(PipelineError, match="no more processes"):
                list(batches)
        again = pipe.gen_batch(2, executor=executor, prefetch=2, on_error="skip")
        assert len(list(again)) == 9
