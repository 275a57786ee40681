"""A task that was submitted, in one of the ways that there are, and what became of it so far."""

from __future__ import annotations

from concurrent.futures import Future

from flowcore.executors.base import Outcome, Task, TaskGroup
from flowcore.run.plan import Position

__all__ = ["Attempt"]


class Attempt:
    """A task, and how often it was tried."""

    __slots__ = (
        "after",
        "alone",
        "at",
        "failures",
        "future",
        "group",
        "losses",
        "outcome",
        "place",
        "refused",
        "since",
        "stand_ins",
        "suspect",
        "task",
    )

    def __init__(self, task: Task, place: int, after: Position | None = None) -> None:
        self.task = task
        self.place = place  # in the run
        self.after = after  # where the run is after it, if that does not follow from its place
        self.future: Future[Outcome] | None = None
        self.group: TaskGroup | None = None  # that it is in, in place of a future
        self.at = 0  # its place there
        self.outcome: Outcome | None = None  # in place of both, where it is known at once
        self.since = 0.0  # when it was submitted last, by time.monotonic
        self.failures = 0  # attempts in which a step raised
        self.refused = False  # the executor did not take it
        self.losses = 0  # attempts whose worker died
        self.stand_ins = 0  # other batches that were tried in its place
        self.alone = False  # was submitted while no other task was in progress
        self.suspect = False  # was lost; to be run again alone

    def done(self) -> bool:
        """Return whether it is known what became of it."""
        group = self.group
        if group is not None:
            return group.outcomes[self.at] is not None or group.over
        return self.outcome is not None or (self.future is not None and self.future.done())

    def result(self) -> Outcome:
        """Return what became of it; raise what its future, or its group, says of a lost worker."""
        group, outcome = self.group, self.outcome
        if group is not None:
            outcome = group.outcomes[self.at]
            if outcome is None:
                raise group.error or RuntimeError("the executor ended a group before its last task")
        elif outcome is None:
            assert self.future is not None
            outcome = self.future.result()
        assert outcome is not None
        return outcome

    def forget(self) -> None:
        """Let go of what became of it."""
        if self.group is not None:
            self.group.outcomes[self.at] = None  # the others of the group may be waited for
        # A future has a callback that holds the attempt: a circle with the batch.
        self.group = self.future = self.outcome = None
