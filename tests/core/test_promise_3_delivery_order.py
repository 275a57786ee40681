"""Promise 3: the n-th batch that is handed over is the n-th item that is put."""

import queue
import random
import threading
import time

import pytest

from flowcore import Batch, Dataset, Sink, action
from flowcore.errors import Cancelled


class QueueSink(Sink):
    """A bounded queue that a consumer takes from."""

    def __init__(self, capacity):
        self.queue = queue.Queue(capacity)

    def prepare(self, batch):
        return batch.epoch, batch.number

    def put(self, item, cancel):
        while True:
            try:
                return self.queue.put_nowait(item)
            except queue.Full:
                if cancel.wait(0.002):
                    raise Cancelled("the run is left") from None


class Racing(Batch):
    @action
    def race(self, started, waits_for):
        """Wait until another batch has begun, or was delivered."""
        started[self.number].set()
        if self.number in waits_for:
            assert waits_for[self.number].wait(10)
        return self

    @action
    def dawdle(self, delays):
        time.sleep(delays.random() / 1000)
        return self


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    pass


def test_a_batch_that_is_ready_early_waits_for_those_before_it():
    started = [threading.Event() for _ in range(4)]
    pipe = Dataset(4, Racing).p.race(started, {0: started[1], 1: started[2], 2: started[3]})
    sink = QueueSink(4)
    run = pipe.gen_batch(1, num_workers=4, prefetch=4, sink=sink)
    assert [batch.number for batch in run] == [0, 1, 2, 3]
    assert [sink.queue.get_nowait() for _ in range(4)] == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_without_order_a_batch_is_delivered_as_soon_as_it_is_ready():
    started = [threading.Event() for _ in range(3)]
    others_delivered = threading.Event()
    pipe = Dataset(3, Racing).p.race(started, {0: others_delivered})
    sink = QueueSink(3)
    run = pipe.gen_batch(1, num_workers=3, ordered=False, sink=sink)
    first = {next(run).number, next(run).number}
    assert first == {1, 2}
    others_delivered.set()
    assert next(run).number == 0
    assert {sink.queue.get_nowait()[1] for _ in range(2)} == first
    assert sink.queue.get_nowait() == (0, 0)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("prefetch", [0, 1, 4, 5, 16])
@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_a_consumer_that_takes_one_item_for_each_batch_gets_its_item_and_is_never_stuck(
    capacity, prefetch, ordered
):
    pipe = Dataset(9, Racing).p.dawdle(random.Random(1))
    for num_workers in range(1, 9):
        sink = QueueSink(capacity)
        options = {"num_workers": num_workers, "prefetch": prefetch, "ordered": ordered}
        run = pipe.gen_batch(1, n_epochs=2, sink=sink, **options)
        taken = [((batch.epoch, batch.number), sink.queue.get(timeout=10)) for batch in run]
        assert len(taken) == 18
        assert all(handed == item for handed, item in taken)
        if ordered:
            assert [item for _, item in taken] == sorted(item for _, item in taken)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_next_batch_keeps_its_consumer_in_step_too(prefetch):
    sink = QueueSink(1)
    pipe = Dataset(4, Racing).p
    for number in [0, 1, 2, 3, 0, 1, 2, 3]:
        batch = pipe.next_batch(1, n_epochs=None, prefetch=prefetch, sink=sink)
        assert sink.queue.get(timeout=10)[1] == batch.number == number
    pipe.reset()


def test_a_batch_is_handed_over_after_it_was_put_not_before():
    allowed = threading.Event()

    class Slow(QueueSink):
        def put(self, item, cancel):
            assert allowed.wait(10)
            super().put(item, cancel)

    sink = Slow(8)
    run = Dataset(2).p.gen_batch(1, prefetch=2, sink=sink)
    handed = queue.Queue()
    consumer = threading.Thread(target=lambda: handed.put(next(run)))
    consumer.start()
    with pytest.raises(queue.Empty):
        handed.get(timeout=0.1)
    allowed.set()
    assert handed.get(timeout=10).number == 0
    assert sink.queue.get_nowait() == (0, 0)
    consumer.join()
    run.close()


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_a_skipped_batch_is_neither_put_nor_handed_over(prefetch):
    class Failing(Racing):
        @action
        def fail(self):
            if self.number % 3 == 0:
                raise ValueError("broken")
            return self

    sink = QueueSink(1)
    run = Dataset(9, Failing).p.fail().gen_batch(1, prefetch=prefetch, on_error="skip", sink=sink)
    taken = [(batch.number, sink.queue.get(timeout=10)[1]) for batch in run]
    assert taken == [(number, number) for number in (1, 2, 4, 5, 7, 8)]
