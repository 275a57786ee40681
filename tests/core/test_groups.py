"""Tiny tasks are handed over together, and nobody but the clock can tell."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest

from flowcore import Batch, Dataset, Executor, Outcome, Task, TaskGroup, action
from flowcore.executors.threads import ThreadsExecutor


class InGroups(Executor):
    """Takes groups of three, and notes how many tasks came at once."""

    group_size = 3

    def __init__(self, num_workers=1):
        super().__init__(num_workers)
        self.sizes = []

    def start(self, work):
        self.work, self.pool = work, ThreadPoolExecutor(self.num_workers)

    def submit(self, task):
        raise AssertionError("asked for single tasks")

    def submit_group(self, group):
        self.sizes.append(len(group.tasks))
        self.pool.submit(self.run_group, group)

    def run_group(self, group):
        while (at := group.take()) is not None:
            group.set(at, self.work(group.tasks[at]))

    def close(self):
        self.pool.shutdown(cancel_futures=True)


class Losing(InGroups):
    """Loses each group after its first task, as a worker that ends there does."""

    def run_group(self, group):
        group.set(0, self.work(group.tasks[0]))
        if len(group.tasks) > 1:
            group.end(ConnectionError("the worker is gone"))


class Stopping(InGroups):
    """Ends each group after its first task, and says that all went well."""

    def run_group(self, group):
        group.set(0, self.work(group.tasks[0]))
        if len(group.tasks) > 1:
            group.end()


class Meeting(Batch):
    @action
    def meet(self, taken):
        if self.number == 1:
            assert taken.wait(10)
        return self

    @action
    def fail_at(self, number):
        if self.number == number:
            raise ValueError("a bad batch")
        return self


def numbers(run):
    return [batch.number for batch in run]


def test_tasks_are_handed_over_together_and_all_come():
    executor = InGroups()
    assert numbers(Dataset(20).p.gen_batch(1, executor=executor, prefetch=7)) == list(range(20))
    assert max(executor.sizes) == 3


def test_a_run_that_gives_batches_as_they_are_done_has_no_groups():
    executor = InGroups()
    run = Dataset(20).p.gen_batch(1, executor=executor, prefetch=7, ordered=False)
    assert sorted(numbers(run)) == list(range(20))
    assert set(executor.sizes) == {1}


def test_a_group_is_at_most_half_of_what_may_be_in_progress():
    executor = InGroups()
    assert numbers(Dataset(9).p.gen_batch(1, executor=executor, prefetch=3)) == list(range(9))
    assert max(executor.sizes) == 2


def test_a_run_that_prefetches_one_batch_has_no_groups():
    executor = InGroups()
    assert numbers(Dataset(5).p.gen_batch(1, executor=executor, prefetch=1)) == list(range(5))
    assert set(executor.sizes) == {1}


def test_a_batch_is_handed_over_while_a_later_one_of_its_group_is_in_progress():
    taken = threading.Event()
    run = Dataset(6, Meeting).p.meet(taken).gen_batch(1, executor=InGroups(), prefetch=5)
    assert next(run).number == 0  # it would not come if it waited for its group
    taken.set()
    assert numbers(run) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("executor", [Losing, Stopping])
def test_a_lost_group_loses_only_the_tasks_that_have_no_outcome(executor):
    made = []

    class Counted(Batch):
        @action
        def count(self):
            made.append(self.number)
            return self

    run = Dataset(6, Counted).p.count().gen_batch(1, executor=executor(), prefetch=5)
    assert numbers(run) == list(range(6))
    assert sorted(made) == list(range(6))  # each once


def test_an_error_in_a_group_is_that_of_its_batch_alone():
    pipeline = Dataset(9, Meeting).p.fail_at(4)
    run = pipeline.gen_batch(1, executor=InGroups(), prefetch=5, on_error="skip", retries=1)
    assert numbers(run) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [trouble.number for trouble in run.report.skipped] == [4]
    assert [trouble.number for trouble in run.report.retried] == [4]


def test_threads_hand_tiny_tasks_over_together_and_long_ones_alone():
    gate = threading.Event()

    class Gated(Batch):
        @action
        def wait(self):
            gate.wait(0.01)  # 10 ms until it is set, then nothing
            return self

    executor = ThreadsExecutor(1)
    run = Dataset(5_000, Gated).p.wait().gen_batch(1, executor=executor, prefetch=31)
    for _ in range(5):
        next(run)
    assert executor.group_size == 1
    gate.set()
    assert any(executor.group_size > 1 for _ in run)
    run.close()


def test_a_group_that_is_in_progress_ends_with_the_run_after_its_task():
    begun, gate, made = threading.Event(), threading.Event(), []

    class Blocking(Batch):
        @action
        def block(self):
            made.append(self.number)
            if self.number == 100:
                begun.set()
                assert gate.wait(10)
            return self

    executor = ThreadsExecutor(1)
    run = Dataset(5_000, Blocking).p.block().gen_batch(1, executor=executor, prefetch=63)
    while not begun.is_set():
        next(run)
    worker = executor._threads[0]
    run.close()
    gate.set()
    worker.join(10)
    assert made[-1] == 100


def test_workers_share_what_is_left_of_a_group_after_a_task_that_took_long():
    together, ended = threading.Barrier(2), threading.Event()

    class Meeting:
        def __call__(self, task):
            if task.number:
                together.wait(10)  # a worker alone would wait in vain
            else:
                threading.Event().wait(0.002)
            return Outcome(size=1)

        def worker(self, name):
            return nullcontext()

    group = TaskGroup([Task(0, at, np.arange(1), 0) for at in range(3)], lambda _: ended.set())
    executor = ThreadsExecutor(2)
    executor.start(Meeting())
    executor.submit_group(group)
    assert ended.wait(10)
    executor.close()
    assert not together.broken


def test_the_values_of_batches_do_not_depend_on_groups():
    rows = np.arange(64.0)
    pipeline = Dataset(64, preloaded=rows).p
    runs = [
        [batch.data for batch in pipeline.gen_batch(2, shuffle=True, seed=5, **options)]
        for options in ({"prefetch": 0}, {"executor": InGroups(2), "prefetch": 15})
    ]
    assert np.array_equal(*map(np.concatenate, runs))


def test_a_subclass_of_the_threads_that_overrides_submit_is_asked_for_single_tasks():
    class Counting(ThreadsExecutor):
        submitted = 0

        def submit(self, task):
            self.submitted += 1
            return super().submit(task)

    executor = Counting(2)
    assert numbers(Dataset(50).p.gen_batch(1, executor=executor, prefetch=9)) == list(range(50))
    assert executor.submitted == 50
