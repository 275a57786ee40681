"""With `capacity`: a bounded buffer of batches between the run and those who read it."""

import _thread
import gc
import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import Cancelled
from flowcore_numpy_buffer import Buffer, EndOfData, NumpyBufferSink

WAIT = 10  # seconds that a test waits for what must come


class Numbers(fc.Batch):
    @fc.action
    def fail_at(self, number):
        if self.number == number:
            raise ZeroDivisionError("no such batch")
        return self


class Watched(NumpyBufferSink):
    """Notes each put that is begun, and tells when the second is."""

    def __init__(self, **options):
        super().__init__(**options)
        self.begun = 0
        self.second = threading.Event()

    def put(self, item, cancel):
        self.begun += 1
        if self.begun == 2:
            self.second.set()
        super().put(item, cancel)


def numbers(length=6):
    return fc.Dataset(length, Numbers, np.arange(length)).p


def buffered(length=6, capacity=2):
    return numbers(length).put_into_numpy_buffer(capacity=capacity)


def buffer_of(run):
    (buffer,) = run.report.results.values()
    return buffer


@given(length=st.integers(1, 30), batch_size=st.integers(1, 8), capacity=st.integers(1, 5))
def test_a_reader_gets_the_batches_in_delivery_order(length, batch_size, capacity):
    with buffered(length, capacity).feed(batch_size, shuffle=True, seed=3) as feed:
        read = list(feed.results["numpy-buffer"])
    expected = [batch.data for batch in numbers(length).gen_batch(batch_size, shuffle=True, seed=3)]
    assert [tensor.tolist() for tensor in read] == [data.tolist() for data in expected]


@pytest.mark.parametrize("prefetch", [0, 1, 8])
def test_a_consumer_that_takes_one_for_each_batch_gets_its_own_and_is_never_stuck(prefetch):
    run = buffered(20, capacity=1).gen_batch(2, prefetch=prefetch)
    for batch in run:
        np.testing.assert_array_equal(buffer_of(run).get(WAIT), batch.data)
    assert run.report.batches == 10


def test_batches_of_several_components_are_dicts():
    pipeline = fc.Dataset(4, preloaded={"x": np.arange(4), "y": -np.arange(4)}).p
    with pipeline.put_into_numpy_buffer(capacity=1).feed(2) as feed:
        first, second = feed.results["numpy-buffer"]
    np.testing.assert_equal(first, {"x": np.array([0, 1]), "y": np.array([0, -1])})
    np.testing.assert_equal(second, {"x": np.array([2, 3]), "y": np.array([-2, -3])})


def test_what_is_read_belongs_to_the_reader():
    run = buffered().gen_batch(2)
    batch = next(run)
    buffer_of(run).get()[...] = 99
    np.testing.assert_array_equal(batch.data, [0, 1])


def test_the_length_is_the_number_of_batches_that_wait():
    run = buffered(capacity=3).gen_batch(2)
    lengths = []
    for _ in run:
        lengths.append(len(buffer_of(run)))
    assert lengths == [1, 2, 3]
    assert repr(buffer_of(run)) == "<Buffer: 3 of 3 batches, ended>"


def test_an_empty_buffer_is_true():
    assert Buffer(1)


def test_a_full_buffer_holds_the_run_back_until_one_is_read():
    sink = Watched(capacity=1)
    with numbers().feed(2, sink=sink) as feed:
        assert sink.second.wait(WAIT)  # the second put has begun, and cannot end
        assert not feed.wait(0.2)
        assert (feed.report.batches, sink.begun) == (1, 2)
        assert [tensor.tolist() for tensor in sink.result] == [[0, 1], [2, 3], [4, 5]]


def test_what_was_put_can_be_read_after_the_run():
    report = buffered(capacity=3).run(2)
    buffer = report.results["numpy-buffer"]
    assert [tensor.tolist() for tensor in buffer] == [[0, 1], [2, 3], [4, 5]]


def test_several_readers_get_each_batch_once():
    with ThreadPoolExecutor(3) as pool, buffered(100, capacity=2).feed(1, prefetch=4) as feed:
        readers = [pool.submit(list, feed.results["numpy-buffer"]) for _ in range(3)]
        shares = [reader.result(WAIT) for reader in readers]
    assert sorted(int(tensor[0]) for share in shares for tensor in share) == list(range(100))
    for share in shares:
        assert [int(tensor[0]) for tensor in share] == sorted(int(tensor[0]) for tensor in share)


def test_get_raises_the_end_of_the_data_each_time():
    run = buffered(2).gen_batch(2)
    list(run)
    buffer_of(run).get()
    for _ in range(2):
        with pytest.raises(EndOfData):
            buffer_of(run).get()


def test_the_end_of_the_data_is_caught_as_what_both_worlds_know():
    assert issubclass(EndOfData, fc.errors.FlowcoreError)
    assert issubclass(EndOfData, EOFError)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_get_raises_a_timeout_when_no_batch_comes(timeout):
    run = buffered().gen_batch(2)
    next(run)
    buffer_of(run).get()
    with pytest.raises(TimeoutError, match=r"no batch came within(.|\n)*next:"):
        buffer_of(run).get(timeout=timeout)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_readers_get_the_error_of_the_run_after_the_batches_before_it(prefetch):
    run = numbers().fail_at(2).put_into_numpy_buffer(capacity=3).gen_batch(2, prefetch=prefetch)
    with pytest.raises(ZeroDivisionError) as raised:
        list(run)
    buffer = buffer_of(run)
    assert [buffer.get().tolist(), buffer.get().tolist()] == [[0, 1], [2, 3]]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as again:
            buffer.get()
        assert again.value is raised.value


def test_a_reader_that_waits_gets_the_error_of_the_run():
    with (
        pytest.raises(ZeroDivisionError, match="no such batch"),
        numbers().fail_at(1).put_into_numpy_buffer(capacity=1).feed(2) as feed,
    ):
        list(feed.results["numpy-buffer"])


def test_the_traceback_of_the_error_does_not_grow_with_each_reader():
    run = numbers().fail_at(0).put_into_numpy_buffer(capacity=1).gen_batch(2)
    with pytest.raises(ZeroDivisionError):
        next(run)
    lengths = set()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as raised:
            buffer_of(run).get()
        lengths.add(len(raised.traceback))
    assert len(lengths) == 1


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_reader_that_waits_is_told_when_the_run_is_left(prefetch):
    run = buffered(20).gen_batch(2, prefetch=prefetch)
    next(run)
    buffer = buffer_of(run)
    for _ in range(prefetch + 1):  # all that the run puts before it is asked again
        buffer.get(WAIT)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(buffer.get)
        run.close()
        with pytest.raises(Cancelled, match=r"was left before its end(.|\n)*next:"):
            reader.result(WAIT)


def test_a_reader_is_told_when_nobody_holds_the_run_any_more():
    run = buffered(20).gen_batch(2, prefetch=2)
    next(run)
    buffer = buffer_of(run)
    del run
    gc.collect()
    with pytest.raises(Cancelled):
        list(buffer)


def test_what_was_put_before_a_run_was_left_can_still_be_read():
    run = buffered(capacity=2).gen_batch(2)
    next(run), next(run)
    run.close()
    buffer = buffer_of(run)
    assert [buffer.get().tolist(), buffer.get().tolist()] == [[0, 1], [2, 3]]
    with pytest.raises(Cancelled):
        buffer.get()


def test_a_put_that_waits_is_given_up_at_once_and_without_its_item():
    sink = Watched(capacity=1)
    with numbers().feed(2, sink=sink) as feed:
        assert sink.second.wait(WAIT)
    assert feed.report.batches == 1
    assert len(sink.result) == 1


def test_a_put_in_the_calling_thread_is_given_up_when_another_closes_the_run():
    sink = Watched(capacity=1)
    run = numbers().gen_batch(2, sink=sink)
    next(run)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, run, "ended")
        assert sink.second.wait(WAIT)
        run.close()
        assert waiting.result(WAIT) == "ended"
    assert len(sink.result) == 1


def test_a_put_that_waits_in_the_calling_thread_gives_the_stall_warning(caplog):
    class Warned(logging.Handler):
        def emit(self, record):
            if "is full" in record.getMessage():
                released.append(sink.result.get())

    sink, released = NumpyBufferSink(capacity=1), []
    handler = Warned()
    logging.getLogger("flowcore").addHandler(handler)
    try:
        batches = list(numbers(4).gen_batch(2, sink=sink, stall_warning=0.05))
    finally:
        logging.getLogger("flowcore").removeHandler(handler)
    assert len(batches) == 2  # it would wait still, if the warning had not made room
    assert [tensor.tolist() for tensor in released] == [[0, 1]]


@pytest.fixture
def interruptible():
    """Have Ctrl-C interrupt, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_ctrl_c_ends_a_put_that_waits_in_the_main_thread_and_readers_are_told():
    def interrupt():
        assert sink.second.wait(WAIT)
        _thread.interrupt_main()

    sink = Watched(capacity=1)
    run = numbers().gen_batch(2, sink=sink)
    next(run)
    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        next(run)
    other.join()
    assert sink.result.get().tolist() == [0, 1]
    with pytest.raises(Cancelled, match="KeyboardInterrupt"):
        sink.result.get()


def test_each_run_has_a_buffer_of_its_own():
    pipeline = buffered()
    first, second = pipeline.gen_batch(2), pipeline.gen_batch(3)
    next(first), next(second)
    assert buffer_of(first).get().tolist() == [0, 1]
    assert buffer_of(second).get().tolist() == [0, 1, 2]
