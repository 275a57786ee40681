"""The tasks that are in progress: submitted ahead, found when finished, run again when lost.

Used by the delivering thread alone. An executor that knows which task killed its worker says so,
and that one is run again. A pool of futures cannot say: all that were in progress fail together.
They are then run again one at a time, so that the one that kills its worker is known and the others
lose nothing but time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np

from flowcore.errors import WorkerLost, explain
from flowcore.executors.base import Executor, Outcome, Task, TaskGroup
from flowcore.run.attempt import Attempt
from flowcore.run.plan import Position

__all__ = ["Window"]


class Window:
    """The tasks in progress, at most as many as its limit allows.

    Args:
        executor: started.
        tasks: in order, each with its place; an exception that it raises becomes the outcome of a
            task.
        total: how many there are, ``None`` if there is no end, or it is not known yet.
        ordered: whether tasks are to be finished in order.
        notify: called, in any thread, with attempts whose future is done, if that is awaited.
        stages: how many parts the recipe has; ``tasks`` are those of the first.
        keep: somebody takes the batches of the last stage.

    Attributes:
        opened: the attempts of the first stage that are in the window, by place.
        submitted: how many tasks of the first stage have been submitted.
        total: how many there are, ``None`` if there is no end, or it is not known yet.
    """

    def __init__(
        self,
        executor: Executor,
        tasks: Iterator[tuple[int, Task]],
        total: int | None,
        *,
        ordered: bool,
        notify: Callable[[list[Attempt]], None],
        stages: int = 1,
        keep: bool = True,
    ) -> None:
        self.executor = executor
        self._tasks = tasks
        self.total = total
        self._ordered = ordered
        self._keep = keep
        self._notify = notify
        self._open: list[dict[int, Attempt]] = [{} for _ in range(stages)]  # by place, in order
        self.opened = self._open[0]
        self._done: deque[Attempt] = deque()  # unordered: as they were done
        # What the delivering side sleeps for: any attempt, or only this one. Written by it, before
        # it looks a last time; read by the workers, after they have set what became of theirs.
        self._all = self._awaits_any = not ordered or stages > 1
        self._awaited: Attempt | None = None
        self._suspects: deque[Attempt] = deque()
        self._lone: Attempt | None = None  # the suspect that is being run again
        self.submitted = self._added = 0

    @property
    def over(self) -> bool:
        """Every task of the run has been submitted, and none is open."""
        return self.submitted == self.total and not any(self._open)

    def is_over(self, stage: int) -> bool:
        """Return whether no attempt of a stage is open, and none of it will be for a task."""
        return self.submitted == self.total and not any(self._open[: stage + 1])

    @property
    def head(self) -> Attempt | None:
        """The first attempt in order; the thread that watches may ask too."""
        for attempts in self._open:
            if attempts:
                return next(iter(list(attempts.values())), None)
        return None

    def sleep(self) -> bool:
        """Have ``notify`` called from now on, for what is awaited; return whether that is open."""
        awaited = self._awaited = next(iter(self.opened.values()), None)
        return awaited is None or self._all or not awaited.done()

    def wake(self) -> None:
        """Have it called no more, unless any attempt is awaited."""
        self._awaited = None
        self._all = self._awaits_any or self._lone is not None or bool(self._suspects)

    @property
    def awaits_group(self) -> bool:
        """What is awaited is one of several that were handed over together."""
        group = None if self._awaited is None else self._awaited.group
        return group is not None and len(group.tasks) > 1

    @property
    def open(self) -> int:
        """How many attempts are in the window."""
        return len(self.opened) if len(self._open) == 1 else sum(map(len, self._open))

    def open_in(self, stage: int) -> int:
        """Return how many of them are of one stage."""
        return len(self._open[stage])

    def fill(self, limit: int) -> None:
        """Submit tasks until ``limit`` attempts are in the window."""
        if self._lone is not None:
            return  # nothing may join it until it is settled
        if self._suspects:
            self._run_alone()
            return
        opened, most = self.opened, 1
        if self._ordered:  # else each is told of when it is done, and a group at its end
            most = max(1, min(self.executor.group_size, limit // 2))
        while self.submitted != self.total and (self.executor.num_workers or not opened):
            room = limit - self.open
            if room < 1 or (room < most and opened):
                return  # several that are small are worth one hand-over when there is room for them
            self._submit_next(min(room, most))

    def call_next(self, call: Callable[[Task], Outcome]) -> Attempt | None:
        """Run the next task here; ``None`` after the last. It is not in the window: see `hold`."""
        if self.submitted == self.total:
            return None
        attempt = self._next()
        if attempt.outcome is None:
            attempt.outcome = call(attempt.task)
        return attempt

    def hold(self, attempt: Attempt) -> None:
        """Take an attempt of the first stage into the window, until it is settled."""
        self.opened[attempt.place] = attempt

    def _submit_next(self, count: int) -> None:
        """Submit the next tasks, ``count`` of them at most, together."""
        attempts: list[Attempt] = []
        while len(attempts) < count and self.submitted != self.total:
            attempt = self._next()
            self.hold(attempt)
            if attempt.outcome is None:
                attempts.append(attempt)
        if attempts:
            self._submit(attempts)

    def add(self, task: Task, after: Position) -> None:
        """Take a task of a later stage, which is made of what others have become."""
        attempt = Attempt(task, self._added, after)
        self._added += 1
        self._open[task.stage][attempt.place] = attempt
        self.again(attempt)

    def done(self, stage: int = 0) -> Attempt | None:
        """Return an attempt that is done, in order if the run is; it stays in the window."""
        if not self._ordered:
            return self._done.popleft() if self._done else None
        for head in self._open[stage].values():
            return head if not head.suspect and head.done() else None
        return None

    def note_done(self, attempt: Attempt) -> None:
        """Take note of what ``notify`` was called with, in the delivering thread."""
        if not self._ordered:
            self._done.append(attempt)

    def drop(self, attempt: Attempt) -> None:
        """Take an attempt that is settled out of the window."""
        del self._open[attempt.task.stage][attempt.place]
        if attempt is self._lone:
            self._lone = None
        attempt.forget()

    def clear(self) -> None:
        """Let go of what is in the window, and of what has become of it: the run is over."""
        for attempts in self._open:
            for attempt in attempts.values():
                attempt.forget()
            attempts.clear()
        self._done.clear()
        self._suspects.clear()

    def again(self, attempt: Attempt) -> None:
        """Submit an attempt's task once more, but not beside one that must be alone."""
        if attempt is self._lone or (self._lone is None and not self._suspects):
            self._submit([attempt])
        else:
            self._suspect(attempt)

    def lost(self, attempt: Attempt, error: BaseException, retries: int) -> WorkerLost | None:
        """Have a task whose worker died run again, alone; return the error if that is enough.

        A task is run again at least once, whatever ``retries`` says. One that was lost in company
        is not known to be the cause.
        """
        attempt.losses += 1
        enough = attempt.losses > max(1, retries)
        if isinstance(error, WorkerLost):  # the executor knows that it was this one
            if enough:
                return error
            self.again(attempt)
            return None
        if attempt is self._lone:
            self._lone = None
        if attempt.alone and enough:
            lost = WorkerLost(
                explain(
                    f"the worker was lost {attempt.losses} times: {type(error).__name__}: {error}",
                    why="its process was killed, ran out of memory or ended in native code; or it "
                    "could not start; or the pool was shut down",
                    next="look at its memory use; a program with processes needs "
                    "if __name__ == '__main__':; on_error='skip' leaves the batch out",
                )
            )
            lost.__cause__ = error
            return lost
        self._suspect(attempt)
        return None

    def _suspect(self, attempt: Attempt) -> None:
        """Have an attempt made again, alone: when all that are in progress are done."""
        self._all = True
        attempt.suspect = True
        self._suspects.append(attempt)

    def _run_alone(self) -> None:
        if any(
            not attempt.suspect and not attempt.done()
            for attempts in self._open
            for attempt in attempts.values()
        ):
            return  # others are still in progress
        attempt = self._suspects.popleft()
        attempt.suspect, attempt.alone = False, True
        self._lone = attempt
        self._submit([attempt])

    def _next(self) -> Attempt:
        """Open an attempt at the next task."""
        try:
            place, task = next(self._tasks)
            attempt = Attempt(task, place)
            task.keep = self._keep or len(self._open) > 1
        except Exception as error:  # the user's shuffle callable
            attempt = Attempt(Task(0, 0, np.arange(0), 0), self.submitted)
            self.total = self.submitted + 1
            attempt.outcome = Outcome(error=error, step="shuffle")
            self.note_done(attempt)
        self.submitted += 1
        return attempt

    def _submit(self, attempts: list[Attempt]) -> None:
        now = time.monotonic()
        try:
            if self.executor.group_size:
                group = TaskGroup([one.task for one in attempts], lambda _: self._tell(attempts))
                for at, attempt in enumerate(attempts):
                    attempt.since, attempt.at, attempt.group, attempt.outcome = now, at, group, None
                self.executor.submit_group(group)
                return
            (attempt,) = attempts
            attempt.since, attempt.outcome = now, None
            attempt.future = self.executor.submit(attempt.task)
        except Exception as error:  # a pool that is broken for good
            for attempt in attempts:
                attempt.refused, attempt.group, attempt.future = True, None, Future()
                attempt.future.set_exception(error)
                self.note_done(attempt)
            return
        if attempt.future.done():
            self.note_done(attempt)
        else:
            attempt.future.add_done_callback(lambda _: self._tell(attempts))

    def _tell(self, attempts: list[Attempt]) -> None:
        if self._all or self._awaited in attempts:
            self._notify(attempts)
