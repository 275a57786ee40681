"""Promise 5: a sink that stays full, or a task that goes on running, is named in one warning."""

import logging
import queue
import threading

import pytest

from flowcore import Batch, Dataset, Sink, action
from flowcore.errors import Cancelled

SOON = 0.2  # seconds


@pytest.fixture
def warnings():
    """A queue of the texts of warnings, as they are logged."""
    logged = queue.Queue()

    class Handler(logging.Handler):
        def emit(self, record):
            assert record.levelno == logging.WARNING
            logged.put(record.getMessage())

    handler = Handler()
    logging.getLogger("flowcore").addHandler(handler)
    yield logged
    logging.getLogger("flowcore").removeHandler(handler)


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    pass


class QueueSink(Sink):
    """A bounded queue; ``put`` looks at its cancel token while it waits."""

    def __init__(self, capacity=1):
        self.queue = queue.Queue(capacity)

    def prepare(self, batch):
        return batch.number

    def put(self, item, cancel):
        while True:
            try:
                return self.queue.put(item, timeout=0.01)
            except queue.Full:
                if cancel.is_set():
                    raise Cancelled("the run is left") from None


class Waiting(Batch):
    @action
    def wait_for(self, events):
        if self.number in events:
            assert events[self.number].wait(20)
        return self

    @action
    def take_a_moment(self):
        threading.Event().wait(SOON / 4)
        return self


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_sink_that_stays_full_is_named_with_the_batch_and_what_to_do(warnings, prefetch, caplog):
    sink = QueueSink()
    run = Dataset(2).p.gen_batch(1, prefetch=prefetch, sink=sink, stall_warning=SOON)
    said = []

    def take_what_is_in_when_warned():
        said.append(warnings.get(timeout=10))
        sink.queue.get(timeout=10)

    taker = threading.Thread(target=take_what_is_in_when_warned)
    taker.start()
    assert [batch.number for batch in run] == [0, 1]
    taker.join()
    assert "sink 'QueueSink' to take batch 1 of epoch 0" in said[0]
    assert "next:" in said[0]
    assert said[0] in caplog.text


def test_a_full_sink_of_a_feed_is_named(warnings):
    sink = QueueSink()
    with Dataset(4).p.feed(1, sink=sink, stall_warning=SOON):
        assert "sink 'QueueSink' to take batch 1 of epoch 0" in warnings.get(timeout=10)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_task_that_goes_on_running_is_named_with_action_and_batch(warnings, ordered):
    event = threading.Event()
    pipe = Dataset(list("abcdef"), Waiting).p.wait_for({1: event})
    run = pipe.gen_batch(2, num_workers=1, ordered=ordered, stall_warning=SOON)
    next(run)
    consumer = threading.Thread(target=list, args=(run,))
    consumer.start()
    said = warnings.get(timeout=10)
    event.set()
    consumer.join()
    assert "'wait_for' to finish batch 1 of epoch 0, ids ['c', 'd']" in said


@pytest.mark.parametrize("options", [{}, {"executor": "serial", "prefetch": 2}], ids=str)
def test_a_task_that_runs_in_the_delivering_thread_is_named_too(warnings, options):
    event = threading.Event()
    pipe = Dataset(3, Waiting).p.wait_for({1: event})
    with pipe.feed(1, stall_warning=SOON, **options) as feed:
        try:
            assert "'wait_for' to finish batch 1 of epoch 0" in warnings.get(timeout=5)
        finally:
            event.set()
        feed.wait(10)


def test_a_stuck_task_is_named_though_other_batches_go_on(warnings):
    event = threading.Event()
    pipe = Dataset(1000, Waiting).p.wait_for({1: event}).take_a_moment()
    run = pipe.gen_batch(1, num_workers=2, ordered=False, stall_warning=SOON)
    for _ in range(40):  # 40 moments of which each is shorter than the warning takes
        next(run)
        if not warnings.empty():
            break
    event.set()
    run.close()
    assert "'wait_for' to finish batch 1 of epoch 0" in warnings.get_nowait()


def test_a_stuck_task_is_named_though_those_behind_it_finish_one_by_one(warnings):
    event = threading.Event()
    pipe = Dataset(50, Waiting).p.wait_for({0: event}).take_a_moment()
    with pipe.gen_batch(1, num_workers=2, prefetch=40, stall_warning=SOON) as run:
        consumer = threading.Thread(target=next, args=(run,))
        consumer.start()
        try:
            # The 39 others take one worker 10 times as long as the warning.
            assert "'wait_for'" in warnings.get(timeout=SOON * 5)
        finally:
            event.set()
            consumer.join()


def test_each_stall_is_one_warning(warnings):
    sink = QueueSink()
    with Dataset(3).p.feed(1, sink=sink, stall_warning=SOON) as feed:
        assert "batch 1 of" in warnings.get(timeout=10)
        with pytest.raises(queue.Empty):
            warnings.get(timeout=SOON * 2)
        sink.queue.get()
        assert "batch 2 of" in warnings.get(timeout=10)
        sink.queue.get()
        assert feed.wait(10)
    assert warnings.empty()


def test_none_switches_the_warning_off(warnings):
    event = threading.Event()
    pipe = Dataset(2, Waiting).p.wait_for({0: event})
    with pipe.feed(1, prefetch=1, stall_warning=None) as feed:
        assert not feed.wait(SOON)
        assert not [one for one in threading.enumerate() if one.name == "flowcore-watch"]
        event.set()
        assert feed.wait(10)
    assert warnings.empty()


def test_a_slow_consumer_is_no_stall(warnings):
    run = Dataset(8).p.gen_batch(1, prefetch=2, stall_warning=SOON / 4)
    for _ in run:
        with pytest.raises(queue.Empty):
            warnings.get(timeout=SOON / 2)


def test_a_run_that_goes_on_says_nothing(warnings):
    pipe = Dataset(10, Waiting).p.take_a_moment()
    assert pipe.run(1, num_workers=2, stall_warning=5).batches == 10
    assert warnings.empty()
