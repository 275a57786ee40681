"""Queues of eager TensorFlow, and the ones that the sink makes itself."""

import contextlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

import flowcore as fc
from flowcore.errors import ArgumentError, DataError, OptionError, SinkError

BATCHES = [np.arange(start, start + 4.0) for start in range(0, 24, 4)]


def first_column(batch):
    return batch.data[:, 0]


def taken(queue):
    items = []
    with contextlib.suppress(tf.errors.OutOfRangeError):
        take_for_ever(items, lambda: queue.dequeue().numpy())
    return items


def take_for_ever(items, take):
    while True:
        items.append(take())


def equal(found, expected):
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def test_the_private_modules_that_make_a_put_cancelable_are_there():
    """If this fails, TensorFlow moved what _eager.py needs; its version is in the message."""
    from tensorflow.python.eager import cancellation, execute
    from tensorflow.python.framework import ops

    version = tf.__version__
    assert hasattr(execute, "execute_with_cancellation"), version
    assert hasattr(ops, "EagerTensor"), version
    manager = cancellation.CancellationManager()
    assert not manager.is_cancelled, version
    manager.start_cancel()
    assert manager.is_cancelled, version


@pytest.mark.parametrize("prefetch", [0, 1, 4, 8])
def test_the_item_taken_after_next_batch_is_that_batch(rows, prefetch):
    queue = tf.queue.FIFOQueue(2, [tf.float32])
    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    for expected in BATCHES:
        batch = pipeline.next_batch(4, prefetch=prefetch)
        assert np.array_equal(first_column(batch), expected)
        assert np.array_equal(queue.dequeue(), expected)
    with pytest.raises(StopIteration):
        pipeline.next_batch(4, prefetch=prefetch)
    assert not queue.is_closed()


def test_a_tf_function_consumes_the_queue_to_its_end(rows):
    queue = tf.queue.FIFOQueue(2, [tf.float32, tf.int64])
    pipeline = rows.p.put_into_tf_queue(
        queue=queue, get_tensor=lambda batch: (batch.data, batch.index)
    )

    @tf.function
    def step():
        images, labels = queue.dequeue()
        return tf.reduce_sum(images), tf.reduce_sum(labels)

    sums = []
    with pipeline.feed(4, prefetch=2), pytest.raises(tf.errors.OutOfRangeError):
        take_for_ever(sums, lambda: [int(value) for value in step()])
    assert sums == [[int(3 * batch.sum()), int(batch.sum())] for batch in BATCHES]


def test_many_puts_the_items_one_by_one(rows):
    queue = tf.queue.FIFOQueue(3, [tf.float32], [()])
    pipeline = rows.p.put_into_tf_queue(queue=queue, many=True, get_tensor=first_column)
    with pipeline.feed(5):
        assert taken(queue) == list(range(24))


def test_many_puts_strings_one_by_one():
    queue = tf.queue.FIFOQueue(9, [tf.string])
    strings = fc.Dataset(2, preloaded=np.array(["a", "bc"]))
    strings.p.put_into_tf_queue(queue=queue, many=True).run(2)
    assert [queue.dequeue().numpy() for _ in range(2)] == [b"a", b"bc"]


def test_strings_and_names_and_scalars_go_in(rows):
    queue = tf.queue.FIFOQueue(9, [tf.string, tf.int64], names=["ids", "number"])
    rows.p.put_into_tf_queue(
        queue=queue,
        get_tensor=lambda batch: {"ids": batch.index.astype(str), "number": batch.number},
    ).run(4)
    queue.dequeue()
    item = queue.dequeue()
    assert item["ids"].numpy().tolist() == [b"4", b"5", b"6", b"7"]
    assert item["number"].numpy() == 1


def test_the_queue_keeps_what_was_put_when_the_batch_is_changed_afterwards(rows):
    queue = tf.queue.FIFOQueue(9, [tf.float64])
    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    for batch in pipeline.gen_batch(4):
        batch.data[:] = -1
    queue.close()
    assert equal(taken(queue), BATCHES)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_blocked_put_is_given_up_at_once_and_the_queue_stays_usable(rows, prefetch):
    queue = tf.queue.FIFOQueue(1, [tf.float32])
    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    run = pipeline.gen_batch(4, n_epochs=None, prefetch=prefetch)
    next(run)
    ended = threading.Event()

    def consume():
        for _ in run:
            pass
        ended.set()

    consumer = threading.Thread(target=consume)
    consumer.start()  # waits at the full queue
    threading.Event().wait(0.1)
    run.close()
    assert ended.wait(1)
    consumer.join()
    assert np.array_equal(queue.dequeue(), BATCHES[0])
    assert queue.size() == 0
    queue.enqueue(5.0)
    assert queue.dequeue().numpy() == 5.0


def test_a_failed_feed_closes_the_queue_and_raises_its_error_with_the_consumers_chained(rows):
    queue = tf.queue.FIFOQueue(2, [tf.float32])
    pipeline = rows.p.fail_at(3).put_into_tf_queue(queue=queue, get_tensor=first_column)
    items = []
    with pytest.raises(ValueError, match="made to fail") as caught, pipeline.feed(4, prefetch=2):
        take_for_ever(items, lambda: queue.dequeue().numpy())
    assert equal(items, BATCHES[:3])
    assert isinstance(caught.value.__context__, tf.errors.OutOfRangeError)


def test_a_queue_that_the_user_closed_is_an_error_and_not_the_end(rows):
    queue = tf.queue.FIFOQueue(9, [tf.float32])
    run = rows.p.put_into_tf_queue(queue=queue).gen_batch(4)
    next(run)
    queue.close()
    with pytest.raises(SinkError, match="is closed, and the run has items"):
        next(run)


def test_a_shuffling_queue_is_closed_at_the_end_of_the_data_by_a_run(rows):
    queue = tf.queue.RandomShuffleQueue(10, 4, [tf.float32])
    rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column).run(4)
    assert sorted(item[0] for item in taken(queue)) == [0, 4, 8, 12, 16, 20]


def test_a_queue_in_which_others_wait_is_closed_behind_them_without_holding_the_run(rows, caplog):
    queue = tf.queue.FIFOQueue(1, [tf.float32])
    foreign = threading.Thread(target=lambda: [queue.enqueue(number) for number in (7.0, 8.0)])
    foreign.start()  # one is in, the other waits
    threading.Event().wait(0.1)
    empty = fc.Dataset(0, preloaded=np.zeros((0, 3)))
    with empty.p.put_into_tf_queue(queue=queue).feed(4) as feed:
        assert feed.wait(5)
    assert "behind enqueues of others" in caplog.text
    assert taken(queue) == [7.0, 8.0]
    foreign.join()


class TestOwnQueue:
    def test_by_name_alone_the_result_is_the_queue_from_the_start(self, rows):
        with rows.p.feed(4, sink="tf-queue", prefetch=2) as feed:
            queue = feed.results["tf-queue"]
            items = taken(queue)
        assert [item.shape for item in items] == [(4, 3)] * 6
        assert queue.dtypes == [tf.float64]

    def test_it_has_the_capacity_asked_for(self, rows):
        run = rows.p.put_into_tf_queue(capacity=2).gen_batch(4, prefetch=4)
        next(run)
        queue = run.report.results["tf-queue"]
        next(run)
        threading.Event().wait(0.1)
        assert queue.size() == 2
        run.close()
        assert queue.size() == 2

    def test_each_run_has_its_own(self, rows):
        pipeline = rows.p.put_into_tf_queue()
        one, two = pipeline.gen_batch(4), pipeline.gen_batch(4)
        next(one)
        next(two)
        next(two)
        assert one.report.results["tf-queue"].size() == 1
        assert two.report.results["tf-queue"].size() == 2

    def test_before_the_first_batch_of_a_loop_it_is_none_and_nobody_waits(self, rows):
        run = rows.p.put_into_tf_queue().gen_batch(4)
        run.start()
        assert run.report.results == {"tf-queue": None}
        next(run)
        assert run.report.results["tf-queue"].size() == 1

    def test_a_run_that_fills_it_before_anybody_can_have_it_is_refused(self, rows):
        with pytest.raises(OptionError, match=r"room for 3 items, and the run puts 6"):
            rows.p.put_into_tf_queue(capacity=3).run(4)
        report = rows.p.put_into_tf_queue(capacity=6).run(4)
        assert report.results["tf-queue"].size() == 6

    def test_a_batch_larger_than_it_is_refused_where_its_consumer_would_wait_for_ever(self, rows):
        with pytest.raises(OptionError, match="its own queue has room for 8 items"):
            rows.p.put_into_tf_queue(many=True).next_batch(12)

    def test_no_item_is_no_queue(self):
        empty = fc.Dataset(0, preloaded=np.zeros((0, 3)))
        assert empty.p.put_into_tf_queue().run(4).results == {"tf-queue": None}

    def test_a_later_batch_of_another_kind_is_refused(self):
        class Changing(fc.Batch):
            def get_tensor(self):
                return np.zeros(2, "int64") if self.number == 0 else np.zeros(2, "float64")

        with pytest.raises(DataError, match="dtype float64, the queue takes int64") as caught:
            fc.Dataset(4, Changing).p.put_into_tf_queue().run(2)
        assert "batch 1 of epoch 0" in caught.value.__notes__[0]

    def test_a_consumer_that_waits_is_told_when_the_feed_is_left(self, rows):
        told = threading.Event()
        begun = threading.Event()

        def consume(queue):
            while True:
                try:
                    queue.dequeue()
                except tf.errors.OutOfRangeError:
                    told.set()
                    return

        release = threading.Event()
        pipeline = rows.p.wait_for(release).put_into_tf_queue()
        release.set()
        with pipeline.feed(4) as feed:
            consumer = threading.Thread(target=consume, args=(feed.results["tf-queue"],))
            consumer.start()
            begun.set()
        assert told.wait(5)
        consumer.join()


class TestOptions:
    def test_what_is_no_queue_is_refused_where_it_is_written(self, rows):
        with pytest.raises(OptionError, match="must be a TensorFlow queue, got list"):
            rows.p.put_into_tf_queue(queue=[])

    def test_get_tensor_must_be_callable(self, rows):
        with pytest.raises(OptionError, match="get_tensor must be a function or method"):
            rows.p.put_into_tf_queue(get_tensor="images")

    def test_capacity_is_for_the_sinks_own_queue(self, rows):
        with pytest.raises(OptionError, match="give queue or capacity"):
            rows.p.put_into_tf_queue(queue=tf.queue.FIFOQueue(1, [tf.float32]), capacity=2)
        with pytest.raises(OptionError, match="at least 1"):
            rows.p.put_into_tf_queue(capacity=0)

    def test_options_are_given_by_name(self, rows):
        queue = tf.queue.FIFOQueue(1, [tf.float32])
        with pytest.raises(ArgumentError, match="takes its options by name"):
            rows.p.put_into_tf_queue(queue)

    def test_an_unknown_option_is_refused_with_those_that_there_are(self, rows):
        with pytest.raises(ArgumentError, match=r"get_tensor.*many.*capacity.*close_queue"):
            rows.p.put_into_tf_queue(queue=None, tensor=None)

    def test_an_own_queue_inside_of_a_graph_is_refused_at_the_start(self, rows):
        pipeline = rows.p.put_into_tf_queue()
        with tf.Graph().as_default(), pytest.raises(OptionError, match="inside of a graph"):
            pipeline.run(4)


PROGRAM = """
import sys, threading, numpy as np, flowcore as fc, tensorflow as tf
style, prefetch = sys.argv[1], int(sys.argv[2])
data = fc.Dataset(100, preloaded=np.arange(100.0)).p
if style == "graph":
    with tf.Graph().as_default():
        queue = tf.compat.v1.FIFOQueue(1, [tf.float64])
        pipeline, session = data.put_into_tf_queue(queue=queue), tf.compat.v1.Session()
    options = {"tf_session": session}
else:
    queue, options = tf.queue.FIFOQueue(1, [tf.float64]), {}
    pipeline = data.put_into_tf_queue(queue=queue)
run = pipeline.gen_batch(4, prefetch=prefetch, **options)
print(next(run).number, flush=True)
try:
    next(run)  # waits at the full queue
    next(run)
except KeyboardInterrupt:
    left = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    print("interrupted", [name for name in left if name.startswith("flowcore")], flush=True)
    raise
"""


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize("style", ["graph", "eager"])
def test_ctrl_c_ends_a_program_whose_put_is_blocked(tmp_path, style, prefetch):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, style, str(prefetch)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout.readline() == "0\n"
        threading.Event().wait(0.5)  # for the program to be inside of the blocked put
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=10)
    finally:
        program.kill()
    assert output == "interrupted []\n"
    assert program.returncode in (1, 130, -signal.SIGINT)
    assert "KeyboardInterrupt" in errors


EXIT = """
import threading, numpy as np, flowcore as fc, tensorflow as tf
queue = tf.queue.FIFOQueue(2, [tf.float64])
pipeline = fc.Dataset(100, preloaded=np.arange(100.0)).p.put_into_tf_queue(queue=queue)
loop = threading.Thread(target=lambda: list(pipeline.gen_batch(4)), daemon=True)
loop.start()
while queue.size() < 2:
    loop.join(0.01)
loop.join(0.2)
print("the main thread ends", flush=True)
"""


def test_a_program_ends_though_a_daemon_thread_waits_at_a_full_queue(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", EXIT], cwd=tmp_path, capture_output=True, text=True, timeout=40
    )
    assert (done.returncode, done.stdout) == (0, "the main thread ends\n")
