"""What all of these tests share: a dataset, a graph with a session, and a look for threads."""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf

import flowcore as fc

v1 = tf.compat.v1


class Rows(fc.Batch):
    """Batches of a matrix, with its row numbers."""

    @fc.action
    def fail_at(self, number, error=ValueError):
        if self.number == number:
            raise error("made to fail")
        return self

    @fc.action
    def wait_for(self, event):
        assert event.wait(10)
        return self


@pytest.fixture
def rows():
    """A dataset of 24 rows of three float64 values, each row its own number."""
    return fc.Dataset(24, Rows, preloaded=np.repeat(np.arange(24.0)[:, None], 3, axis=1))


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture
def session(graph):
    """Return a function that makes the session, when the graph is complete."""
    made = []

    def make():
        made.append(v1.Session(graph=graph))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    end = time.monotonic() + 1
    for thread in threading.enumerate():
        if thread.name.startswith("flowcore"):
            thread.join(max(0, end - time.monotonic()))
            assert not thread.is_alive(), f"{thread.name} is left"
