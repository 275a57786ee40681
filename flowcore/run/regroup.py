"""Batches of another size: the items of finished batches, in order, cut anew.

The delivering thread alone uses it. What it cuts is handed out as tasks, whose batches are put
together in the workers; the pieces stay as they are until then, so such a task can be run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from flowcore.batch import Batch
from flowcore.executors.base import Task
from flowcore.run.plan import Plan, Position
from flowcore.steps import RebatchStep

__all__ = ["Regroup"]


class Regroup:
    """Takes batches, and gives tasks of ``size`` items, and where the run is after each.

    Args:
        step: how to cut.
        plan: of the batches that come in.
    """

    def __init__(self, step: RebatchStep, plan: Plan) -> None:
        self._step, self._plan = step, plan
        self._pieces: deque[tuple[Batch, int]] = deque()  # with how many of its items are gone
        self._skip = plan.start.skip
        self._epoch, self._number = plan.start.epoch, plan.start.number
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many batches' worth of items are waiting for others."""
        return self._waiting // self._step.size

    @property
    def waiting_items(self) -> int:
        """How many items are waiting for others, and will come."""
        return 0 if self._step.drop_last else self._waiting

    def push(self, batch: Batch) -> Iterator[tuple[Task, Position]]:
        """Take a batch, and generate what can be made now."""
        if batch.epoch != self._epoch:
            yield from self.flush()
            self._epoch, self._number = batch.epoch, 0
        self._pieces.append((batch, min(self._skip, len(batch))))
        self._waiting += len(batch) - min(self._skip, len(batch))
        self._skip = 0
        while self._waiting >= self._step.size:
            yield self._cut(self._step.size)

    def flush(self) -> Iterator[tuple[Task, Position]]:
        """Generate the short batch of what is left of an epoch, if there is one."""
        if self._waiting and not self._step.drop_last:
            yield self._cut(self._waiting)
        self._pieces.clear()
        self._waiting = 0

    def _cut(self, size: int) -> tuple[Task, Position]:
        parts = []
        left = size
        while left:
            batch, gone = self._pieces.popleft()
            taken = min(left, len(batch) - gone)
            if taken:
                parts.append((batch, slice(gone, gone + taken)))
            left -= taken
            if gone + taken < len(batch):
                self._pieces.appendleft((batch, gone + taken))
        self._waiting -= size
        positions = np.concatenate([batch.positions[rows] for batch, rows in parts])
        task = Task(self._epoch, self._number, positions, self._plan.seed)
        task.stage, task.parts = 1, tuple(parts)
        self._number += 1
        return task, self._after(*parts[-1])

    def _after(self, batch: Batch, rows: slice) -> Position:
        """Return where the run is after some items of a batch."""
        base = batch.number - self._plan.shard.rank
        if rows.stop < len(batch):
            return Position(self._epoch, base, rows.stop, self._number)
        following = min(base + self._plan.shard.world, self._plan.epoch_batches)
        return Position(self._epoch, following, 0, self._number)
