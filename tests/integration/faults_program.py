"""A program of a user that something happens to: it is started, and hit, by the fault matrix.

It writes what its consumer has seen to a file, after a second run, if it lives.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

import faults_inside
from faults_batches import grow, pipeline, until, wait
from faults_leaving import action_after
from faults_ways import consumed, open_executor, run_again, said

from flowcore.testing import leaves_nothing

__all__ = ["FAULTS"]


def interrupted_waiting(executor, folder):
    with open_executor(executor) as how:
        run = pipeline(folder).wrong(wait, folder).gen_batch(2, seed=1, **how)
        got, error = consumed(run, folder)
        return f"{said(got, error)}; {action_after(executor, folder)}{run_again(executor, how)}"


def interrupted_working(executor, folder):
    def work():
        if executor != "serial":
            until((folder / "waits").exists, "the bad batch did not begin")
        (folder / "works").touch()
        until(lambda: False, "nobody has interrupted it")

    with open_executor(executor) as how:
        with pipeline(folder).wrong(wait, folder).gen_batch(2, seed=1, **how) as run:
            got, error = consumed(run, folder, work)
        return f"{said(got, error)}; {action_after(executor, folder)}{run_again(executor, how)}"


def memory_in_action(executor, folder):
    with open_executor(executor) as how:
        with limit(resource.RLIMIT_AS, 3 << 30):
            pipe = pipeline(folder).wrong(grow)
            got, error = consumed(pipe.gen_batch(2, seed=1, **how), folder)
        return said(got, error) + run_again(executor, how)


def memory_of_kept(executor, folder):
    kept = []
    with open_executor(executor) as how:
        run = pipeline(folder).widen().gen_batch(2, seed=1, n_epochs=2, **how)
        with limit(resource.RLIMIT_AS) as set_limit:
            got, error = consumed(run, folder, lambda: set_limit(size() + 60_000_000), kept.append)
        del run
        kept.clear()
        return said(got, error) + run_again(executor, how)


def few_descriptors(executor, folder):
    with open_executor(executor) as how:
        with limit(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) + 2):
            got, error = consumed(pipeline(folder).gen_batch(2, seed=1, **how), folder)
        return said(got, error) + run_again(executor, how)


@contextmanager
def limit(kind, value=None):
    """Limit this process, and those that it starts, inside of a ``with``."""
    before = resource.getrlimit(kind)

    def set_limit(value):
        resource.setrlimit(kind, (value, before[1]))

    if value is not None:
        set_limit(value)
    try:
        yield set_limit
    finally:
        resource.setrlimit(kind, before)


def size():
    """Return how many bytes of addresses this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


FAULTS = {
    "ctrl-c waiting": interrupted_waiting,
    "ctrl-c working": interrupted_working,
    "memory": memory_in_action,
    "kept": memory_of_kept,
    "descriptors": few_descriptors,
    "terminated": interrupted_waiting,
    "killed": interrupted_waiting,
}


def main(executor, fault, folder):
    if executor == "ray":  # what Ray opens once in a program, it keeps
        with open_executor(executor) as how:
            run_again(executor, how)
    with leaves_nothing(sockets=executor != "ray"):
        if fault in FAULTS:
            seen = FAULTS[fault](executor, folder)
        else:
            with open_executor(executor) as how:
                seen = faults_inside.FAULTS[fault](executor, how, folder)
    (folder / "seen").write_text(seen)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
