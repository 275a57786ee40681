"""The sinks of one run, and the warning when one of them, or a task, stands still."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from flowcore.errors import Cancelled, OptionError, RunInProgress, explain
from flowcore.recipe import SinkStep
from flowcore.sinks import Cancel, Sink, SinkRun

__all__ = ["Outlets", "StallWatch"]

_log = logging.getLogger("flowcore")

_lock = threading.Lock()  # runs start in several threads
_given: set[int] = set()  # ids of the sink objects that are open because a run was given them


class Outlets:
    """The sinks of one run, each under the name that it has in the results.

    All but `results` is called from one thread at a time; `results` from any.
    """

    def __init__(self, steps: Iterable[SinkStep]) -> None:
        self._steps: dict[str, SinkStep] = {}
        for step in steps:
            name, count = step.name, 1
            while name in self._steps:
                count += 1
                name = f"{step.name}-{count}"
            self._steps[name] = step
        self.sinks: dict[str, Sink] = {}

    def open(self, describe: Callable[[str, Sink], SinkRun]) -> None:
        """Open all; if one refuses, close those that are open and raise what it raised."""
        try:
            for name, step in self._steps.items():
                sink = self._taken(step) if step.given else copy.copy(step.sink)
                run = describe(name, sink)
                try:
                    sink.open(run)
                except BaseException:
                    self._release(sink)
                    raise
                self.sinks[name] = sink
                if run.hands_over and run.prefetch < sink.lookahead - 1:
                    raise OptionError(_too_short(name, sink.lookahead, run.prefetch))
        except BaseException as error:
            self.close(error)
            raise

    def close(self, error: BaseException | None) -> BaseException | None:
        """Close all, and return the first error of those that fail to."""
        first: BaseException | None = None
        for name, sink in self.sinks.items():
            try:
                sink.close(error)
            except BaseException as problem:
                if error is not None and not isinstance(error, Cancelled):
                    _log.warning("sink %r failed to close after an error", name, exc_info=True)
                problem.add_note(f"flowcore: while sink {name!r} was closed")
                first = first or problem
            self._release(sink)
        return first

    def results(self) -> dict[str, Any]:
        """Return each sink's result."""
        return {name: sink.result for name, sink in list(self.sinks.items())}

    @staticmethod
    def _taken(step: SinkStep) -> Sink:
        with _lock:
            if id(step.sink) in _given:
                raise RunInProgress(
                    explain(
                        f"this {type(step.sink).__name__} object is open in another run",
                        next="give each run a sink of its own, or write the sink into the pipeline",
                    )
                )
            _given.add(id(step.sink))
        return step.sink

    @staticmethod
    def _release(sink: Sink) -> None:
        with _lock:
            _given.discard(id(sink))


def _too_short(name: str, lookahead: int, prefetch: int) -> str:
    return explain(
        f"sink {name!r} gives out its first item only when {lookahead} are in, "
        f"and this run puts at most {prefetch + 1} before the first is taken",
        where="at the start of the run",
        why=f"prefetch={prefetch}",
        next=f"prefetch={lookahead - 1} or more, or fill it in the background: "
        "with pipeline.feed(...)",
    )


class StallWatch:
    """Says once that a put, or a task, has not come to its end for ``seconds``.

    The delivering thread says what it waits for; ``check`` is called by a thread of its own, or
    where the run has none, by waits that poll their cancel token.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        # (since, what it says when it takes too long); replaced whole by the delivering thread.
        self._now: tuple[float, Callable[[], str]] | None = None
        self._warned: object = None
        self._stop = threading.Event()

    def begin(self, describe: Callable[[], str]) -> None:
        """Note that the delivering thread starts to wait."""
        self._now = (time.monotonic(), describe)

    def end(self) -> None:
        """Note that it goes on."""
        self._now = None

    def check(self) -> None:
        """Warn if it has waited too long, once for each wait."""
        now = self._now
        if self._seconds is None or now is None or now is self._warned:
            return
        since, describe = now
        waited = time.monotonic() - since
        if waited >= self._seconds:
            self._warned = now
            _log.warning("flowcore has waited %.0f s for %s", waited, describe())

    def start(self) -> None:
        """Check in a thread of its own until `stop`."""
        if self._seconds is not None:
            threading.Thread(target=self._watch, name="flowcore-watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _watch(self) -> None:
        assert self._seconds is not None
        while not self._stop.wait(self._seconds / 5):
            self.check()


def put_all(
    outlets: Outlets, items: tuple[Any, ...], cancel: Cancel, watch: StallWatch, batch: str
) -> None:
    """Put one batch's items, each into its sink, in the order of the recipe."""
    for (name, sink), item in zip(outlets.sinks.items(), items, strict=True):
        watch.begin(lambda name=name: _full(name, batch))  # type: ignore[misc]
        try:
            sink.put(item, cancel)
        except Cancelled:
            raise
        except BaseException as error:
            error.add_note(f"flowcore: in put of sink {name!r}, {batch}")
            raise
        finally:
            watch.end()


def _full(name: str, batch: str) -> str:
    return explain(
        f"sink {name!r} to take {batch}",
        why="it is full, and nobody takes from it",
        next="take one item for each batch, give it more capacity, or look whether its consumer "
        "is still there; stall_warning= sets the seconds",
    )
