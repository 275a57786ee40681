"""Promise 7: leaving is clean: within a second nothing of the run is left, however it is left.

The fixture ``no_leaks`` holds the second; it looks for threads of the run after each test.
"""

import asyncio
import gc
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowcore import Batch, Cancel, Dataset, Sink, action
from flowcore.errors import Cancelled

WAYS = {
    "inline": {},
    "serial": {"executor": "serial", "prefetch": 3},
    "threads": {"num_workers": 2, "prefetch": 4},
    "unordered": {"num_workers": 2, "prefetch": 4, "ordered": False},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
pytestmark = pytest.mark.usefixtures("no_leaks")


class Numbers(Batch):
    @action
    def call(self, function):
        function(self)
        return self


class QueueSink(Sink):
    """A bounded queue that says when it is full, and how it was closed."""

    def __init__(self, capacity=0):
        self.queue = queue.Queue(capacity)
        self.full = threading.Event()
        self.closed = []

    def prepare(self, batch):
        return batch.number

    def put(self, item, cancel):
        while True:
            try:
                return self.queue.put_nowait(item)
            except queue.Full:
                self.full.set()
                if cancel.wait(0.01):
                    raise Cancelled("the run is left") from None

    def close(self, error):
        self.closed.append(error)

    @property
    def items(self):
        return list(self.queue.queue)


@pytest.fixture
def pipe():
    return Dataset(10, Numbers).p


# The ways to leave


@every_way
def test_a_run_that_is_exhausted_is_gone(pipe, way):
    sink = QueueSink()
    assert len(list(pipe.gen_batch(3, sink=sink, **way))) == 4
    assert sink.closed == [None]


@every_way
def test_a_run_that_is_closed_is_gone(pipe, way):
    sink = QueueSink()
    run = pipe.gen_batch(3, n_epochs=None, sink=sink, **way)
    next(run)
    run.close()
    assert [type(error) for error in sink.closed] == [Cancelled]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(run)


@every_way
def test_a_run_is_closed_with_its_block(pipe, way):
    sink = QueueSink()
    with pipe.gen_batch(3, sink=sink, n_epochs=None, **way) as run:
        next(run)
    assert [type(error) for error in sink.closed] == [Cancelled]


@every_way
def test_a_run_that_is_closed_twice_is_closed_once(pipe, way):
    sink = QueueSink()
    run = pipe.gen_batch(3, sink=sink, n_epochs=None, **way)
    next(run)
    run.close()
    run.close()
    assert len(sink.closed) == 1


@every_way
def test_a_loop_that_is_left_leaves_the_run(pipe, way):
    sink = QueueSink()
    for _ in pipe.gen_batch(3, n_epochs=None, sink=sink, **way):
        break
    _until(lambda: sink.closed)
    assert [type(error) for error in sink.closed] == [Cancelled]


@every_way
def test_a_run_that_is_garbage_collected_is_gone(pipe, way):
    sink = QueueSink()
    run = pipe.gen_batch(3, n_epochs=None, sink=sink, **way)
    run.itself = run  # only the collector finds it
    next(run)
    del run
    gc.collect()
    _until(lambda: sink.closed)
    assert [type(error) for error in sink.closed] == [Cancelled]


@every_way
def test_the_run_of_next_batch_is_gone_with_its_pipeline(way):
    sink = QueueSink()
    Dataset(10, Numbers).p.next_batch(3, n_epochs=None, sink=sink, **way)
    gc.collect()
    _until(lambda: sink.closed)
    assert [type(error) for error in sink.closed] == [Cancelled]


@every_way
def test_reset_closes_the_run_of_next_batch(pipe, way):
    sink = QueueSink()
    pipe.next_batch(3, n_epochs=None, sink=sink, **way)
    pipe.reset()
    assert [type(error) for error in sink.closed] == [Cancelled]


@every_way
@pytest.mark.parametrize("where", ["action", "prepare", "put"])
def test_a_run_that_fails_is_gone(pipe, way, where):
    class Failing(QueueSink):
        def prepare(self, batch):
            return fail(batch) if where == "prepare" else super().prepare(batch)

        def put(self, item, cancel):
            return fail(item) if where == "put" else super().put(item, cancel)

    def fail(*args):
        raise ZeroDivisionError

    sink = Failing()
    if where == "action":
        pipe = pipe.call(fail)
    with pytest.raises(ZeroDivisionError):
        list(pipe.gen_batch(3, sink=sink, **way))
    assert [type(error) for error in sink.closed] == [ZeroDivisionError]


def test_a_run_that_failed_can_be_garbage_collected(pipe):
    def fail(batch):
        raise ZeroDivisionError

    def use():
        run = pipe.call(fail).gen_batch(3)
        with pytest.raises(ZeroDivisionError):
            next(run)
        return weakref.ref(run)

    gone = use()
    gc.collect()
    assert gone() is None


# Before the first batch


@every_way
def test_a_run_that_is_closed_before_it_starts_never_starts(pipe, way):
    class Untouched(QueueSink):
        def open(self, run):
            raise AssertionError

    run = pipe.gen_batch(3, sink=Untouched(), **way)
    run.close()
    with pytest.raises(StopIteration):
        next(run)


@every_way
def test_a_run_that_is_closed_by_another_thread_while_it_starts_is_gone(pipe, way):
    opening, go_on = threading.Event(), threading.Event()

    class Slow(QueueSink):
        def open(self, run):
            opening.set()
            assert go_on.wait(10)

    sink = Slow()
    run = pipe.gen_batch(3, sink=sink, **way)
    with ThreadPoolExecutor(2) as threads:
        numbers = threads.submit(list, run)
        assert opening.wait(10)
        closed = threads.submit(run.close)
        with pytest.raises(TimeoutError):
            closed.result(0.1)  # the sink is still being opened
        go_on.set()
        closed.result(2)
        assert numbers.result(2) == []
    _until(lambda: sink.closed)
    assert [type(error) for error in sink.closed] == [Cancelled]


@every_way
def test_a_run_that_is_closed_by_its_own_sink_while_it_starts_is_gone(pipe, way):
    """As a signal handler does that comes in while a sink is opened."""

    class Closing(QueueSink):
        def open(self, started):
            run.close()

    sink = Closing()
    run = pipe.gen_batch(3, sink=sink, **way)
    assert list(run) == []
    run.close()
    assert [type(error) for error in sink.closed] == [Cancelled]


@pytest.mark.timeout(10)
@every_way
def test_a_run_whose_sink_cannot_be_opened_raises_that_in_each_call(pipe, way):
    class Refusing(QueueSink):
        def open(self, run):
            raise OSError("no disk")

    run = pipe.gen_batch(3, sink=Refusing(), **way)
    for _ in range(3):
        with pytest.raises(OSError, match="no disk"):
            next(run)
    run.close()


# While something waits


@every_way
def test_a_put_that_waits_is_given_up_and_its_item_is_not_in(pipe, way):
    sink = QueueSink(2)
    run = pipe.gen_batch(1, n_epochs=None, sink=sink, **way)
    consumer = threading.Thread(target=lambda: ended.put(list(run)))
    ended = queue.Queue()
    consumer.start()
    assert sink.full.wait(10)
    _within_a_second(run.close)
    assert len(sink.items) == 2
    assert sink.items == [0, 1] or way.get("ordered") is False
    numbers = [batch.number for batch in ended.get(timeout=1)]
    assert numbers == sink.items[: len(numbers)]  # closing may be quicker than the consumer
    assert [type(error) for error in sink.closed] == [Cancelled]
    sink.queue.get_nowait()
    sink.queue.put_nowait("still usable")


def test_a_put_that_waits_in_a_run_that_nobody_holds_is_given_up(pipe):
    sink = QueueSink(1)
    run = pipe.gen_batch(1, n_epochs=None, prefetch=3, sink=sink)
    next(run)
    assert sink.full.wait(10)
    del run
    _until(lambda: sink.closed)
    assert sink.items == [0]


def test_an_item_that_was_taken_while_the_run_was_left_is_in_once(pipe):
    class Late(QueueSink):
        def put(self, item, cancel):
            self.full.set()
            assert cancel.wait(10)
            super().put(item, cancel)

    sink = Late()
    run = pipe.gen_batch(1, n_epochs=None, prefetch=3, sink=sink)
    consumer = threading.Thread(target=list, args=(run,))
    consumer.start()
    assert sink.full.wait(10)
    _within_a_second(run.close)
    consumer.join(1)
    assert not consumer.is_alive()
    assert sink.items == [0]


@every_way
def test_closing_does_not_wait_for_an_action_that_never_ends(pipe, way):
    started, release = threading.Event(), threading.Event()

    def hang(batch):
        if batch.number == 1:
            started.set()
            assert release.wait(20)

    sink = QueueSink()
    run = pipe.call(hang).gen_batch(1, sink=sink, **way)
    consumer = threading.Thread(target=list, args=(run,))
    closer = threading.Thread(target=run.close)
    consumer.start()
    assert started.wait(10)
    closer.start()
    closer.join(2.5)  # it is patient with the action, but not for ever
    waited_in_vain = closer.is_alive()
    release.set()
    consumer.join()
    closer.join()
    assert not waited_in_vain
    _until(lambda: sink.closed)
    assert [type(error) for error in sink.closed] == [Cancelled]


def test_all_threads_that_wait_for_a_batch_are_let_go(pipe):
    started, release = threading.Event(), threading.Event()

    def hang(batch):
        started.set()
        assert release.wait(20)

    run = pipe.call(hang).gen_batch(1, num_workers=2)
    consumers = [threading.Thread(target=list, args=(run,)) for _ in range(3)]
    for consumer in consumers:
        consumer.start()
    assert started.wait(10)
    closer = threading.Thread(target=run.close)
    closer.start()
    for consumer in consumers:
        consumer.join(2)
        assert not consumer.is_alive()
    release.set()
    closer.join()


@every_way
@pytest.mark.parametrize("where", ["action", "put"])
def test_a_run_that_closes_itself_ends_and_closes_its_sinks(pipe, way, where):
    class Closing(QueueSink):
        def put(self, item, cancel):
            if where == "put" and item == 1:
                run.close()
            super().put(item, cancel)

    def close(batch):
        if where == "action" and batch.number == 1:
            run.close()

    sink = Closing()
    run = pipe.call(close).gen_batch(1, n_epochs=None, sink=sink, **way)
    numbers = [batch.number for batch in run]
    _until(lambda: sink.closed)
    assert numbers == sink.items[: len(numbers)]
    assert [type(error) for error in sink.closed] == [Cancelled]


def test_a_run_that_is_collected_inside_of_its_own_action_is_gone(pipe):
    held = []

    def let_go(batch):
        if batch.number == 2:
            held.clear()
            gc.collect()

    sink = QueueSink()
    held.append(pipe.call(let_go).gen_batch(1, n_epochs=None, prefetch=2, sink=sink))
    next(held[0])
    _until(lambda: sink.closed)
    assert [type(error) for error in sink.closed] == [Cancelled]


# What belongs to the user stays


def test_a_pool_of_ones_own_is_left_open(pipe):
    with ThreadPoolExecutor(2) as pool:
        with pipe.gen_batch(1, n_epochs=None, executor=pool) as run:
            next(run)
        assert pool.submit(int, "3").result(10) == 3
        assert pipe.run(1, executor=pool).batches == 10


def test_tasks_that_wait_in_a_pool_of_ones_own_are_taken_back(pipe):
    started, release, begun = threading.Event(), threading.Event(), []

    def hang(batch):
        begun.append(batch.number)
        started.set()
        assert release.wait(20)

    with ThreadPoolExecutor(1) as pool:
        run = pipe.call(hang).gen_batch(1, executor=pool, prefetch=5)
        consumer = threading.Thread(target=list, args=(run,))
        consumer.start()
        assert started.wait(10)
        run.close()
        release.set()
        consumer.join(10)
    assert begun == [0]


# The token


def test_a_token_wakes_whoever_waits_for_it():
    cancel = Cancel()
    assert not cancel.wait(0)
    woken = []
    waiters = [threading.Thread(target=lambda: woken.append(cancel.wait(10))) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    cancel.set()
    for waiter in waiters:
        waiter.join()
    assert woken == [True] * 3
    assert cancel.is_set()


def test_a_token_calls_back_once_and_only_inside_of_the_block():
    cancel, called = Cancel(), []
    with cancel.on_set(lambda: called.append("forgotten")):
        pass
    with cancel.on_set(lambda: called.append("one")), cancel.on_set(lambda: called.append("other")):
        cancel.set()
        cancel.set()
    assert sorted(called) == ["one", "other"]


def test_a_token_that_is_set_calls_back_at_once():
    cancel, called = Cancel(), []
    cancel.set()
    with cancel.on_set(lambda: called.append("at once")):
        assert called == ["at once"]
    assert called == ["at once"]


# Ctrl-C, and the end of the program

HEAD = """
import queue, sys, threading, time
from flowcore import Batch, Dataset, Sink, action
from flowcore.errors import Cancelled

class Full(Sink):
    '''Takes one item, and then says on the standard output that it is full.'''
    taken = 0
    def prepare(self, batch):
        return batch.number
    def put(self, item, cancel):
        if self.taken == 0:
            self.taken = 1
            return
        print("full", flush=True)
        while not cancel.wait(0.05):
            pass
        raise Cancelled
    def close(self, error):
        print("closed with", type(error).__name__, flush=True)

class Sleeping(Batch):
    @action
    def sleep(self):
        if self.number:
            print("full", flush=True)
            time.sleep(100)
        return self

pipe = Dataset(10).p
sleeping = Dataset(10, Sleeping).p.sleep()
"""

CTRL_C = {
    "gen_batch, inline": "for batch in pipe.gen_batch(1, sink=Full()): pass",
    "gen_batch, ahead": "for batch in pipe.gen_batch(1, sink=Full(), prefetch=4): pass",
    "next_batch, inline": "while True: pipe.next_batch(1, sink=kept)",
    "next_batch, ahead": "while True: pipe.next_batch(1, sink=kept, prefetch=4)",
    "run, inline": "pipe.run(1, sink=Full())",
    "run, ahead": "pipe.run(1, sink=Full(), prefetch=4)",
    "feed, waiting": "with pipe.feed(1, sink=Full()) as feed: feed.wait()",
    "feed, ahead": "with pipe.feed(1, sink=Full(), prefetch=4) as feed: feed.wait()",
}


def start(tmp_path, code):
    program = tmp_path / "program.py"
    program.write_text(HEAD + code)
    return subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("code", CTRL_C.values(), ids=CTRL_C)
def test_ctrl_c_ends_a_program_whose_put_is_blocked(tmp_path, code):
    program = start(tmp_path, "kept = Full()\n" + code)
    assert program.stdout.readline() == "full\n"
    program.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = program.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert program.returncode == -signal.SIGINT
    assert err.rstrip().splitlines()[-1].startswith(("KeyboardInterrupt", "flowcore: in put"))
    assert err.count("Traceback") == 1
    assert out in ("closed with Cancelled\n", "closed with KeyboardInterrupt\n")


EXITS = {
    "inline": "run = pipe.gen_batch(1, sink=Full()); next(run)",
    "ahead": "run = pipe.gen_batch(1, sink=Full(), prefetch=4); next(run)",
    "next_batch": "pipe.next_batch(1, sink=Full(), prefetch=4)",
    "feed": "feed = pipe.feed(1, sink=Full()); feed.__enter__()",
    "an error": "run = pipe.gen_batch(1, sink=Full(), prefetch=4); next(run); sys.exit(3)",
    "a thread in a running action": "threading.Thread(target=list, daemon=True, "
    "args=(sleeping.gen_batch(1, sink=Full()),)).start(); time.sleep(0.2)",
    "a running action": "run = sleeping.gen_batch(1, sink=Full(), num_workers=2); next(run)",
}


@pytest.mark.parametrize("code", EXITS.values(), ids=EXITS)
def test_a_program_ends_though_a_run_is_left_open(tmp_path, code):
    program = start(tmp_path, code)
    out, err = program.communicate(timeout=10)
    assert err == ""
    assert program.returncode == (3 if "exit" in code else 0)
    if "daemon" not in code:  # that action still has the run
        assert out.splitlines()[-1] == "closed with Cancelled"


# Helpers


def _until(condition):
    end = time.monotonic() + 1
    while not condition() and time.monotonic() < end:
        threading.Event().wait(0.005)


def _within_a_second(call):
    began = time.monotonic()
    call()
    assert time.monotonic() - began < 1


# Actions of items, and async ones


class Waiting(Batch):
    components = ("values",)
    begun = threading.Event()

    @action
    async def wait(self):
        Waiting.begun.set()
        await asyncio.Event().wait()  # nobody sets it
        return self

    @action(each="item", concurrency=4)
    async def wait_each(item):
        Waiting.begun.set()
        await asyncio.Event().wait()
        return item

    @action(each="item", concurrency=3)
    def draw(item):
        item.values = item.rng.random()
        return item


@pytest.mark.parametrize("wait", ["wait", "wait_each"])
@pytest.mark.parametrize("way", [WAYS["threads"], WAYS["serial"]], ids=["threads", "serial"])
def test_a_run_whose_async_action_waits_is_left_within_a_second(wait, way):
    Waiting.begun.clear()
    run = getattr(Dataset(6, Waiting).p, wait)().gen_batch(2, **way)
    run.start()
    assert Waiting.begun.wait(10)
    begun = time.monotonic()
    run.close()
    assert time.monotonic() - begun < 1


@every_way
def test_a_run_of_item_threads_that_is_left_half_way_is_gone(way):
    run = Dataset(60, Waiting).p.draw().gen_batch(4, **way)
    next(run)
    run.close()
