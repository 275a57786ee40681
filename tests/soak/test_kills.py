"""A thousand workers are killed in one run, and it gives what a run without a kill gives."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

import flowcore as fc
from flowcore.testing.batches import seen

KILLS = 1000
EVERY = 3  # of so many batches, one kills its worker

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(1800)]


class Mortal(fc.Batch):
    @fc.action
    def load(self):
        self.data = self.positions + self.rng.random(len(self))
        return self

    @fc.action
    def kill_once(self, folder):
        """Kill the worker in the first attempt at each third batch."""
        mark = Path(folder) / str(self.number)
        if self.number % EVERY == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self


def test_a_thousand_kills_lose_no_batch_and_no_place_in_the_order(tmp_path, capsys):
    pipe = fc.Dataset(KILLS * EVERY * 2, Mortal).p.load()
    expected = seen(pipe.gen_batch(2, shuffle=True, seed=1))
    run = pipe.kill_once(tmp_path).gen_batch(
        2, shuffle=True, seed=1, executor="processes", num_workers=2, prefetch=4
    )
    began = time.perf_counter()
    given = seen(run)
    seconds = time.perf_counter() - began
    with capsys.disabled():
        sys.stdout.write(f"\n{KILLS:,} kills in {len(given):,} batches took {seconds:.0f} s\n")
    assert len(list(tmp_path.iterdir())) == KILLS
    assert given == expected
    assert run.report.batches == len(expected) == KILLS * EVERY
    assert not run.report.skipped
    assert not run.report.retried
