"""Train a network on handwritten digits, fed through a TensorFlow queue.

The program of the 2017 page "Working with TensorFlow queues": a pipeline whose last step puts
batches into a queue, batches made in the background by ``prefetch``, a session handed over as
``tf_session=``, a model trained from the queue. ``--style eager`` does it with today's TensorFlow,
``--sink null`` and ``--sink numpy-buffer`` send the very same pipeline elsewhere, by name.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import flowcore as fc

BATCH_SIZE, MAX_ITER, REPORT_EVERY = 32, 1500, 300
SHAPES = [(64, 64), (64,), (64, 10), (10,)]  # a hidden layer and an output layer


class DigitsBatch(fc.Batch):
    components = "images", "labels"

    def get_tensor(self):
        return self.images, self.labels

    @fc.action
    def load(self, folder):
        files = [Path(folder, name) for name in self.index]
        self.images = np.stack([np.asarray(Image.open(file)) for file in files])
        self.labels = np.array([int(file.parent.name) for file in files])
        return self

    @fc.action
    def normalize(self):
        self.images = self.images.reshape(len(self), -1) / np.float32(255)
        return self


def write_digits(folder):
    """Write scikit-learn's digits as ``LABEL/NUMBER.png``; return the names."""
    digits = load_digits()
    names = []
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        names.append(f"{label}/{number:04}.png")
        Path(folder, str(label)).mkdir(exist_ok=True)
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(Path(folder, names[-1]))
    return names


def initial_weights():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, shape).astype(np.float32) for shape in SHAPES]


def logits(images, weights):
    hidden = np.maximum(0, images @ weights[0] + weights[1])
    return hidden @ weights[2] + weights[3]


def train_in_graph(pipeline):
    """As on the page: a graph, a session, and one `next_batch` for each step."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default():
        input_queue = tf.FIFOQueue(capacity=5, dtypes=["float", "int64"])
        pipeline = pipeline.put_into_tf_queue(queue=input_queue, get_tensor=DigitsBatch.get_tensor)

        images, labels = input_queue.dequeue()
        images.set_shape([None, 64])
        labels.set_shape([None])
        weights = [tf.Variable(value) for value in initial_weights()]
        hidden = tf.nn.relu(images @ weights[0] + weights[1])
        cost = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                logits=hidden @ weights[2] + weights[3], labels=labels
            )
        )
        optimizer = tf.train.AdamOptimizer(0.003).minimize(cost)

        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            for step in range(1, MAX_ITER + 1):
                batch = pipeline.next_batch(
                    BATCH_SIZE, shuffle=True, seed=1, n_epochs=None, prefetch=4, tf_session=sess
                )
                _, loss = sess.run([optimizer, cost])  # of exactly this batch
                if step % REPORT_EVERY == 0:
                    print(f"step {step}, epoch {batch.epoch}, loss {loss:.4f}", flush=True)
            report = pipeline.report
            pipeline.reset()
            return sess.run(weights), report


def train_eagerly(pipeline):
    """Today's TensorFlow: the queue is filled in the background, to its end."""
    import tensorflow as tf

    queue = tf.queue.FIFOQueue(5, [tf.float32, tf.int64])
    weights = [tf.Variable(value) for value in initial_weights()]
    optimizer = tf.keras.optimizers.Adam(0.003)

    @tf.function
    def train_step():
        images, labels = queue.dequeue()
        with tf.GradientTape() as tape:
            hidden = tf.nn.relu(tf.reshape(images, [-1, 64]) @ weights[0] + weights[1])
            scores = hidden @ weights[2] + weights[3]
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=scores)
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return tf.reduce_mean(loss)

    pipeline = pipeline.put_into_tf_queue(queue=queue, get_tensor=DigitsBatch.get_tensor)
    with pipeline.feed(BATCH_SIZE, shuffle=True, seed=1, n_epochs=33, prefetch=4) as feed:
        step = 0
        try:
            while True:
                loss = train_step()
                step += 1
                if step % REPORT_EVERY == 0:
                    print(f"step {step}, loss {loss.numpy():.4f}", flush=True)
        except tf.errors.OutOfRangeError:
            print(f"the data has ended after {step} steps")
    return [weight.numpy() for weight in weights], feed.report


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--style", choices=("graph", "eager"), default="graph")
    parser.add_argument("--sink", default="tf-queue", help="tf-queue, null or numpy-buffer")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        names = write_digits(folder)
        order = np.random.default_rng(0).permutation(len(names))
        training = fc.Dataset([names[at] for at in order[300:]], DigitsBatch)
        testing = fc.Dataset([names[at] for at in order[:300]], DigitsBatch)
        pipeline = training.p.load(folder).normalize()
        print(f"{len(training)} images to train on, {len(testing)} to test")

        if options.sink != "tf-queue":
            print(pipeline.run(BATCH_SIZE, shuffle=True, seed=1, prefetch=4, sink=options.sink))
            return
        train = train_in_graph if options.style == "graph" else train_eagerly
        weights, report = train(pipeline)
        test = testing.p.load(folder).normalize().next_batch(len(testing))
        accuracy = np.mean(np.argmax(logits(test.images, weights), axis=1) == test.labels)
        print(f"test accuracy {accuracy:.3f}")
        print(report)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
