"""What a run is asked for: values refused in the call that brings them, defaults, options."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest

from flowcore import Batch, Dataset, Executor, Sink, action
from flowcore.errors import ArgumentError, OptionError, PluginError, UnknownPlugin
from flowcore.executors.serial import SerialExecutor
from flowcore.executors.threads import ThreadsExecutor
from flowcore.run.settings import Settings

BAD = [
    {"batch_size": 0},
    {"batch_size": -1},
    {"batch_size": 2.0},
    {"batch_size": True},
    {"batch_size": "4"},
    {"batch_size": None},
    {"n_epochs": -1},
    {"n_epochs": 1.0},
    {"n_epochs": True},
    {"prefetch": -1},
    {"prefetch": 1.5},
    {"prefetch": True},
    {"num_workers": -1},
    {"num_workers": "2"},
    {"num_workers": 0, "prefetch": 2},
    {"retries": -1},
    {"retries": None},
    {"seed": -1},
    {"seed": "1"},
    {"seed": 1.0},
    {"drop_last": 1},
    {"drop_last": None},
    {"ordered": 0},
    {"on_error": "ignore"},
    {"on_error": None},
    {"on_error": []},
    {"stall_warning": 0},
    {"stall_warning": -1},
    {"stall_warning": float("nan")},
    {"stall_warning": "30"},
    {"shuffle": 1},
    {"shuffle": 0},
    {"shuffle": None},
    {"shuffle": "yes"},
    {"shuffle": np.random.default_rng(), "seed": 1},
    {"shuffle": np.random.RandomState(), "seed": 1},
    {"executor": 3, "prefetch": 2},
    {"executor": 3, "prefetch": 0},
    {"prefetch": 2, "executor": ThreadsExecutor},
    {"prefetch": 2, "executor": ThreadPoolExecutor},
    {"sink": 3},
    {"sink": ()},
    {"sink": ("name", 3)},
    {"sink": print},
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad!r:.60}")
@pytest.mark.parametrize("call", ["next_batch", "gen_batch", "run", "feed"])
def test_a_value_that_cannot_be_right_is_refused_in_the_call_that_brings_it(call, bad):
    with pytest.raises(OptionError):
        getattr(Dataset(4).p, call)(**{"batch_size": 2, **bad})


def test_an_int_for_shuffle_is_refused_with_what_to_write():
    with pytest.raises(OptionError, match="shuffle=True, seed="):
        Dataset(4).p.gen_batch(2, shuffle=1000)


@pytest.mark.parametrize("prefetch", [0, 2, None])
def test_an_unknown_executor_is_refused_in_the_call_that_names_it(prefetch):
    with pytest.raises(UnknownPlugin, match="did you mean 'threads'"):
        Dataset(4).p.gen_batch(2, executor="thraeds", prefetch=prefetch)


def test_an_unknown_sink_is_refused_in_the_call_that_names_it():
    with pytest.raises(UnknownPlugin, match="'nowhere'"):
        Dataset(4).p.gen_batch(2, sink="nowhere")


def test_numpy_scalars_are_what_they_stand_for():
    run = Dataset(4).p.gen_batch(
        np.int64(3), np.bool_(True), np.int8(2), np.bool_(True), np.uint8(1), seed=np.int32(5)
    )
    assert (len(list(run)), run.seed) == (2, 5)


@pytest.mark.parametrize("seconds", [None, float("inf"), 10**10, np.float32(3)], ids=repr)
def test_a_stall_warning_may_be_as_late_as_one_likes(seconds):
    assert Dataset(4).p.run(2, prefetch=2, stall_warning=seconds).batches == 2


# Defaults


@pytest.fixture
def cores(monkeypatch):
    """Have 3 cores."""
    monkeypatch.setattr("flowcore.executors.base.usable_cores", lambda: 3)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("given", "workers", "prefetch"),
    [
        ({}, 0, 0),
        ({"prefetch": 0}, 0, 0),
        ({"prefetch": 4}, 4, 4),
        ({"prefetch": 100}, 7, 100),
        ({"num_workers": 5}, 5, 10),
        ({"num_workers": 5, "prefetch": 1}, 5, 1),
        ({"num_workers": 0}, 0, 0),
        ({"executor": "threads"}, 7, 14),
        ({"executor": "threads", "num_workers": 2}, 2, 4),
        ({"executor": "threads", "prefetch": 3}, 3, 3),
        ({"executor": "serial"}, 0, 0),
        ({"executor": "serial", "prefetch": 3}, 0, 3),
        ({"executor": SerialExecutor()}, 0, 0),
        ({"executor": ThreadsExecutor(6)}, 6, 12),
        ({"executor": ThreadPoolExecutor(6)}, 6, 12),
        ({"executor": ThreadPoolExecutor(6), "num_workers": 2}, 2, 4),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_workers_and_prefetch_follow_from_each_other(given, workers, prefetch):
    assert Settings(batch_size=1, **given).workers() == (workers, prefetch)


@pytest.mark.parametrize("options", [{}, {"prefetch": 0, "executor": "threads", "num_workers": 3}])
def test_without_prefetch_everything_is_done_in_the_calling_thread(options):
    seen = set()

    class Seeing(Batch):
        @action
        def see(self):
            seen.add((threading.current_thread(), threading.active_count()))
            return self

    before = threading.active_count()
    Dataset(4, Seeing).p.see().run(2, **options)
    assert seen == {(threading.current_thread(), before)}


def test_batches_are_made_by_as_many_threads_as_there_are_workers():
    all_there = threading.Barrier(3, timeout=10)  # breaks, and fails the run, if they are fewer

    class Meeting(Batch):
        @action
        def meet(self):
            all_there.wait()
            return self

    assert Dataset(6, Meeting).p.meet().run(1, executor="threads", num_workers=3).batches == 6


# Options that plugins declare


class Asking(Sink):
    run_options: ClassVar = {"tf_session": "the session to put in"}

    def open(self, run):
        self.seen = run

    def prepare(self, batch):
        return None

    def put(self, item, cancel):
        pass

    @property
    def result(self):
        return dict(self.seen.options)


def test_an_option_that_nobody_declares_is_named_with_those_known():
    with pytest.raises(ArgumentError, match="unknown option 'prefecth'") as raised:
        Dataset(4).p.gen_batch(2, prefecth=3)
    assert isinstance(raised.value, TypeError)
    assert "did you mean 'prefetch'" in str(raised.value)


@pytest.mark.parametrize("how", ["in the pipeline", "given to the run"])
def test_an_option_that_a_sink_declares_goes_to_the_sink(how):
    pipe = Dataset(4).p
    options = {"tf_session": "session"}
    if how == "in the pipeline":
        pipe = pipe.put_into(Asking())
    else:
        options["sink"] = Asking()
    assert pipe.run(2, **options).results == {"Asking": {"tf_session": "session"}}


def test_an_option_that_is_not_given_is_not_there():
    assert Dataset(4).p.put_into(Asking()).run(2).results == {"Asking": {}}


def test_an_unknown_option_beside_a_declared_one_is_told_what_that_is():
    with pytest.raises(ArgumentError, match=r"tf_session \(the session to put in\)"):
        Dataset(4).p.put_into(Asking()).gen_batch(2, tf_sesion=1)


def test_an_option_that_an_executor_declares_goes_to_its_constructor(install):
    install(
        "far-executor",
        "[flowcore.executors]\nfar = far_executor:Far\n",
        far_executor="""
from flowcore.executors.serial import SerialExecutor
class Far(SerialExecutor):
    run_options = {"address": "of the cluster"}
    given = []
    def __init__(self, num_workers, address="here"):
        super().__init__(num_workers)
        self.given.append((num_workers, address))
""",
    )
    pipe = Dataset(4).p
    pipe.run(2, executor="far", num_workers=3, address="there")
    from far_executor import Far

    assert Far.given == [(3, "there")]


def test_an_executor_plugin_that_is_no_executor_is_refused(install):
    source = "def make(num_workers): return {}"
    install("not-one", "[flowcore.executors]\nnot-one = not_one:make\n", not_one=source)
    with pytest.raises(PluginError, match=r"no flowcore.Executor"):
        Dataset(4).p.gen_batch(2, executor="not-one")


def test_a_sink_may_know_what_run_opens_it():
    seen = []

    class Curious(Asking):
        def open(self, run):
            seen.append(run)
            super().open(run)

    pipe = Dataset(10).p.put_into(Curious())
    next(pipe.gen_batch(4))
    pipe.run(4, n_epochs=2, drop_last=True, prefetch=3)
    with pipe.feed(5, n_epochs=None):
        pass
    told = [
        (run.batch_size, run.batches, run.items, run.prefetch, run.hands_over, run.feed, run.inline)
        for run in seen
    ]
    assert told == [
        (4, 3, 10, 0, True, False, True),
        (4, 4, 16, 3, False, False, False),
        (5, None, None, 0, False, True, False),
    ]


def test_an_executor_of_ones_own_needs_only_the_contract():
    class Own(Executor):
        """Runs a task when it is submitted, as the serial one does."""

        calls: ClassVar = []

        def start(self, work):
            self.calls.append("start")
            self.serial = SerialExecutor()
            self.serial.start(work)

        def submit(self, task):
            self.calls.append(task.number)
            return self.serial.submit(task)

        def close(self):
            self.calls.append("close")

    own = Own(num_workers=1)
    assert Dataset(3).p.run(1, executor=own).batches == 3
    assert own.calls == ["start", 0, 1, 2, "close"]


def test_a_class_of_an_executor_is_refused_with_what_is_missing():
    from flowcore.executors.threads import ThreadsExecutor

    with pytest.raises(OptionError, match=r"add \(\)"):
        Settings(batch_size=2, executor=ThreadsExecutor)
