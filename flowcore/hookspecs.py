"""The hooks that an observer or policy plugin implements: of the run, its workers, its batches.

A plugin names a module, an object or a class in the entry-point group ``flowcore.hooks`` and marks
its functions with `hookimpl`. All of them are found, and imported, when the first run starts; one
that fails to import is left out with a warning. An implementation may name fewer arguments than the
specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pluggy

from flowcore.batch import Batch

__all__ = [
    "BatchDelivered",
    "BatchFailed",
    "Decision",
    "ExecutorStarted",
    "RunEnded",
    "RunStarted",
    "WorkerLostEvent",
    "WrappedAction",
    "hookimpl",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_hookspec = pluggy.HookspecMarker("flowcore")
hookimpl = pluggy.HookimplMarker("flowcore")

Decision = Literal["raise", "retry", "skip", "skip_items"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run starts: its recipe as text, and what it was asked for.

    ``batches`` is the number of batches it will make, ``None`` if it has no end.
    """

    recipe: str
    batch_size: int
    seed: int
    batches: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedAction:
    """One action step of a recipe, about to be compiled: its name and its place, from zero."""

    name: str
    step: int
    function: Callable[..., Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorStarted:
    """An executor is ready: its class's name, and how many tasks it runs at once (0: inline)."""

    name: str
    num_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDelivered:
    """A batch's items are put; it is about to be handed to the consumer."""

    epoch: int
    number: int
    items: int
    batch: Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFailed:
    """An attempt at a batch raised ``error``, in the step called ``action``.

    ``attempts`` counts this one too; ``retries`` is the run's option, ``planned`` what the
    run's own options say should become of the batch. Where ``on_error`` is a function, it is given
    this, with ``"raise"`` as planned, before the hooks are.
    """

    epoch: int
    number: int
    ids: Sequence[Any]
    action: str
    error: BaseException
    attempts: int
    retries: int
    planned: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLostEvent:
    """The worker that was on a batch died; the batch will be run again unless ``final``."""

    epoch: int
    number: int
    error: BaseException
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run is over: ``error`` is ``None`` at the end of the data, `Cancelled` if it was left."""

    error: BaseException | None
    batches: int
    items: int
    seconds: float


class _Specs:
    """The specifications; pluggy reads their names and arguments."""

    @_hookspec
    def flowcore_run_started(self, event: RunStarted) -> None:
        """Look at a run that starts.

        When: once a run, before its sinks are opened. Where: the thread that starts the run.
        Raises: whatever it raises ends the run before it starts.
        """

    @_hookspec
    def flowcore_wrap_action(self, event: WrappedAction) -> Callable[..., Batch] | None:
        """Return a function to call in place of ``event.function``, or ``None`` to leave it.

        When: once a run for each action step. Where: the thread that starts the run. With several
        plugins each wraps what the one before it returned, the last registered first. What it
        returns is called as ``function(batch, *args, **kwargs)`` in the workers, so it must be
        picklable for executors whose workers are other processes.
        Raises: whatever it raises ends the run before its first task.
        """

    @_hookspec
    def flowcore_executor_started(self, event: ExecutorStarted) -> None:
        """Look at an executor that is ready for its first task.

        When: once a run; workers may have started before. Where: the thread that starts the run.
        Raises: whatever it raises ends the run before its first task.
        """

    @_hookspec
    def flowcore_worker_started(self, name: str) -> None:
        """Set a worker up.

        When: before the worker's first task; not for a pool that the user made. Where: the thread
        that makes batches, in the worker; with ``prefetch=0`` the calling thread is the worker.
        Raises: whatever it raises is the error of the tasks given to that worker.
        """

    @_hookspec
    def flowcore_worker_ended(self, name: str) -> None:
        """Tear a worker down; the counterpart of ``flowcore_worker_started``.

        When: after the worker's last task, also on a failed or left run. Where: the worker.
        Raises: whatever it raises is logged, and changes nothing.
        """

    @_hookspec(firstresult=True)
    def flowcore_batch_failed(self, event: BatchFailed) -> Decision | None:
        """Decide what becomes of a batch whose action or ``prepare`` raised.

        When: each time an attempt raised, before anything of the batch is delivered.
        Where: the delivering thread; keep it short.
        Returns: the decision; ``None`` leaves it to the next plugin, and at last to ``planned``.
        Raises: whatever it raises replaces the batch's error, with that error as its context.
        """

    @_hookspec
    def flowcore_worker_lost(self, event: WorkerLostEvent) -> None:
        """Look at a batch whose worker died.

        When: each time. Where: the delivering thread. Raises: whatever it raises fails the run.
        """

    @_hookspec
    def flowcore_batch_delivered(self, event: BatchDelivered) -> None:
        """Look at a batch whose items have just been put.

        When: in delivery order. Where: the delivering thread; the run waits for it.
        Raises: whatever it raises fails the run.
        """

    @_hookspec
    def flowcore_run_ended(self, event: RunEnded) -> None:
        """Look at a run that is over, however it ended; its sinks are closed.

        When: once for each ``flowcore_run_started``, the last of its calls. Where: the delivering
        thread; that which started the run, if it could not start.
        Raises: whatever it raises is logged, and changes nothing.
        """


def hook_manager() -> pluggy.PluginManager:
    """Return a plugin manager that knows the hooks and has no plugin registered."""
    manager = pluggy.PluginManager("flowcore")
    manager.add_hookspecs(_Specs)
    return manager
