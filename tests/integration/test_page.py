"""The loop of the 2017 page "Working with TensorFlow queues", over all its settings.

``FLOWCORE_PAGE_STEPS=2000`` makes each loop as long as a small training.
"""

import os
import random
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from flowcore import Batch, Dataset, action

STEPS = int(os.environ.get("FLOWCORE_PAGE_STEPS", "50"))
BATCH_SIZE = 8


class MyBatch(Batch):
    def get_tensor(self):
        return np.asarray(self.data)

    @action
    def load(self, path):
        self._data = np.stack([np.full(4, len(path) * id_, np.float32) for id_ in self.index])
        return self

    @action
    def preprocessing_action(self):
        self._data = self._data + self.rng.normal(size=self._data.shape).astype(np.float32)
        delay = random.random()
        time.sleep(delay / 2000 if delay < 0.5 else 0)  # workers overtake each other
        return self


SETTINGS = [(0, None)] + [
    (prefetch, workers) for prefetch in (1, 4, 5, 16) for workers in range(1, 9)
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("capacity", [1, 2, 5])
@pytest.mark.parametrize(("prefetch", "workers"), SETTINGS)
def test_the_nth_tensor_dequeued_is_the_nth_batch_returned_bit_for_bit(capacity, prefetch, workers):
    my_dataset = Dataset(100, MyBatch)
    with tf.Graph().as_default():
        input_queue = tf.FIFOQueue(capacity=capacity, dtypes="float")
        pipeline = (
            my_dataset.p.load("/some/path")
            .preprocessing_action()
            .put_into_tf_queue(queue=input_queue, get_tensor=MyBatch.get_tensor)
        )
        tensor = input_queue.dequeue()
        with tf.Session() as sess:
            for _ in range(STEPS):
                batch = pipeline.next_batch(
                    BATCH_SIZE,
                    shuffle=True,
                    n_epochs=None,
                    prefetch=prefetch,
                    num_workers=workers,
                    tf_session=sess,
                )
                assert sess.run(tensor).tobytes() == batch.data.tobytes()
            pipeline.reset()
