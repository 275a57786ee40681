"""What a user holds of a run: `Run`, an iterator of batches; `Feed`, a run in the background."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from flowcore.batch import Batch
from flowcore.errors import PipelineError, explain
from flowcore.recipe import Recipe
from flowcore.run.engine import Engine
from flowcore.run.report import Report
from flowcore.run.settings import Settings
from flowcore.run.state import read_state

__all__ = ["Feed", "Run"]


class Run:
    """One run of a pipeline: an iterator of batches, and a context manager that closes it.

    It starts at the first ``next``, in the thread that calls it: sinks are opened there. Several
    threads may call ``next``. It is closed too when it is exhausted, when it fails, and when it is
    garbage-collected.
    """

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        self._engine = Engine(recipe, settings)

    def __del__(self) -> None:
        _abandon(self)

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> Batch:
        return self._engine.next()

    def __bool__(self) -> bool:
        return True  # not by len(), which a run without an end does not have

    def __len__(self) -> int:
        """Return the number of batches of the whole run, from where it starts.

        With shards it is the number of this one, fillers and stand-ins included.

        Raises:
            TypeError: the run has no end (``n_epochs=None``), or filters.
        """
        return self._engine.bookmark.count()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Run: {self.report.batches} batches delivered, seed {self.seed}>"

    @property
    def seed(self) -> int:
        """The seed of the run: as given, or as drawn when the run was made."""
        return self._engine.plan.seed

    @property
    def report(self) -> Report:
        """What has happened so far."""
        return self._engine.report

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is, as small JSON: ``resume=`` of a later run goes on from there.

        It counts the batches that were handed over, and those skipped before them, whatever is in
        progress. Of several shards, all have the same state after as many batches, apart from the
        number of items; with gaps in it, behind a ``rebatch``, or with ``uneven="short"``, it is of
        its own shard alone.
        """
        return self._engine.bookmark.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, as ``resume=state`` does. The run must not have started.

        Raises:
            StateError: the state is of another run; it says what differs first.
            PipelineError: this run has started.
        """
        if self._engine.has_started:
            raise PipelineError(
                explain(
                    "this run has started, and cannot go on from another place",
                    next="make a new one: pipeline.gen_batch(..., resume=state)",
                )
            )
        read_state(state)
        self._engine = self._engine.resumed(state)

    def start(self) -> None:
        """Start the run now, in this thread, rather than at the first ``next``."""
        self._engine.start()

    def close(self) -> None:
        """Leave the run. What is in progress is given up; ``next`` raises `StopIteration`."""
        self._engine.close()


class Feed:
    """A run that fills its sinks in the background, inside of a ``with`` block.

    It starts when the block is entered. At the end of the data, and on a failure, the sinks are
    closed, so that their consumer is told there. When the block is left the run is closed, and
    its error, if it failed, is raised, with the block's own error as the context.
    """

    def __init__(self, recipe: Recipe, settings: Settings) -> None:
        self._engine = Engine(recipe, settings, hands_over=False, feed=True)
        self._entered = False

    def __del__(self) -> None:
        _abandon(self)

    def __enter__(self) -> Feed:
        if self._entered:
            raise PipelineError("a feed can be entered once; make another with pipeline.feed(...)")
        self._entered = True
        self._engine.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._engine.close()
        error = self._engine.error
        if error is None or (raised is not None and _leads_to(raised, error)):
            return
        if raised is None or isinstance(raised, Exception):
            if raised is not None:
                _last(error).__context__ = raised
            context = error.__context__
            try:
                self._engine.raise_error()
            finally:
                error.__context__ = context  # raising here would put the block's error in its place

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all is put; return whether it is.

        Args:
            timeout: seconds; ``None`` waits until the run is over. One that was left before the end
                of the data is over, and not all is put.

        Raises:
            Exception: what the run failed of.
        """
        self._check_entered()
        ended = self._engine.wait_ended(timeout)
        if ended:
            self._engine.raise_error()
        return ended and self._engine.complete

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is, as small JSON; it counts what was put, taken or not."""
        return self._engine.bookmark.state()

    def __repr__(self) -> str:
        return f"<Feed: {self.report.batches} batches put, seed {self.report.seed}>"

    def _check_entered(self) -> None:
        if not self._entered:
            raise PipelineError("the feed has not started: use it as `with pipeline.feed(...):`")

    @property
    def report(self) -> Report:
        """What has happened so far."""
        return self._engine.report

    @property
    def results(self) -> dict[str, Any]:
        """What each sink says is its result, by the sink's name."""
        self._check_entered()
        return self._engine.report.results


def _abandon(handle: Run | Feed) -> None:
    engine = getattr(handle, "_engine", None)  # not there if the arguments were refused
    if engine is not None:
        engine.abandon()


def _leads_to(raised: BaseException, error: BaseException) -> bool:
    """Return whether ``raised`` is ``error``, or was raised because or in the handling of it."""
    seen: set[int] = set()
    link: BaseException | None = raised
    while link is not None and link is not error and id(link) not in seen:
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return link is error


def _last(error: BaseException) -> BaseException:
    """Return the first of the errors in whose handling one after the other was raised."""
    seen = {id(error)}
    while error.__context__ is not None and id(error.__context__) not in seen:
        error = error.__context__
        seen.add(id(error))
    return error
