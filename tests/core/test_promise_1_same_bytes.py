"""Promise 1: everything about batch k is a function of (recipe, seed, k).

The serial executor is the oracle. Every other way to run must give its batches, bit for bit and in
its order, whatever the delays in the actions.
"""

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore import Batch, Dataset, action
from flowcore.errors import RunInProgress
from flowcore.executors.threads import ThreadsExecutor


class Noisy(Batch):
    components = ("x", "y")

    @action
    def load(self):
        self.x = np.outer(self.positions, np.ones(3))
        self.y = self.index.astype("U")
        return self

    @action
    def dawdle(self, delays):
        time.sleep(delays.random() / 500)
        return self

    @action
    def jitter(self):
        self.x = self.x + self.rng.normal(size=self.x.shape)
        return self

    @action
    def renew(self):
        return Noisy(self.index, self.positions, data=self.data)

    @action
    def fail_once(self, tried):
        """Raise in the first attempt at each batch, when the batch has been changed already."""
        self.rng.normal(size=5)
        place = self.epoch, self.number
        if place not in tried:
            tried.add(place)
            raise OSError("not yet")
        return self


DATASET = Dataset([f"id {number}" for number in range(41)], Noisy)


def pipeline():
    delays = random.Random(3)
    return DATASET.p.load().dawdle(delays).jitter().renew().dawdle(delays).jitter()


def digest(batch):
    return batch.epoch, batch.number, batch.index.tolist(), batch.x.tobytes(), batch.y.tobytes()


def digests(run):
    return [digest(batch) for batch in run]


ORDERS = {
    "as indexed": lambda: {"seed": 5},
    "shuffled": lambda: {"shuffle": True, "seed": 5},
    "generator": lambda: {"shuffle": np.random.default_rng(5)},
    "random state": lambda: {"shuffle": np.random.RandomState(5)},
    "callable": lambda: {"shuffle": lambda order: np.roll(order, 7), "seed": 5},
    "drop last": lambda: {"shuffle": True, "seed": 5, "drop_last": True},
}

WAYS = {
    "serial ahead": {"executor": "serial", "prefetch": 3},
    "1 thread": {"executor": "threads", "num_workers": 1},
    "2 threads": {"executor": "threads", "num_workers": 2, "prefetch": 1},
    "8 threads": {"executor": "threads", "num_workers": 8},
    "8 threads, far ahead": {"num_workers": 8, "prefetch": 50},
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_to_run_gives_the_bytes_and_the_order_of_the_serial_one(way, order):
    expected = digests(pipeline().gen_batch(4, n_epochs=2, **order()))
    assert len(expected) == (20 if "drop_last" in order() else 22)
    assert digests(pipeline().gen_batch(4, n_epochs=2, **order(), **way)) == expected


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_pool_of_ones_own_gives_the_bytes_and_the_order_of_the_serial_executor(order):
    expected = digests(pipeline().gen_batch(4, n_epochs=2, **order()))
    with ThreadPoolExecutor(3) as pool:
        assert digests(pipeline().gen_batch(4, n_epochs=2, **order(), executor=pool)) == expected


def test_without_order_the_batches_are_the_same_ones():
    expected = digests(pipeline().gen_batch(4, shuffle=True, seed=5))
    run = pipeline().gen_batch(4, shuffle=True, seed=5, num_workers=8, ordered=False)
    assert sorted(digests(run)) == sorted(expected)


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(0, 40),
    batch_size=st.integers(1, 12),
    n_epochs=st.integers(0, 3),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**32),
    way=st.fixed_dictionaries({"num_workers": st.integers(1, 8), "prefetch": st.integers(0, 9)}),
)
def test_any_run_is_the_serial_run(length, batch_size, n_epochs, drop_last, seed, way):
    pipe = Dataset(length, Noisy).p.load().jitter()
    arguments = (batch_size, True, n_epochs, drop_last)
    expected = digests(pipe.gen_batch(*arguments, seed=seed))
    assert digests(pipe.gen_batch(*arguments, seed=seed, **way)) == expected


def test_another_seed_gives_other_bytes():
    first, second = (digests(pipeline().gen_batch(4, seed=seed)) for seed in (1, 2))
    assert [one[:3] for one in first] == [one[:3] for one in second]
    assert not {one[3] for one in first} & {one[3] for one in second}


def test_each_batch_of_each_epoch_has_random_numbers_of_its_own():
    run = DATASET.p.load().gen_batch(4, n_epochs=2)
    draws = [batch.rng.bytes(8) for batch in run]
    assert len(set(draws)) == len(draws) == 22


@pytest.mark.parametrize("way", [{}, *WAYS.values()], ids=["inline", *WAYS])
def test_an_attempt_that_failed_leaves_no_trace_in_the_next(way):
    expected = digests(DATASET.p.load().fail_once(Everything()).jitter().gen_batch(4, seed=5))
    pipe = DATASET.p.load().fail_once(set()).jitter()
    assert digests(pipe.gen_batch(4, seed=5, retries=1, **way)) == expected


class Everything:
    def __contains__(self, item):
        return True


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_action_cannot_change_which_items_the_next_attempt_gets(shuffle):
    class Spoiling(Noisy):
        @action
        def spoil(self, tried):
            for ids in (self.index, self.positions):
                if ids.flags.writeable:
                    ids[...] = 0
            return self.fail_once(tried)

    dataset = Dataset(10, Spoiling)
    expected = digests(dataset.p.load().gen_batch(4, shuffle, seed=5))
    run = dataset.p.load().spoil(set()).gen_batch(4, shuffle, seed=5, retries=1)
    list(run)
    assert [trouble.ids.tolist() for trouble in run.report.retried] == [one[2] for one in expected]


def test_two_runs_in_one_pool_do_not_mix():
    expected = [digests(pipeline().gen_batch(4, seed=seed)) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        runs = [pipeline().gen_batch(4, seed=seed, executor=pool) for seed in (1, 2)]
        both = [(digest(one), digest(other)) for one, other in zip(*runs, strict=True)]
    assert [list(one) for one in zip(*both, strict=True)] == expected


def test_an_executor_object_does_not_serve_two_runs_at_once():
    executor = ThreadsExecutor(2)
    one = Dataset(8, Noisy).p.load().gen_batch(1, executor=executor)
    other = Dataset(range(100, 108), Noisy).p.load().gen_batch(1, executor=executor)
    next(one)
    with pytest.raises(RunInProgress):
        next(other)
    assert [batch.number for batch in one] == [1, 2, 3, 4, 5, 6, 7]


def test_an_executor_object_serves_one_run_after_the_other():
    executor = ThreadsExecutor(2)
    expected = digests(pipeline().gen_batch(4, seed=5))
    for _ in range(2):
        assert digests(pipeline().gen_batch(4, seed=5, executor=executor)) == expected


PROCESSES = """
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from flowcore import Batch, Dataset, action
from flowcore.errors import PipelineError

class Noisy(Batch):
    @action
    def load(self):
        self.data = self.positions + self.rng.normal(size=len(self))
        return self
    @action
    def note_process(self):
        self.process = os.getpid()
        return self
    @action
    def call(self, function):
        function(self)
        return self

def digests(run):
    return [(batch.epoch, batch.number, batch.data.tobytes()) for batch in run]

if __name__ == "__main__":
    pipe = Dataset(20, Noisy).p.load().note_process()
    expected = digests(pipe.gen_batch(3, shuffle=True, seed=5, n_epochs=2))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        options = dict(shuffle=True, seed=5, n_epochs=2, executor=pool)
        run = pipe.gen_batch(3, **options)
        batches = list(run)
        assert digests(batches) == expected
        assert os.getpid() not in {batch.process for batch in batches}
        assert digests(pipe.gen_batch(3, **options)) == expected  # a second run in the same pool
        try:
            pipe.call(lambda batch: None).run(3, on_error="skip", **options)
        except PipelineError as error:
            assert "cannot be sent to other processes" in str(error)
        else:
            raise AssertionError("a lambda was pickled")
    print("same")
"""


def test_a_pool_of_processes_gives_the_bytes_and_the_order_of_the_serial_executor(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("same\n", "")
