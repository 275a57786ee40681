"""Random recipes, executors, faults and early exits, for minutes: all is right, and nothing grows.

Every case has a seed. A failure says it; ``FLOWCORE_SOAK_SEED=<seed>`` runs that case alone.
"""

import faulthandler
import gc
import os
import random
import signal
import sys
import time
from contextlib import contextmanager
from multiprocessing import resource_tracker

import psutil
import pytest
from soak_case import draw
from soak_run import run_case

SECONDS = float(os.environ.get("FLOWCORE_SOAK_SECONDS", 180))
SEED = os.environ.get("FLOWCORE_SOAK_SEED")

GROWTH = 64e6  # bytes that the allocators may hold more at the end than after a third of the time
MOST = 120  # seconds of one case: longer is a hang


@pytest.mark.timeout(0)  # the cases have a limit of their own
def test_random_cases_give_what_serial_gives_and_leave_nothing(tmp_path, capfd):
    resource_tracker.ensure_running()  # the standard library starts it once, and keeps it
    if SEED is not None:
        run_case(draw(int(SEED)), tmp_path)
        return
    first = random.SystemRandom().randrange(10**9)
    begun = time.monotonic()
    early = None
    ends = begun + SECONDS
    with capfd.disabled():
        sys.stdout.write(f"\nseeds from {first}\n")
        for seed in range(first, first + 10**6):
            if time.monotonic() > ends:
                break
            if early is None and time.monotonic() > begun + SECONDS / 3:
                early = usage()
            run_seed(seed, tmp_path)
    late = usage()
    with capfd.disabled():
        sys.stdout.write(f"{seed - first:,} cases; then {early}, at the end {late}\n")
    assert early is not None, "the time was too short for three cases"
    for what in ("threads", "descriptors", "children"):
        assert late[what] == early[what], f"{what}, seeds from {first}"
    assert late["memory"] - early["memory"] < GROWTH, f"memory grows, seeds from {first}"


def run_seed(seed, folder):
    """Run a case; whatever it fails of says the seed."""
    case = draw(seed)
    try:
        with limited(MOST):
            run_case(case, folder)
    except BaseException as error:
        error.add_note(f"replay it with FLOWCORE_SOAK_SEED={seed}: {case}")
        raise


@contextmanager
def limited(seconds):
    """Raise in the main thread if what is inside takes too long, with all stacks on stderr."""

    def late(*_):
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        raise TimeoutError(f"a case took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def usage():
    """Return what this process holds."""
    gc.collect()
    here = psutil.Process()
    return {
        "memory": here.memory_info().rss,
        "threads": here.num_threads(),
        "descriptors": here.num_fds(),
        "children": len(here.children(recursive=True)),
    }
