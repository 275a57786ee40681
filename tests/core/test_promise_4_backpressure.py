"""Promise 4: at most ``prefetch + 1`` batches beyond what consumer and sinks hold."""

import gc
import queue
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from flowcore import Batch, Dataset, Sink, action
from flowcore.errors import Cancelled


class Tally:
    """Counts what is begun and what was asked for, and keeps the largest distance seen."""

    def __init__(self):
        self.changed = threading.Condition()
        self.begun = self.asked = self.most = 0

    def begin(self):
        with self.changed:
            self.begun += 1
            self.most = max(self.most, self.begun - self.asked)
            self.changed.notify_all()

    def ask(self):
        with self.changed:
            self.asked += 1

    def wait_for(self, begun):
        """Return whether so many batches are begun, in time."""
        with self.changed:
            return self.changed.wait_for(lambda: self.begun >= begun, timeout=10)


class Counted(Batch):
    @action
    def count(self, tally):
        tally.begin()
        return self

    @action
    def fail_in(self, numbers):
        if self.number in numbers:
            raise ValueError("broken")
        return self


class QueueSink(Sink):
    """A bounded queue that says when it is full."""

    def __init__(self, capacity):
        self.queue = queue.Queue(capacity)
        self.full = threading.Event()

    def prepare(self, batch):
        return batch.number

    def put(self, item, cancel):
        while True:
            try:
                return self.queue.put_nowait(item)
            except queue.Full:
                self.full.set()
                if cancel.wait(0.002):
                    raise Cancelled("the run is left") from None


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    pass


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("num_workers", [1, 2, 8])
@pytest.mark.parametrize("prefetch", [1, 4, 9])
def test_so_many_batches_as_prefetch_says_are_begun_ahead_and_no_more(
    prefetch, num_workers, ordered
):
    tally = Tally()
    pipe = Dataset(30, Counted).p.count(tally)
    with (
        ThreadPoolExecutor(num_workers) as pool,
        pipe.gen_batch(1, n_epochs=None, prefetch=prefetch, executor=pool, ordered=ordered) as run,
    ):
        for asked in range(1, 21):
            tally.ask()
            next(run)
            assert tally.wait_for(asked + prefetch)
    assert tally.most == prefetch  # beyond the one that was asked for


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("num_workers", [1, 2, 8])
@pytest.mark.parametrize("prefetch", [1, 4, 9])
def test_of_tiny_batches_that_are_begun_together_at_least_half_as_many_are(
    prefetch, num_workers, ordered
):
    tally = Tally()
    pipe = Dataset(30, Counted).p.count(tally)
    options = {"prefetch": prefetch, "num_workers": num_workers, "ordered": ordered}
    with pipe.gen_batch(1, n_epochs=None, **options) as run:
        for asked in range(1, 101):
            tally.ask()
            next(run)
            assert tally.wait_for(asked + prefetch // 2)
    assert prefetch // 2 <= tally.most <= prefetch


def test_without_prefetch_a_batch_is_begun_when_it_is_asked_for():
    tally = Tally()
    run = Dataset(10, Counted).p.count(tally).gen_batch(1)
    for asked in range(1, 11):
        tally.ask()
        next(run)
        assert tally.begun == asked


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_skipped_batches_do_not_widen_the_window(prefetch):
    tally = Tally()
    pipe = Dataset(30, Counted).p.fail_in(range(0, 30, 2)).count(tally)
    tally.ask()
    run = pipe.gen_batch(1, prefetch=prefetch, on_error="skip")
    for _ in run:
        tally.ask()
    assert tally.begun == 15
    assert tally.most <= prefetch


def run(pipe, **options):
    pipe.run(1, **options)


def feed(pipe, **options):
    with pipe.feed(1, **options) as feed:
        feed.wait(10)


@pytest.mark.parametrize("way", [run, feed])
@pytest.mark.parametrize("prefetch", [1, 4])
@pytest.mark.parametrize("capacity", [1, 3])
def test_a_full_sink_stops_the_run(capacity, prefetch, way):
    tally, sink = Tally(), QueueSink(capacity)
    pipe = Dataset(40, Counted).p.count(tally)
    options = {"prefetch": prefetch, "sink": sink}
    runner = threading.Thread(target=way, args=(pipe,), kwargs=options)
    runner.start()
    assert sink.full.wait(10)
    assert tally.wait_for(capacity + 1 + prefetch)
    for taken in range(40):
        assert tally.begun <= taken + capacity + 1 + prefetch
        assert sink.queue.get(timeout=10) == taken
    runner.join(10)
    assert tally.begun == 40


class Watched(Batch):
    """A batch that can be counted while it is alive."""

    alive: ClassVar = weakref.WeakSet()
    most = 0

    @action
    def look(self):
        Watched.alive.add(self)
        Watched.most = max(Watched.most, len(Watched.alive))
        return self

    @action
    def fail(self):
        raise ValueError("broken")

    @action
    def fail_in_turn(self):
        try:
            _look_up(self)
        except KeyError as error:
            raise ValueError("broken") from error


def _look_up(batch):
    raise KeyError(batch.number)


@pytest.fixture
def watched():
    gc.collect()
    Watched.alive.clear()
    Watched.most = 0
    return Watched


@pytest.mark.parametrize(
    "options", [{}, {"prefetch": 1}, {"prefetch": 4}, {"prefetch": 4, "ordered": False}], ids=str
)
def test_a_batch_that_the_consumer_lets_go_is_gone_before_others_take_its_place(watched, options):
    gc.disable()  # gone by itself, not by a collection
    try:
        for batch in Dataset(50, watched).p.look().gen_batch(1, **options):  # noqa: B007
            pass
    finally:
        gc.enable()
    # The consumer holds one until it gets the next; a worker one until it has looked up from it.
    workers = prefetch = options.get("prefetch", 0)
    assert watched.most <= prefetch + 1 + 1 + workers


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_run_to_the_end_keeps_no_batch(watched, prefetch):
    gc.disable()  # gone by itself, not by a collection
    try:
        Dataset(50, watched).p.look().run(1, prefetch=prefetch)
        workers = prefetch
        assert watched.most <= prefetch + 1 + workers
        assert not watched.alive
    finally:
        gc.enable()


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("action", ["fail", "fail_in_turn"])
def test_the_report_does_not_keep_skipped_batches_alive(watched, prefetch, retries, action):
    pipe = getattr(Dataset(50, watched).p.look(), action)()
    report = pipe.run(1, prefetch=prefetch, on_error="skip", retries=retries)
    assert len(report.skipped) == 50
    gc.collect()
    assert not watched.alive


def test_a_sink_that_takes_whatever_comes_does_not_let_the_run_get_ahead_of_its_consumer():
    tally = Tally()
    pipe = Dataset(30, Counted).p.count(tally)
    with pipe.gen_batch(1, prefetch=2, sink=QueueSink(0)) as run:
        for _ in range(5):
            tally.ask()
            next(run)
            assert tally.wait_for(tally.asked + 2)
    assert tally.most == 2
