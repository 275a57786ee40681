"""From tasks to delivered batches, in order: every decision about a batch is taken here.

`Delivery.batches` is one generator. Whoever runs it, the delivering thread or in a run without
threads the consumer, is alone in here; all others only send messages. So nothing needs a lock.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from flowcore.batch import Batch, first_ids
from flowcore.errors import Cancelled, PipelineError, explain
from flowcore.executors.base import SENDING, Outcome, Task
from flowcore.hookspecs import BatchDelivered, BatchFailed, WorkerLostEvent
from flowcore.index import Index
from flowcore.run.compile import CompiledWork
from flowcore.run.outlets import Outlets
from flowcore.run.progress import Progress
from flowcore.run.report import Report, Trouble
from flowcore.run.settings import Settings
from flowcore.run.stalls import StallWatch, Wait
from flowcore.run.window import Attempt, Window
from flowcore.sampler import Sampler
from flowcore.sinks import Cancel

__all__ = ["REQUEST", "STOP", "Delivery"]

REQUEST: Final = object()  # sent by the consumer for each batch that it asks for
STOP: Final = object()  # sent by the cancel token, only to wake the delivering thread

# Steps whose failure is not that of one batch, so no batch can be skipped to go on.
_FATAL = ("shuffle", SENDING)


class Delivery:
    """Has batches made, decides about those that fail, puts the items, and yields the batches.

    Attributes:
        messages: what others tell the delivering thread: `REQUEST`, `STOP`, or an attempt that is
            done. Any thread may put.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        sampler: Sampler,
        index: Index,
        outlets: Outlets,
        report: Report,
        cancel: Cancel,
        watch: StallWatch,
        hook: Any,
        options: Mapping[str, Any],
        prefetch: int,
        hands_over: bool,
    ) -> None:
        self.messages: SimpleQueue[object] = SimpleQueue()
        self._settings = settings
        self._sampler = sampler
        self._index = index
        self._outlets = outlets
        self._report = report
        self._cancel = cancel
        self._watch = watch
        self._hook = hook
        self._options = options
        self._observed = bool(hook.flowcore_batch_delivered.get_hookimpls())
        self._judged = bool(hook.flowcore_batch_failed.get_hookimpls())
        self._prefetch = prefetch
        self._hands_over = hands_over
        self._progress = Progress(report, sampler.batches) if settings.progress else None
        self._requests = 0
        self._skipped_in_a_row = 0

    def batches(self, window: Window, work: CompiledWork) -> Iterator[Batch]:
        """Generate the batches in the order of their delivery, each after its items were put.

        Raises:
            Cancelled: the run is being left.
            Exception: what a batch, or a put, failed of.
        """
        self._window, self._work = window, work
        self._watch.tasks = self._running
        while (attempt := self._next_done()) is not None:
            outcome = self._settled(attempt)
            if outcome is None:
                continue
            assert outcome.batch is not None
            if outcome.items:
                self._outlets.put(outcome.items, self._cancel, self._watch, called(attempt.task))
            window.drop(attempt)
            self._count(len(outcome.batch))
            if self._observed:
                self._tell_delivered(attempt.task, outcome.batch)
            batch = outcome.batch
            del attempt, outcome  # so that a batch lives no longer than its consumer wants
            yield batch
            del batch

    def end(self) -> None:
        """Note that the run is over."""
        if self._progress is not None:
            self._progress.end()

    def request(self) -> None:
        """Count a request of the consumer, in the thread that runs `batches`."""
        self._requests += 1

    def _next_done(self) -> Attempt | None:
        """Return an attempt that is done, waiting for it; ``None`` at the end of the data."""
        while True:
            if self._cancel.is_set():
                raise Cancelled("the run was left before its end")
            while not self.messages.empty():
                self._hear(self.messages.get())
            self._window.fill(self._budget())
            attempt = self._window.done()
            if attempt is not None:
                return attempt
            if self._window.over:
                return None
            self._hear(self.messages.get())

    def _budget(self) -> int:
        """How many batches may have been begun by now, in all."""
        asked = self._requests if self._hands_over else self._report.batches + 1
        return asked + self._prefetch + len(self._report.skipped)

    def _hear(self, message: object) -> None:
        if message is REQUEST:
            self._requests += 1
        elif isinstance(message, Attempt):
            self._window.note_done(message)

    def _settled(self, attempt: Attempt) -> Outcome | None:
        """Return the outcome of a success; have a failure made again, skip it, or raise it."""
        assert attempt.future is not None
        try:
            outcome = attempt.future.result()
        except KeyboardInterrupt:  # a Ctrl-C that came just now, in a run without threads
            raise
        except BaseException as error:
            lost = self._lost(attempt, error)
            if lost is None:
                return None
            outcome = lost
        if outcome.error is None:
            self._skipped_in_a_row = 0
            return outcome
        attempt.failures += 1
        decision = self._decision(attempt, outcome.error, outcome.step)
        if decision == "raise":
            self._note(outcome.error, attempt.task, outcome.step)
            raise outcome.error
        trouble = self._trouble(attempt.task, outcome.error, outcome.step)
        if decision == "retry":
            self._report.retried.append(trouble)
            self._window.again(attempt)
        else:
            self._skip(attempt, trouble)
        return None

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
        return Outcome(error=final, step="a worker")

    def _decision(self, attempt: Attempt, error: BaseException, step: str) -> str:
        if isinstance(error, KeyboardInterrupt) or step in _FATAL:
            return "raise"
        retries = self._settings.retries
        planned = "retry" if attempt.failures <= retries else self._settings.on_error
        if not self._judged:
            return planned
        task = attempt.task
        event = BatchFailed(
            epoch=task.epoch,
            number=task.number,
            ids=self._ids(task),
            action=step,
            error=error,
            attempts=attempt.failures,
            retries=retries,
            planned=planned,
        )
        try:
            decision = self._hook.flowcore_batch_failed(event=event) or planned
            if decision not in ("raise", "retry", "skip"):
                raise PipelineError(
                    explain(
                        f"a hook plugin's flowcore_batch_failed returned {decision!r}",
                        next="return 'raise', 'retry', 'skip', or None to leave it to others",
                    )
                )
        except BaseException as raised:
            raised.__context__ = raised.__context__ or error
            raise
        return str(decision)

    def _skip(self, attempt: Attempt, trouble: Trouble) -> None:
        self._report.skipped.append(trouble)
        self._window.drop(attempt)
        self._count_epochs()
        self._skipped_in_a_row += 1
        endless = self._sampler.n_epochs is None
        if endless and self._skipped_in_a_row >= self._sampler.epoch_batches:
            self._note(trouble.error, attempt.task, trouble.action)
            trouble.error.add_note(
                "flowcore: raised in spite of on_error='skip', as each batch of an epoch was "
                "skipped and the run has no end"
            )
            raise trouble.error

    # Telling

    def _count(self, items: int) -> None:
        self._report.batches += 1
        self._report.items += items
        self._count_epochs()
        if self._progress is not None:
            self._progress.show()

    def _count_epochs(self) -> None:
        settled = self._report.batches + len(self._report.skipped)
        self._report.epochs = settled // self._sampler.epoch_batches

    def _tell_delivered(self, task: Task, batch: Batch) -> None:
        self._hook.flowcore_batch_delivered(
            event=BatchDelivered(
                epoch=task.epoch, number=task.number, items=len(batch), batch=batch
            )
        )

    def _ids(self, task: Task) -> Any:
        return self._index.ids(task.positions)

    def _trouble(self, task: Task, error: BaseException, step: str) -> Trouble:
        # The report keeps the error, and must not keep the batch with the frames of its traceback.
        for link in _chain(error):
            traceback.clear_frames(link.__traceback__)
        return Trouble(task.epoch, task.number, self._ids(task), step, error)

    def _note(self, error: BaseException, task: Task, step: str) -> None:
        """Say on a user's exception where it was raised, and how to see it again."""
        if step == "shuffle":
            return
        shuffle: object = self._sampler.shuffle
        if not isinstance(shuffle, bool):
            shuffle = getattr(shuffle, "__qualname__", "...")
        seed = f"seed={task.seed}" + "".join(
            f", {name}={value!r:.40}" for name, value in self._options.items()
        )
        again = "make it again here"
        if step.startswith("prepare"):
            again = "see what the sink was given"  # the batch itself is made without an error
        error.add_note(
            explain(
                f"flowcore: in {step!r} of {called(task)}, ids {first_ids(self._ids(task))}",
                next=f"{again}: pipeline.batch({task.number}, epoch={task.epoch}, "
                f"batch_size={self._sampler.batch_size}, shuffle={shuffle}, {seed})",
            )
        )

    def _running(self) -> Iterator[Wait]:
        """Generate the running tasks; called in the thread that watches."""
        here = self._work.running()
        for task, step, since in here:
            yield Wait((task.epoch, task.number, since), since, partial(self._slow, task, step))
        head = self._window.head
        if not here and head is not None:  # its worker is in another process
            yield Wait(head.place, head.since, partial(self._slow, head.task, ""))

    def _slow(self, task: Task, step: str) -> str:
        return explain(
            f"{repr(step) if step else 'a worker'} to finish {called(task)}, "
            f"ids {first_ids(self._ids(task))}",
            next="look what it waits for; if it may take so long, stall_warning= sets the seconds",
        )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Generate an error and those that it was raised from, or in the handling of."""
    seen: set[int] = set()
    links: list[BaseException | None] = [error]
    while links:
        link = links.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            links += [link.__cause__, link.__context__]


def called(task: Task) -> str:
    """Return what a batch is called in messages."""
    return f"batch {task.number} of epoch {task.epoch}"
