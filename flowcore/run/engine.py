"""Drives one run: tasks to the executor, items to the sinks, batches to the consumer, in order.

All decisions are taken in one place, the generator `Engine._deliveries`. Where the run has no
thread of its own the consumer steps it; else the delivering thread does, and everyone else only
sends it messages. So nothing here needs a lock but the consumer's side of a run without threads.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

from flowcore import plugins
from flowcore.batch import Batch, first_ids
from flowcore.errors import Cancelled, PipelineError, explain
from flowcore.executors.base import Outcome, Task
from flowcore.executors.serial import SerialExecutor
from flowcore.hookspecs import (
    BatchDelivered,
    BatchFailed,
    ExecutorStarted,
    RunEnded,
    RunStarted,
    WorkerLostEvent,
)
from flowcore.recipe import Recipe, SinkStep, Source
from flowcore.run.compile import compile_recipe
from flowcore.run.deliver import Outlets, StallWatch, put_all
from flowcore.run.report import Report, Trouble
from flowcore.run.settings import Settings, action_options, options_for
from flowcore.run.window import Attempt, Window
from flowcore.sinks import Cancel, Sink, SinkRun

__all__ = ["Engine"]

_log = logging.getLogger("flowcore")

_END: Final = object()  # what the consumer finds after the last batch
_REQUEST: Final = object()  # what it sends for each batch that it asks for
_STOP: Final = object()  # what the cancel token sends
_PATIENCE = 2.0  # seconds that `close` waits for the delivering thread

_live: weakref.WeakSet[Engine] = weakref.WeakSet()  # those with a thread, for the exit


@dataclass(frozen=True, slots=True)
class _Kind:
    """What `next_batch`, `run` and `feed` differ in."""

    hands_over: bool  # each batch goes to a consumer, who asks for it
    feed: bool  # runs in the background, whatever the prefetch


class Engine:
    """One run of a recipe.

    Any thread may call any method. The run starts with `start`, in the thread that calls it.

    Raises:
        PipelineError: a recipe or arguments that cannot be right.
    """

    def __init__(
        self, recipe: Recipe, settings: Settings, *, hands_over: bool = True, feed: bool = False
    ) -> None:
        if recipe.source is None:
            raise PipelineError(
                explain(
                    "this pipeline is a template: it has no dataset to run over",
                    next="start it from a dataset: dataset.p...",
                )
            )
        settings.check_options(recipe)
        self._source: Source = recipe.source
        self._recipe = settings.sink_steps(recipe)
        settings.check_options(self._recipe)
        self._settings = settings
        self._kind = _Kind(hands_over, feed)
        self.sampler = settings.sampler(len(recipe.source.index))
        num_workers, self._prefetch = settings.workers()
        self._inline = self._prefetch == 0 and not feed
        self._executor = (
            settings.make_executor(num_workers) if self._prefetch else SerialExecutor()
        )
        self._outlets = Outlets(
            step for step in self._recipe.steps if isinstance(step, SinkStep)
        )
        self.report = Report(seed=self.sampler.seed, _read_results=self._outlets.results)
        self.error: BaseException | None = None
        self.started = False
        self.ended = threading.Event()  # set by the delivering thread; `feed.wait` waits for it
        self._finished = False
        self._left = False
        self._late: BaseException | None = None
        self._watch = StallWatch(settings.stall_warning)
        self._cancel = Cancel(self._watch.check if self._inline else None)
        self._requests = 0
        self._skipped_in_a_row = 0
        # The messages to the delivering thread, and what it hands over.
        self._messages: SimpleQueue[object] = SimpleQueue()
        self._handed: SimpleQueue[Any] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Held by the consumer while it steps a run without threads; reentrant, so that a run that
        # is closed, or collected, by one of its own actions does not wait for itself.
        self._turn = threading.RLock()
        self._stream = self._guarded()

    # Starting

    def start(self) -> None:
        """Open the sinks and start the executor, in this thread; deliver, if not inline."""
        self.started = True
        self.report._started = time.perf_counter()
        hook = plugins.hooks().hook
        hook.flowcore_run_started(
            event=RunStarted(
                recipe=str(self._recipe),
                batch_size=self._settings.batch_size,
                seed=self.sampler.seed,
                batches=self.sampler.batches,
            )
        )
        try:
            self._outlets.open(self._sink_run)
            try:
                self._start_executor()
            except BaseException as error:
                self._outlets.close(error)
                raise
        except BaseException as error:
            self.error, self._finished = error, True
            self.ended.set()
            self._run_ended(error)
            raise
        if not self._inline:
            self._watch.start()
            self._thread = threading.Thread(
                target=self._deliver, name="flowcore-deliver", daemon=True
            )
            _live.add(self)
            self._thread.start()

    def _start_executor(self) -> None:
        options = action_options(self._recipe, self._settings.plugin_options)
        work = compile_recipe(
            self._recipe, list(self._outlets.sinks.values()), options, self._source
        )
        self._step_of = work.step_of
        self._executor.start(work)
        hook = plugins.hooks().hook
        hook.flowcore_executor_started(
            event=ExecutorStarted(
                name=type(self._executor).__name__, num_workers=self._executor.num_workers
            )
        )
        self._decides = bool(hook.flowcore_batch_failed.get_hookimpls())
        self._observed = bool(hook.flowcore_batch_delivered.get_hookimpls())
        self._window = Window(
            self._executor,
            self._tasks(),
            self.sampler.batches,
            ordered=bool(self._settings.ordered),
            notify=self._messages.put,
        )

    def _sink_run(self, name: str, sink: Sink) -> SinkRun:
        return SinkRun(
            options=options_for(sink.run_options, self._settings.plugin_options),
            batch_size=self._settings.batch_size,
            batches=self.sampler.batches,
            items=self.sampler.items,
            prefetch=self._prefetch,
            feed=self._kind.feed,
            hands_over=self._kind.hands_over,
            inline=self._inline,
            name=name,
        )

    def _tasks(self) -> Iterator[Task]:
        seed = self.sampler.seed
        for epoch, number, positions in self.sampler:
            yield Task(epoch, number, positions, seed)

    def make(self, number: int, epoch: int) -> Batch:
        """Make one batch in this thread, through the actions and into no sink."""
        sampler = self.sampler
        if not (0 <= number < sampler.epoch_batches and epoch >= 0):
            raise IndexError(
                f"no batch {number} in epoch {epoch}: an epoch has {sampler.epoch_batches} batches "
                f"of {sampler.batch_size} or fewer of {sampler.length} items"
            )
        task = Task(epoch, number, sampler.positions(epoch, number), sampler.seed)
        outcome = compile_recipe(self._recipe, [], {}, self._source)(task)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.batch is not None
        return outcome.batch

    # The consumer's side

    def next(self) -> Batch:
        """Return the next batch, waiting for it.

        Raises:
            StopIteration: the data has ended, or the run was closed.
        """
        if self._left and self.error is None:
            raise StopIteration
        try:
            return self._step() if self._inline else self._receive()
        except BaseException as error:
            if error is not self.error and not isinstance(error, StopIteration):
                self.error = self.error or error  # a Ctrl-C while waiting
                self.close()
            raise

    def _step(self) -> Batch:
        with self._turn:
            if self.error is not None and self._finished:
                raise self.error.with_traceback(self._traceback)
            self._requests += 1
            try:
                return next(self._stream)
            except Cancelled:
                if not self._cancel.is_set():
                    raise
                raise StopIteration from None

    def _receive(self) -> Batch:
        self._messages.put(_REQUEST)
        batch = self._handed.get()
        if batch is _END:
            self._handed.put(_END)  # for the next call, in whatever thread
            if self.error is not None:
                raise self.error.with_traceback(self._traceback)
            raise StopIteration
        return batch  # type: ignore[no-any-return]

    def to_the_end(self) -> None:
        """Run until the data ends; raise what the run failed of."""
        try:
            if self._inline:
                for _ in iter(self._step_or_none, None):
                    pass
            else:
                self.ended.wait()
        except BaseException as error:
            self.error = self.error or error
            self.close()
            raise
        self.raise_error()

    def _step_or_none(self) -> Batch | None:
        try:
            return self._step()
        except StopIteration:
            return None

    def raise_error(self) -> None:
        """Raise what the run failed of, if it did."""
        if self.error is not None:
            raise self.error.with_traceback(self._traceback)

    @property
    def _traceback(self) -> Any:
        # That of the first raise: a raise adds to it each time that the error is given again.
        return self._first_traceback if self._finished else None

    def close(self) -> None:
        """Leave the run: give up what waits, and let everything go. Does nothing at the end."""
        self._left = True
        self._cancel.set()
        if not self.started:
            self._finished = True
        elif self._inline:
            with self._turn:
                if not self._stream.gi_running:  # else it is left at its next look at the token
                    self._stream.close()
                    self._finish(Cancelled("the run was left before its first batch"))
        elif self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def abandon(self) -> None:
        """Leave the run because nobody holds it any more; called by the garbage collector."""
        if self._inline:
            self.close()
        else:
            self._left = True
            self._cancel.set()  # no join: the collector may be at work in any thread

    # The delivering side

    def _deliver(self) -> None:
        """Be the delivering thread."""
        try:
            with self._cancel.on_set(lambda: self._messages.put(_STOP)):
                for batch in self._stream:
                    if self._kind.hands_over:
                        self._handed.put(batch)
                    del batch
        except BaseException as error:
            if not self._finished:  # cannot be: what is raised goes through _guarded
                self.error = error
        finally:
            self._watch.stop()
            self._handed.put(_END)
            self.ended.set()

    def _guarded(self) -> Iterator[Batch]:
        """Generate the batches, and finish the run exactly once, however it ends."""
        try:
            for batch in self._deliveries():
                if self._window.exhausted and self._window.head is None:
                    self._finish(None)  # at once: the sinks' consumers wait for the end
                yield batch
                del batch
        except GeneratorExit:
            self._finish(Cancelled("the run was left before its end"))
            raise
        except BaseException as error:
            self._finish(error)
            raise
        self._finish(None)
        if self._late is not None:
            raise self._late

    def _deliveries(self) -> Iterator[Batch]:
        while (attempt := self._next_finished()) is not None:
            outcome = self._settled(attempt)
            if outcome is None:
                continue
            assert outcome.batch is not None
            if outcome.items:
                put_all(
                    self._outlets, outcome.items, self._cancel, self._watch, _called(attempt.task)
                )
            self._window.drop(attempt)
            self._count(attempt.task)
            if self._observed:
                plugins.hooks().hook.flowcore_batch_delivered(
                    event=BatchDelivered(
                        epoch=attempt.task.epoch,
                        number=attempt.task.number,
                        items=len(attempt.task.positions),
                        batch=outcome.batch,
                    )
                )
            batch = outcome.batch
            del attempt, outcome  # so that a batch lives no longer than its consumer wants
            yield batch
            del batch

    def _next_finished(self) -> Attempt | None:
        """Return an attempt that is done, ``None`` at the end of the data."""
        while True:
            if self._cancel.is_set():
                raise Cancelled("the run was left")
            while not self._messages.empty():
                self._hear(self._messages.get())
            self._window.fill(self._budget())
            attempt = self._window.finished()
            if attempt is not None:
                return attempt
            head = self._window.head
            if head is None and self._window.exhausted:
                return None
            if head is not None:
                self._watch.begin(lambda head=head: self._running(head))  # type: ignore[misc]
            self._hear(self._messages.get())
            self._watch.end()

    def _budget(self) -> int:
        """How many batches may have been begun by now, in all."""
        if self._kind.hands_over:
            asked = self._requests
        else:
            asked = self.report.batches + 1
        return asked + self._prefetch + len(self.report.skipped)

    def _hear(self, message: object) -> None:
        if message is _REQUEST:
            self._requests += 1
        elif isinstance(message, Attempt):
            self._window.note_done(message)

    def _settled(self, attempt: Attempt) -> Outcome | None:
        """Return the outcome of an attempt that succeeded; have it made again, skip it, or raise."""
        assert attempt.future is not None
        try:
            outcome = attempt.future.result()
        except BaseException as error:
            outcome = self._lost(attempt, error)
            if outcome is None:
                return None
        if outcome.error is None:
            self._skipped_in_a_row = 0
            return outcome
        attempt.failures += 1
        decision = self._decision(attempt, outcome)
        if decision == "retry":
            self.report.retried.append(self._trouble(attempt, outcome))
            self._window.again(attempt)
            return None
        if decision == "skip":
            self._skip(attempt, outcome)
            return None
        self._note(outcome.error, attempt.task, outcome.step)
        raise outcome.error

    def _lost(self, attempt: Attempt, error: BaseException) -> Outcome | None:
        if isinstance(error, PipelineError):  # not a loss: the work could not be sent
            return Outcome(error=error, step="sending the work")
        final = self._window.lost(attempt, error, self._settings.retries)
        plugins.hooks().hook.flowcore_worker_lost(
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

    def _decision(self, attempt: Attempt, outcome: Outcome) -> str:
        never_skipped = ("shuffle", "sending the work")
        if isinstance(outcome.error, KeyboardInterrupt) or outcome.step in never_skipped:
            return "raise"
        planned = (
            "retry" if attempt.failures <= self._settings.retries else self._settings.on_error
        )
        if self._decides:
            assert outcome.error is not None
            answer = plugins.hooks().hook.flowcore_batch_failed(
                event=BatchFailed(
                    epoch=attempt.task.epoch,
                    number=attempt.task.number,
                    ids=self._ids(attempt.task),
                    action=outcome.step,
                    error=outcome.error,
                    attempts=attempt.failures,
                    retries=self._settings.retries,
                    planned=planned,  # type: ignore[arg-type]
                )
            )
            return answer or planned
        return planned

    def _skip(self, attempt: Attempt, outcome: Outcome) -> None:
        self.report.skipped.append(self._trouble(attempt, outcome))
        self._window.drop(attempt)
        self._count_epochs()
        self._skipped_in_a_row += 1
        if self.sampler.n_epochs is None and self._skipped_in_a_row >= self.sampler.epoch_batches:
            assert outcome.error is not None
            self._note(outcome.error, attempt.task, outcome.step)
            outcome.error.add_note(
                "flowcore: raised in spite of on_error='skip', as each batch of an epoch was "
                "skipped, and the run has no end"
            )
            raise outcome.error

    def _finish(self, error: BaseException | None) -> None:
        if self._finished:
            return
        failed = error is not None and not (isinstance(error, Cancelled) and self._cancel.is_set())
        if failed and not isinstance(error, (GeneratorExit, Cancelled)):
            self._fail(error)
        self._watch.end()
        try:
            self._executor.close()
        except Exception:
            _log.exception("the executor %r failed to close", self._executor)
        problem = self._outlets.close(error)
        if error is None and problem is not None:
            self._late = problem
            self._fail(problem)
        self._finished = True
        self.report._ended = time.perf_counter()
        self._run_ended(error or problem)

    def _fail(self, error: BaseException | None) -> None:
        assert error is not None
        self._first_traceback = error.__traceback__
        self.error = self.error or error

    _first_traceback: Any = None

    def _run_ended(self, error: BaseException | None) -> None:
        if self.report._ended is None:
            self.report._ended = time.perf_counter()
        try:
            plugins.hooks().hook.flowcore_run_ended(
                event=RunEnded(
                    error=error,
                    batches=self.report.batches,
                    items=self.report.items,
                    seconds=self.report.seconds,
                )
            )
        except Exception:
            _log.exception("a hook plugin failed in flowcore_run_ended")

    # Telling

    def _count(self, task: Task) -> None:
        self.report.batches += 1
        self.report.items += len(task.positions)
        self._count_epochs()

    def _count_epochs(self) -> None:
        settled = self.report.batches + len(self.report.skipped)
        self.report.epochs = settled // self.sampler.epoch_batches

    def _ids(self, task: Task) -> Any:
        return self._source.index.ids(task.positions)

    def _trouble(self, attempt: Attempt, outcome: Outcome) -> Trouble:
        assert outcome.error is not None
        task = attempt.task
        return Trouble(task.epoch, task.number, self._ids(task), outcome.step, outcome.error)

    def _note(self, error: BaseException, task: Task, step: str) -> None:
        """Say on a user's exception where it was raised, and how to see it again."""
        if step == "shuffle":
            return
        shuffle: object = self.sampler.shuffle
        if not isinstance(shuffle, bool):
            shuffle = getattr(shuffle, "__qualname__", "...")
        error.add_note(
            explain(
                f"flowcore: in {step!r} of {_called(task)}, ids {first_ids(self._ids(task))}",
                next=f"make it again here: pipeline.batch({task.number}, epoch={task.epoch}, "
                f"batch_size={self.sampler.batch_size}, shuffle={shuffle}, seed={task.seed})",
            )
        )

    def _running(self, head: Attempt) -> str:
        step = self._step_of(head.task)
        return explain(
            f"{repr(step) if step else 'a worker'} to finish {_called(head.task)}, "
            f"ids {first_ids(self._ids(head.task))}",
            next="look what it waits for; if it may take so long, stall_warning= sets the seconds",
        )


def _called(task: Task) -> str:
    return f"batch {task.number} of epoch {task.epoch}"


@atexit.register
def _leave_all() -> None:
    """Leave the runs that still have a thread: it must not run into the interpreter's end."""
    for engine in list(_live):
        engine.close()
