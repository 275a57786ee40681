"""`assert_resumable`: a pipeline that is left and resumed gives what one run gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flowcore.errors import OptionError
from flowcore.pipeline import Pipeline
from flowcore.testing.batches import Seen, seen
from flowcore.testing.deterministic import check_again, check_same
from flowcore.testing.trials import AnyExecutor, Trial, Way

__all__ = ["assert_resumable"]

_MOST = 12  # places to stop at, where the caller does not say


def assert_resumable(
    pipeline: Pipeline,
    batch_size: int,
    *,
    every: int | None = None,
    executors: AnyExecutor | Sequence[AnyExecutor] = ("threads",),
    seed: int = 0,
    **options: Any,
) -> None:
    """Fail if a run that is left and resumed gives other bytes than one that is not.

    The pipeline is run serially; and on the serial executor and on each of the others it is
    left after some batches, and resumed from its state, which goes through JSON. What came before
    and after is compared with the whole run, in all that a consumer can see. Sinks are left out:
    nothing is put anywhere.

    Before it is resumed, the attributes of the batch class, and the globals that its actions name,
    are what they were at the start. What is kept elsewhere, inside of an object say, may not be
    found. The contents of one run are held in memory.

    Args:
        pipeline: with a dataset.
        batch_size: of the runs.
        every: stop after each so many batches. By default after each of up to 12; of a longer run
            after 12, spread over it, with the first, the last and those at the end of an epoch.
        executors: one, or several: names, or objects as ``executor=`` of a run takes them.
        seed: of the runs.
        options: of a run, as `Pipeline.gen_batch` takes them: ``shuffle``, ``n_epochs``...

    Raises:
        AssertionError: it is not the same. It names the place where the run was left, and the
            batch, the component, the item and the two values in which it differs first.
        OptionError: a run without an end (``n_epochs=None``), no executor, a wrong ``every``.
        Exception: what the first run fails of.
    """
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise OptionError(f"every must be an int of at least 1, or None, got {every!r}")
    trial = Trial(pipeline, batch_size, executors, seed, options)
    whole = trial.seen()
    check_again(trial, whole)
    if every and every > len(whole):
        raise OptionError(f"every={every} stops nowhere: the run has {len(whole)} batches")
    stops = range(every, len(whole) + 1, every) if every else _spread(whole)
    serial: Way = {"executor": "serial", "prefetch": 0}
    for name, way in {"serial": serial, **trial.ways}.items():
        for stop in stops:
            _check_stop(trial, whole, stop, name, way)


def _check_stop(trial: Trial, whole: list[Seen], stop: int, name: str, way: Way) -> None:
    check_same(
        whole,
        lambda: trial.in_order(_left_and_resumed(trial, stop, way)),
        f"{name}, left after {stop} of {len(whole)} batches and resumed",
        why="a resumed run does not make again what was delivered, and an action uses what it "
        "keeps from batch to batch, or from the start of a run",
        next="compute each batch from its ids, its data and its arguments; "
        "assert_deterministic shows state that is kept too",
        expected="in one run",
    )


def _left_and_resumed(trial: Trial, stop: int, way: Way) -> list[Seen]:
    with trial.run(way) as run:
        before = seen(batch for _, batch in zip(range(stop), run, strict=False))
        state = json.loads(json.dumps(run.state_dict()))
    trial.memory.forget()
    with trial.run(way, resume=state) as rest:
        return before + seen(rest)


def _spread(batches: Sequence[Seen]) -> list[int]:
    """Return after how many batches to stop: all, or some with the ends of the epochs."""
    count = len(batches)
    if count <= _MOST:
        return list(range(1, count + 1))
    ends = [at for at in range(1, count) if batches[at].epoch != batches[at - 1].epoch]
    wanted = [1, *ends[:: max(1, len(ends) // 4)][:4], count - 1, count]
    more = _MOST - len(wanted)
    return sorted({*wanted, *(count * at // (more + 1) for at in range(1, more + 1))})
