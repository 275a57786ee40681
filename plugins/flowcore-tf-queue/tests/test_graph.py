"""Queues of a graph, through a session."""

import contextlib
import itertools
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

import flowcore as fc
from flowcore.errors import DataError, OptionError, PipelineError, SinkError
from flowcore_tf_queue import _graph

v1 = tf.compat.v1

BATCHES = [np.arange(start, start + 4.0) for start in range(0, 24, 4)]


def first_column(batch):
    return batch.data[:, 0]


def taken(session, op):
    """Take from a closed queue until its end."""
    items = []
    with contextlib.suppress(tf.errors.OutOfRangeError):
        take_for_ever(items, lambda: session.run(op))
    return items


def take_for_ever(items, take):
    while True:
        items.append(take())


def equal(found, expected):
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("prefetch", [0, 1, 4, 8])
def test_the_item_taken_after_next_batch_is_that_batch(rows, graph, session, prefetch):
    queue = v1.FIFOQueue(2, "float")
    dequeue = queue.dequeue()
    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    sess = session()
    for expected in BATCHES:
        batch = pipeline.next_batch(4, prefetch=prefetch, tf_session=sess)
        assert np.array_equal(first_column(batch), expected)
        assert np.array_equal(sess.run(dequeue), expected)
    with pytest.raises(StopIteration):
        pipeline.next_batch(4, prefetch=prefetch, tf_session=sess)


def make_fifo(**options):
    return v1.FIFOQueue(10, [tf.float32], **options)


def make_padding(**options):
    return v1.PaddingFIFOQueue(10, [tf.float32], [(None,)], **options)


def make_shuffle(**options):
    return v1.RandomShuffleQueue(10, 0, [tf.float32], **options)


@pytest.mark.parametrize("make", [make_fifo, make_padding, make_shuffle])
def test_any_kind_of_queue_takes_every_batch_once(rows, graph, session, make):
    queue = make()
    dequeue, size = queue.dequeue(), queue.size()
    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    sess = session()
    report = pipeline.run(4, prefetch=2, tf_session=sess)
    assert report.batches == sess.run(size) == 6
    items = sorted((sess.run(dequeue) for _ in range(6)), key=lambda item: item[0])
    assert equal(items, BATCHES)
    assert report.results["tf-queue"] is queue


def test_a_priority_queue_takes_priorities_first(rows, graph, session):
    queue = v1.PriorityQueue(10, [tf.float32], [()])
    dequeue = queue.dequeue()
    pipeline = rows.p.put_into_tf_queue(
        queue=queue, get_tensor=lambda batch: (-batch.number, batch.data[0, 0])
    )
    sess = session()
    pipeline.run(4, tf_session=sess)
    assert [sess.run(dequeue)[1] for _ in range(6)] == [20, 16, 12, 8, 4, 0]


def test_a_queue_with_names_takes_a_dict(rows, graph, session):
    queue = v1.FIFOQueue(10, [tf.float32, tf.int64], names=["x", "y"])
    dequeue = queue.dequeue()
    pipeline = rows.p.put_into_tf_queue(
        queue=queue, get_tensor=lambda batch: {"y": batch.index, "x": batch.data}
    )
    sess = session()
    pipeline.run(24, tf_session=sess)
    item = sess.run(dequeue)
    assert item["y"].tolist() == list(range(24))
    assert item["x"].shape == (24, 3)


def test_strings_arrive_as_bytes(graph, session):
    dataset = fc.Dataset(["a", "bc", "def"], preloaded=np.array(["a", "bc", "def"]))
    queue = v1.FIFOQueue(10, [tf.string])
    dequeue = queue.dequeue()
    pipeline = dataset.p.put_into_tf_queue(queue=queue)
    sess = session()
    pipeline.run(3, tf_session=sess)
    assert sess.run(dequeue).tolist() == [b"a", b"bc", b"def"]


def test_many_puts_the_items_one_by_one(rows, graph, session):
    queue = v1.FIFOQueue(50, [tf.float32, tf.int64], [(3,), ()])
    dequeue = queue.dequeue()
    pipeline = rows.p.put_into_tf_queue(
        queue=queue, many=True, get_tensor=lambda batch: (batch.data, batch.index)
    )
    sess = session()
    pipeline.run(5, tf_session=sess)
    for number in range(24):
        row, label = sess.run(dequeue)
        assert (row.tolist(), label) == ([number] * 3, number)


def test_many_fits_through_a_queue_smaller_than_a_batch(rows, graph, session):
    queue = v1.FIFOQueue(3, [tf.float32])
    dequeue = queue.dequeue()
    pipeline = rows.p.put_into_tf_queue(queue=queue, many=True, get_tensor=first_column)
    sess = session()
    with pipeline.feed(10, tf_session=sess):
        assert taken(sess, dequeue) == list(range(24))


def test_a_batch_larger_than_the_queue_is_refused_where_its_consumer_would_wait_for_ever(
    rows, graph, session
):
    queue = v1.FIFOQueue(3, [tf.float32])
    pipeline = rows.p.put_into_tf_queue(queue=queue, many=True, get_tensor=first_column)
    with pytest.raises(OptionError, match="room for 3 items, and a batch has 4"):
        pipeline.next_batch(4, tf_session=session())


def test_a_second_feed_into_a_queue_that_the_first_closed_says_so(rows, graph, session):
    queue = v1.FIFOQueue(10, [tf.float32])
    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    sess = session()
    with pipeline.feed(4, tf_session=sess) as feed:
        feed.wait()
    with (
        pytest.raises(SinkError, match="a feed before it at its end"),
        pipeline.feed(4, tf_session=sess) as feed,
    ):
        feed.wait()


def test_the_graph_may_be_finalized_after_the_step_is_written(rows, graph, session):
    queue = v1.FIFOQueue(2, "float")
    dequeue = queue.dequeue()
    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    v1.train.create_global_step()
    with v1.train.MonitoredTrainingSession() as monitored:
        for expected in BATCHES:
            pipeline.next_batch(4, prefetch=2, tf_session=monitored)
            assert np.array_equal(monitored.run(dequeue), expected)


def test_a_monitored_sessions_hooks_do_not_see_the_puts(rows, graph, session):
    queue = v1.FIFOQueue(10, "float")
    calls = []

    class Count(v1.train.SessionRunHook):
        def before_run(self, run_context):
            calls.append(run_context.original_args.fetches)

    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    with v1.train.SingularMonitoredSession(hooks=[Count()]) as monitored:
        pipeline.run(4, prefetch=2, tf_session=monitored)
    assert calls == []


def test_the_graph_does_not_grow_while_a_run_goes_on_nor_when_the_step_is_written_again(
    rows, graph, session
):
    queue = v1.FIFOQueue(10, "float")
    pipeline = rows.p.put_into_tf_queue(queue=queue, get_tensor=first_column)
    size = len(graph.get_operations())
    pipeline.run(4, tf_session=session())
    rows.p.put_into_tf_queue(queue=queue)
    assert len(graph.get_operations()) == size


def test_a_finalized_graph_is_refused_with_what_to_do(rows, graph):
    queue = v1.FIFOQueue(2, "float")
    graph.finalize()
    with pytest.raises(PipelineError, match="write the pipeline first"):
        rows.p.put_into_tf_queue(queue=queue)


def test_the_private_method_that_makes_a_put_fast_is_there():
    """If this fails, TensorFlow moved what _graph.py uses: puts then take five times as long."""
    assert hasattr(v1.Session, "_make_callable_from_options"), tf.__version__


@pytest.mark.parametrize("many", [False, True])
def test_a_session_inside_of_another_object_will_do(rows, graph, session, many):
    class Around:
        def __init__(self, inner):
            self.run, self.graph = inner.run, inner.graph

    queue = v1.FIFOQueue(30, "float")
    size = queue.size()
    sess = session()
    rows.p.put_into_tf_queue(queue=queue, many=many).run(4, tf_session=Around(sess))
    assert sess.run(size) == (24 if many else 6)


def test_a_missing_session_is_an_error_at_the_start_in_the_calling_thread(rows, graph):
    queue = v1.FIFOQueue(2, "float")
    pipeline = rows.p.put_into_tf_queue(queue=queue)
    before = threading.active_count()
    with pytest.raises(OptionError, match="pass tf_session=session to next_batch"):
        pipeline.next_batch(4, prefetch=4)
    with pytest.raises(OptionError, match="no default session"), pipeline.feed(4):
        pass
    assert threading.active_count() == before


def test_the_default_session_of_the_starting_thread_is_taken(rows, graph, session):
    queue = v1.FIFOQueue(10, "float")
    size = queue.size()
    pipeline = rows.p.put_into_tf_queue(queue=queue)
    with session().as_default() as sess:
        pipeline.run(4, prefetch=2)
        assert sess.run(size) == 6


def test_a_session_of_another_graph_is_refused(rows, graph):
    pipeline = rows.p.put_into_tf_queue(queue=v1.FIFOQueue(2, "float"))
    with v1.Session(graph=tf.Graph()) as other, pytest.raises(OptionError, match="another graph"):
        pipeline.run(4, tf_session=other)


def test_a_dtype_that_does_not_fit_is_the_error_of_its_batch(rows, graph, session):
    queue = v1.FIFOQueue(10, [tf.int32])
    pipeline = rows.p.put_into_tf_queue(queue=queue)
    with pytest.raises(DataError, match="has dtype float64, the queue takes int32") as caught:
        pipeline.run(4, tf_session=session())
    assert "in \"prepare of sink 'tf-queue'\" of batch 0 of epoch 0" in caught.value.__notes__[0]


def test_a_batch_that_does_not_fit_can_be_skipped(rows, graph, session):
    queue = v1.FIFOQueue(10, [tf.float32], [(10, 3)])
    pipeline = rows.p.put_into_tf_queue(queue=queue)
    report = pipeline.run(10, on_error="skip", tf_session=session())
    assert (report.batches, [trouble.number for trouble in report.skipped]) == (2, [2])


def test_a_run_leaves_no_entry_behind_in_the_session(rows, graph, session):
    queue = v1.FIFOQueue(100, "float")
    pipeline = rows.p.put_into_tf_queue(queue=queue)
    (table,) = [op for op in graph.get_operations() if op.type == "MutableHashTableV2"]
    size = tf.raw_ops.LookupTableSizeV2(table_handle=table.outputs[0])
    sess = session()
    for _ in range(3):
        pipeline.run(4, tf_session=sess)
    assert sess.run(size) == 0


def test_a_queue_chosen_in_the_graph_takes_items(rows, graph, session):
    queues = [v1.FIFOQueue(30, [tf.float32], [()]) for _ in range(2)]
    queue = v1.QueueBase.from_list(tf.constant(1), queues)
    pipeline = rows.p.put_into_tf_queue(queue=queue, many=True, get_tensor=first_column)
    sizes = [one.size() for one in queues]
    sess = session()
    assert len(list(pipeline.gen_batch(4, tf_session=sess))) == 6
    assert sess.run(sizes) == [0, 24]


def test_a_closed_monitored_session_is_refused(rows, graph):
    pipeline = rows.p.put_into_tf_queue(queue=v1.FIFOQueue(30, "float"))
    with v1.train.SingularMonitoredSession() as monitored:
        pass
    with pytest.raises(OptionError, match="is closed"):
        pipeline.run(4, tf_session=monitored)


class TestShuffleQueues:
    def pipeline(self, rows, kept, **options):
        self.queue = v1.RandomShuffleQueue(20, kept, [tf.float32])
        self.dequeue = self.queue.dequeue()
        self.closed = self.queue.is_closed()
        return rows.p.put_into_tf_queue(queue=self.queue, get_tensor=first_column, **options)

    def test_a_prefetch_that_cannot_reach_min_after_dequeue_is_refused(self, rows, graph, session):
        pipeline = self.pipeline(rows, 4)
        with pytest.raises(OptionError, match="prefetch=4 or more"):
            pipeline.next_batch(2, prefetch=3, tf_session=session())

    def test_all_items_come_out_as_it_is_closed_at_the_end_of_the_data(self, rows, graph, session):
        pipeline = self.pipeline(rows, 4)
        sess = session()
        items = []
        for _ in range(12):
            pipeline.next_batch(2, prefetch=4, tf_session=sess)
            items.append(sess.run(self.dequeue))
        assert sorted(itertools.chain(*items)) == list(range(24))

    def test_close_queue_false_leaves_it_open(self, rows, graph, session):
        pipeline = self.pipeline(rows, 4, close_queue=False)
        sess = session()
        pipeline.run(2, tf_session=sess)
        assert not sess.run(self.closed)

    def test_many_counts_items_and_not_batches(self, rows, graph, session):
        pipeline = self.pipeline(rows, 4, many=True)
        sess = session()
        items = []
        for _ in range(12):
            pipeline.next_batch(2, prefetch=2, tf_session=sess)
            items += [sess.run(self.dequeue), sess.run(self.dequeue)]
        assert sorted(items) == list(range(24))


class TestTheEnd:
    def pipeline(self, rows, capacity=10, **options):
        self.queue = v1.FIFOQueue(capacity, [tf.float32])
        self.dequeue, self.size = self.queue.dequeue(), self.queue.size()
        self.closed = self.queue.is_closed()
        self.put = self.queue.enqueue([[99.0]])
        return rows.p.put_into_tf_queue(queue=self.queue, get_tensor=first_column, **options)

    @pytest.mark.parametrize("prefetch", [0, 3])
    def test_next_batch_gen_batch_and_run_leave_the_queue_open(
        self, rows, graph, session, prefetch
    ):
        pipeline = self.pipeline(rows, capacity=30)
        sess = session()
        pipeline.run(4, prefetch=prefetch, tf_session=sess)
        assert len(list(pipeline.gen_batch(4, prefetch=prefetch, tf_session=sess))) == 6
        with pytest.raises(StopIteration):
            take_for_ever([], lambda: pipeline.next_batch(4, prefetch=prefetch, tf_session=sess))
        assert sess.run(self.size) == 18
        assert not sess.run(self.closed)

    @pytest.mark.parametrize("prefetch", [0, 3])
    @pytest.mark.parametrize("capacity", [1, 4, 10])
    def test_feed_closes_it_after_exactly_the_last_item(
        self, rows, graph, session, prefetch, capacity
    ):
        pipeline = self.pipeline(rows, capacity)
        sess = session()
        with pipeline.feed(4, prefetch=prefetch, tf_session=sess) as feed:
            assert equal(taken(sess, self.dequeue), BATCHES)
        assert feed.report.batches == 6

    def test_a_failed_feed_closes_it_and_raises_its_error_with_the_consumers_chained(
        self, rows, graph, session
    ):
        self.pipeline(rows)
        pipeline = rows.p.fail_at(3).put_into_tf_queue(queue=self.queue, get_tensor=first_column)
        sess = session()
        items = []
        with (
            pytest.raises(ValueError, match="made to fail") as caught,
            pipeline.feed(4, prefetch=3, tf_session=sess),
        ):
            take_for_ever(items, lambda: sess.run(self.dequeue))
        assert equal(items, BATCHES[:3])
        assert isinstance(caught.value.__context__, tf.errors.OutOfRangeError)

    def test_close_queue_false_keeps_a_feeds_queue_open(self, rows, graph, session):
        pipeline = self.pipeline(rows, close_queue=False)
        sess = session()
        with pipeline.feed(4, tf_session=sess) as feed:
            feed.wait()
        assert not sess.run(self.closed)

    def test_close_queue_true_closes_it_at_the_end_of_a_run(self, rows, graph, session):
        pipeline = self.pipeline(rows, close_queue=True)
        sess = session()
        pipeline.run(4, tf_session=sess)
        assert equal(taken(sess, self.dequeue), BATCHES)

    @pytest.mark.parametrize("style", ["gen_batch", "feed"])
    def test_a_queue_works_for_the_user_after_a_blocked_run_was_left(
        self, rows, graph, session, style
    ):
        pipeline = self.pipeline(rows, capacity=2)
        sess = session()
        if style == "feed":
            with pipeline.feed(4, n_epochs=None, tf_session=sess):
                wait_until_full(sess, self.size, 2)
        else:
            with pipeline.gen_batch(4, n_epochs=None, prefetch=4, tf_session=sess) as run:
                next(run)
                wait_until_full(sess, self.size, 2)
        assert equal([sess.run(self.dequeue), sess.run(self.dequeue)], BATCHES[:2])
        assert sess.run(self.size) == 0
        sess.run(self.put)
        assert sess.run(self.dequeue).tolist() == [99.0]
        assert equal(
            [sess.run(self.dequeue) for _ in pipeline.gen_batch(4, prefetch=4, tf_session=sess)],
            BATCHES,
        )

    def test_a_queue_that_the_user_closed_is_an_error_and_not_the_end(self, rows, graph, session):
        pipeline = self.pipeline(rows)
        close = self.queue.close()
        sess = session()
        run = pipeline.gen_batch(4, n_epochs=None, tf_session=sess)
        next(run)
        sess.run(close)
        with pytest.raises(SinkError, match="is closed, and the run has items"):
            next(run)

    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_a_closed_session_is_an_error_and_not_the_end(self, rows, graph, session, prefetch):
        pipeline = self.pipeline(rows, capacity=100)
        sess = session()
        run = pipeline.gen_batch(4, n_epochs=None, prefetch=prefetch, tf_session=sess)
        next(run)
        sess.close()
        with pytest.raises(SinkError, match=r"session|closed"):
            take_for_ever([], lambda: next(run))

    def test_an_error_of_an_action_leaves_the_queue_open_in_a_loop(self, rows, graph, session):
        self.pipeline(rows)
        pipeline = rows.p.fail_at(2).put_into_tf_queue(queue=self.queue, get_tensor=first_column)
        sess = session()
        run = pipeline.gen_batch(4, prefetch=2, tf_session=sess)
        with pytest.raises(ValueError, match="made to fail"):
            list(run)
        assert not sess.run(self.closed)
        assert sess.run(self.size) == 2


def wait_until_full(session, size, capacity):
    """Wait, with the test's own time limit, until a put must be waiting at a full queue."""
    while session.run(size) < capacity:
        threading.Event().wait(0.005)
    threading.Event().wait(0.05)


class TestExactness:
    """Deadlines that fire while the enqueue succeeds must neither repeat nor lose an item."""

    @pytest.mark.parametrize("many", [False, True])
    def test_no_item_is_lost_or_repeated_under_constant_deadlines(
        self, graph, session, monkeypatch, many
    ):
        monkeypatch.setattr(_graph, "_SLICE_MS", 1)
        dataset = fc.Dataset(1200, preloaded=np.arange(1200.0))
        queue = v1.FIFOQueue(2, [tf.float32])
        dequeue = queue.dequeue()
        pipeline = dataset.p.put_into_tf_queue(queue=queue, many=many)
        sess = session()
        slow = random.Random(1)
        items = []
        with pipeline.feed(4 if many else 1, tf_session=sess):
            try:
                while True:
                    items.append(float(sess.run(dequeue).item()))
                    threading.Event().wait(slow.choice([0, 0, 0.001, 0.002]))
            except tf.errors.OutOfRangeError:
                pass
        assert items == list(range(1200))

    def test_runs_and_others_at_one_queue_do_not_disturb_each_other(
        self, graph, session, monkeypatch
    ):
        monkeypatch.setattr(_graph, "_SLICE_MS", 1)
        dataset = fc.Dataset(300, preloaded=np.arange(300.0))
        queue = v1.FIFOQueue(2, [tf.float32])
        dequeue, close = queue.dequeue(), queue.close()
        value = v1.placeholder(tf.float32)
        foreign = queue.enqueue(value)
        pipeline = dataset.p.put_into_tf_queue(queue=queue, close_queue=False)
        sess = session()

        def put_others():
            for number in range(-1, -301, -1):
                sess.run(foreign, {value: [number]})

        others = threading.Thread(target=put_others)
        feeds = [pipeline.feed(1, tf_session=sess) for _ in range(2)]
        items = []

        def consume():
            while len(items) < 900:
                items.append(int(sess.run(dequeue)[0]))

        consumer = threading.Thread(target=consume)
        consumer.start()
        others.start()
        with feeds[0] as one, feeds[1] as two:
            one.wait()
            two.wait()
        others.join()
        consumer.join()
        sess.run(close)
        assert [item for item in items if item < 0] == list(range(-1, -301, -1))
        assert sorted(item for item in items if item >= 0) == sorted([*range(300)] * 2)

    def test_leaving_at_any_moment_leaves_a_prefix_of_the_items(self, graph, session, monkeypatch):
        monkeypatch.setattr(_graph, "_SLICE_MS", 2)
        dataset = fc.Dataset(100, preloaded=np.arange(100.0))
        queue = v1.FIFOQueue(3, [tf.float32])
        dequeue, size = queue.dequeue(), queue.size()
        pipeline = dataset.p.put_into_tf_queue(queue=queue, many=True)
        sess = session()
        moments = random.Random(2)
        for _ in range(25):
            items = []
            with pipeline.feed(7, tf_session=sess):
                for _ in range(moments.randrange(20)):
                    items.append(float(sess.run(dequeue)))
                threading.Event().wait(moments.random() / 200)
            items += [float(sess.run(dequeue)) for _ in range(sess.run(size))]
            assert items == list(range(len(items)))


@pytest.mark.parametrize("behaviour", ["disable_v2_behavior", "disable_control_flow_v2"])
def test_it_works_with_tensorflow_1_behaviour(tmp_path, behaviour):
    program = f"""
import numpy as np, flowcore as fc, tensorflow.compat.v1 as tf
tf.{behaviour}()
with tf.Graph().as_default():
    queue = tf.FIFOQueue(30, [tf.float32], [()])
    dequeue = queue.dequeue()
    pipeline = fc.Dataset(9, preloaded=np.arange(9.0)).p.put_into_tf_queue(queue=queue, many=True)
    with tf.Session() as session:
        pipeline.run(4, prefetch=2, tf_session=session)
        print([int(session.run(dequeue)) for _ in range(9)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(list(range(9)))
