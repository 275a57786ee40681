"""Batches of another size: the items of finished batches, in order, cut anew.

The delivering thread alone uses it. What it cuts is handed out as tasks, whose batches are put
together in the workers; the pieces stay as they are until then, so such a task can be run again.
"""

from __future__ import annotations

from collections import deque

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
        self._epoch, self._number = plan.start.epoch, plan.start.number

    @property
    def waiting(self) -> int:
        """How many batches' worth of items are waiting: then no more are needed."""
        left = [len(batch) - gone for batch, gone in self._pieces if batch.epoch == self._epoch]
        other = len(left) < len(self._pieces)  # what is left of an epoch is cut when it is over
        return sum(left) // self._step.size + other

    @property
    def waiting_items(self) -> int:
        """How many items are waiting for others, and will come."""
        if self._step.drop_last and not self.waiting:
            return 0
        return sum(len(batch) - gone for batch, gone in self._pieces)

    def push(self, batch: Batch) -> None:
        """Take a batch that is made."""
        start = self._plan.start
        first = start.epoch, start.batch + self._plan.shard.rank
        skip = start.skip if (batch.epoch, batch.number) == first else 0
        if not self._pieces and batch.epoch != self._epoch:
            self._epoch, self._number = batch.epoch, 0
        if skip < len(batch):
            self._pieces.append((batch, skip))

    def cut(self, *, ended: bool) -> tuple[Task, Position] | None:
        """Return a batch of what is there, and where the run is after it; ``None`` if none is due.

        Args:
            ended: nothing more will be pushed.
        """
        while self._pieces:
            left = [len(batch) - gone for batch, gone in self._pieces if batch.epoch == self._epoch]
            over = ended or len(left) < len(self._pieces)
            if sum(left) >= self._step.size:
                return self._cut(self._step.size)
            if not over:
                return None
            if left and not self._step.drop_last:
                return self._cut(sum(left))
            for _ in left:
                self._pieces.popleft()
            if self._pieces:
                self._epoch, self._number = self._pieces[0][0].epoch, 0
        return None

    def _cut(self, size: int) -> tuple[Task, Position]:
        parts = []
        left = size
        while left:
            batch, gone = self._pieces.popleft()
            taken = min(left, len(batch) - gone)
            parts.append((batch, slice(gone, gone + taken)))
            left -= taken
            if gone + taken < len(batch):
                self._pieces.appendleft((batch, gone + taken))
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
