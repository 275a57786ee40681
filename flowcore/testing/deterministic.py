"""`assert_deterministic`: a pipeline gives the same bytes in whatever way it is run."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flowcore.errors import OptionError, explain
from flowcore.pipeline import Pipeline
from flowcore.testing.batches import Seen, seen
from flowcore.testing.compare import difference
from flowcore.testing.trials import AnyExecutor, Trial

__all__ = ["assert_deterministic", "check_again", "check_same"]

_AGAIN = "serial, again"
_ALONE = "the batch alone"
_DRAW = "draw from batch.rng, or item.rng in a per-item action: they have the seed of the run"
_KEPT = "compute each batch from its ids, its data and its arguments, and keep nothing"


def assert_deterministic(
    pipeline: Pipeline,
    batch_size: int,
    *,
    executors: AnyExecutor | Sequence[AnyExecutor] = ("threads",),
    seed: int = 0,
    **options: Any,
) -> None:
    """Fail if a pipeline gives other bytes when it is run again, or in another way.

    It is run serially; serially again; each batch alone, by `Pipeline.batch`, from the last to the
    first (unless ``on_error`` or ``retries`` change batches); and on each executor, with a prefetch
    of 1 and of 4. All that a consumer can see is compared, attributes of the batches too; batches
    that come in any order are compared by number. Sinks are left out: nothing is put anywhere.

    Before each batch that is made alone, the attributes of the batch class, and the globals that
    its actions name, are what they were at the start. What is kept elsewhere, inside of an object
    say, may not be found. The contents of one run are held in memory.

    Args:
        pipeline: with a dataset.
        batch_size: of the runs.
        executors: one, or several: names, or objects as ``executor=`` of a run takes them.
        seed: of the runs.
        options: of a run, as `Pipeline.gen_batch` takes them: ``shuffle``, ``n_epochs``...

    Raises:
        AssertionError: two ways differ. It names the two, and the batch, the component, the item
            and the two values in which they differ first.
        OptionError: a run without an end (``n_epochs=None``), or without a batch; no executor.
        Exception: what the first run fails of.
    """
    trial = Trial(pipeline, batch_size, executors, seed, options)
    first = trial.seen()
    check_again(trial, first)
    if trial.makes_one_alone:
        own = [batch for batch in first if not batch.parts.get("filler")]
        check_same(
            own,
            lambda: seen(trial.alone(own))[::-1],
            _ALONE,
            why="an action makes a batch of what it has kept from other batches",
            next=_KEPT,
        )
    for name, way in trial.ways.items():
        check_same(
            first,
            lambda way=way: trial.seen(way),  # type: ignore[misc]
            name,
            why="an action uses what batches that run at once share, or what is not the same in "
            "each worker: an attribute of the class, a global, an array that it writes to",
            next=_KEPT,
        )


def check_again(trial: Trial, first: list[Seen]) -> None:
    """Run serially once more.

    Raises:
        AssertionError: it gives something else than the first time.
        OptionError: there is nothing to compare.
    """
    if not first:
        raise OptionError(
            explain(
                "the run has no batch, so there is nothing to compare", next="give it some data"
            )
        )
    check_same(
        first,
        trial.seen,
        _AGAIN,
        why=lambda: (
            "an action draws from the global random state, of numpy.random or random: with that "
            "seeded, two runs are the same"
            if _is_same_when_seeded(trial)
            else "an action uses what outlives a run (a counter, a cache, a file), or what has no "
            "seed: a clock, a generator of its own, the order of a set"
        ),
        next=_DRAW,
    )


def check_same(
    first: list[Seen],
    run: Callable[[], list[Seen]],
    name: str,
    *,
    why: str | Callable[[], str],
    next: str,
    expected: str = "serial",
) -> None:
    """Run in another way and compare.

    Raises:
        AssertionError: it gives something else than ``first``, or fails.
    """
    try:
        other = run()
    except Exception as error:
        raise AssertionError(
            explain(
                f"the pipeline runs, and fails in another way to run it: {name}",
                where=f"{type(error).__name__}: {error}",
                why=why if isinstance(why, str) else why(),
                next=next,
            )
        ) from error
    found = difference(first, other)
    if found is not None:
        raise AssertionError(
            explain(
                f"{found.batch} is not the same in two ways to run the pipeline",
                where=f"{found.place}: {found.one} ({expected}), {found.other} ({name})",
                why=why if isinstance(why, str) else why(),
                next=next,
            )
        )


def _is_same_when_seeded(trial: Trial) -> bool:
    """Return whether two runs are the same if the global generators begin in the same state."""
    states = np.random.get_state(), random.getstate()
    try:
        runs = []
        for _ in range(2):
            np.random.seed(0)
            random.seed(0)
            runs.append(trial.seen())
        return difference(*runs) is None
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
