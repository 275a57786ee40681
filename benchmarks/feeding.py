"""W2: feeding a TensorFlow queue: batches of 12.6 MB, and of 2 KB, into a consumer that sums.

Each system hands over batch after batch, and TensorFlow sums each; every sum is checked. The clock
runs when some have come. Most call a `tf.function` for each batch; a graph loop is one that takes
many. Queues have room for five.

What is handed over is ready, the same array each time, so that only the way is measured. "Any
array" starts where NumPy's do, 16 bytes past a multiple of 64. An "aligned array" does at a
multiple, and is read-only: flowcore hands on such a one, as it does one of `batch.empty`. An
array of `batch.empty` is asked for anew for each batch; it is filled where its memory is not what
an array before it had, so that here too only the way is measured. "Filled" ones are made: each
batch is filled with its number, by flowcore's action into `batch.empty`, and by the floor in a
thread, into eight arrays in turn.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from harness import Measure, Measures, Target, Work, cpu_seconds

__all__ = ["WORK"]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOM, AHEAD = 5, 4  # batches: of a queue, and of flowcore's prefetch
VALUES = 3  # what filled batches have: 1, 2, 3, 1, ...; their sums are exact

ALONE, ENQUEUE = "floor, consumer alone", "TensorFlow, FIFOQueue.enqueue, any array"
EMPTY, ANY = "flowcore, eager, batch.empty", "flowcore, eager, any array"
LOOP = "flowcore, eager, aligned array, graph loop"


@dataclass(frozen=True)
class Form:
    """One kind of batches: a ready array of ones, at any address and aligned, and how many."""

    shape: tuple[int, ...]
    warm: int
    counts: tuple[int, int]  # in a long run, and in a short one

    def array(self, aligned: bool) -> Any:
        size = int(np.prod(self.shape)) * 4
        memory = np.empty(size + 128, np.uint8)
        start = -memory.ctypes.data % 64 + (0 if aligned else 16)
        array = memory[start : start + size].view(np.float32).reshape(self.shape)
        array[...] = 1
        array.flags.writeable = memory.flags.writeable = not aligned
        return array


BIG = Form((64, 128, 128, 3), 40, (600, 200))
SMALL = Form((32, 16), 300, (6_000, 1_500))
CHUNK = {BIG: 20, SMALL: 300}  # batches that a graph loop takes in one call

#: Generates for each call of the consumer the sum, and of how many batches it is.
Sums = Iterator[tuple[Any, int]]
Making = Callable[[Form], Sums]

WORK = Work(
    "W2",
    "feeding TensorFlow: batches of 12.6 MB, and of 2 KB, that it sums",
    [
        Measure("mb_s", "MB/s", 0, more=True),
        Measure("cpu_s_gb", "CPU s a GB", 3),
        Measure("us", "us a batch of 2 KB"),
        Measure("cpu_us", "CPU us"),
    ],
    packages=["numpy", "flowcore", "flowcore-tf-queue", "tensorflow_cpu"],
    references=[ENQUEUE, ALONE],
    targets=[
        Target(EMPTY, "mb_s", 2.5, of=ENQUEUE),
        Target(EMPTY, "cpu_s_gb", 1.1, of=ALONE),
        Target(ANY, "mb_s", 1.6, of=ENQUEUE),
        Target(EMPTY, "us", 1.2, of=ALONE),
        Target(ANY, "us", 1.2, of=ALONE),
        Target(LOOP, "us", 40),
    ],
)


def system(name: str, *, filled: bool = False, **options: Any) -> Callable[[Any], Any]:
    """Mark a generator function of a form; the options are passed on to it."""

    def mark(make: Callable[..., Sums]) -> Callable[..., Sums]:
        making = partial(make, **options)
        WORK.system(name)(lambda short: measures(making, short, filled))
        return make

    return mark


def filled_system(name: str, **options: Any) -> Callable[[Any], Any]:
    """Mark one that is told to fill its arrays."""

    def mark(make: Callable[..., Sums]) -> Callable[..., Sums]:
        system(name, filled=True, **options)(partial(make, filled=True))
        return make

    return mark


def measures(make: Making, short: bool, filled: bool) -> Measures:
    """Return what the batches of both forms cost."""
    seconds, cpu, count = measured(make(BIG), BIG, short, filled)
    gigabytes = count * int(np.prod(BIG.shape)) * 4 / 1e9
    found = {"mb_s": gigabytes * 1e3 / seconds, "cpu_s_gb": cpu / gigabytes}
    seconds, cpu, count = measured(make(SMALL), SMALL, short, filled)
    return {**found, "us": seconds / count * 1e6, "cpu_us": cpu / count * 1e6}


def measured(sums: Sums, form: Form, short: bool, filled: bool) -> tuple[float, float, int]:
    """Return seconds, CPU seconds and batches; raise, if a batch is missing or another one."""
    found: list[tuple[Any, int]] = []
    batches = begun = 0
    start = cpu = 0.0
    while batches < begun + form.counts[short] or not begun:
        if not begun and batches >= form.warm:
            begun, start, cpu = batches, time.perf_counter(), cpu_seconds()
        found.append(next(sums))
        batches += found[-1][1]
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    sums.close()  # type: ignore[attr-defined]
    numbers = itertools.count()
    for total, count in found:
        values = [1 + next(numbers) % VALUES if filled else 1 for _ in range(count)]
        assert float(total) == sum(values) * np.prod(form.shape), (total, values[:3])
    return seconds, cpu, batches - begun


# The consumer


def consumer(form: Form) -> tuple[Any, Callable[[], Any]]:
    """Return an eager queue, and what takes one batch from it and sums."""
    import tensorflow as tf

    queue = tf.queue.FIFOQueue(ROOM, [tf.float32], [form.shape])
    return queue, tf.function(lambda: tf.reduce_sum(queue.dequeue()))


def looping(form: Form) -> tuple[Any, Callable[[], Any]]:
    """Return an eager queue, and what takes many batches from it, in a loop of the graph."""
    import tensorflow as tf

    queue = tf.queue.FIFOQueue(ROOM, [tf.float32], [form.shape])

    @tf.function(autograph=False)
    def take() -> Any:
        return tf.while_loop(
            lambda at, total: at < CHUNK[form],
            lambda at, total: (
                at + 1,
                total + tf.cast(tf.reduce_sum(queue.dequeue()), tf.float64),
            ),
            (tf.constant(0), tf.constant(0.0, tf.float64)),
            parallel_iterations=1,
        )[1]

    return queue, take


def summing() -> Callable[[Any], Any]:
    """Return what sums one tensor."""
    import tensorflow as tf

    return tf.function(lambda tensor: tf.reduce_sum(tensor))  # type: ignore[no-any-return]


# Floors


@system("floor, memcpy")
def floor_memcpy(form: Form) -> Sums:
    source, target = form.array(False), form.array(False)
    while True:
        np.copyto(target, source)
        yield float(np.prod(form.shape)), 1


@system(ALONE)
def floor_alone(form: Form) -> Sums:
    import tensorflow as tf

    tensor, total = tf.constant(form.array(True)), summing()
    while True:
        yield total(tensor), 1


@system("floor, raw enqueue, aligned array")
def floor_raw(form: Form) -> Sums:
    queue, step = consumer(form)
    array, put = form.array(True), raw_put(queue)
    while True:
        put(array)
        yield step(), 1


@system("floor, raw enqueue in a thread, aligned array, graph loop")
def floor_loop(form: Form) -> Sums:
    queue, step = looping(form)
    with producing(queue, itertools.repeat(form.array(True))):
        while True:
            yield step(), CHUNK[form]


@system("floor, filled in a thread, raw enqueue", filled=True)
def floor_filled(form: Form) -> Sums:
    queue, step = consumer(form)
    ring = [form.array(False).base for _ in range(ROOM + 3)]
    views = [memory[-memory.ctypes.data % 64 :] for memory in ring]
    size = int(np.prod(form.shape)) * 4
    arrays = [view[:size].view(np.float32).reshape(form.shape) for view in views]

    def fill() -> Iterator[Any]:
        for number in itertools.count():
            arrays[number % len(arrays)].fill(1 + number % VALUES)
            yield arrays[number % len(arrays)]

    with producing(queue, fill()):
        while True:
            yield step(), 1


def raw_put(queue: Any) -> Callable[[Any], Any]:
    """Return what enqueues an array, and adopts it where it can."""
    import tensorflow as tf

    return lambda array: tf.raw_ops.QueueEnqueueV2(handle=queue.queue_ref, components=[array])


class producing:
    """Puts arrays in a thread, until the block is left."""

    def __init__(self, queue: Any, arrays: Iterator[Any]) -> None:
        self._queue, self._arrays, self._over = queue, arrays, False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._over = True
        self._queue.close(cancel_pending_enqueues=True)
        self._thread.join()

    def _serve(self) -> None:
        import tensorflow as tf

        put = raw_put(self._queue)
        try:
            while not self._over:
                put(next(self._arrays))
        except tf.errors.CancelledError:
            pass


# TensorFlow's own ways


@system(ENQUEUE, aligned=False)
@system("TensorFlow, FIFOQueue.enqueue, aligned array", aligned=True)
def tf_enqueue(form: Form, aligned: bool) -> Sums:
    queue, step = consumer(form)
    array = form.array(aligned)
    while True:
        queue.enqueue(array)
        yield step(), 1


@system("TensorFlow, session.run with a feed, any array", aligned=False)
@system("TensorFlow, session.run with a feed, aligned array", aligned=True)
def tf_session(form: Form, aligned: bool) -> Sums:
    queue, session, step = in_graph(form)
    import tensorflow as tf

    array = form.array(aligned)
    with session.graph.as_default():
        value = tf.compat.v1.placeholder(tf.float32, form.shape)
        put = queue.enqueue(value)
    while True:
        session.run(put, {value: array})
        yield step(), 1


@system("tf.data, from_generator, any array", aligned=False)
@system("tf.data, from_generator, aligned array", aligned=True)
def tf_generator(form: Form, aligned: bool) -> Sums:
    import tensorflow as tf

    array, total = form.array(aligned), summing()
    data = tf.data.Dataset.from_generator(
        lambda: itertools.repeat(array),
        output_signature=tf.TensorSpec(form.shape, tf.float32),
    )
    for tensor in data.prefetch(AHEAD):
        yield total(tensor), 1


@system("TensorFlow, tf.constant, any array")
def tf_constant(form: Form) -> Sums:
    import tensorflow as tf

    array, total = form.array(False), summing()
    while True:
        yield total(tf.constant(array)), 1


def in_graph(form: Form) -> tuple[Any, Any, Callable[[], Any]]:
    """Return a queue of a graph, a session, and what takes one batch and sums."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        queue = v1.FIFOQueue(ROOM, [tf.float32], [form.shape])
        total = tf.reduce_sum(queue.dequeue())
    session = v1.Session(graph=graph)
    return queue, session, lambda: session.run(total)


# flowcore


def pipeline(form: Form, queue: Any, aligned: bool | None, filled: bool = False) -> Any:
    """Return a pipeline that puts a ready array; with ``None``, arrays of `batch.empty`."""
    import flowcore as fc

    ready = None if aligned is None else form.array(aligned)

    class Ready(fc.Batch):
        @fc.action
        def make(self) -> Ready:
            if aligned is not None:
                self.data = ready
                return self
            array = self.data = self.empty(form.shape, np.float32)
            if filled:
                array.fill(1 + self.number % VALUES)
            elif form is SMALL or not array.flat[0] == array.flat[-1] == 1:
                array.fill(1)
            return self

    return fc.Dataset(10**9, Ready).p.make().put_into_tf_queue(queue=queue)


@system(EMPTY, aligned=None)
@system(ANY, aligned=False)
@system("flowcore, eager, aligned array", aligned=True)
@system("flowcore, eager, aligned array, no thread", aligned=True, prefetch=0)
@system("flowcore, eager, any array, no thread", aligned=False, prefetch=0)
@filled_system("flowcore, eager, filled", aligned=None)
def flowcore_batches(
    form: Form, aligned: bool | None, prefetch: int = AHEAD, filled: bool = False
) -> Sums:
    queue, step = consumer(form)
    for _ in pipeline(form, queue, aligned, filled).gen_batch(1, prefetch=prefetch):
        yield step(), 1


@system("flowcore, eager, aligned array, feed", aligned=True)
@system("flowcore, eager, any array, feed", aligned=False)
@filled_system("flowcore, eager, filled, feed", aligned=None)
@system(LOOP, aligned=True, prefetch=0, loop=True)
@system("flowcore, eager, any array, graph loop", aligned=False, loop=True)
def flowcore_feed(
    form: Form,
    aligned: bool | None,
    prefetch: int = AHEAD,
    loop: bool = False,
    filled: bool = False,
) -> Sums:
    queue, step = (looping if loop else consumer)(form)
    with pipeline(form, queue, aligned, filled).feed(1, prefetch=prefetch):
        while True:
            yield step(), CHUNK[form] if loop else 1


@system("flowcore, session, aligned array", aligned=True)
@system("flowcore, session, any array", aligned=False)
def flowcore_session(form: Form, aligned: bool) -> Sums:
    queue, session, step = in_graph(form)
    pipe = pipeline(form, queue, aligned)
    for _ in pipe.gen_batch(1, prefetch=AHEAD, tf_session=session):
        yield step(), 1


if __name__ == "__main__":
    WORK.main()
