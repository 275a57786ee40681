"""The executor contract: the core's own executors and users' pools pass, broken ones are caught."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import flowcore as fc
from flowcore.executors.serial import SerialExecutor
from flowcore.executors.threads import ThreadsExecutor
from flowcore.testing import ExecutorContract, meeting
from flowcore.testing.batches import PlainBatch

# Executors that keep the contract


class TestSerial(ExecutorContract):
    parallel = False
    shares_memory = True

    @pytest.fixture
    def executor(self):
        return "serial"


class TestThreads(ExecutorContract):
    shares_memory = True

    @pytest.fixture
    def executor(self):
        return "threads"


class TestAnExecutorObject(ExecutorContract):
    shares_memory = True

    @pytest.fixture
    def executor(self):
        return ThreadsExecutor(num_workers=2)


class TestAThreadPoolOfTheUser(ExecutorContract):
    shares_memory = True

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls):
        with ThreadPoolExecutor(2) as pool:
            yield pool


class TestAProcessPoolOfTheUser(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls):
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            yield pool


# Broken executors are caught


class SwappingExecutor(SerialExecutor):
    """Gives the outcomes of two tasks the other way round."""

    def start(self, work):
        super().start(work)
        self.num_workers = 2
        self._held = None

    def submit(self, task):
        done = super().submit(task)
        if self._held is None:
            answer = Future()
            self._held = answer, done
            return answer
        (answer, first), self._held = self._held, None
        answer.set_result(done.result())
        return first


class StaleExecutor(SerialExecutor):
    """Gives the first outcome for each task."""

    _first = None

    def submit(self, task):
        self._first = self._first or super().submit(task)
        return self._first


@pytest.mark.parametrize("executor", [SwappingExecutor, StaleExecutor])
def test_an_executor_that_confuses_outcomes_is_caught(executor):
    pipeline = fc.Dataset(24, PlainBatch, np.arange(24.0)).p.jitter()
    with pytest.raises(AssertionError):
        TestThreads().test_it_gives_the_bytes_that_serial_gives_in_the_same_order(
            executor(), pipeline, {"seed": 1}, prefetch=1
        )


class RaisingExecutor(SerialExecutor):
    """Gives an action's error as the failure of the worker."""

    def submit(self, task):
        future = super().submit(task)
        if future.result().error is None:
            return future
        raised = Future()
        raised.set_exception(future.result().error)
        return raised


def test_an_executor_that_takes_an_error_for_a_lost_worker_is_caught():
    with pytest.raises(fc.errors.WorkerLost):
        TestThreads().test_an_exception_arrives_in_its_batchs_place_with_a_note(RaisingExecutor())


class LeakyExecutor(ThreadsExecutor):
    """Lets nothing go."""

    def close(self):
        pass


def test_an_executor_that_leaves_threads_is_caught():
    leaky = LeakyExecutor(1)
    with pytest.raises(AssertionError, match="flowcore-worker-0"):
        TestThreads().test_a_run_that_is_left_leaves_nothing_but_an_executor_for_the_next(
            leaky, "close"
        )
    super(LeakyExecutor, leaky).close()


def test_an_executor_that_is_parallel_in_name_only_is_caught(monkeypatch, tmp_path):
    monkeypatch.setattr(meeting, "PATIENCE", 0.1)
    with pytest.raises(AssertionError, match="take turns"):
        TestThreads().test_two_batches_are_in_progress_at_once("serial", tmp_path)
