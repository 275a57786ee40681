"""Promise 6: errors arrive where they belong: in their batch's place, as what they are."""

import collections
import subprocess
import sys
import threading
import traceback
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor

import pytest

from flowcore import Batch, Dataset, Executor, Sink, action
from flowcore.errors import ActionError, Cancelled, DataError, WorkerLost

WAYS = {
    "inline": {},
    "serial": {"executor": "serial", "prefetch": 3},
    "1 thread": {"num_workers": 1, "prefetch": 4},
    "4 threads": {"num_workers": 4, "prefetch": 8},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class Numbers(Batch):
    @action
    def load(self):
        self.data = self.positions * 1
        return self

    @action
    def fail(self, numbers, error):
        if self.number in numbers:
            raise error
        return self

    @action
    def fail_times(self, times, tried):
        """Raise in the first attempts at a batch."""
        tried[self.number] += 1
        if tried[self.number] <= times:
            raise OSError(f"attempt {tried[self.number]}")
        return self

    @action
    def give(self, result):
        return self if self.number == 0 else result


class ListSink(Sink):
    """Keeps what it is given; fails in one of its methods, if told to."""

    def __init__(self, fails="", error=None, at=2):
        self.fails, self.error, self.at = fails, error, at
        self.items, self.closed, self.tried = [], [], 0

    def _maybe_fail(self, name, number):
        if name == self.fails and number == self.at:
            self.tried += 1
            raise self.error

    def prepare(self, batch):
        self._maybe_fail("prepare", batch.number)
        return batch.number

    def put(self, item, cancel):
        self._maybe_fail("put", item)
        self.items.append(item)

    def close(self, error):
        self.closed.append(error)


@pytest.fixture
def pipe():
    return Dataset([f"id {number}" for number in range(10)], Numbers).p.load()


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    pass


def deliver(run):
    """Return the numbers of the batches that arrive, and the error that ends the run."""
    numbers = []
    try:
        for batch in run:
            numbers.append(batch.number)
    except pytest.fail.Exception:  # the time is over
        raise
    except BaseException as error:  # whatever a hostile action raises
        return numbers, error
    return numbers, None


# In the batch's place, as the user's own exception


class StrictError(Exception):
    """An exception as users write them, which cannot be made again from its ``args``."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code


@every_way
def test_an_error_is_raised_in_its_batchs_place_after_those_before_it(pipe, way):
    error, sink = StrictError(3, "no such file"), ListSink()
    numbers, raised = deliver(pipe.fail([3], error).gen_batch(2, sink=sink, **way))
    assert raised is error
    assert numbers == [0, 1, 2]
    assert sink.items == [0, 1, 2]
    assert sink.closed == [error]


@every_way
def test_an_error_keeps_the_traceback_into_the_action(pipe, way):
    _, error = deliver(pipe.fail([1], ValueError("broken")).gen_batch(2, **way))
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"


@every_way
def test_an_error_has_one_note_with_action_batch_epoch_ids_and_the_call_to_repeat_it(pipe, way):
    _, error = deliver(pipe.fail([1], ValueError("broken")).gen_batch(4, seed=5, **way))
    (note,) = error.__notes__
    assert "'fail' of batch 1 of epoch 0, ids ['id 4', 'id 5', 'id 6', ...]" in note
    assert "pipeline.batch(1, epoch=0, batch_size=4, shuffle=False, seed=5)" in note


@every_way
def test_the_error_of_a_later_epoch_names_its_epoch(way):
    class Late(Batch):
        @action
        def fail_in_epoch(self, epoch):
            if self.epoch == epoch:
                raise ValueError("broken")
            return self

    numbers, error = deliver(Dataset(4, Late).p.fail_in_epoch(2).gen_batch(2, n_epochs=3, **way))
    assert numbers == [0, 1, 0, 1]
    assert "batch 0 of epoch 2" in error.__notes__[0]


@every_way
def test_without_order_an_error_ends_the_run_with_what_was_delivered_in_the_sink(pipe, way):
    error, sink = ValueError("broken"), ListSink()
    run = pipe.fail([3], error).gen_batch(2, sink=sink, **way, ordered=False)
    numbers, raised = deliver(run)
    assert raised is error
    assert numbers == sink.items
    assert 3 not in numbers


@every_way
def test_after_an_error_it_is_raised_again_and_does_not_grow(pipe, way):
    run = pipe.fail([0], ValueError("broken")).gen_batch(2, **way)
    seen = []
    for _ in range(3):
        with pytest.raises(ValueError, match="broken") as raised:
            next(run)
        seen.append((raised.value, len(raised.value.__notes__), len(raised.traceback)))
    assert seen[1] == seen[2]
    assert seen[0][:2] == seen[1][:2]


def test_a_pool_of_ones_own_gives_the_error_too(pipe):
    error = StrictError(3, "no such file")
    with ThreadPoolExecutor(3) as pool:
        numbers, raised = deliver(pipe.fail([3], error).gen_batch(2, executor=pool))
    assert (numbers, raised) == ([0, 1, 2], error)


@every_way
def test_an_error_in_prepare_is_one_of_its_batch(pipe, way):
    error = ValueError("no shape")
    numbers, raised = deliver(pipe.gen_batch(2, sink=ListSink("prepare", error), **way))
    assert (numbers, raised) == ([0, 1], error)
    assert "\"prepare of sink 'ListSink'\" of batch 2 of epoch 0" in error.__notes__[0]


@every_way
def test_an_error_in_get_tensor_is_one_of_its_batch(pipe, way):
    class Plain(Sink):
        def put(self, item, cancel):
            pass

    pipe = Dataset(4).p.put_into(Plain())  # batches without data
    numbers, raised = deliver(pipe.gen_batch(2, **way))
    assert numbers == []
    assert isinstance(raised, DataError)


@every_way
def test_an_error_in_put_is_raised_in_its_batchs_place(pipe, way):
    error = OSError("disk full")
    sink = ListSink("put", error)
    numbers, raised = deliver(pipe.gen_batch(2, sink=sink, **way))
    assert (numbers, raised) == ([0, 1], error)
    assert "in put of sink 'ListSink', batch 2 of epoch 0" in error.__notes__[0]
    assert sink.closed == [error]


@every_way
def test_an_error_in_put_is_neither_skipped_nor_retried(pipe, way):
    sink = ListSink("put", OSError("disk full"))
    run = pipe.gen_batch(2, sink=sink, on_error="skip", retries=3, **way)
    assert isinstance(deliver(run)[1], OSError)
    assert sink.tried == 1
    assert run.report.skipped == run.report.retried == []


@every_way
def test_an_error_in_the_shuffle_callable_comes_after_the_batches_before_it(pipe, way):
    epochs = []

    def shuffle(order):
        epochs.append(0)
        if len(epochs) == 2:
            raise ZeroDivisionError("no order")
        return order

    run = pipe.gen_batch(4, shuffle, n_epochs=3, on_error="skip", retries=2, **way)
    numbers, error = deliver(run)
    assert numbers == [0, 1, 2]
    assert isinstance(error, ZeroDivisionError)
    assert len(epochs) == 2


@every_way
@pytest.mark.parametrize("error", [StopIteration(), Cancelled("by another run")], ids=repr)
def test_a_shuffle_callable_that_raises_what_ends_a_loop_does_not_end_the_data(pipe, way, error):
    def shuffle(order):
        raise error

    numbers, raised = deliver(pipe.gen_batch(4, shuffle, **way))
    assert numbers == []
    assert raised is not None


@every_way
def test_a_sink_that_cannot_be_opened_is_raised_in_the_call_that_starts_the_run(pipe, way):
    class Refusing(ListSink):
        def open(self, run):
            raise OSError("no disk")

    run = pipe.gen_batch(2, sink=Refusing(), **way)
    with pytest.raises(OSError, match="no disk"):
        next(run)


# What would end a loop, or a program, without a word

SILENT = [
    StopIteration("end"),
    StopAsyncIteration(),
    GeneratorExit(),
    SystemExit(3),
    Cancelled("by another run"),
]


@every_way
@pytest.mark.parametrize("error", SILENT, ids=repr)
def test_what_would_end_a_loop_silently_is_an_error_of_its_batch(pipe, way, error):
    numbers, raised = deliver(pipe.fail([2], error).gen_batch(2, **way))
    assert numbers == [0, 1]
    assert isinstance(raised, ActionError)
    assert raised.__cause__ is error
    assert "'fail'" in str(raised)


@every_way
@pytest.mark.parametrize("error", SILENT, ids=repr)
def test_what_would_end_a_loop_silently_is_skipped_like_any_other_error(pipe, way, error):
    run = pipe.fail([2], error).gen_batch(2, on_error="skip", **way)
    assert deliver(run) == ([0, 1, 3, 4], None)
    assert [trouble.number for trouble in run.report.skipped] == [2]


@every_way
def test_a_keyboard_interrupt_out_of_an_action_reaches_the_consumer_and_is_not_skipped(pipe, way):
    error = KeyboardInterrupt()
    run = pipe.fail([2], error).gen_batch(2, on_error="skip", retries=2, **way)
    assert deliver(run) == ([0, 1], error)


@every_way
@pytest.mark.parametrize("error", SILENT, ids=repr)
def test_a_put_that_raises_what_would_end_a_loop_does_not_end_the_data(pipe, way, error):
    numbers, raised = deliver(pipe.gen_batch(2, sink=ListSink("put", error), **way))
    assert numbers == [0, 1]
    assert raised is not None


@every_way
@pytest.mark.parametrize("result", [None, 3, "batch", Batch], ids=repr)
def test_an_action_that_returns_no_batch_is_told_to_return_self(pipe, way, result):
    numbers, error = deliver(pipe.give(result).gen_batch(2, **way))
    assert numbers == [0]
    assert isinstance(error, ActionError)
    assert "return self" in str(error)


# on_error="skip"


@every_way
def test_skip_leaves_the_batch_out_and_lists_it(pipe, way):
    sink = ListSink()
    pipe = pipe.fail([0, 2, 4], ValueError("broken"))
    run = pipe.gen_batch(2, n_epochs=2, on_error="skip", sink=sink, **way)
    assert deliver(run) == ([1, 3, 1, 3], None)
    assert sink.items == [1, 3, 1, 3]
    assert [(one.epoch, one.number) for one in run.report.skipped] == [
        (0, 0),
        (0, 2),
        (0, 4),
        (1, 0),
        (1, 2),
        (1, 4),
    ]
    assert sink.closed == [None]


@every_way
def test_skip_may_leave_all_batches_out(pipe, way):
    run = pipe.fail(range(5), ValueError("broken")).gen_batch(2, on_error="skip", **way)
    assert deliver(run) == ([], None)
    assert len(run.report.skipped) == 5


@every_way
def test_skip_of_a_whole_epoch_of_a_run_without_end_is_an_error(pipe, way):
    error = ValueError("broken")
    pipe = pipe.fail(range(5), error)
    run = pipe.gen_batch(2, n_epochs=None, on_error="skip", **way)
    numbers, raised = deliver(run)
    assert (numbers, raised) == ([], error)
    assert any("in spite of on_error='skip'" in note for note in error.__notes__)


@every_way
def test_skip_takes_an_error_in_prepare(pipe, way):
    sink = ListSink("prepare", ValueError("no shape"))
    assert deliver(pipe.gen_batch(2, on_error="skip", sink=sink, **way)) == ([0, 1, 3, 4], None)
    assert sink.items == [0, 1, 3, 4]


# retries


@every_way
def test_retries_make_a_batch_again_so_often_and_no_oftener(pipe, way):
    tried = collections.Counter()
    run = pipe.fail_times(2, tried).gen_batch(2, retries=2, **way)
    assert deliver(run) == ([0, 1, 2, 3, 4], None)
    assert tried == {0: 3, 1: 3, 2: 3, 3: 3, 4: 3}
    assert len(run.report.retried) == 10


@every_way
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_when_the_retries_are_used_up_it_is_an_error_like_any_other(pipe, way, on_error):
    tried = collections.Counter(dict.fromkeys((0, 1, 3, 4), 5))
    run = pipe.fail_times(3, tried).gen_batch(2, retries=2, on_error=on_error, **way)
    numbers, error = deliver(run)
    assert tried[2] == 3
    if on_error == "skip":
        assert (numbers, error) == ([0, 1, 3, 4], None)
        assert [str(trouble.error) for trouble in run.report.skipped] == ["attempt 3"]
    else:
        assert numbers == [0, 1]
        assert str(error) == "attempt 3"


@every_way
@pytest.mark.parametrize("ordered", [True, False])
def test_a_retried_batch_is_put_once_and_in_its_place(pipe, way, ordered):
    sink = ListSink()
    tried = collections.Counter()
    run = pipe.fail_times(1, tried).gen_batch(2, retries=1, sink=sink, ordered=ordered, **way)
    numbers, error = deliver(run)
    assert error is None
    assert sink.items == numbers
    assert sorted(numbers) == [0, 1, 2, 3, 4]
    if ordered:
        assert numbers == [0, 1, 2, 3, 4]


# Workers that die


class MortalPool(Executor):
    """A pool of processes in miniature, one that goes on with new workers after a death.

    A batch that kills its worker takes all tasks in progress along; nobody can say which it was.
    It does so when ``company`` tasks are in progress, or none joins them for a moment.
    """

    def __init__(self, killers, company=4):
        super().__init__(num_workers=company)
        self.killers, self.company = killers, company
        self.killed = collections.Counter()
        self.submitted = threading.Condition()

    def start(self, work):
        self.work, self.open = work, {}
        self.pool = ThreadPoolExecutor(self.company)

    def submit(self, task):
        future = Future()
        with self.submitted:
            self.open[future] = task.number
            self.submitted.notify_all()
        self.pool.submit(self._serve, future, task)
        return future

    def close(self):
        self.pool.shutdown()

    def _serve(self, future, task):
        if task.number in self.killers:
            self._die(future, task)
            return
        outcome = self.work(task)
        with self.submitted:
            if self.open.pop(future, None) is None:
                return  # it was lost in the meantime
        future.set_result(outcome)

    def _die(self, future, task):
        with self.submitted:
            self.submitted.wait_for(lambda: len(self.open) >= self.company, timeout=0.1)
            if future not in self.open:
                return  # another one has killed this worker
            lost, self.open = self.open, {}
            self.killed[task.number] += 1
        for each in lost:
            each.set_exception(BrokenExecutor("a worker died"))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_worker_that_dies_costs_its_tasks_a_re_run_and_nothing_else(pipe, ordered):
    class DyingOnce(MortalPool):
        def _die(self, future, task):
            super()._die(future, task)
            self.killers = []

    sink = ListSink()
    run = pipe.gen_batch(1, executor=DyingOnce([2]), prefetch=5, ordered=ordered, sink=sink)
    numbers, error = deliver(run)
    assert error is None
    assert sorted(numbers) == list(range(10))
    assert sink.items == numbers
    assert run.report.skipped == []


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("retries", [0, 3])
def test_only_the_batch_that_kills_its_worker_is_lost(pipe, ordered, retries):
    pool = MortalPool([1, 2, 7])
    options = {"on_error": "skip", "retries": retries, "ordered": ordered}
    run = pipe.gen_batch(1, executor=pool, prefetch=5, **options)
    numbers, error = deliver(run)
    assert error is None
    assert sorted(numbers) == [0, 3, 4, 5, 6, 8, 9]
    assert ordered is False or numbers == sorted(numbers)
    assert sorted(one.number for one in run.report.skipped) == [1, 2, 7]
    assert {type(one.error) for one in run.report.skipped} == {WorkerLost}


def test_a_batch_that_kills_its_worker_is_an_error_like_any_other(pipe):
    pool = MortalPool([4])
    numbers, error = deliver(pipe.gen_batch(1, executor=pool, prefetch=5))
    assert numbers == [0, 1, 2, 3]
    assert isinstance(error, WorkerLost)
    assert isinstance(error.__cause__, BrokenExecutor)
    assert "batch 4 of epoch 0" in error.__notes__[0]
    assert pool.killed[4] == 2  # made again once, whatever retries says


@pytest.mark.parametrize("failing", [False, True])
def test_a_batch_that_is_made_again_alone_is_not_joined_by_others(failing):
    """A second killer that came into progress beside a suspect would have it blamed."""

    class Joined(Numbers):
        @action
        def wait_for_the_killers(self):
            attempts[self.number] += 1
            if self.number in (1, 2, 3):
                if attempts[self.number] == 1:
                    assert struck[0].wait(10)  # lost with the first
                else:
                    struck[4].wait(0.2)  # in vain, as it is made alone
                if failing and attempts[self.number] == 2:
                    raise OSError("not yet")
            return self

    class Announcing(MortalPool):
        def _die(self, future, task):
            super()._die(future, task)
            struck[task.number].set()

    struck, attempts = {0: threading.Event(), 4: threading.Event()}, collections.Counter()
    pipe = Dataset(8, Joined).p.wait_for_the_killers()
    options = {"on_error": "skip", "ordered": False, "retries": int(failing)}
    run = pipe.gen_batch(1, executor=Announcing([0, 4]), prefetch=3, **options)
    numbers, error = deliver(run)
    assert error is None
    assert sorted(one.number for one in run.report.skipped) == [0, 4]
    assert sorted(numbers) == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_pool_that_is_shut_down_meanwhile_is_an_error_not_a_hang(pipe, ordered):
    with ThreadPoolExecutor(2) as pool:
        run = pipe.gen_batch(1, n_epochs=None, executor=pool, prefetch=3, ordered=ordered)
        next(run)
        pool.shutdown(wait=False, cancel_futures=True)
        _, error = deliver(run)
    assert isinstance(error, WorkerLost)


def test_a_task_that_is_cancelled_from_outside_is_made_again(pipe):
    class Cancelling(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *args):
            self.submitted += 1
            if self.submitted == 3:
                future = Future()
                future.cancel()
                future.set_running_or_notify_cancel()
                return future
            return super().submit(*args)

    with Cancelling(2) as pool:
        assert deliver(pipe.gen_batch(1, executor=pool)) == (list(range(10)), None)


def test_a_task_is_run_again_though_the_worker_that_lost_it_goes_on_with_it():
    class Impatient(Executor):
        """Gives each task up at once the first time; its thread goes on with it."""

        def start(self, work):
            self.work, self.lost = work, {}
            self.pool = ThreadPoolExecutor(4)

        def submit(self, task):
            served = self.pool.submit(self.work, task)
            if task.number in self.lost:
                return served
            self.lost[task.number] = served
            assert first[task.number].wait(10)  # else the re-run might be the first to begin
            future = Future()
            future.set_exception(TimeoutError("too slow"))
            return future

        def close(self):
            self.pool.shutdown()

    class Overtaken(Batch):
        @action
        def overlap(self):
            if self.number in begun:
                again[self.number].set()
                assert executor.lost[self.number].result(10).error is None
            else:
                begun.append(self.number)
                first[self.number].set()
                assert again[self.number].wait(10)
            return self

    executor, begun = Impatient(2), []
    first, again = ([threading.Event() for _ in range(3)] for _ in range(2))
    pipe = Dataset(3, Overtaken).p.overlap()
    assert deliver(pipe.gen_batch(1, executor=executor, prefetch=1)) == ([0, 1, 2], None)


KILLING = """
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from flowcore import Batch, Dataset, action
from flowcore.errors import WorkerLost

class Killing(Batch):
    @action
    def kill(self):
        if self.number == 2:
            os._exit(1)
        return self

if __name__ == "__main__":
    pipe = Dataset(5, Killing).p.kill()
    for options in ({"prefetch": 1}, {"prefetch": 4}, {"prefetch": 4, "ordered": False}):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            numbers = []
            try:
                for batch in pipe.gen_batch(1, executor=pool, **options):
                    numbers.append(batch.number)
            except WorkerLost as error:
                assert set(numbers) <= {0, 1}, numbers
                print(type(error.__cause__).__name__)
"""


def test_a_process_that_dies_with_its_pool_is_an_error_not_a_hang(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(KILLING)
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["BrokenProcessPool"] * 3
