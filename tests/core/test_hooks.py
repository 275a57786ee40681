"""The hooks, one after the other in the order of the calls, on plugins with real metadata."""

import importlib
import itertools
import textwrap
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from flowcore import Batch, Dataset, Executor, Sink, action, hookspecs
from flowcore.errors import Cancelled, PipelineError, WorkerLost

# A process loads a hook plugin once, so each plugin of each test has a name of its own.
_NUMBER = itertools.count()

HOOKS = sorted(name for name in vars(hookspecs._Specs) if name.startswith("flowcore_"))


class Numbers(Batch):
    @action
    def load(self, offset=0):
        self.data = self.positions + offset
        return self

    @action(singleton=True)
    def fail(self, *numbers):
        if self.number in numbers:
            raise ValueError("broken")
        return self


class Noting(Sink):
    """Notes what is done to it in a list that it shares with a hook plugin."""

    def __init__(self, notes):
        self.notes = notes

    def open(self, run):
        self.notes.append("open")

    def put(self, item, cancel):
        self.notes.append(f"put {item.tolist()}")

    def close(self, error):
        self.notes.append("close")


@pytest.fixture
def observer(install):
    """Return a function that installs a hook plugin and returns its list ``seen``."""

    def observer(source):
        name = f"observer_{next(_NUMBER)}"
        head = "from flowcore import hookimpl\nseen = []\n"
        source = head + textwrap.dedent(source)
        install(name.replace("_", "-"), f"[flowcore.hooks]\n{name} = {name}\n", **{name: source})
        return importlib.import_module(name).seen

    return observer


@pytest.fixture
def pipe():
    return Dataset(4, Numbers).p.load()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test_of_its_name(hook):
    assert any(name.startswith(f"test_{hook}_") for name in globals())


# flowcore_run_started


def test_flowcore_run_started_sees_what_the_run_was_asked_for(observer, pipe):
    seen = observer("""
        @hookimpl
        def flowcore_run_started(event): seen.append(event)
        """)
    pipe.run(2, n_epochs=3, seed=7)
    (event,) = seen
    assert (event.recipe, event.batch_size, event.seed, event.batches) == (str(pipe), 2, 7, 6)


def test_flowcore_run_started_comes_before_the_sinks_are_opened(observer, pipe):
    seen = observer("""
        @hookimpl
        def flowcore_run_started(): seen.append("started")
        """)
    pipe.put_into(Noting(seen)).run(4)
    assert seen == ["started", "open", "put [0, 1, 2, 3]", "close"]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_flowcore_run_started_that_raises_ends_the_run_before_it_starts(observer, pipe, prefetch):
    seen = observer("""
        @hookimpl
        def flowcore_run_started(): raise OSError("no licence")
        """)
    run = pipe.put_into(Noting(seen)).gen_batch(2, prefetch=prefetch)
    for _ in range(2):
        with pytest.raises(OSError, match="no licence"):
            next(run)
    assert seen == []


# flowcore_wrap_action


def test_flowcore_wrap_action_replaces_what_an_action_calls(observer, pipe):
    seen = observer("""
        @hookimpl
        def flowcore_wrap_action(event):
            seen.append((event.name, event.step))
            def tenfold(batch, *args, **kwargs):
                batch = event.function(batch, *args, **kwargs)
                batch.data = batch.data * 10
                return batch
            return tenfold
        """)
    batch = next(pipe.put_into(Noting([])).load(offset=2).gen_batch(4))
    assert batch.data.tolist() == [20, 30, 40, 50]
    assert seen == [("load", 0), ("load", 2)]


def test_flowcore_wrap_action_leaves_an_action_for_which_it_returns_nothing(observer, pipe):
    observer("""
        @hookimpl
        def flowcore_wrap_action(event): pass
        """)
    assert next(pipe.gen_batch(4)).data.tolist() == [0, 1, 2, 3]


def test_flowcore_wrap_action_wraps_what_the_plugin_before_it_returned(observer, pipe):
    source = """
        @hookimpl
        def flowcore_wrap_action(event):
            def outer(batch, *args, **kwargs):
                batch = event.function(batch, *args, **kwargs)
                batch.data = [batch.data, {name!r}]
                return batch
            return outer
        """
    for name in "ab":
        observer(source.replace("{name!r}", repr(name)))
    inner, last = next(pipe.gen_batch(1)).data
    first = inner[1]
    assert {first, last} == {"a", "b"}
    assert inner[0].tolist() == [0]


def test_flowcore_wrap_action_stays_inside_the_lock_of_a_singleton(observer, pipe):
    observer("""
        import threading
        inside = threading.Lock()
        @hookimpl
        def flowcore_wrap_action(event):
            if event.name == "fail":
                def alone(batch):
                    assert inside.acquire(blocking=False), "two batches at once"
                    try:
                        return event.function(batch)
                    finally:
                        inside.release()
                return alone
        """)
    assert pipe.fail().run(1, n_epochs=50, num_workers=4).batches == 200


# flowcore_executor_started


@pytest.mark.parametrize(
    ("options", "name", "num_workers"),
    [
        ({}, "SerialExecutor", 0),
        ({"prefetch": 1, "executor": "serial"}, "SerialExecutor", 0),
        ({"num_workers": 3}, "ThreadsExecutor", 3),
    ],
    ids=["inline", "serial", "threads"],
)
def test_flowcore_executor_started_sees_the_executor(observer, pipe, options, name, num_workers):
    seen = observer("""
        @hookimpl
        def flowcore_executor_started(event): seen.append((event.name, event.num_workers))
        """)
    pipe.run(2, **options)
    assert seen == [(name, num_workers)]


@pytest.mark.usefixtures("no_leaks")
def test_flowcore_executor_started_that_raises_leaves_no_worker_and_closes_the_sinks(
    observer, pipe
):
    seen = observer("""
        @hookimpl
        def flowcore_executor_started(): raise OSError("no licence")
        """)
    with pytest.raises(OSError, match="no licence"):
        pipe.put_into(Noting(seen)).run(2, num_workers=2)
    assert seen == ["open", "close"]


# flowcore_worker_started, flowcore_worker_ended

WORKERS = """
    import threading
    @hookimpl
    def flowcore_worker_started(name): seen.append(("started", name, threading.get_ident()))
    @hookimpl
    def flowcore_worker_ended(name): seen.append(("ended", name, threading.get_ident()))
    """


def test_flowcore_worker_started_is_called_once_in_each_worker(observer, pipe):
    seen = observer(WORKERS)
    pipe.run(1, n_epochs=5, num_workers=3)
    started = [(name, thread) for what, name, thread in seen if what == "started"]
    assert len(started) == len(set(started)) == 3
    assert threading.get_ident() not in dict(started).values()


@pytest.mark.parametrize("way", [{}, {"executor": "serial", "prefetch": 2}], ids=str)
def test_flowcore_worker_started_is_called_in_the_thread_that_makes_the_batches(
    observer, pipe, way
):
    seen = observer(WORKERS)
    pipe.run(2, **way)
    assert [(what, name) for what, name, _ in seen] == [
        ("started", "flowcore-serial"),
        ("ended", "flowcore-serial"),
    ]
    assert ({thread for *_, thread in seen} == {threading.get_ident()}) == (not way)


def test_flowcore_worker_started_that_raises_is_the_error_of_the_tasks_of_that_worker(
    observer, pipe
):
    observer("""
        @hookimpl
        def flowcore_worker_started(name): raise OSError("no device")
        """)
    run = pipe.gen_batch(2, num_workers=1, on_error="skip")
    assert list(run) == []
    assert [str(trouble.error) for trouble in run.report.skipped] == ["no device"] * 2


class TwoWorkers(Executor):
    """Gives the batches with even numbers to one worker, those with odd numbers to another."""

    def start(self, work):
        self.work = work
        self.workers = [(ThreadPoolExecutor(1), work.worker(f"worker-{at}")) for at in range(2)]
        for pool, serving in self.workers:
            pool.submit(serving.__enter__).result()

    def submit(self, task):
        return self.workers[task.number % 2][0].submit(self.work, task)

    def close(self):
        for pool, serving in self.workers:
            pool.submit(serving.__exit__, None, None, None).result()
            pool.shutdown()


def test_flowcore_worker_started_that_raises_leaves_the_other_workers_as_they_are(observer, pipe):
    observer("""
        @hookimpl
        def flowcore_worker_started(name):
            if name == "worker-0":
                raise OSError("no device")
        """)
    run = pipe.gen_batch(1, executor=TwoWorkers(2), on_error="skip")
    assert [batch.number for batch in run] == [1, 3]
    assert [trouble.number for trouble in run.report.skipped] == [0, 2]


@pytest.mark.parametrize("how", ["to the end", "failed", "left"])
def test_flowcore_worker_ended_is_called_in_each_worker_however_the_run_ends(observer, pipe, how):
    seen = observer(WORKERS)
    run = pipe.fail(*([1] if how == "failed" else [])).gen_batch(1, num_workers=2)
    if how == "left":
        next(run)
    elif how == "failed":
        with pytest.raises(ValueError, match="broken"):
            list(run)
    else:
        list(run)
    run.close()
    started = {(name, thread) for what, name, thread in seen if what == "started"}
    ended = [(name, thread) for what, name, thread in seen if what == "ended"]
    assert len(ended) == 2
    assert set(ended) == started


# flowcore_batch_failed


def test_flowcore_batch_failed_sees_the_failure_and_what_is_planned(observer):
    seen = observer("""
        @hookimpl
        def flowcore_batch_failed(event): seen.append(event)
        """)
    dataset = Dataset(list("abcd"), Numbers)
    run = dataset.p.fail(1).gen_batch(2, on_error="skip", retries=1)
    assert len(list(run)) == 1
    first, second = seen
    assert (first.epoch, first.number, list(first.ids)) == (0, 1, ["c", "d"])
    assert (first.action, type(first.error)) == ("fail", ValueError)
    assert [(event.attempts, event.retries, event.planned) for event in (first, second)] == [
        (1, 1, "retry"),
        (2, 1, "skip"),
    ]


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "ordered": False}])
def test_flowcore_batch_failed_may_skip_what_the_run_would_raise(observer, pipe, options):
    observer("""
        @hookimpl
        def flowcore_batch_failed(event): return "skip" if event.number == 1 else None
        """)
    run = pipe.fail(1).gen_batch(1, **options)
    assert sorted(batch.number for batch in run) == [0, 2, 3]
    assert [trouble.number for trouble in run.report.skipped] == [1]


def test_flowcore_batch_failed_may_have_a_batch_made_again(observer, pipe):
    observer("""
        @hookimpl
        def flowcore_batch_failed(event): return "retry" if event.attempts < 4 else "skip"
        """)
    report = pipe.fail(1).run(1)
    assert len(report.retried) == 3
    assert [trouble.number for trouble in report.skipped] == [1]


def test_flowcore_batch_failed_may_raise_what_the_run_would_skip(observer, pipe):
    observer("""
        @hookimpl
        def flowcore_batch_failed(event): return "raise"
        """)
    with pytest.raises(ValueError, match="broken"):
        pipe.fail(1).run(1, on_error="skip", retries=5)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_flowcore_batch_failed_that_raises_replaces_the_error_which_is_its_context(
    observer, pipe, prefetch
):
    observer("""
        @hookimpl
        def flowcore_batch_failed(event): raise OSError("too many")
        """)
    with pytest.raises(OSError, match="too many") as raised:
        pipe.fail(1).run(1, prefetch=prefetch)
    assert isinstance(raised.value.__context__, ValueError)


# flowcore_worker_lost


class Losing(Executor):
    """Loses the worker that gets batch 1, as often as it is told to."""

    def __init__(self, times):
        super().__init__(1)
        self.times = times

    def start(self, work):
        self.work = work

    def submit(self, task):
        future = Future()
        if task.number == 1 and self.times:
            self.times -= 1
            future.set_exception(OSError("killed"))
        else:
            future.set_result(self.work(task))
        return future

    def close(self):
        pass


LOST = """
    @hookimpl
    def flowcore_worker_lost(event):
        seen.append((event.epoch, event.number, str(event.error), event.final))
    """


def test_flowcore_worker_lost_sees_a_loss_that_costs_a_re_run(observer, pipe):
    seen = observer(LOST)
    assert pipe.run(1, executor=Losing(1)).batches == 4
    assert seen == [(0, 1, "killed", False)]


def test_flowcore_worker_lost_sees_the_loss_that_is_final(observer, pipe):
    seen = observer(LOST)
    with pytest.raises(WorkerLost):
        pipe.run(1, executor=Losing(9))
    assert seen == [(0, 1, "killed", False), (0, 1, "killed", True)]


# flowcore_batch_delivered


@pytest.mark.parametrize("prefetch", [0, 3])
def test_flowcore_batch_delivered_comes_in_order_after_the_put(observer, pipe, prefetch):
    seen = observer("""
        @hookimpl
        def flowcore_batch_delivered(event):
            seen.append((event.epoch, event.number, event.items, event.batch.data.tolist()))
        """)
    pipe.put_into(Noting(seen)).run(3, n_epochs=2, prefetch=prefetch)
    assert seen == [
        "open",
        "put [0, 1, 2]",
        (0, 0, 3, [0, 1, 2]),
        "put [3]",
        (0, 1, 1, [3]),
        "put [0, 1, 2]",
        (1, 0, 3, [0, 1, 2]),
        "put [3]",
        (1, 1, 1, [3]),
        "close",
    ]


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError, OSError), (Cancelled, PipelineError)],  # Cancelled would say that the run is left
)
def test_flowcore_batch_delivered_that_raises_fails_the_run(
    observer, pipe, prefetch, error, raised
):
    observer(f"""
        from flowcore.errors import Cancelled
        @hookimpl
        def flowcore_batch_delivered(event):
            if event.number == 1:
                raise {error.__name__}("by another run")
        """)
    run = pipe.gen_batch(1, prefetch=prefetch, on_error="skip")
    assert next(run).number == 0
    with pytest.raises(raised, match="by another run"):
        next(run)


# flowcore_run_ended

ENDED = """
    @hookimpl
    def flowcore_run_ended(event): seen.append(event)
    """


@pytest.mark.parametrize("prefetch", [0, 3])
def test_flowcore_run_ended_sees_the_end_of_the_data(observer, pipe, prefetch):
    seen = observer(ENDED)
    pipe.run(3, prefetch=prefetch)
    (event,) = seen
    assert (event.error, event.batches, event.items) == (None, 2, 4)
    assert event.seconds > 0


@pytest.mark.parametrize("prefetch", [0, 3])
def test_flowcore_run_ended_sees_the_failure(observer, pipe, prefetch):
    seen = observer(ENDED)
    with pytest.raises(ValueError, match="broken") as raised:
        pipe.fail(1).run(1, prefetch=prefetch)
    (event,) = seen
    assert event.error is raised.value
    assert event.batches == 1


@pytest.mark.parametrize("prefetch", [0, 3])
def test_flowcore_run_ended_sees_that_the_run_was_left(observer, pipe, prefetch):
    seen = observer(ENDED)
    with pipe.gen_batch(1, n_epochs=None, prefetch=prefetch) as run:
        next(run)
    (event,) = seen
    assert isinstance(event.error, Cancelled)


def test_flowcore_run_ended_sees_a_sink_that_could_not_be_opened(observer, pipe):
    class Refusing(Noting):
        def open(self, run):
            raise OSError("no disk")

    seen = observer(ENDED)
    with pytest.raises(OSError, match="no disk"):
        pipe.put_into(Refusing([])).run(1)
    assert [type(event.error) for event in seen] == [OSError]


def test_flowcore_run_ended_comes_after_the_sinks_are_closed(observer, pipe):
    seen = observer("""
        @hookimpl
        def flowcore_run_ended(): seen.append("ended")
        """)
    pipe.put_into(Noting(seen)).run(4)
    assert seen == ["open", "put [0, 1, 2, 3]", "close", "ended"]


def test_flowcore_run_ended_that_raises_is_logged_and_the_run_stays_good(observer, pipe, caplog):
    observer("""
        @hookimpl
        def flowcore_run_ended(): raise OSError("no disk")
        """)
    assert pipe.run(1).batches == 4
    assert "flowcore_run_ended" in caplog.text


# Plugins that do not load


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise OSError('no device')", "no device"),
        ("def (", "SyntaxError"),
        (
            "from flowcore import hookimpl\n@hookimpl\ndef flowcore_no_such_hook(): pass",
            "flowcore_no_such_hook",
        ),
        (
            "from flowcore import hookimpl\n@hookimpl\ndef flowcore_run_started(evnt): pass",
            "evnt",
        ),
    ],
    ids=["import", "syntax", "unknown hook", "unknown argument"],
)
def test_a_hook_plugin_that_does_not_load_is_one_warning_and_the_others_work(
    install, observer, pipe, source, why, request
):
    name = f"broken_{request.node.callspec.id.replace(' ', '_')}"
    install(name.replace("_", "-"), f"[flowcore.hooks]\n{name} = {name}\n", **{name: source})
    seen = observer("""
        @hookimpl
        def flowcore_run_started(): seen.append("started")
        """)
    with pytest.warns(RuntimeWarning, match="left out a hook plugin") as warned:
        pipe.run(2)
    assert len(warned) == 1
    assert why in str(warned[0].message)
    pipe.run(2)  # warnings are errors here, so a second one would fail the test
    assert seen == ["started", "started"]


def test_a_hook_plugin_may_be_an_object_with_methods(install, pipe):
    install(
        "object-hooks",
        "[flowcore.hooks]\nobject = object_hooks:plugin\n",
        object_hooks="""
from flowcore import hookimpl
class Plugin:
    started = 0
    @hookimpl
    def flowcore_run_started(self, event): self.started += 1
plugin = Plugin()
""",
    )
    pipe.run(2)
    from object_hooks import plugin

    assert plugin.started == 1


@pytest.mark.timeout(10)
def test_a_hook_plugin_may_run_a_pipeline_while_it_is_imported(install, pipe):
    install(
        "eager-hooks",
        "[flowcore.hooks]\neager = eager_hooks\n",
        eager_hooks="import flowcore\nbatches = flowcore.Dataset(3).p.run(1).batches\n",
    )
    assert pipe.run(2).batches == 2
