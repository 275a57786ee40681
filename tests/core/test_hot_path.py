"""What a batch may cost the framework: calls and memory, counted, so that no clock is needed.

The ceilings are what it took when they were written, and a little. Who needs more for a batch
should know that all users pay for it.
"""

import sys
import threading
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from flowcore import Batch, Dataset, action

ROWS = np.zeros((100_000, 4), np.float32)
MANY = 200  # batches that are counted


class Plain(Batch):
    @action
    def keep(self):
        return self


def calls_of_a_batch(run, many=MANY):
    """Return how many functions are called for a batch, in whatever thread, Python's and C's."""
    count = Counter()

    def note(frame, event, argument):
        count[event] += 1

    threading.setprofile(note)  # for the workers, which start with the run
    try:
        for _ in range(50):
            next(run)  # the first make what is made once
        count.clear()
        sys.setprofile(note)
        for _ in range(many):
            next(run)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        run.close()
    return (count["call"] + count["c_call"]) / many


def serial(dataset=None, batch_size=2, actions=1, **options):
    pipeline = (Dataset(len(ROWS), Plain, preloaded=ROWS) if dataset is None else dataset).p
    for _ in range(actions):
        pipeline = pipeline.keep()
    return pipeline.gen_batch(batch_size, prefetch=0, seed=1, **options)


def test_a_batch_that_is_made_where_it_is_asked_for_takes_few_calls():
    assert calls_of_a_batch(serial()) <= 48


def test_each_further_action_is_one_call_and_nothing_more():
    one, eleven = calls_of_a_batch(serial(actions=1)), calls_of_a_batch(serial(actions=11))
    assert eleven - one == pytest.approx(10, abs=0.1)


def test_nothing_is_called_for_each_item():
    few, many = calls_of_a_batch(serial(batch_size=2)), calls_of_a_batch(serial(batch_size=200))
    assert many == pytest.approx(few, abs=2)  # blocks of positions are shorter by the batch


def test_the_calls_of_a_shuffled_batch_do_not_grow_with_the_number_of_ids():
    few, many = (
        calls_of_a_batch(serial(Dataset(length, Plain), batch_size=20, shuffle=True))
        for length in (10**5, 10**9)
    )
    assert many <= few * 1.1


def test_a_batch_of_worker_threads_takes_few_calls_in_all_threads_together():
    pipeline = Dataset(len(ROWS), Plain, preloaded=ROWS).p.keep()
    run = pipeline.gen_batch(2, prefetch=32, num_workers=1, seed=1)
    assert calls_of_a_batch(run, many=2_000) <= 130


@pytest.mark.parametrize("options", [{"prefetch": 0}, {"prefetch": 4, "num_workers": 2}])
def test_a_batch_that_is_gone_leaves_no_memory(options):
    run = Dataset(len(ROWS), Plain, preloaded=ROWS).p.keep().gen_batch(2, seed=1, **options)

    def traced(many):
        for _ in range(many):
            next(run)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first, last = traced(1_000), traced(5_000)
    finally:
        tracemalloc.stop()
        run.close()
    assert last - first < 100_000  # a block of positions may be longer; 5,000 batches are 500 kB
