"""Runs one case in each of its ways, and compares what comes with what a serial run gives."""

import gc
import itertools
import json
import os
import queue
import random
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import psutil
from soak_case import Case
from soak_check import check

from flowcore.testing import leaves_nothing
from flowcore.testing.batches import contents, seen
from flowcore_numpy_buffer import EndOfData
from flowcore_processes import ProcessesExecutor

__all__ = ["run_case"]

_PATIENCE = 60  # seconds that a sink's consumer waits for an item


class _Left(Exception):
    """What a consumer raises."""


def run_case(case: Case, folder: Path) -> None:
    """Run a case; fail if anything comes that a serial run does not give, or if anything is left.

    Raises:
        AssertionError: it says what differs.
    """
    expected = case.expected(folder)
    pipe = case.pipeline(folder)
    rng = random.Random(case.seed)
    with leaves_nothing(), ExitStack() as stack:
        options = {**case.options, "prefetch": case.prefetch, **_executor(case, stack, rng)}
        for way in case.ways:
            for mark in folder.iterdir():
                mark.unlink()
            given = SimpleNamespace(batches=[], taken=[], error=None, report=None, whole=True)
            _WAYS[way](pipe, options, given, _Consumer(case, given, rng, len(expected.batches)))
            check(case, way, expected, given)
            if case.breaks_pool:
                break
        del pipe, given


def _executor(case: Case, stack: ExitStack, rng: random.Random) -> dict:
    """Return the options that say where a case runs."""
    workers = case.making.get("num_workers")
    if case.executor == "process pool":
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        return {"executor": stack.enter_context(pool)}
    if case.executor == "thread pool":
        return {"executor": stack.enter_context(ThreadPoolExecutor(workers))}
    if case.executor == "processes" and rng.random() < 0.5:
        return {"executor": stack.enter_context(ProcessesExecutor(workers, **_rest(case)))}
    return {"executor": case.executor, **case.making}


def _rest(case: Case) -> dict:
    return {name: value for name, value in case.making.items() if name != "num_workers"}


class _Consumer:
    """Takes batches of a run, and the items that are then in its sinks; keeps some batches."""

    def __init__(self, case: Case, given, rng: random.Random, count: int) -> None:
        self.case, self.given = case, given
        self.stop = rng.randint(0, count + 1)  # after so many batches, if it leaves
        self._kept = deque(maxlen=case.keeps)

    def take(self, batches, results, most: int | None = None, then=None) -> None:
        """Take up to ``most`` batches; ``results`` returns the sinks' results."""
        given = self.given
        try:
            for batch in itertools.islice(batches, most):
                given.batches += seen([batch])
                self._kept.append(batch)
                for name, sink in _bounded(results()):
                    item = contents(sink.get(timeout=_PATIENCE))
                    assert item == contents(batch.noise), f"{name} has another batch"
                if then is not None and len(given.batches) == self.stop:
                    then()
                del batch
        except (AssertionError, _Left):
            raise
        except Exception as error:
            given.error = type(error).__name__
            given.why = error
        if self._kept:
            last = given.batches[-len(self._kept) :]
            assert seen(self._kept) == last, "a batch that was kept has changed"
            self._kept.clear()


def _bounded(results):
    return [(name, sink) for name, sink in results.items() if hasattr(sink, "get")]


# The ways to take batches


def _end(pipe, options, given, consumer):
    run = pipe.gen_batch(**options)
    consumer.take(run, lambda: run.report.results)
    given.report = run.report


def _partly(pipe, options, consumer):
    run = pipe.gen_batch(**options)
    consumer.take(run, lambda: run.report.results, consumer.stop)
    return run


def _close(pipe, options, given, consumer):
    run = _partly(pipe, options, consumer)
    run.close()
    given.report, given.whole = run.report, False


def _delete(pipe, options, given, consumer):
    _partly(pipe, options, consumer)
    gc.collect()
    _wait_until_left()


def _wait_until_left():
    """Wait for a run that was collected: until it is over it holds its executor."""
    for thread in threading.enumerate():
        if thread.name == "flowcore-deliver":
            thread.join(_PATIENCE)


def _raise(pipe, options, given, consumer):
    def leave():
        raise _Left

    try:
        with pipe.gen_batch(**options) as run:
            consumer.take(run, lambda: run.report.results, then=leave)
    except _Left:
        pass


def _next_batch(pipe, options, given, consumer):
    batches = iter(lambda: pipe.next_batch(**options), None)
    consumer.take(batches, lambda: pipe.report.results)
    given.report = pipe.report
    pipe.reset()


def _resume(pipe, options, given, consumer):
    run = _partly(pipe, options, consumer)
    run.close()
    if given.error is None:
        state = json.loads(json.dumps(run.state_dict()))
        more = {**options, "resume": state}
        rest = pipe.gen_batch(**more)
        consumer.take(rest, lambda: rest.report.results)


def _feed(pipe, options, given, consumer):
    try:
        with pipe.feed(**options) as feed:
            for _, sink in _bounded(feed.results):
                given.taken = _drain(sink, feed)
            feed.wait(_PATIENCE)
    except Exception as error:
        given.error = type(error).__name__
        given.why = error
    given.report = feed.report


def _drain(sink, feed):
    """Return the items of a sink, when there are no more; raise what the feed failed of."""
    items = []
    while True:
        is_over = feed.wait(0)
        try:
            items.append(sink.get(timeout=0 if is_over else 0.05))
        except EndOfData:
            return items
        except (TimeoutError, queue.Empty):
            if is_over:
                return items


def _feed_left(pipe, options, given, consumer):
    try:
        with pipe.feed(**options) as feed:
            for _, sink in _bounded(feed.results):
                for _ in range(consumer.stop // 2):
                    given.taken.append(sink.get(timeout=0.2))
    except Exception as error:
        given.error = type(error).__name__
        given.why = error
    given.report, given.whole = feed.report, False


def _run(pipe, options, given, consumer):
    try:
        given.report = pipe.run(**options)
    except Exception as error:
        given.error = type(error).__name__
        given.why = error


def _killed_from_outside(pipe, options, given, consumer):
    def kill():
        for child in psutil.Process().children():
            if any("flowcore-worker" in part for part in child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)

    run = pipe.gen_batch(**options)
    consumer.take(run, lambda: run.report.results, then=kill)
    given.report = run.report


_WAYS = {
    "end": _end,
    "close": _close,
    "delete": _delete,
    "raise": _raise,
    "next_batch": _next_batch,
    "resume": _resume,
    "feed": _feed,
    "feed left": _feed_left,
    "run": _run,
    "killed from outside": _killed_from_outside,
}
