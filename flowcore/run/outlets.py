"""The sinks of one run: opened together, put into in the order of the recipe, closed together."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from typing import Any

from flowcore.errors import Cancelled, OptionError, SinkError, explain
from flowcore.run.claims import claim, release
from flowcore.run.stalls import StallWatch
from flowcore.sinks import Cancel, Sink, SinkRun
from flowcore.steps import SinkStep

__all__ = ["Outlets"]

_log = logging.getLogger("flowcore")


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
        self._kept: dict[str, Any] | None = None  # the results, once the sinks are closed

    def open(self, describe: Callable[[str, Sink], SinkRun], cancel: Cancel) -> None:
        """Open all; if one refuses, close those that are open and raise what it raised."""
        try:
            for name, step in self._steps.items():
                if step.given:
                    claim(step.sink, cancel)
                    sink = step.sink
                else:
                    sink = copy.copy(step.sink)
                run = describe(name, sink)
                try:
                    sink.open(run)
                except BaseException:
                    release(sink)
                    raise
                self.sinks[name] = sink
                if run.hands_over and run.prefetch < sink.lookahead - 1:
                    raise OptionError(_too_short(name, sink.lookahead, run.prefetch))
        except BaseException as error:
            self.close(error)
            raise

    def put(self, items: tuple[Any, ...], cancel: Cancel, watch: StallWatch, batch: str) -> None:
        """Put one batch's items, each into its sink."""
        for (name, sink), item in zip(self.sinks.items(), items, strict=True):
            watch.begin((name, batch), lambda name=name: _full(name, batch))  # type: ignore[misc]
            try:
                sink.put(item, cancel)
            except Cancelled:
                raise
            except (StopIteration, GeneratorExit) as error:
                raise _unfit(name, batch, error) from error
            except BaseException as error:
                error.add_note(f"flowcore: in put of sink {name!r}, {batch}")
                raise
            finally:
                watch.end()

    def close(self, error: BaseException | None) -> BaseException | None:
        """Close all, and return the first error of those that fail to.

        After an error, or when the run is left, such an error is only logged; but a Ctrl-C is
        raised, after all are closed.
        """
        first: BaseException | None = None
        kept: dict[str, Any] = {}
        for name, sink in self.sinks.items():
            try:
                sink.close(error)
                kept[name] = sink.result  # now: a sink that was given may be opened again
            except BaseException as problem:
                problem.add_note(f"flowcore: while sink {name!r} was closed")
                if error is not None and isinstance(problem, Exception):
                    _log.warning("sink %r failed to close", name, exc_info=problem)
                first = first or problem
            finally:
                release(sink)
        self._kept = kept
        if error is not None and first is not None and not isinstance(first, Exception):
            raise first
        return first

    def results(self) -> dict[str, Any]:
        """Return each sink's result."""
        if self._kept is not None:
            return dict(self._kept)
        return {name: sink.result for name, sink in list(self.sinks.items())}


def _unfit(name: str, batch: str, error: BaseException) -> SinkError:
    """Return an error in place of one that stands for the end of an iteration."""
    return SinkError(explain(f"put of sink {name!r} raised {error!r}", where=batch))


def _too_short(name: str, lookahead: int, prefetch: int) -> str:
    return explain(
        f"sink {name!r} gives out its first item only when {lookahead} are in, "
        f"and this run puts at most {prefetch + 1} before the first is taken",
        where="at the start of the run",
        why=f"prefetch={prefetch}",
        next=f"prefetch={lookahead - 1} or more, or fill it in the background: "
        "with pipeline.feed(...)",
    )


def _full(name: str, batch: str) -> str:
    return explain(
        f"sink {name!r} to take {batch}",
        why="it is full, and nobody takes from it",
        next="take one item for each batch, give it more capacity, or look whether its consumer "
        "is still there; stall_warning= sets the seconds",
    )
