"""How the fault matrix runs a pipeline on each executor, and says what its consumer sees."""

from __future__ import annotations

import importlib.util
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import faults_batches
from faults_batches import BAD, BATCHES, made, pipeline

from flowcore.errors import ActionError, WorkerLost

__all__ = [
    "THREADS",
    "WARM",
    "consumed",
    "gone_on",
    "is_broken",
    "missing",
    "open_executor",
    "repeated",
    "run_again",
    "said",
    "serial",
]

THREADS = ("serial", "threads", "ThreadPoolExecutor")  # where the actions run in the program itself

_OPTIONS = {
    "serial": {"executor": "serial"},
    "threads": {"executor": "threads", "num_workers": 2, "prefetch": 3},
    "processes": {"executor": "processes", "num_workers": 2, "prefetch": 3},
    "threads_per_worker": {
        "executor": "processes",
        "num_workers": 2,
        "threads_per_worker": 2,
        "prefetch": 3,
    },
    "ray": {"executor": "ray", "num_workers": 2, "num_cpus": 0.5, "prefetch": 3},
}
_NEEDS = {
    "processes": "flowcore_processes",
    "threads_per_worker": "flowcore_processes",
    "ray": "flowcore_ray",
}
# Executors, by name, whose workers stay from run to run; others are started for each run.
WARM = {}

_ONE_BY_ONE = ("serial", "processes", "ray")  # they know which batch a worker was lost with


def missing(executor):
    """Return the package that an executor needs and that is not installed, or nothing."""
    name = _NEEDS.get(executor)
    return name if name and importlib.util.find_spec(name) is None else None


@contextmanager
def open_executor(executor):
    """Have the options of a run on it, inside of a ``with``."""
    if executor == "ThreadPoolExecutor":
        with ThreadPoolExecutor(2) as pool:
            yield {"executor": pool, "prefetch": 3}
    elif executor == "ProcessPoolExecutor":
        # Not fork: this process has threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["flowcore"])
        with ProcessPoolExecutor(2, context) as pool:
            yield {"executor": pool, "prefetch": 3}
    elif executor in WARM:
        yield {"executor": WARM[executor], "prefetch": 3}
    else:
        yield dict(_OPTIONS[executor])


def seen(batch):
    return batch.epoch, batch.number, batch.index.tobytes(), batch.data.tobytes()


def serial():
    """Return two epochs as the serial executor gives them, and so as all others must."""
    with tempfile.TemporaryDirectory() as folder:
        run = pipeline(folder).gen_batch(2, seed=1, n_epochs=2, executor="serial")
        return [seen(batch) for batch in run]


def consumed(run, folder, before=None, keep=None):
    """Take all batches of a run; return what they are, and what the run failed of.

    Args:
        run: of a pipeline.
        folder: gets a file when the batches before the bad one have been taken.
        before: called then.
        keep: called with each batch.
    """
    got = []
    try:
        for batch in run:
            got.append(seen(batch))
            if keep is not None:
                keep(batch)
            if batch.number == BAD - 1:
                (Path(folder) / "taken").touch()
                if before is not None:
                    before()
    except (Exception, KeyboardInterrupt) as error:
        return got, error
    return got, None


def said(got, error):
    """Say what the consumer has seen, with the words of the table."""
    expected = serial()
    if got != expected[: len(got)]:
        return "other bytes than those of serial"
    if error is None:
        return "nothing is lost" if len(got) == BATCHES else f"silence after {len(got)} batches"
    return f"{_called(error)} {_place(got, error)}"


def _called(error):
    name = type(error).__name__
    if name not in faults_batches.__all__:
        return f"`{name}`"
    return "a stand-in for it" if isinstance(error, ActionError) else "the exception"


def _place(got, error):
    epoch, number = divmod(len(got), BATCHES)
    noted = f"batch {number} of epoch {epoch}" in "\n".join(getattr(error, "__notes__", ()))
    if isinstance(error, KeyboardInterrupt) and len(got) == BAD:
        return "in the consumer"
    if not got and not noted:
        return "at the start"
    if is_broken(error):
        return "as the pool is broken"
    return "at its batch" if noted else f"at batch {len(got)}, which it does not name"


def is_broken(error):
    """Return whether a pool takes no more tasks."""
    return isinstance(error, WorkerLost) and "takes no more tasks" in str(error)


def repeated(executor, folder):
    """Say which batches were made again."""
    numbers = made(folder)
    again = sorted({number for number in numbers if numbers.count(number) > 1})
    if not again:
        return "nothing is made again"
    if executor in _ONE_BY_ONE and numbers.count(BAD) == 2 and again == [BAD]:
        return "it alone is made again"
    if executor not in _ONE_BY_ONE and numbers.count(BAD) == 2:
        return "it and what is in its process are made again"
    return f"made again: {again}"


def gone_on(executor, pipe, run, got):
    """Say whether a new pool goes on where a run was."""
    with open_executor(executor) as how, tempfile.TemporaryDirectory() as folder:
        rest = consumed(pipe.gen_batch(2, resume=run.state_dict(), **how), folder)
    same = rest == (serial()[len(got) : BATCHES], None)
    return "a new one goes on with `resume=`" if same else "a new one does not go on"


def run_again(executor, how):
    """Run another pipeline; say what is wrong with that, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        got, error = consumed(pipeline(folder).gen_batch(2, seed=1, **how), folder)
    if is_broken(error):
        with open_executor(executor) as new:
            return run_again("a new one", new)
    seen = said(got, error)
    return "" if seen == "nothing is lost" else f"; the next run: {seen}"
