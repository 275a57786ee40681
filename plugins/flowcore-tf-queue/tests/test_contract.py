"""The contract of a sink, for an eager queue, a graph's, and one that the sink makes itself."""

import numpy as np
import pytest
import tensorflow as tf

from flowcore.testing import SinkContract
from flowcore_tf_queue import TFQueueSink


class TestEager(SinkContract):
    bounded = True
    shares_target = True

    @pytest.fixture
    def sink(self):
        return self.sink_with_room(40)

    def sink_with_room(self, puts):
        self.queue = tf.queue.FIFOQueue(puts, [tf.float32])
        return TFQueueSink(self.queue, close_queue=False)

    def take(self, result):
        return result.dequeue().numpy()

    def received(self, result):
        return [self.queue.dequeue().numpy() for _ in range(self.queue.size())]


class TestGraph(SinkContract):
    bounded = True
    shares_target = True

    @pytest.fixture
    def sink(self):
        return self.sink_with_room(40)

    def sink_with_room(self, puts):
        with tf.Graph().as_default() as graph:
            queue = tf.compat.v1.FIFOQueue(puts, [tf.float32])
            self.dequeue, self.size = queue.dequeue(), queue.size()
            sink = TFQueueSink(queue, close_queue=False)
        self.session = tf.compat.v1.Session(graph=graph)
        return sink

    def options(self):
        return {"tf_session": self.session}

    def take(self, result):
        return self.session.run(self.dequeue)

    def received(self, result):
        return [self.session.run(self.dequeue) for _ in range(self.session.run(self.size))]


class TestOwnQueue(SinkContract):
    bounded = True

    @pytest.fixture
    def sink(self):
        return self.sink_with_room(40)

    def sink_with_room(self, puts):
        return TFQueueSink(capacity=puts)

    def take(self, result):
        return result.dequeue().numpy()

    def received(self, result):
        return [np.asarray(result.dequeue()) for _ in range(result.size())]
