"""A recipe made ready to run: flat lists of bound calls, each ``function(batch, *args, **kwargs)``.

What stands here holds no pipeline, run or executor, only functions and arguments, so that it can be
sent to a worker in another process. Everything a call needs of the task it finds on the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowcore.actions import action_mark
from flowcore.batch import Batch
from flowcore.errors import ActionError, DataError, explain, near
from flowcore.executors.base import Task
from flowcore.index import Index
from flowcore.items import Emptied, Item, Making, map_items
from flowcore.recipe import Mixture
from flowcore.run.merge import attach, concatenated, rows_left
from flowcore.sampler import seed_sequence
from flowcore.source import Source
from flowcore.steps import FilterStep, JoinStep
from flowcore.values import resolved

__all__ = [
    "Call",
    "Filter",
    "Join",
    "Mixed",
    "Prepare",
    "Program",
    "Repeat",
    "Resolving",
    "Singly",
    "When",
    "branch_seed",
    "run_calls",
]

# (name, function, args, kwargs)
Call: TypeAlias = "tuple[str, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]"

_BRANCH = 6  # what these streams are for; the other purposes are those of `flowcore.sampler`


@lru_cache(maxsize=256)
def branch_seed(seed: int, *branch: int) -> int:
    """Return the seed of a recipe inside of a recipe, so that both do not draw the same."""
    words = seed_sequence(seed, _BRANCH, *branch).generate_state(2, np.uint64)
    return int(words[0]) << 64 | int(words[1])


def run_calls(calls: Sequence[Call], batch: Batch, making: Making) -> Batch:
    """Call each with the batch that the one before it returned; return the last."""
    note = making.note
    for name, function, args, kwargs in calls:
        making.step = name
        if note is not None:
            note(name)
        made = function(batch, *args, **kwargs) if args or kwargs else function(batch)
        if made is not batch:
            batch = _adopted(made, batch, name, making)
    return batch


def _adopted(made: Any, batch: Batch, name: str, making: Making) -> Batch:
    """Return what an action made in place of ``batch``, as the batch of this task."""
    if inspect.iscoroutine(made):
        made = making.crew.wait(made)
    if isinstance(made, Batch):
        if made is not batch:
            made.take_place_of(batch)
        return made
    raise ActionError(
        explain(
            f"action {name!r} returned {made if made is None else type(made).__name__}, "
            "not a batch",
            next="an action is an ordinary function, without yield"
            if inspect.isgenerator(made)
            else "end the action with: return self",
        )
    )


class Program:
    """Makes batches of positions: reads them from a source, and takes them through calls."""

    def __init__(self, source: Source | Mixed, calls: Sequence[Call] = ()) -> None:
        self.source = source
        self.calls = calls

    def begin(self, task: Task, making: Making) -> Batch:
        """Make the batch of a task, as it is before the calls."""
        batch = self._make(task.positions, making, task.number, task.epoch, task.seed, task.keys)
        if task.filler:
            batch.filler = True
        return batch

    def _make(
        self,
        positions: NDArray[np.int64],
        making: Making,
        number: int,
        epoch: int,
        seed: int | None,
        keys: NDArray[np.int64] | None,
    ) -> Batch:
        source = self.source
        if isinstance(source, Mixed):
            batch = source.make(positions, making, number=number, epoch=epoch, seed=seed, keys=keys)
        else:
            batch = source.make(positions, number=number, epoch=epoch, seed=seed)
            if keys is not None:
                batch._keys = keys
        batch._making = making
        return batch

    def run(
        self,
        positions: NDArray[np.int64],
        making: Making,
        like: Batch,
        seed: int | None,
        keys: NDArray[np.int64] | None = None,
    ) -> Batch:
        """Make such a batch inside of the making of another, and take it through the calls."""
        batch = self._make(positions, making, like.number, like.epoch, seed, keys)
        return run_calls(self.calls, batch, making)


class Mixed:
    """The parts of a mixture, each with the steps of its own recipe."""

    def __init__(self, mixture: Mixture, programs: Sequence[Program]) -> None:
        self.index, self.batch_class = mixture.index, mixture.batch_class
        self._programs = programs
        self._ends = np.cumsum([len(part.source.index) for part in mixture.parts if part.source])

    def make(
        self,
        positions: NDArray[np.int64],
        making: Making,
        *,
        number: int,
        epoch: int,
        seed: int | None,
        keys: NDArray[np.int64] | None,
    ) -> Batch:
        """Make the batch of the items at ``positions``, each by its part's recipe."""
        whole = self.batch_class(
            self.index.ids(positions), positions, number=number, epoch=epoch, seed=seed
        )
        of = np.searchsorted(self._ends, positions, side="right")
        made, rows = [], []
        for part in np.unique(of).tolist():
            at = np.flatnonzero(of == part)
            start = int(self._ends[part - 1]) if part else 0
            inner_seed = None if seed is None else branch_seed(seed, 1, part)
            inner_keys = None if keys is None else keys[at]
            places = positions[at] - start
            program = self._programs[part]
            try:
                batch = program.run(places, making, whole, inner_seed, inner_keys)
            except Emptied:
                continue
            made.append(batch)
            rows.append(at[rows_left(places, batch)])
        if not made:
            if len(positions):
                raise Emptied
            return whole
        whole._keys = keys
        return self._whole(whole, made, np.concatenate(rows))

    def _whole(self, whole: Batch, made: list[Batch], rows: NDArray[np.int64]) -> Batch:
        batch = concatenated(made, self.batch_class)
        batch.index, batch.positions = whole.index[rows], whole.positions[rows]
        batch.take_place_of(whole)
        batch._keys = None if whole._keys is None else whole._keys[rows]
        batch._item_rngs = None
        return batch.subset(np.argsort(rows, kind="stable"))


class Resolving:
    """Calls a function with the values in its arguments resolved for the batch."""

    def __init__(self, function: Callable[..., Any], at: int) -> None:
        self._function, self._at = function, at

    def __call__(self, batch: Batch, *args: Any, **kwargs: Any) -> Any:
        """Call it for ``batch``."""
        args, kwargs = resolved((args, kwargs), batch, (self._at,))
        return self._function(batch, *args, **kwargs)


class Singly:
    """Calls a function while holding the lock of the action that it is, or wraps."""

    def __init__(self, function: Callable[..., Any], marked: Callable[..., Any]) -> None:
        self._function, self._marked = function, marked

    def __call__(self, batch: Batch, *args: Any, **kwargs: Any) -> Any:
        """Call it, alone."""
        mark = action_mark(self._marked)
        assert mark is not None
        with mark.lock:  # the other holders: this action in other workers, and in other runs
            made = self._function(batch, *args, **kwargs)
            # An async action has only begun when it returns; it is awaited under the lock.
            making = batch._making
            return making.crew.wait(made) if inspect.iscoroutine(made) and making else made


class Prepare:
    """Makes a sink's item of the batch."""

    def __init__(self, prepare: Callable[[Batch], Any]) -> None:
        self._prepare = prepare

    def __call__(self, batch: Batch) -> Batch:
        """Make the item, and leave the batch as it is."""
        assert batch._making is not None
        batch._making.items.append(self._prepare(batch))
        return batch


class When:
    """Takes the batch through one list of calls or another."""

    def __init__(
        self, condition: Any, then: Sequence[Call], otherwise: Sequence[Call], at: int
    ) -> None:
        self._condition, self._then, self._otherwise = condition, then, otherwise
        self._at = at

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch as the steps leave it."""
        condition = self._condition
        holds = condition(batch) if callable(condition) else resolved(condition, batch, (self._at,))
        if not isinstance(holds, (bool, np.bool_, int, np.integer)):
            raise ActionError(
                explain(
                    f"the condition of when() gave {holds!r:.60}, not a bool",
                    next="one for the whole batch; filter() takes one for each item",
                )
            )
        assert batch._making is not None
        return run_calls(self._then if holds else self._otherwise, batch, batch._making)


class Repeat:
    """Takes the batch through a list of calls several times."""

    def __init__(self, times: Any, calls: Sequence[Call], at: int) -> None:
        self._times, self._calls, self._at = times, calls, at

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch as the last of them leaves it."""
        assert batch._making is not None
        times = resolved(self._times, batch, (self._at,))
        if isinstance(times, bool) or not isinstance(times, (int, np.integer)) or times < 0:
            raise ActionError(
                f"{self._times!r} of repeat() gave {times!r:.60}, not an int from 0 on"
            )
        for _ in range(times):
            batch = run_calls(self._calls, batch, batch._making)
        return batch


class Filter:
    """Keeps the items that a predicate is true of."""

    def __init__(self, step: FilterStep) -> None:
        self._step = step

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with what is left; raise `Emptied` if nothing is."""
        keep = self._mask(batch)
        if not keep.any():
            raise Emptied
        return batch if keep.all() else batch.subset(keep)

    def _mask(self, batch: Batch) -> NDArray[np.bool_]:
        predicate = self._step.predicate
        if self._step.each == "item":
            return np.array(map_items(self._of_item, batch), bool)
        keep = np.asarray(predicate(batch))
        if keep.shape != (len(batch),) or keep.dtype != bool:
            raise DataError(
                explain(
                    f"the predicate of filter() gave shape {keep.shape}, dtype {keep.dtype}, "
                    f"not a bool for each of the {len(batch)} items",
                    where=repr(batch),
                    next="filter(lambda batch: batch.labels == 3); a function of one item needs "
                    "each='item'",
                )
            )
        return keep

    def _of_item(self, item: Item) -> bool:
        keep = self._step.predicate(item)
        if isinstance(keep, (bool, np.bool_)):
            return bool(keep)
        raise DataError(
            explain(
                f"the predicate of filter() gave {keep!r:.60}, not a bool",
                next="filter(lambda item: item.label == 3, each='item')",
            )
        )


class Join:
    """Adds the components that another recipe makes of the same items."""

    def __init__(self, step: JoinStep, index: Index, program: Program, at: int) -> None:
        self._step, self._index, self._program, self._at = step, index, program, at

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with the components."""
        by_id = self._step.by == "id"
        positions = self._index.positions(batch.index) if by_id else batch.positions
        assert batch._making is not None
        seed = None if batch._seed is None else branch_seed(batch._seed, 0, self._at)
        other = self._program.run(positions, batch._making, batch, seed, batch._keys)
        rows = rows_left(positions, other)
        if len(rows) < len(batch):  # some were dropped, so they are missing here too
            batch.subset(rows)
        found = other.data if other.components else None
        if found is None or (batch.data is not None and not batch.components):
            raise DataError(
                explain(
                    "a join needs components by name, and data that is one object has none",
                    where=f"{batch!r} and {other!r}",
                    next="declare components = ... on both batch classes, or preload dicts",
                )
            )
        lacking = [name for name in self._step.rename if name not in found]
        if lacking:
            raise DataError(
                explain(
                    f"the other side of a join has no component {lacking[0]!r} to rename",
                    where=repr(other),
                    why=f"it has {tuple(found)}",
                    next=near(lacking[0], found),
                )
            )
        new = {self._step.rename.get(name, name): value for name, value in found.items()}
        taken = [name for name in new if name in batch.components]
        if taken:
            raise DataError(
                explain(
                    f"both sides of a join have a component {taken[0]!r}",
                    where=f"{batch!r} and {other!r}",
                    next=f"join(other, rename={{{taken[0]!r}: 'another name'}})",
                )
            )
        attach(batch, new)
        return batch
