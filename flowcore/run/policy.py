"""What becomes of a batch that failed: made again, left out, or raised; and what is said of it."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flowcore.batch import first_ids
from flowcore.errors import OptionError, PipelineError, WorkerLost, explain
from flowcore.executors.base import REFUSED, SENDING, Task
from flowcore.hookspecs import BatchFailed
from flowcore.ids import id_array
from flowcore.items import Dropped
from flowcore.run.plan import Plan
from flowcore.run.report import Report, Trouble
from flowcore.sampler import InOrder, Reordered, Shuffled

if TYPE_CHECKING:
    from flowcore.index import Index
    from flowcore.run.attempt import Attempt
    from flowcore.run.settings import Settings

__all__ = ["FATAL", "Policy", "called", "check_policy"]

#: Steps whose failure is not that of one batch, so no batch can be skipped to go on.
FATAL = ("shuffle", SENDING, REFUSED)

_SUSPENDS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

_DECISIONS = ("raise", "retry", "skip", "skip_items")


def check_policy(on_error: Any, backoff: Any, retry_on: Any, max_errors: Any) -> None:
    """Refuse options of the error policy that cannot be right.

    Raises:
        OptionError: likewise.
    """
    if on_error not in ("raise", "skip", "skip_items") and not callable(on_error):
        raise OptionError(
            explain(
                f"on_error must be 'raise', 'skip', 'skip_items' or a function, got {on_error!r}",
                next="a function is given a BatchFailed, and returns one of these, or 'retry'",
            )
        )
    if (
        isinstance(backoff, bool)
        or not isinstance(backoff, (int, float))
        or not (0 <= backoff < math.inf)
    ):
        raise OptionError(f"backoff must be seconds, at least 0, got {backoff!r}")
    classes = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
        raise OptionError(
            f"retry_on must be an exception class, or a tuple of some, got {retry_on!r:.80}"
        )
    if max_errors is not None and not _is_limit(max_errors):
        raise OptionError(
            explain(
                f"max_errors must be a count, or a share below 1, got {max_errors!r}",
                next="max_errors=10 allows ten in a run, max_errors=0.01 one in a hundred batches",
            )
        )


def _is_limit(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value >= 0 if isinstance(value, int) else 0 <= value < 1


class Policy:
    """Decides about failures of one run, and notes them in its report.

    Used by the delivering thread alone.

    Args:
        settings: of the run.
        plan: of the run.
        index: of its source.
        report: of the run.
        hook: the hooks.
        options: those of the run that its action packs declare.
        rebatched: batches are cut anew on the way.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        plan: Plan,
        index: Index,
        report: Report,
        hook: Any,
        options: Mapping[str, Any],
        rebatched: bool = False,
    ) -> None:
        self._rebatched = rebatched
        self._settings, self._plan, self._index = settings, plan, index
        self._report, self._hook, self._options = report, hook, options
        self._judged = bool(hook.flowcore_batch_failed.get_hookimpls())
        self._errors: dict[int, int] = {}  # by epoch; or all under -1, for a limit that is a count

    def decide(self, attempt: Attempt, error: BaseException, step: str) -> str:
        """Return what becomes of an attempt that failed: one of the four decisions.

        Raises:
            BaseException: what the user's function, or a hook, raised.
        """
        if isinstance(error, KeyboardInterrupt) or step in FATAL:
            return "raise"
        settings = self._settings
        again = attempt.failures <= settings.retries and isinstance(error, settings.retry_on)
        chosen: Any = "retry" if again else settings.on_error
        if not self._judged and not callable(chosen):
            return str(chosen)
        task = attempt.task
        event = BatchFailed(
            epoch=task.epoch,
            number=task.number,
            ids=self.ids(task),
            action=step,
            error=error,
            attempts=attempt.failures,
            retries=settings.retries,
            planned="raise" if callable(chosen) else chosen,
        )
        try:
            if callable(chosen):
                chosen = _decided(chosen(event), "on_error") or "raise"
            if self._judged:
                by_hook = self._hook.flowcore_batch_failed(event=event)
                chosen = _decided(by_hook, "a hook plugin's flowcore_batch_failed") or chosen
        except BaseException as raised:
            raised.__context__ = raised.__context__ or error
            raise
        return str(chosen)

    def delay(self, attempt: Attempt) -> float:
        """Return the seconds to wait before an attempt is made again: twice as long each time."""
        return float(self._settings.backoff * 2.0 ** min(attempt.failures - 1, 60))

    def ids(self, task: Task) -> Any:
        """Return the ids of a task's items."""
        return self._index.ids(task.positions)

    def trouble(self, task: Task, error: BaseException, step: str) -> Trouble:
        """Return what the report says of a batch that failed."""
        # The report keeps the error, and must not keep the batch with the frames of its traceback.
        _forget_frames(error)
        return Trouble(task.epoch, task.number, self.ids(task), step, error)

    def skipped(self, task: Task, trouble: Trouble) -> None:
        """Note a batch that is left out.

        Raises:
            Exception: its error, if there are too many.
        """
        self._report.skipped.append(trouble)
        self._count(task, trouble)

    def dropped(self, task: Task, dropped: tuple[Dropped, ...]) -> None:
        """Note items that are left out of a batch.

        Raises:
            Exception: the error of one of them, if there are too many.
        """
        for item in dropped:
            _forget_frames(item.error)
            # By its id: the position may be that of another side of a join, or of a part.
            ids = id_array([item.id])
            trouble = Trouble(task.epoch, task.number, ids, item.action, item.error)
            self._report.skipped_items.append(trouble)
            self._count(task, trouble)

    def _count(self, task: Task, trouble: Trouble) -> None:
        limit = self._settings.max_errors
        if limit is None:
            return
        share = isinstance(limit, float)
        key = task.epoch if share else -1
        count = self._errors[key] = self._errors.get(key, 0) + 1
        if count > (limit * self._plan.rounds() if share else limit):
            self.note(trouble.error, task, trouble.action)
            of = f" of the {self._plan.rounds():,} batches of epoch {task.epoch}" if share else ""
            trouble.error.add_note(
                f"flowcore: raised as it is error {count}{of}, and max_errors={limit}"
            )
            raise trouble.error

    def note(self, error: BaseException, task: Task, step: str) -> None:
        """Say on a user's exception where it was raised, and how to see it again."""
        if step in FATAL:
            return
        call = f"pipeline.batch({task.number}, epoch={task.epoch}, {self._arguments(task)})"
        if self._rebatched and not task.stage:  # batches are numbered anew behind the rebatch
            call = (
                f"next(pipeline.gen_batch({self._arguments(task)}, n_epochs={task.epoch + 1}, "
                f"resume={{'epoch': {task.epoch}, 'batch': {task.number}}}))"
            )
        again = "make it again here"
        if step.startswith("prepare"):
            again = "see what the sink was given"  # the batch itself is made without an error
        error.add_note(
            explain(
                f"flowcore: in {step!r} of {called(task)}, ids {first_ids(self.ids(task))}",
                # Here, what has ended a worker would end the program.
                next=None if isinstance(error, WorkerLost) else f"{again}: {call}",
            )
        )

    def _arguments(self, task: Task) -> str:
        sampler = self._plan.sampler
        order = f"sampler={sampler}"
        if isinstance(sampler, (InOrder, Shuffled, Reordered)):
            order = f"shuffle={sampler if isinstance(sampler, Reordered) else _shuffles(sampler)}"
        elif not self._settings.sampler:  # a mixture has its own
            order = f"shuffle={self._settings.shuffle is not False}"
        parts = [f"batch_size={self._plan.batch_size}", order, f"seed={task.seed}"]
        if self._settings.variables:
            parts.append(f"variables={dict(self._settings.variables)!r:.80}")
        return ", ".join(
            [*parts, *(f"{name}={value!r:.40}" for name, value in self._options.items())]
        )


def _shuffles(sampler: InOrder | Shuffled) -> bool:
    return isinstance(sampler, Shuffled)


def _decided(decision: Any, by: str) -> str | None:
    if decision is None or decision in _DECISIONS:
        return None if decision is None else str(decision)
    raise PipelineError(
        explain(
            f"{by} returned {decision!r}",
            next="return 'raise', 'retry', 'skip', 'skip_items', or None to leave it to others",
        )
    )


def _forget_frames(error: BaseException) -> None:
    """Clear what the frames of a traceback hold, and those that they were called from.

    An item's traceback begins below the frames of its batch's actions, which hold the batch.
    """
    for link in _chain(error):
        trace = link.__traceback__
        traceback.clear_frames(trace)
        frame = None if trace is None else trace.tb_frame.f_back
        while frame is not None and not frame.f_code.co_flags & _SUSPENDS:
            try:
                frame.clear()
            except RuntimeError:  # it runs, as do those that it was called from
                break
            frame = frame.f_back


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
