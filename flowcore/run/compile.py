"""Compiles a recipe to a flat list of bound calls, once a run.

What comes out holds no pipeline, run or executor, only functions and arguments, so it can be sent
to a worker in another process.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any, TypeAlias

from flowcore.batch import Batch, action_mark
from flowcore.errors import ActionError, Cancelled, PipelineError, explain
from flowcore.executors.base import Outcome, Task
from flowcore.hookspecs import WrappedAction
from flowcore.plugins import hooks
from flowcore.recipe import ActionStep, Recipe, Source
from flowcore.sinks import Sink

__all__ = ["CompiledWork", "compile_recipe"]

_log = logging.getLogger("flowcore")

# (name, function, args, kwargs); a function of None says that args[0] is the prepare of a sink.
Call: TypeAlias = "tuple[str, Callable[..., Any] | None, tuple[Any, ...], Mapping[str, Any]]"

# What would end the run, the consumer's loop or its program without a word if it were raised there.
_SILENT = (StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, Cancelled)


class CompiledWork:
    """A recipe made ready to run: task in, outcome out."""

    def __init__(
        self, source: Source, calls: tuple[Call, ...], options: Mapping[str, Any], hooked: bool
    ) -> None:
        self._source = source
        self._calls = calls
        self._options = options
        self._hooked = hooked
        # Of workers, by thread, whose set-up failed: what it failed of. Each writes its own key.
        self._unfit: dict[int, BaseException] = {}
        # The running tasks, each with its step and start, for the stall warning. Written by the
        # workers, each its own entry; read, without a lock, by the thread that watches.
        self._at: dict[int, list[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_at": {}, "_unfit": {}}

    def __call__(self, task: Task) -> Outcome:
        """Make the task's batch, and its item for each sink. Never raises."""
        name = "making the batch"
        items = []
        # By the entry and not by the task: one that was lost may still run beside its re-run.
        at = [task, name, time.monotonic()]
        self._at[id(at)] = at
        try:
            if self._unfit and get_ident() in self._unfit:
                name = "the set-up of a worker"
                raise self._unfit[get_ident()]
            batch = self._source.make(
                task.positions, number=task.number, epoch=task.epoch, seed=task.seed
            )
            if self._options:
                batch.options = self._options
            for name, function, args, kwargs in self._calls:
                at[1] = name
                if function is None:
                    items.append(args[0](batch))
                else:
                    made = function(batch, *args, **kwargs)
                    if made is not batch:
                        batch = _checked(made, batch, name, task)
                        batch.options = self._options
            return Outcome(batch, tuple(items))
        except _SILENT as error:
            return Outcome(error=_spoken(error, name), step=name)
        except BaseException as error:
            return Outcome(error=error, step=name)
        finally:
            del self._at[id(at)]

    def running(self) -> list[tuple[Task, str, float]]:
        """Return the tasks that run in this process, each with its step and when it began."""
        return [(task, step, since) for task, step, since in list(self._at.values())]

    @contextmanager
    def worker(self, name: str) -> Iterator[None]:
        """Call the hooks for a worker that starts and ends."""
        if not self._hooked:
            yield
            return
        hook = hooks().hook
        try:
            hook.flowcore_worker_started(name=name)
        except BaseException as error:
            self._unfit[get_ident()] = error
        try:
            yield
        finally:
            self._unfit.pop(get_ident(), None)
            try:
                hook.flowcore_worker_ended(name=name)
            except Exception:
                _log.exception("a hook plugin failed in flowcore_worker_ended of %s", name)


def compile_recipe(
    recipe: Recipe, source: Source, sinks: list[Sink], options: Mapping[str, Any]
) -> CompiledWork:
    """Resolve all that can be resolved once, so that a run looks nothing up per batch."""
    manager = hooks()
    wrappers = manager.hook.flowcore_wrap_action.get_hookimpls()
    workers = manager.hook.flowcore_worker_started, manager.hook.flowcore_worker_ended
    opened = iter(sinks)
    calls: list[Call] = []
    for at, step in enumerate(recipe.steps):
        if isinstance(step, ActionStep):
            function = step.function
            for wrapper in reversed(wrappers):
                if wrapper.wrapper or wrapper.hookwrapper:
                    raise PipelineError(
                        explain(
                            f"{wrapper.plugin_name}: flowcore_wrap_action cannot be a hook wrapper",
                            next="mark it with @hookimpl alone, and return a function",
                        )
                    )
                event = WrappedAction(name=step.name, step=at, function=function)
                wrapped: Any = wrapper.function(*([event] if wrapper.argnames else []))
                function = wrapped or function
            mark = action_mark(step.function)
            if mark is not None and mark.singleton:
                function = _Singly(function, step.function)
            calls.append((step.name, function, step.args, step.kwargs))
        else:
            calls.append((f"prepare of sink {step.name!r}", None, (next(opened).prepare,), {}))
    return CompiledWork(
        source, tuple(calls), options, any(hook.get_hookimpls() for hook in workers)
    )


class _Singly:
    """Calls a function while holding the lock of the action that it is, or wraps."""

    def __init__(self, function: Callable[..., Any], marked: Callable[..., Any]) -> None:
        self._function, self._marked = function, marked

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mark = action_mark(self._marked)
        assert mark is not None
        with mark.lock:  # the other holders: this action in other workers, and in other runs
            return self._function(*args, **kwargs)


def _checked(made: Any, batch: Batch, name: str, task: Task) -> Batch:
    if isinstance(made, Batch):
        made.number, made.epoch, made._seed = task.number, task.epoch, task.seed
        made._rng = batch._rng  # else it would draw again what its actions have drawn
        return made
    raise ActionError(
        explain(
            f"action {name!r} returned {made if made is None else type(made).__name__}, "
            "not a batch",
            next="an action is an ordinary function: without async, and without yield"
            if inspect.isawaitable(made) or inspect.isgenerator(made)
            else "end the action with: return self",
        )
    )


def _spoken(error: BaseException, name: str) -> ActionError:
    """Return an error that says what ``error``, raised as it is, would hide."""
    spoken = ActionError(
        explain(
            f"{name!r} raised {error!r}",
            why="raised as it is, it would end the run, or the program, without a word",
            next="catch it in the action, or raise an error of another class",
        )
    )
    spoken.__cause__ = error
    return spoken
