"""The small print of the promises, and the rules of `feed`."""

import queue
import signal
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore import Batch, Dataset, Sink, action
from flowcore.errors import Cancelled, DataError, OptionError, PipelineError

pytestmark = pytest.mark.usefixtures("no_leaks")


class Numbers(Batch):
    @action
    def call(self, function):
        function(self)
        return self

    @action
    def fail(self, number):
        if self.number == number:
            raise ZeroDivisionError("broken")
        return self


class ListSink(Sink):
    """Keeps the numbers of its batches; its result is there from the start."""

    def __init__(self):
        self.closed = []

    def open(self, run):
        self.numbers = []

    def prepare(self, batch):
        return batch.number

    def put(self, item, cancel):
        self.numbers.append(item)

    def close(self, error):
        self.closed.append(error)

    @property
    def result(self):
        return self.numbers


class QueueSink(ListSink):
    """A bounded queue, which is told the end as its consumer waits for it."""

    def __init__(self, capacity=1):
        super().__init__()
        self.queue = queue.Queue(capacity)
        self.full = threading.Event()

    def put(self, item, cancel):
        while True:
            try:
                return self.queue.put_nowait(item)
            except queue.Full:
                self.full.set()
                if cancel.wait(0.01):
                    raise Cancelled("the run is left") from None

    def close(self, error):
        super().close(error)
        self.queue.maxsize += 1
        self.queue.put(error)


@pytest.fixture
def pipe():
    return Dataset(10, Numbers).p


# Runs


@pytest.mark.parametrize("prefetch", [0, 3])
def test_two_runs_of_one_pipeline_do_not_touch_each_other(pipe, prefetch):
    pipe = pipe.put_into(ListSink())
    one = pipe.gen_batch(3, True, n_epochs=2, seed=1, prefetch=prefetch)
    other = pipe.gen_batch(3, True, n_epochs=2, seed=2, prefetch=prefetch)
    pairs = [(a.index.tolist(), b.index.tolist()) for a, b in zip(one, other, strict=True)]
    alone = [pipe.gen_batch(3, True, n_epochs=2, seed=seed) for seed in (1, 2)]
    expected = [(a.index.tolist(), b.index.tolist()) for a, b in zip(*alone, strict=True)]
    assert pairs == expected
    assert one.report.results["ListSink"] is not other.report.results["ListSink"]


@pytest.mark.parametrize(
    "options", [{}, {"prefetch": 4}, {"prefetch": 4, "ordered": False}], ids=str
)
def test_several_threads_may_take_from_one_run_and_each_batch_goes_to_one(options):
    run = Dataset(200).p.gen_batch(1, **options)
    all_there = threading.Barrier(4, timeout=10)

    def take():
        all_there.wait()
        return [batch.number for batch in run]

    with ThreadPoolExecutor(4) as threads:
        taken = [future.result(20) for future in [threads.submit(take) for _ in range(4)]]
    assert sorted(number for numbers in taken for number in numbers) == list(range(200))
    if options.get("ordered", True):
        assert all(numbers == sorted(numbers) for numbers in taken)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_several_threads_may_start_one_run(prefetch):
    opening, go_on = threading.Event(), threading.Event()

    class Slow(ListSink):
        opened = 0

        def open(self, run):
            super().open(run)
            self.opened += 1
            opening.set()
            assert go_on.wait(10)

    sink = Slow()
    run = Dataset(9).p.gen_batch(1, sink=sink, prefetch=prefetch)
    with ThreadPoolExecutor(5) as threads, run:
        first = threads.submit(next, run)
        assert opening.wait(10)
        others = [threads.submit(next, run) for _ in range(4)]
        with pytest.raises(TimeoutError):
            others[-1].exception(0.1)  # they wait for the start
        go_on.set()
        assert {one.result(5).number for one in [first, *others]} == {0, 1, 2, 3, 4}
    assert sink.opened == 1


def test_several_threads_may_call_next_batch(pipe):
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(pipe.next_batch, 1, prefetch=3) for _ in range(10)]
    assert sorted(future.result().number for future in futures) == list(range(10))
    pipe.reset()


@pytest.mark.parametrize("prefetch", [0, 3])
def test_after_the_end_a_run_goes_on_raising_stop_iteration(pipe, prefetch):
    run = pipe.gen_batch(10, prefetch=prefetch)
    assert len(list(run)) == 1
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(run)


@pytest.mark.timeout(20)
def test_after_a_ctrl_c_a_run_goes_on_raising_it(pipe):
    """The batch that is delivered while the run is left must not be handed over after the error."""
    asked = threading.Event()

    class Late(ListSink):
        def put(self, item, cancel):
            if item == 1:
                # Again, as one that comes just before a thread waits is seen when it wakes.
                while not cancel.wait(0.1):
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            super().put(item, cancel)

    def keep_the_second_until_it_is_asked_for(batch):
        if batch.number == 1:
            assert asked.wait(10)
        if batch.number == 3:  # begun when the second is asked for
            asked.set()

    pipe = pipe.call(keep_the_second_until_it_is_asked_for)
    run = pipe.gen_batch(1, num_workers=2, prefetch=2, sink=Late())
    assert next(run).number == 0
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            next(run)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 40), sizes=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_the_order_of_items_does_not_depend_on_the_batch_size(length, sizes):
    orders = [
        np.concatenate(
            [batch.index for batch in Dataset(length).p.gen_batch(size, True, 2, seed=3)]
        )
        for size in sizes
    ]
    assert orders[0].tolist() == orders[1].tolist()
    assert sorted(orders[0][:length]) == sorted(orders[0][length:]) == list(range(length))


@pytest.mark.parametrize("prefetch", [0, 3])
def test_preloaded_data_is_never_written_to(prefetch):
    data = np.arange(10.0)

    def spoil(batch):
        batch.data *= 0
        batch.data[...] = -1

    report = Dataset(10, Numbers, data).p.call(spoil).run(3, n_epochs=2, prefetch=prefetch)
    assert report.batches == 8
    assert np.array_equal(data, np.arange(10.0))


@pytest.mark.parametrize("call", ["next_batch", "gen_batch", "run", "feed"])
@pytest.mark.parametrize("dataset", [0, 3])
def test_a_run_without_end_whose_epoch_holds_no_batch_is_an_error(call, dataset):
    with pytest.raises(OptionError, match="endless"):
        getattr(Dataset(dataset).p, call)(4, n_epochs=None, drop_last=True)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_run_without_end_goes_on_through_the_epochs(pipe, prefetch):
    with pipe.gen_batch(5, n_epochs=None, prefetch=prefetch) as run:
        places = [(batch.epoch, batch.number) for batch, _ in zip(run, range(6), strict=False)]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_shuffle_callable_that_returns_no_permutation_is_an_error_in_its_place(pipe, prefetch):
    epochs = []

    def shuffle(order):
        epochs.append(len(epochs))
        return order[::-1] if len(epochs) == 1 else order[1:]

    run = pipe.gen_batch(5, shuffle, 2, prefetch=prefetch)
    assert [next(run).index.tolist(), next(run).index.tolist()] == [
        [9, 8, 7, 6, 5],
        [4, 3, 2, 1, 0],
    ]
    with pytest.raises(DataError, match="permutation"):
        next(run)


# Singleton actions


class Alone(Batch):
    inside = threading.Lock()

    @action(singleton=True)
    def be_alone(self, fails=()):
        assert self.inside.acquire(blocking=False), "two batches at once"
        try:
            if self.number in fails:
                raise ZeroDivisionError
            threading.Event().wait(0.0005)
        finally:
            self.inside.release()
        return self

    @action
    def meet(self, barrier):
        barrier.wait()
        return self


def test_a_singleton_action_holds_one_batch_at_a_time():
    assert Dataset(50, Alone).p.be_alone().run(1, num_workers=8).batches == 50


def test_a_singleton_action_holds_one_batch_of_all_runs_at_a_time():
    pipes = [Dataset(30, Alone).p.be_alone() for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        reports = list(threads.map(lambda pipe: pipe.run(1, num_workers=3), pipes))
    assert [report.batches for report in reports] == [30, 30, 30]


def test_a_singleton_action_lets_others_in_after_an_error():
    pipe = Dataset(20, Alone).p.be_alone(fails=[0, 3, 7])
    assert pipe.run(1, num_workers=4, on_error="skip").batches == 17


def test_other_actions_go_on_beside_a_singleton():
    both = threading.Barrier(2, timeout=10)  # breaks, and fails the run, if they take turns
    assert Dataset(8, Alone).p.be_alone().meet(both).run(1, num_workers=2).batches == 8


# feed


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_feed_fills_its_sinks_in_the_background_and_waits_for_the_end(pipe, prefetch):
    sink = ListSink()
    with pipe.feed(3, n_epochs=2, sink=sink, prefetch=prefetch) as feed:
        assert feed.wait()
        assert sink.closed == [None]
    assert feed.report.batches == 8
    assert feed.results == {"ListSink": [0, 1, 2, 3, 0, 1, 2, 3]}


def test_the_results_of_a_feed_are_there_from_the_start(pipe):
    with pipe.feed(1, sink=QueueSink()) as feed:
        assert list(feed.results) == ["QueueSink"]


def test_wait_says_whether_all_is_put(pipe):
    sink = QueueSink()
    with pipe.feed(5, sink=sink) as feed:
        assert sink.full.wait(10)
        assert feed.wait(0.01) is False
        assert sink.queue.get() == 0
        assert feed.wait(10) is True


def test_a_feed_that_is_left_before_its_end_does_not_say_that_all_is_put(pipe):
    with pipe.feed(1, sink=QueueSink()) as feed:
        pass
    assert feed.wait(0) is False


def test_the_consumer_of_a_feed_is_told_the_end_at_the_sink(pipe):
    sink = QueueSink()
    with pipe.feed(5, sink=sink):
        assert [sink.queue.get(timeout=10) for _ in range(3)] == [0, 1, None]


def test_the_consumer_of_a_feed_is_told_a_failure_at_the_sink(pipe):
    def consume(sink):
        with pipe.fail(1).feed(5, sink=sink):
            told.extend(sink.queue.get(timeout=10) for _ in range(2))

    told = []
    with pytest.raises(ZeroDivisionError, match="broken") as raised:
        consume(QueueSink())
    assert told == [0, raised.value]


def test_the_error_of_a_feed_is_raised_by_the_block_with_the_consumers_own_as_its_context(pipe):
    def consume(sink):
        with pipe.fail(1).feed(5, sink=sink):
            if [sink.queue.get(timeout=10) for _ in range(2)]:
                raise EOFError("the queue is closed")

    with pytest.raises(ZeroDivisionError, match="broken") as raised:
        consume(QueueSink())
    assert isinstance(raised.value.__context__, EOFError)
    assert "EOFError" in "".join(traceback.format_exception(raised.value))


def test_the_error_of_a_feed_is_raised_by_wait_and_by_the_block_once(pipe):
    with pytest.raises(ZeroDivisionError) as raised, pipe.fail(1).feed(5) as feed:
        feed.wait(10)
    assert raised.value.__context__ is None
    assert len(raised.value.__notes__) == 1


def test_an_error_that_the_block_made_of_the_feeds_is_not_replaced_by_its_own_cause(pipe):
    def consume():
        with pipe.fail(1).feed(5) as feed:
            try:
                feed.wait(10)
            except ZeroDivisionError as error:
                raise LookupError("no data today") from error

    with pytest.raises(LookupError) as raised:
        consume()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert raised.value.__cause__.__context__ is None


def test_the_blocks_own_error_is_raised_if_the_feed_is_well(pipe):
    sink = QueueSink()
    with pytest.raises(EOFError, match="its own"), pipe.feed(1, sink=sink):
        raise EOFError("its own")
    assert [type(error) for error in sink.closed] == [Cancelled]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_not_replaced_by_the_error_of_the_feed(pipe, error):
    def consume(sink):
        with pipe.fail(1).feed(5, sink=sink):
            if [sink.queue.get(timeout=10) for _ in range(2)]:
                raise error

    with pytest.raises(error):
        consume(QueueSink())


def test_a_feed_that_fails_to_start_does_not_enter_its_block(pipe):
    class Refusing(ListSink):
        def open(self, run):
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"), pipe.feed(1, sink=Refusing()):
        pytest.fail("the block was entered")


def test_a_feed_is_entered_once(pipe):
    feed = pipe.feed(5)
    with feed:
        pass
    with pytest.raises(PipelineError, match="once"), feed:
        pytest.fail("the block was entered")


def test_a_feed_that_is_not_entered_has_nothing_to_wait_for(pipe):
    with pytest.raises(PipelineError, match=r"with pipeline\.feed"):
        pipe.feed(5).wait(1)


def test_a_sink_that_fails_to_close_fails_its_feed(pipe):
    class Refusing(ListSink):
        def close(self, error):
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"), pipe.feed(5, sink=Refusing()) as feed:
        feed.wait(10)
