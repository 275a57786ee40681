"""Starts one run, hands its batches over, and ends it exactly once, however it ends.

A run has two sides. The delivering side generates batches (`flowcore.run.delivery`): in a thread of
its own, or, where the run has no threads, in steps taken by the consumer. The consumer's side asks
for batches, waits for them, and leaves.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import weakref
from collections.abc import Generator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final

from flowcore.batch import Batch
from flowcore.errors import Cancelled, PipelineError, RunInProgress, explain
from flowcore.executors.base import check_singletons
from flowcore.executors.serial import SerialExecutor
from flowcore.hookspecs import ExecutorStarted, RunEnded, RunStarted
from flowcore.plugins import hooks
from flowcore.recipe import Recipe
from flowcore.run.bookmark import Bookmark, Handed
from flowcore.run.claims import claim, release
from flowcore.run.compile import CompiledWork, compile_recipe
from flowcore.run.delivery import REQUEST, Delivery
from flowcore.run.outlets import Outlets
from flowcore.run.policy import Policy
from flowcore.run.regroup import Regroup
from flowcore.run.report import Report
from flowcore.run.settings import Settings, action_options, options_for
from flowcore.run.stalls import StallWatch
from flowcore.run.start import checked_recipe, plan_of
from flowcore.run.window import Window
from flowcore.sinks import Cancel, Sink, SinkRun
from flowcore.steps import RebatchStep, SinkStep

__all__ = ["Engine"]

_log = logging.getLogger("flowcore")

_END: Final = object()  # what the consumer finds after the last batch
_ENDED = "the data has ended; n_epochs=None has no end, and pipeline.reset() starts over"
_INSIDE = explain(
    "next was called while it makes a batch, by one of the run's own actions or a signal handler",
    next="let it note that it was called, and take the batch later",
)
_PATIENCE = 0.9  # seconds that `close` waits for the delivering thread, or for a step

# A signal that comes just before the main thread begins to wait does not end the wait, as it came
# too early for that: so no wait is longer than this many seconds, and a Ctrl-C is seen after it.
_SLICE = 0.25

_live: weakref.WeakSet[Engine] = weakref.WeakSet()  # those that have started, for the exit

# Those that have workers and no delivering thread, which would hold them: so that none is garbage
# before what a user holds of it has left it.
_held: set[Engine] = set()


class Engine:
    """One run of a recipe.

    Any thread may call any method.

    Args:
        recipe: with a source.
        settings: the arguments of the run.
        hands_over: each batch goes to a consumer, who asks for it with `next`.
        feed: run in the background whatever the prefetch.

    Attributes:
        plan: the batches of the run.
        bookmark: how far it is.
        report: what has happened so far.
        error: what the run failed of.
        ended: set when the delivering side is through.
        complete: whether it went to the end of the data.

    Raises:
        PipelineError: a recipe, or arguments, that cannot be right.
    """

    def __init__(
        self, recipe: Recipe, settings: Settings, *, hands_over: bool = True, feed: bool = False
    ) -> None:
        self._given = recipe
        self._recipe = checked_recipe(settings.sink_steps(recipe), settings)
        self._settings = settings
        self._hands_over, self._feed = hands_over, feed
        num_workers, self._prefetch = settings.workers()
        self._inline = self._prefetch == 0 and not feed  # it has no thread at all
        own = None if self._prefetch else SerialExecutor()  # which runs a task where it is called
        self._call = None if own is None else own.call
        self._executor = settings.make_executor(num_workers) if own is None else own
        sinks = [step for step in self._recipe.steps if isinstance(step, SinkStep)]
        self._outlets = Outlets(sinks)
        self._watch = StallWatch(settings.stall_warning)
        # Where the run has no thread that watches, the waits that poll the token do.
        self._cancel = Cancel(self._watch.check if self._inline else None)
        self.plan = plan_of(settings, self._recipe)
        self.report = Report(
            seed=self.plan.seed,
            _read_results=self._outlets.results,
            _read_fingerprint=self._recipe.step_digests,
        )
        self.bookmark = Bookmark(settings, self._recipe, self.plan)
        # Where there are workers, and nothing is to be done between two steps of the consumer, it
        # takes them itself: there is one thread fewer to wake.
        self._stepped = self._inline or not (feed or sinks or self._goes_on_alone)
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self.complete = False
        self._started = self._finished = self._left = False
        self._told = False  # what it failed of was raised to the consumer
        self._work: CompiledWork | None = None
        self._stream: Generator[tuple[Batch | None, Handed], None, None] | None = (
            None  # of batches, by the delivery
        )
        self._stepping = False  # the consumer is in the delivering side
        self._late: BaseException | None = None  # what a sink's close failed of at the end
        self._traceback: TracebackType | None = None
        self._handed: SimpleQueue[Any] = SimpleQueue()  # from the delivering thread
        self._thread: threading.Thread | None = None
        # Held while the run starts, and by the consumer that steps a run without threads.
        # Reentrant: one of the run's own actions may close the run, or be where it is collected.
        self._turn = threading.RLock()
        self._starting = threading.RLock()  # held around it by those who start the run

    @property
    def has_started(self) -> bool:
        """Whether it has started, or was left before."""
        return self._started or self._left

    def resumed(self, state: Mapping[str, Any]) -> Engine:
        """Return an engine of the same run that goes on from a state, in place of this one."""
        settings = replace(self._settings, resume=state)
        return Engine(self._given, settings, hands_over=self._hands_over, feed=self._feed)

    # Starting

    def start(self) -> None:
        """Open the sinks and start the executor, in this thread; does nothing the second time."""
        with self._starting:  # who waits for it must not wait for the step that follows
            if not self._started and not self._left:
                with self._turn:
                    self._start()

    def _start(self) -> None:
        self._hook = hooks().hook
        if self.plan.batches == 0 and self._settings.resume and self.plan.start.epoch:
            _log.warning(
                "the run has nothing left: it goes on at the end of epoch %d, and n_epochs=%s "
                "counts the epochs that are through too",
                self.plan.start.epoch - 1,
                self.plan.n_epochs,
            )
        self.report.start()
        thread = threading.Thread(target=self._deliver, name="flowcore-deliver", daemon=True)
        try:
            self._open()
            _live.add(self)
            if self._stepped and not self._inline:
                _held.add(self)
            if self._cancel.is_set():  # closed by one of its sinks
                self._finish(Cancelled("the run was left while it started"))
            elif not self._inline:
                self._watch.start()
                if self._stepped:
                    self._window.fill(self._prefetch)
                else:
                    self._thread = thread  # before it runs: it may be through at once
                    thread.start()
        except BaseException as error:  # a Ctrl-C can come anywhere in here
            self._fail(error)
            self._cancel.set()
            if self._stream is None:
                self._conclude(error)
            elif thread.ident is None:
                self._thread = None
                self._finish(error)
            else:
                _join(thread)
            raise
        finally:
            self._started = True  # only now: until then the other consumers wait for the turn

    def _open(self) -> None:
        self._hook.flowcore_run_started(
            event=RunStarted(
                recipe=str(self._recipe),
                batch_size=self._settings.batch_size,
                seed=self.plan.seed,
                batches=self.plan.batches,
            )
        )
        with ExitStack() as undo:  # what was begun, if something after it fails
            self._outlets.open(self._sink_run, self._cancel)
            undo.push(self._close_outlets)
            options = action_options(self._recipe, self._settings.plugin_options)
            sinks = list(self._outlets.sinks.values())
            work = compile_recipe(
                self._recipe,
                sinks,
                options,
                self._settings.variables,
                window=max(1, min(self._prefetch + 1, self.plan.batches or self._prefetch + 1)),
            )
            undo.callback(work.close)
            check_singletons(work, self._executor.processes)
            self._work = work
            claim(self._executor, self._cancel)
            undo.callback(release, self._executor)
            self._executor.start(work)
            undo.callback(self._executor.close)
            self._hook.flowcore_executor_started(
                event=ExecutorStarted(
                    name=type(self._executor).__name__, num_workers=self._executor.num_workers
                )
            )
            self._delivery = self._make_delivery(options)
            self._window = Window(
                self._executor,
                iter(self.plan),
                self.plan.batches,
                ordered=bool(self._settings.ordered),
                notify=self._delivery.messages.put,
                stages=1 if self._rebatch is None else 2,
                keep=self._hands_over or self._is_observed,
            )
            self._stream = self._finishing(work)
            # Not where nobody waits for a message: the token, which all of the process can reach
            # while the executor is claimed, would lead to the run, and nobody could collect it.
            if not self._inline:
                self._waking = self._cancel.on_set(self._delivery.wake)
                undo.enter_context(self._waking)
            undo.pop_all()

    def _make_delivery(self, options: Mapping[str, Any]) -> Delivery:
        assert self._recipe.source is not None
        policy = Policy(
            settings=self._settings,
            plan=self.plan,
            index=self._recipe.source.index,
            report=self.report,
            hook=self._hook,
            options=options,
            rebatched=self._rebatch is not None,
        )
        return Delivery(
            settings=self._settings,
            plan=self.plan,
            policy=policy,
            regroup=None if self._rebatch is None else Regroup(self._rebatch, self.plan),
            outlets=self._outlets,
            report=self.report,
            cancel=self._cancel,
            watch=self._watch,
            hook=self._hook,
            prefetch=self._prefetch,
            hands_over=self._hands_over,
            call=self._call,
        )

    @property
    def _is_observed(self) -> bool:
        return bool(self._hook.flowcore_batch_delivered.get_hookimpls())

    @property
    def _goes_on_alone(self) -> bool:
        """More may have to be begun while the consumer is busy than what it has asked for."""
        settings = self._settings
        again = settings.on_error != "raise" or bool(settings.retries)
        left_out = not self.bookmark.shape.exact
        return again or left_out or self._rebatch is not None or not self._executor.num_workers

    @property
    def _rebatch(self) -> RebatchStep | None:
        return next((step for step in self._recipe.steps if isinstance(step, RebatchStep)), None)

    def _close_outlets(self, _: object, error: BaseException | None, __: object) -> None:
        self._outlets.close(error)

    def _sink_run(self, name: str, sink: Sink) -> SinkRun:
        shape = self.bookmark.shape
        return SinkRun(
            options=options_for(sink.run_options, self._settings.plugin_options),
            batch_size=shape.batch_size,
            batches=shape.batches,
            items=shape.items,
            items_before=self.bookmark.items_before,
            batches_before=self.bookmark.batches_before,
            resumed=self._settings.resume is not None,
            prefetch=self._prefetch,
            feed=self._feed,
            hands_over=self._hands_over,
            inline=self._inline,
            name=name,
        )

    # The consumer's side

    def next(self) -> Batch:
        """Return the next batch, waiting for it; the first call starts the run.

        Raises:
            StopIteration: the data has ended, or the run was closed.
            Exception: what the run failed of; again in each call.
        """
        if not self._started:
            self.start()
        if self._left:
            if self._told:  # else it was left before the batch that failed
                self.raise_error()
            raise StopIteration
        try:
            return self._step() if self._stepped else self._receive()
        except (StopIteration, GeneratorExit, RunInProgress):
            raise
        except BaseException as error:
            self._left = self._told = True  # also if a Ctrl-C came when the end had been received
            if self.error is None:
                self._fail(error)
                self.close()
            raise

    def _step(self) -> Batch:
        """Have the delivering side make one step, in this thread."""
        alone = self._turn.acquire(blocking=False)
        if not alone:  # another consumer is taking a step: it can begin one more
            if not self._inline:
                self._delivery.messages.put(REQUEST)
            self._turn.acquire()
        try:
            if self._stepping:
                raise RunInProgress(_INSIDE)
            if self.error is not None:
                self.raise_error()
            if alone or self._inline:
                self._delivery.requests += 1
            return self._next_batch()
        finally:
            self._turn.release()

    def _next_batch(self) -> Batch:
        stream = self._stream
        assert stream is not None
        self._stepping = True
        try:
            batch, handed = next(stream)
            assert batch is not None  # as this run hands them over
        except Cancelled:
            self.raise_error()  # of another consumer, as a Ctrl-C
            raise StopIteration from None  # left by another thread, or by an action
        except StopIteration:
            raise StopIteration(_ENDED) from None
        finally:
            self._stepping = False
        if self._left:
            stream.close()
        self.bookmark.note(handed)
        return batch

    def _receive(self) -> Batch:
        """Ask the delivering thread for a batch, and wait for it."""
        if self._thread is not None:  # else it did not start
            self._delivery.messages.put(REQUEST)
        found = self._wait_handed()
        if found is _END:
            self._handed.put(_END)  # for the next call, in whatever thread
            self.raise_error()
            raise StopIteration(_ENDED)
        batch: Batch
        batch, handed = found
        with self._turn:  # several consumers may be handed batches at once
            self.bookmark.note(handed)
        return batch

    def _wait_handed(self) -> Any:
        while True:
            try:
                return self._handed.get(timeout=_SLICE)
            except Empty:
                continue

    def wait_ended(self, timeout: float | None = None) -> bool:
        """Wait until the delivering side is through; return whether it is."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.ended.is_set():
            left = _SLICE if end is None else min(_SLICE, end - time.monotonic())
            if left <= 0:
                break
            self.ended.wait(left)
        return self.ended.is_set()

    def to_the_end(self) -> None:
        """Run until the data ends; raise what the run failed of."""
        self.start()
        try:
            if self._stepped:
                with self._turn:
                    assert self._stream is not None
                    self._stepping = True
                    try:
                        for _, handed in self._stream:
                            self.bookmark.note(handed)
                            del _  # keeps no batch while the next is made
                    finally:
                        self._stepping = False
            else:
                self.wait_ended()
        except BaseException as error:
            if self.error is None:
                self._fail(error)
            self.close()
            raise
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what the run failed of, if it did."""
        if self.error is not None:
            self._told = True
            # With its first traceback: each raise would add to the one that it has.
            raise self.error.with_traceback(self._traceback)

    def close(self) -> None:
        """Leave the run: give up what waits, and let everything go. Does nothing at the end."""
        self._leave()
        # A start, or a step, that is being taken is not waited for longer than a thread would be:
        # the run is then left when it is over, or at its next look at the token.
        if self._turn.acquire(timeout=_PATIENCE):
            try:
                inside = self._stepping or self._finished or self._stream is None
                if self._stepped and self._started and not inside:
                    assert self._stream is not None
                    self._stream.close()
                    self._finish(Cancelled("the run was left before its first batch"))
            finally:
                self._turn.release()
        if self._thread is not None and self._thread is not threading.current_thread():
            _join(self._thread)
        self._drop_handed()

    def _drop_handed(self) -> None:
        """Let the batches go that nobody will take, though this object is kept."""
        with suppress(Empty):
            while True:
                self._handed.get_nowait()
        self._handed.put(_END)

    def abandon(self) -> None:
        """Leave the run as nobody holds it any more; called by the garbage collector.

        What a user holds of a run calls it when it is deleted. The threads of the run hold this
        engine, never that.
        """
        if self._inline:
            self.close()
            return
        self._leave()  # no join: the collector may be at work in any thread
        if self._stepped and self._started and not self._finished and not sys.is_finalizing():
            with suppress(RuntimeError):  # no more threads to be had
                threading.Thread(target=self.close, name="flowcore-close", daemon=True).start()

    def _leave(self) -> None:
        """Tell all who wait for something of the run to give up."""
        self._left = True
        self._cancel.set()
        if self._work is not None:
            self._work.give_up()

    # The delivering side

    def _deliver(self) -> None:
        """Be the delivering thread."""
        try:
            assert self._stream is not None
            for handed in self._stream:
                if self._hands_over:
                    self._handed.put(handed)
                else:
                    self.bookmark.note(handed[1])
                del handed
        except BaseException as error:
            # `_finishing` has kept it for the consumer, unless the run was being left.
            if not isinstance(error, Cancelled) and self.error is None:
                self._fail(error)
        finally:
            self._handed.put(_END)

    def _finishing(self, work: CompiledWork) -> Generator[tuple[Batch | None, Handed], None, None]:
        """Generate the batches, and finish the run exactly once, however it ends."""
        try:
            window = self._window
            for handed in self._delivery.batches(window, work):
                if window.submitted == window.total and self._delivery.over:
                    self._finish(None)  # at once: whoever takes from the sinks waits for the end
                yield handed
                del handed
        except GeneratorExit:
            self._finish(Cancelled("the run was left before its end"))
            raise
        except BaseException as error:
            if isinstance(error, Cancelled) and not self._cancel.is_set():
                stray = _stray(error)
                self._finish(stray)
                raise stray from error
            self._finish(error)
            raise
        self._finish(None)
        if self._late is not None:
            raise self._late

    def _finish(self, error: BaseException | None) -> None:
        if self._finished:
            return
        self._finished = True
        if error is not None and not isinstance(error, Cancelled):
            self._fail(error)
        self._watch.end()
        self.complete = error is None
        try:
            try:
                try:
                    if self._work is not None:
                        self._work.close()  # first: workers may be waiting for what it gives up
                finally:
                    self._executor.close()  # though a second Ctrl-C ends that wait
            except Exception:
                _log.exception("the executor %r failed to close", self._executor)
            finally:
                release(self._executor)
                self._window.clear()
                if not self._inline:
                    self._waking.__exit__(None, None, None)
            problem = self._outlets.close(error)
            self._delivery.end()
            if error is None and problem is not None:
                self._late = error = problem
                self._fail(problem)
        finally:
            self._conclude(error)  # whatever happened: somebody may wait for the end

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self._traceback = error.__traceback__
            self.error = error

    def _conclude(self, error: BaseException | None) -> None:
        """Tell everyone that the run is over."""
        self._finished = True  # also where it did not start
        _held.discard(self)
        self._watch.stop()
        self.report.end(error)
        if error is None and self.report.skipped and not self.report.batches:
            _log.warning(
                "all batches of the run were skipped; the first of %d: %s",
                len(self.report.skipped),
                self.report.skipped[0],
            )
        try:
            self._hook.flowcore_run_ended(
                event=RunEnded(
                    error=error,
                    batches=self.report.batches,
                    items=self.report.items,
                    seconds=self.report.seconds,
                )
            )
        except Exception:
            _log.exception("a hook plugin failed in flowcore_run_ended")
        self.ended.set()
        if self._thread is None:
            self._handed.put(_END)


def _join(thread: threading.Thread) -> None:
    with suppress(RuntimeError):  # a Ctrl-C came while it was started, and it does not know yet
        thread.join(_PATIENCE)


def _stray(error: Cancelled) -> PipelineError:
    """Return an error in place of one that would say that the run is being left."""
    return PipelineError(
        explain(
            f"something in the run raised {error!r}, and the run is not being left",
            why="it may be of another run, or of a sink that was not told to give up",
            next="let a hook, a shuffle or a sink raise Cancelled only when its token is set",
        )
    )


@atexit.register
def _leave_all() -> None:
    """Leave the runs that are not over: they must not run into the interpreter's end."""
    for engine in list(_live):
        engine._leave()  # all at once: each may then have to be waited for
    for engine in list(_live):
        try:
            engine.close()
        except Exception:
            _log.exception("a run failed to end with the program")
