"""The workers: what they are told, how they are set up, and how long they live."""

import importlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import ArgumentError, OptionError, PipelineError
from flowcore_processes import ProcessesExecutor

pytestmark = pytest.mark.usefixtures("no_leaks")

OPTIONS = {"executor": "processes", "num_workers": 2, "prefetch": 3}


class Asking(fc.Batch):
    """A batch whose data is what an expression gives in its worker."""

    @fc.action
    def ask(self, function, *args):
        self.data = function(*args)
        return self


def answers(function, *args, batches=8, **options):
    pipe = fc.Dataset(batches, Asking).p.ask(function, *args)
    return [batch.data for batch in pipe.gen_batch(1, **{**OPTIONS, **options})]


def test_the_workers_are_other_processes_as_many_as_asked_for():
    pids = set(answers(os.getpid, batches=40))
    assert os.getpid() not in pids
    assert len(pids) == 2


def test_a_worker_has_a_name_that_tools_show():
    def name():
        return Path("/proc/self/comm").read_text().strip(), Path("/proc/self/cmdline").read_text()

    for comm, line in answers(name):
        assert comm == "flowcore-worker"
        assert re.search(r"\0flowcore-worker-[01]\0", line)


def test_a_worker_ignores_the_interrupt_of_a_terminal():
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        return os.getpgid(0) == os.getpid()

    assert all(answers(interrupt))


def test_native_libraries_share_the_cores():
    def limit():
        return os.environ["OMP_NUM_THREADS"]

    cores = len(os.sched_getaffinity(0))
    assert set(answers(limit)) == {str(max(1, cores // 2))}
    assert set(answers(limit, native_threads=3)) == {"3"}


def test_a_limit_of_the_user_is_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert set(answers(os.environ.get, "OMP_NUM_THREADS")) == {"7"}


def test_each_process_can_make_several_batches_at_once():
    class Meeting(fc.Batch):
        @fc.action
        def meet(self):
            import threading

            barrier = vars(os).setdefault("_flowcore_test", threading.Barrier(3, timeout=20))
            barrier.wait()
            return self

    run = fc.Dataset(6, Meeting).p.meet()
    report = run.run(1, executor="processes", num_workers=1, threads_per_worker=3, prefetch=5)
    assert report.batches == 6


class SetUp(fc.Batch):
    @classmethod
    def worker_started(cls, name):
        cls.told = [name]
        note("started", name)

    @classmethod
    def worker_ended(cls, name):
        note("ended", name)

    @fc.action
    def tell(self):
        self.data = self.told[0]
        return self


def note(what, name):
    with Path(os.environ["FLOWCORE_TEST_NOTES"]).open("a") as file:
        file.write(f"{what} {name} {os.getpid()}\n")


@pytest.fixture
def notes(tmp_path, monkeypatch):
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("FLOWCORE_TEST_NOTES", str(path))
    return lambda: sorted(line.rpartition(" ")[0] for line in path.read_text().splitlines())


def test_the_batch_class_sets_each_worker_up_and_tears_it_down(notes):
    data = {batch.data for batch in fc.Dataset(20, SetUp).p.tell().gen_batch(1, **OPTIONS)}
    names = ["flowcore-worker-0", "flowcore-worker-1"]
    assert data <= set(names)
    assert notes() == [f"ended {name}" for name in names] + [f"started {name}" for name in names]


def test_a_set_up_that_fails_is_the_error_of_the_tasks():
    class Broken(fc.Batch):
        @classmethod
        def worker_started(cls, name):
            raise LookupError(f"no database for {name}")

    with pytest.raises(LookupError, match="no database for flowcore-worker"):
        fc.Dataset(4, Broken).p.run(1, **OPTIONS)


class TestWarm:
    def test_an_object_keeps_its_workers_from_run_to_run(self):
        pipe = fc.Dataset(20, Asking).p.ask(os.getpid)
        with ProcessesExecutor(2) as executor:
            pids = [{b.data for b in pipe.gen_batch(1, executor=executor)} for _ in range(3)]
        assert len(set.union(*pids)) == 2

    def test_they_are_set_up_once(self, notes):
        pipe = fc.Dataset(20, SetUp).p.tell()
        with ProcessesExecutor(2) as executor:
            for _ in range(3):
                pipe.run(1, executor=executor)
        assert [line.split()[0] for line in notes()] == ["ended"] * 2 + ["started"] * 2

    def test_another_pipeline_gets_other_workers(self):
        with ProcessesExecutor(1) as executor:
            (first,) = {
                b.data
                for b in fc.Dataset(3, Asking).p.ask(os.getpid).gen_batch(1, executor=executor)
            }
            (second,) = {
                b.data
                for b in fc.Dataset(4, Asking).p.ask(os.getpid).gen_batch(1, executor=executor)
            }
        assert first != second

    def test_a_module_that_was_loaded_again_gets_other_workers(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        path = tmp_path / "edited_batches.py"
        text = (
            "import flowcore as fc\nclass Edited(fc.Batch):\n    @fc.action\n"
            "    def make(self):\n        self.data = {}\n        return self\n"
        )
        path.write_text(text.format(1))
        importlib.invalidate_caches()
        module = importlib.import_module("edited_batches")
        found = []
        with ProcessesExecutor(1) as executor:
            for value in 1, 222:
                path.write_text(text.format(value))
                module = importlib.reload(module)
                pipe = fc.Dataset(2, module.Edited).p.make()
                found.append([batch.data for batch in pipe.gen_batch(1, executor=executor)])
        assert found == [[1, 1], [222, 222]]

    def test_a_fork_of_the_program_has_workers_of_its_own(self):
        pipe = fc.Dataset(20, Asking).p.ask(os.getpid)
        with ProcessesExecutor(2) as executor:
            own = {batch.data for batch in pipe.gen_batch(1, executor=executor)}
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                try:
                    pids = {batch.data for batch in pipe.gen_batch(1, executor=executor)}
                    os.write(writer, b"right" if pids and not pids & own else b"wrong")
                    executor.__exit__(None, None, None)
                finally:
                    os._exit(0)
            os.close(writer)
            with os.fdopen(reader, "rb") as file:
                assert file.read() == b"right"
            os.waitpid(child, 0)
            assert {batch.data for batch in pipe.gen_batch(1, executor=executor)} <= own

    def test_a_longer_run_gets_the_workers_that_a_short_one_did_not_need(self):
        with ProcessesExecutor(3) as executor:
            for items, workers in (1, 1), (30, 3):
                pipe = fc.Dataset(30, Asking).p.ask(os.getpid)
                shard = pipe.gen_batch(30 // items, executor=executor)
                list(shard)
                assert len(executor._team._processes) == workers

    def test_preloaded_data_that_was_changed_is_seen(self):
        data = np.zeros(100_000)
        pipe = fc.Dataset(4, preloaded=data.reshape(4, -1)).p
        with ProcessesExecutor(1) as executor:
            for value in 0.0, 1.0:
                data[...] = value
                for batch in pipe.gen_batch(1, executor=executor):
                    assert (batch.data == value).all()

    def test_a_run_that_is_left_leaves_idle_workers(self, tmp_path):
        def wait(folder):
            (Path(folder) / str(os.getpid())).touch()
            signal.pause()

        with ProcessesExecutor(2) as executor:
            run = fc.Dataset(9, Asking).p.ask(wait, tmp_path).gen_batch(1, executor=executor)
            run.start()
            while len(list(tmp_path.iterdir())) < 2:
                time.sleep(0.01)
            run.close()
            assert answers(len, "abc", executor=executor) == [3] * 8


class TestTheRecipe:
    def test_it_is_sent_once_to_each_worker(self, tmp_path):
        class Counted:
            def __init__(self, folder):
                self.folder = folder

            def __setstate__(self, state):
                vars(self).update(state)
                with (Path(self.folder) / "loads").open("a") as file:
                    file.write(f"{os.getpid()}\n")

            def __call__(self):
                return os.getpid()

        pids = set(answers(Counted(str(tmp_path)), batches=40))
        loads = (tmp_path / "loads").read_text().split()
        assert len(loads) == len(set(loads)) <= 2
        assert {str(pid) for pid in pids} <= set(loads)

    def test_preloaded_arrays_are_there_once_for_all_workers(self):
        def mapped(array):
            maps = Path("/proc/self/maps").read_text().splitlines()
            return sum("flowcore-work" in line and "r--s" not in line for line in maps)

        data = np.arange(200_000.0)
        assert all(answers(mapped, data))

    def test_a_memory_map_is_opened_again_not_sent(self, tmp_path):
        np.save(tmp_path / "data.npy", np.arange(100_000.0).reshape(-1, 100))
        data = np.load(tmp_path / "data.npy", mmap_mode="r")[10:]

        def has_it(array):
            return type(array) is np.memmap and array[0, 0] == 1000.0 and str(array.filename)

        assert set(answers(has_it, data)) == {str(tmp_path / "data.npy")}
        batches = fc.Dataset(len(data), preloaded=data).p.gen_batch(7, **OPTIONS)
        np.testing.assert_array_equal(np.concatenate([b.data for b in batches]), data)

    def test_what_does_not_pickle_is_an_error_at_the_start_that_names_the_step_and_the_attribute(
        self,
    ):
        import threading

        class Client:
            def __init__(self):
                self.name, self.lock = "a", threading.Lock()

        run = fc.Dataset(4, Asking).p.ask(len, {"client": Client()}).gen_batch(1, **OPTIONS)
        with pytest.raises(PipelineError) as raised:
            run.start()
        assert "step 0 (ask), argument 1['client'].lock" in str(raised.value)
        assert "worker_started" in str(raised.value)

    def test_an_open_text_file_is_refused_and_not_copied(self, tmp_path):
        with (tmp_path / "words.txt").open("w+") as file:
            pipe = fc.Dataset(4, Asking).p.ask(len, file)
            with pytest.raises(PipelineError, match=r"open file(.|\n)*argument 1"):
                pipe.run(1, **OPTIONS)

    def test_a_singleton_action_is_refused_at_the_start(self):
        class Single(fc.Batch):
            @fc.action(singleton=True)
            def write(self):
                return self

        pipe = fc.Dataset(4, Single).p.write()
        with pytest.raises(PipelineError, match=r"'write' is a singleton(.|\n)*num_workers=1"):
            pipe.run(1, **OPTIONS)
        assert pipe.run(1, **{**OPTIONS, "num_workers": 1, "threads_per_worker": 2}).batches == 4


SCRIPT = """
import os
import numpy as np
import flowcore as fc

print("top of the script")

class Mine(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code

class MyBatch(fc.Batch):
    @fc.action
    def load(self, function):
        self.data = function(self.positions)
        self.pid = os.getpid()
        return self

    @fc.action
    def fail(self):
        if self.number == 2:
            raise Mine(7, "in the worker")
        return self

pipe = fc.Dataset(8, MyBatch).p.load(lambda positions: positions * 2)
batches = list(pipe.gen_batch(2, executor="processes", num_workers=2, prefetch=2))
assert all(type(batch) is MyBatch and batch.pid != os.getpid() for batch in batches)
assert [batch.data.tolist() for batch in batches] == [[0, 2], [4, 6], [8, 10], [12, 14]]
try:
    pipe.fail().run(2, executor="processes", num_workers=2, prefetch=2)
except Mine as error:
    assert error.code == 7 and "script.py" in error.__notes__[0], error.__notes__
    print("caught")
"""


def test_classes_functions_and_errors_of_a_script_work_without_a_guard(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("top of the script\ncaught\n", "")


def test_what_an_action_prints_is_seen(tmp_path):
    program = """
        import flowcore as fc

        class Loud(fc.Batch):
            @fc.action
            def say(self):
                print("batch", self.number)
                return self

        fc.Dataset(3, Loud).p.say().run(1, executor="processes", num_workers=1, prefetch=1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert done.stdout == "batch 0\nbatch 1\nbatch 2\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threads_per_worker": 0}, "threads_per_worker must be an int of at least 1, got 0"),
        ({"timeout": 0}, "timeout must be seconds"),
        ({"timeout": float("nan")}, "timeout must be seconds"),
        ({"timeout": True}, "timeout must be seconds"),
        ({"native_threads": -1}, "native_threads must be an int of at least 0"),
        ({"slots": 1.5}, "slots must be an int"),
        ({"shared_memory": "/no/such/folder"}, "shared_memory must be a folder"),
        ({"shared_memory": 3}, "shared_memory must be a folder"),
    ],
)
def test_an_option_that_cannot_be_right_is_refused(options, text):
    with pytest.raises(OptionError, match=text):
        fc.Dataset(4).p.gen_batch(2, **OPTIONS, **options)
    with pytest.raises(OptionError, match=text):
        ProcessesExecutor(2, **options)


def test_an_option_without_the_executor_says_whose_it_is():
    with pytest.raises(ArgumentError, match="an option of executor='processes'"):
        fc.Dataset(4).p.gen_batch(2, timeout=5)
    with pytest.raises(ArgumentError, match=r"ProcessesExecutor\(..., timeout=...\)"):
        fc.Dataset(4).p.gen_batch(2, executor=ProcessesExecutor(2), prefetch=2, timeout=5)


def test_there_is_a_worker_for_each_core_if_the_run_does_not_say():
    cores = len(os.sched_getaffinity(0))
    assert ProcessesExecutor().num_workers == cores
    pids = set(answers(os.getpid, batches=50, num_workers=None, prefetch=None))
    assert len(pids) <= cores
