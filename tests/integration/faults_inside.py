"""The faults of the matrix that a test can bear: each is a function that returns what happens.

A function is given the name of an executor, the options of a run on it, and a folder.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from functools import partial

from faults_batches import (
    BAD,
    Broken,
    DoorSink,
    NoPut,
    NoTensor,
    TensorSink,
    Unpicklable,
    Unreadable,
    count,
    die,
    die_writing,
    fail,
    hold_lock,
    ignore,
    pipeline,
    until,
    wait,
    workers,
)
from faults_leaving import action_after
from faults_ways import consumed, gone_on, is_broken, repeated, said

from flowcore.testing.meeting import within_a_second

__all__ = ["FAULTS"]


def seen_of(pipe, how, folder, **options):
    got, error = consumed(pipe.gen_batch(2, seed=1, **how, **options), folder)
    return said(got, error)


def raises(error, executor, how, folder):
    return seen_of(pipeline(folder).wrong(fail, error), how, folder)


def no_tensor(executor, how, folder):
    return seen_of(pipeline(folder, NoTensor), how, folder, sink=TensorSink())


def no_put(executor, how, folder):
    return seen_of(pipeline(folder), how, folder, sink=NoPut())


def result(executor, how, folder):
    return seen_of(pipeline(folder).wrong(hold_lock), how, folder)


def argument(executor, how, folder):
    return seen_of(pipeline(folder).wrong(ignore, threading.Lock()), how, folder)


# A worker is killed


def killed(pipe, executor, how, folder, before=None):
    run = pipe.gen_batch(2, seed=1, **how)
    got, error = consumed(run, folder, before)
    if is_broken(error):
        return f"{said(got, error)}; {gone_on(executor, pipe, run, got)}"
    if error is not None or before is not None:
        return said(got, error)
    return f"{said(got, error)}; {repeated(executor, folder)}"


def killed_once(executor, how, folder):
    return killed(pipeline(folder).wrong(die, folder, once=True), executor, how, folder)


def killed_always(executor, how, folder):
    return seen_of(pipeline(folder).wrong(die, folder, once=False), how, folder)


def killed_writing(executor, how, folder):
    return killed(pipeline(folder).wrong(die_writing, folder), executor, how, folder)


def killed_idle(executor, how, folder):
    ahead = how.get("prefetch", 0)

    def kill():
        until(lambda: count(folder, "ended-*") >= BAD + ahead, "they make fewer batches ahead")
        for pid in workers(folder):
            os.kill(pid, signal.SIGKILL)

    return killed(pipeline(folder).note_end(folder), executor, how, folder, kill)


# The run is left


def full_sink(executor, how, folder):
    sink = DoorSink()
    with pipeline(folder).feed(2, seed=1, sink=sink, **how) as feed:
        assert sink.at_door.wait(10)
        within_a_second(partial(feed.__exit__, None, None, None))
    taken = sink.queue.get_nowait(), sink.queue.empty()
    return "the item at the door is given up" if taken == (0, True) else f"in the sink: {taken}"


def left(way, executor, how, folder):
    """Leave a run while an action waits, which is ended or goes on."""
    run = pipeline(folder).wrong(wait, folder).gen_batch(2, seed=1, **how)
    for _ in range(BAD):
        next(run)
    if executor != "serial":
        until((folder / "waits").exists, "the bad batch did not begin")
    if way == "close":
        within_a_second(run.close)
    elif way == "raise":
        try:
            with run:
                raise Broken
        except Broken:
            pass
    del run
    gc.collect()
    until(is_over, "the run goes on")  # one that is collected ends in its own thread
    return action_after(executor, folder)


def is_over():
    return all(thread.name != "flowcore-deliver" for thread in threading.enumerate())


FAULTS = {
    "exception": partial(raises, Broken),
    "get_tensor": no_tensor,
    "put": no_put,
    "result": result,
    "argument": argument,
    "unpicklable": partial(raises, Unpicklable),
    "unreadable": partial(raises, Unreadable),
    "killed once": killed_once,
    "killed always": killed_always,
    "killed writing": killed_writing,
    "killed idle": killed_idle,
    "full sink": full_sink,
    "close": partial(left, "close"),
    "collect": partial(left, "collect"),
    "raise": partial(left, "raise"),
}
