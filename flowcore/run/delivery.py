"""From tasks to delivered batches, in order: every step of a batch's way is taken here.

`Delivery.batches` is one generator. Whoever runs it, the delivering thread or in a run without
threads the consumer, is alone in here; all others only send messages. So nothing needs a lock.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from flowcore.batch import Batch, first_ids
from flowcore.errors import Cancelled, DataError, PipelineError, WorkerLost, explain
from flowcore.executors.base import REFUSED, SENDING, Outcome, Running, Task
from flowcore.hookspecs import BatchDelivered, WorkerLostEvent
from flowcore.run.attempt import Attempt
from flowcore.run.bookmark import Handed
from flowcore.run.compile import CompiledWork
from flowcore.run.outlets import Outlets
from flowcore.run.plan import Plan
from flowcore.run.policy import Policy, called
from flowcore.run.progress import Progress
from flowcore.run.regroup import Regroup
from flowcore.run.report import Report
from flowcore.run.settings import Settings
from flowcore.run.stalls import StallWatch, Wait
from flowcore.run.window import Window
from flowcore.sinks import Cancel

__all__ = ["REQUEST", "Delivery"]

REQUEST: Final = object()  # sent by the consumer for each batch that it asks for
_STOP: Final = object()  # sent by the cancel token, only to wake the delivering side

_NOTHING: Final[tuple[int, ...]] = ()
# Seconds. Whoever runs this may be the main thread: a signal that comes just before it begins to
# wait is seen after a slice.
_SLICE = 0.25
_GLANCE = 0.002  # a batch may be ready while one of its group takes longer than those before it


class Delivery:
    """Has batches made, sees to those that fail, puts the items, and yields the batches.

    Args:
        call: runs a task in this thread, where the run has no other.

    Attributes:
        messages: what others tell the delivering thread: `REQUEST`, to stop, or attempts that
            are done. Any thread may put.
        requests: how often the consumer has asked, as far as the delivering side knows.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        plan: Plan,
        policy: Policy,
        regroup: Regroup | None,
        outlets: Outlets,
        report: Report,
        cancel: Cancel,
        watch: StallWatch,
        hook: Any,
        prefetch: int,
        hands_over: bool,
        call: Callable[[Task], Outcome] | None,
    ) -> None:
        self.messages: SimpleQueue[object] = SimpleQueue()
        self._settings = settings
        self._plan = plan
        self._policy = policy
        self._regroup = regroup
        self._outlets = outlets
        self._report = report
        self._cancel = cancel
        self._watch = watch
        self._hook = hook
        self._observed = bool(hook.flowcore_batch_delivered.get_hookimpls())
        self._prefetch = prefetch
        self._hands_over = hands_over
        self._call = None if regroup is not None else call
        self._progress = Progress(report, plan.batches) if settings.progress else None
        self.requests = 0
        self._barren = 0  # batches in a row that nothing came of
        self._left_out: list[int] = []  # places, since the last batch was handed over
        self._through = len(plan.beyond)  # places that are settled
        self._epoch_end = plan.rounds(plan.start.batch)  # how many that are at the next epoch's end
        self._later: list[tuple[float, int, Attempt]] = []  # re-runs, by when they are due

    def batches(self, window: Window, work: CompiledWork) -> Iterator[tuple[Batch | None, Handed]]:
        """Generate the batches in the order of their delivery, each after its items were put.

        They are ``None`` in a run that hands none over.

        Raises:
            Cancelled: the run is being left.
            Exception: what a batch, or a put, failed of.
        """
        self._window, self._work = window, work
        self._watch.tasks = self._running
        while (made := self._next_made()) is not None:
            attempt, outcome = made
            assert outcome.size is not None
            if outcome.items:
                self._outlets.put(outcome.items, self._cancel, self._watch, called(attempt.task))
            if window.opened or self._regroup is not None:  # else it was made at once
                window.drop(attempt)
            self._barren = 0
            handed = self._handed(attempt, outcome.size)
            batch = outcome.batch
            if self._observed and batch is not None:
                self._tell_delivered(attempt.task, batch)
            del made, attempt, outcome  # so that a batch lives no longer than its consumer wants
            yield batch, handed
            del batch

    def wake(self) -> None:
        """Have the delivering side look at the cancel token, if it waits."""
        self.messages.put(_STOP)

    def end(self) -> None:
        """Note that the run is over."""
        if self._progress is not None:
            self._progress.end()

    @property
    def over(self) -> bool:
        """Nothing more will be delivered."""
        return self._window.over and not (self._regroup and self._regroup.waiting_items)

    # What is done next

    def _next_made(self) -> tuple[Attempt, Outcome] | None:
        """Return an attempt to deliver that succeeded; ``None`` at the end of the data."""
        window, call = self._window, self._call
        while True:
            # Where nobody else makes batches, one that succeeds need not wait for its turn.
            if call is not None and not window.opened and not self._cancel.given:
                attempt = window.call_next(call)
                if attempt is None:
                    return None
                outcome = attempt.outcome
                assert outcome is not None
                if outcome.size is not None and not outcome.dropped and not self._cancel.given:
                    return attempt, outcome
                window.hold(attempt)
            else:
                attempt = self._next_done()
                if attempt is None:
                    return None
            outcome = self._settled(attempt)
            if outcome is not None:
                return attempt, outcome

    def _next_done(self) -> Attempt | None:
        """Return an attempt to deliver, waiting for it; ``None`` at the end of the data."""
        while True:
            if self._cancel.is_set():
                raise Cancelled("the run was left before its end")
            while not self.messages.empty():
                self._hear(self.messages.get())
            if self._later:
                self._run_due()
            self._window.fill(self._limit())
            if self._regroup is not None and self._move(self._regroup):
                continue
            attempt = self._window.done(0 if self._regroup is None else 1)
            if attempt is not None:
                return attempt
            if self.over:
                return None
            self._wait()

    def _move(self, regroup: Regroup) -> bool:
        """Have one batch cut anew, or take what to cut; return whether there was any."""
        if self._window.open_in(1) < max(1, self._due()):
            waiting = regroup.waiting
            made = regroup.cut(ended=self._window.is_over(0))
            if made is not None:
                self._window.add(*made)
            if made is not None or regroup.waiting != waiting:
                return True
        attempt = None if regroup.waiting else self._window.done(0)
        if attempt is None or (self._window.open_in(1) and _has_failed(attempt)):
            return False  # what was cut before a failure is delivered before it
        outcome = self._settled(attempt)
        if outcome is not None:
            self._window.drop(attempt)
            assert outcome.batch is not None
            regroup.push(outcome.batch)
            self._count_barren(None, attempt.task)
        return True

    def _due(self) -> int:
        """How many batches are asked for, or wanted ahead."""
        asked = self.requests if self._hands_over else self._report.batches + 1
        return asked - self._report.batches + self._prefetch

    def _limit(self) -> int:
        """How many attempts may be in the window: what is asked for, and the prefetch."""
        return self._due() - (self._regroup.waiting if self._regroup else 0)

    def _hear(self, message: object) -> None:
        if message is REQUEST:
            self.requests += 1
        elif isinstance(message, list):
            for attempt in message:
                self._window.note_done(attempt)

    def _run_due(self) -> None:
        """Make the attempts again whose time has come."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._window.again(heapq.heappop(self._later)[2])

    def _wait(self) -> None:
        """Wait for a message, for a slice at most, or until a re-run is due."""
        window = self._window
        if window.sleep():
            timeout = _GLANCE if window.awaits_group else _SLICE
            if self._later:
                timeout = max(0.0, min(timeout, self._later[0][0] - time.monotonic()))
            with suppress(Empty):
                self._hear(self.messages.get(timeout=timeout))
        window.wake()

    # What became of an attempt

    def _settled(self, attempt: Attempt) -> Outcome | None:
        """Return the outcome of a success; have a failure made again, skip it, or raise it."""
        try:
            outcome = attempt.result()
        except KeyboardInterrupt:  # a Ctrl-C that came just now, in a run without threads
            raise
        except BaseException as error:
            lost = self._refused(error) if attempt.refused else self._lost(attempt, error)
            if lost is None:
                return None
            outcome = lost
        if outcome.error is not None and self._cancel.is_set():
            raise Cancelled("the run was left before its end")  # which it may have failed of
        if outcome.error is None:
            if outcome.dropped:
                self._policy.dropped(attempt.task, outcome.dropped)
            if outcome.size is not None:
                return outcome
            self._leave_out(attempt, None)
        elif attempt.stand_ins:
            self._leave_out(attempt, outcome.error)
        else:
            attempt.failures += 1
            self._failed(attempt, outcome.error, outcome.step)
        return None

    def _failed(self, attempt: Attempt, error: BaseException, step: str) -> None:
        decision = self._policy.decide(attempt, error, step)
        if decision == "raise":
            self._policy.note(error, attempt.task, step)
            raise error
        trouble = self._policy.trouble(attempt.task, error, step)
        if decision == "retry":
            self._report.retried.append(trouble)
            self._again(attempt, self._policy.delay(attempt))
        elif decision == "skip_items" and not attempt.task.dropping:
            attempt.task = replace(attempt.task, dropping=True)
            self._again(attempt, 0.0)
        else:
            self._policy.skipped(attempt.task, trouble)
            self._leave_out(attempt, error)

    def _again(self, attempt: Attempt, delay: float) -> None:
        if not delay:
            self._window.again(attempt)
            return
        attempt.forget()
        due = time.monotonic() + delay
        heapq.heappush(self._later, (due, id(attempt), attempt))

    def _refused(self, error: BaseException) -> Outcome:
        refused = WorkerLost(
            explain(
                f"the executor takes no more tasks: {type(error).__name__}: {error}",
                why="a pool of processes is broken for good when one of them dies"
                if isinstance(error, BrokenExecutor)
                else None,
                next="make a new one, and go on from run.state_dict() with resume=",
            )
        )
        refused.__cause__ = error
        return Outcome(error=refused, step=REFUSED)

    def _lost(self, attempt: Attempt, error: BaseException) -> Outcome | None:
        if isinstance(error, PipelineError):  # not a loss: the work could not be sent
            return Outcome(error=error, step=SENDING)
        final = self._window.lost(attempt, error, self._settings.retries)
        self._hook.flowcore_worker_lost(
            event=WorkerLostEvent(
                epoch=attempt.task.epoch,
                number=attempt.task.number,
                error=error,
                final=final is not None,
            )
        )
        if final is None:
            return None
        attempt.failures = self._settings.retries  # it has had its re-runs
        return Outcome(error=final, step=final.action or "a worker")

    def _leave_out(self, attempt: Attempt, error: BaseException | None) -> None:
        """Deliver nothing of an attempt, or another batch in its place.

        Where all shards must have as many batches, the batch before it in the epoch stands in for
        it, or the one before that, and is marked as a filler.
        """
        plan, task = self._plan, attempt.task
        if plan.shard.world > 1 and plan.uneven != "short" and not task.stage:
            attempt.stand_ins += 1
            if attempt.stand_ins < plan.epoch_batches:
                other = plan.task(task.epoch, (task.number - 1) % plan.epoch_batches)
                other.filler, other.dropping = True, task.dropping
                attempt.task = other
                self._window.again(attempt)
                return
            self._nothing_left(error, task)
        self._window.drop(attempt)
        if self._regroup is None:
            self._left_out.append(attempt.place)
        self._pass(attempt)
        self._count_barren(error, task)

    def _count_barren(self, error: BaseException | None, task: Task) -> None:
        """Note a batch that nothing was delivered of; an endless run needs some in each epoch."""
        self._barren += 1
        epochs = 1 if self._regroup is None else 2  # what is left is cut when the next one begins
        if self._plan.n_epochs is None and self._barren >= max(1, epochs * self._plan.rounds()):
            self._nothing_left(error, task)

    def _nothing_left(self, error: BaseException | None, task: Task) -> None:
        """Raise the error of a run that would go on for ever, or fall behind, with no batch."""
        if error is None:
            raise DataError(
                explain(
                    f"no item of epoch {task.epoch} is left",
                    why="its filters, on_error='skip_items', or drop_last leave out every one",
                    next="look at what filter() and rebatch() are given",
                )
            )
        self._policy.note(error, task, "a batch")
        error.add_note(
            f"flowcore: raised in spite of on_error={self._settings.on_error!r}, as each batch of "
            "an epoch was skipped, and the run has no end, or other shards wait for its batches"
        )
        raise error

    # Telling

    def _pass(self, attempt: Attempt) -> None:
        """Note that an attempt is through, whatever became of it."""
        if self._regroup is None:
            self._through += 1
            if self._through == self._epoch_end:
                self._report.epochs += 1
                self._epoch_end += self._plan.rounds()
        elif attempt.after is not None:
            at = attempt.after
            ended = at.batch >= self._plan.epoch_batches and not at.skip
            self._report.epochs = at.epoch - self._plan.start.epoch + ended

    def _handed(self, attempt: Attempt, size: int) -> Handed:
        """Count a batch that is delivered; return what handing it over settles."""
        report = self._report
        report.batches += 1
        report.items += size
        if attempt.task.filler:
            report.fillers += 1
        self._pass(attempt)
        if self._progress is not None:
            self._progress.show()
        place = attempt.place if self._regroup is None else -1
        left_out = _NOTHING
        if self._left_out:
            left_out, self._left_out = tuple(self._left_out), []
        return place, size, attempt.after, left_out

    def _tell_delivered(self, task: Task, batch: Batch) -> None:
        self._hook.flowcore_batch_delivered(
            event=BatchDelivered(
                epoch=task.epoch, number=task.number, items=len(batch), batch=batch
            )
        )

    def _running(self) -> Iterator[Wait]:
        """Generate the running tasks; called in the thread that watches."""
        running: list[Running] = [*self._work.running(), *self._window.executor.running()]
        head = self._window.head
        if not running and head is not None and not head.done():  # of a pool that cannot say
            running = [Running(head.task, "", head.since)]
        for one in running:
            key = one.task.epoch, one.task.number, one.since
            yield Wait(key, one.since, partial(self._slow, one))

    def _slow(self, running: Running) -> str:
        task, stack = running.task, running.stack()
        return explain(
            f"{repr(running.step) if running.step else 'a worker'} to finish {called(task)}, "
            f"ids {first_ids(self._policy.ids(task))}",
            where=f"in its worker:\n{stack}" if stack else None,
            next="look what it waits for; if it may take so long, stall_warning= sets the seconds",
        )


def _has_failed(attempt: Attempt) -> bool:
    """Return whether what is done has no batch, or an error."""
    try:
        return attempt.result().error is not None
    except BaseException:  # the worker was lost, or the future cancelled
        return True
