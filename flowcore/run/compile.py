"""Compiles a recipe to flat lists of bound calls, once a run, and runs tasks with them."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from flowcore.actions import action_mark
from flowcore.batch import Batch
from flowcore.crew import Crew
from flowcore.errors import ActionError, Cancelled, PipelineError, explain
from flowcore.executors.base import Outcome, Running, Task
from flowcore.hookspecs import WrappedAction
from flowcore.items import Emptied, Making
from flowcore.memory import Allocate, Recycler
from flowcore.plugins import hooks
from flowcore.recipe import Mixture, Recipe
from flowcore.run.merge import concatenated, piece
from flowcore.run.program import (
    Call,
    Filter,
    Join,
    Mixed,
    Prepare,
    Program,
    Repeat,
    Resolving,
    Singly,
    When,
    branch_seed,
    run_calls,
)
from flowcore.sinks import Sink
from flowcore.steps import (
    ActionStep,
    FilterStep,
    JoinStep,
    RebatchStep,
    RepeatStep,
    SinkStep,
    Step,
    WhenStep,
)
from flowcore.values import holds_value

__all__ = ["CompiledWork", "compile_recipe"]

_BEGIN = "making the batch"  # the step before the first

_log = logging.getLogger("flowcore")

# What would end the run, the consumer's loop or its program without a word if it were raised there.
_SILENT = (StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, Cancelled)


class CompiledWork:
    """A recipe made ready to run: task in, outcome out.

    Args:
        program: the source of the batches.
        stages: the calls up to the first `rebatch`, those up to the next, and so on.
        options: of the run, as its action packs declare them.
        variables: of the run.
        batch_classes: those of the source, and of the recipes inside of the recipe.
        singletons: the names of the actions that let only one batch in at a time.
        window: how many tasks are at most submitted, and their batches not delivered.
    """

    def __init__(
        self,
        program: Program,
        stages: Sequence[Sequence[Call]],
        options: Mapping[str, Any],
        variables: Mapping[str, Any],
        *,
        batch_classes: Sequence[type[Batch]],
        singletons: Sequence[str],
        window: int,
    ) -> None:
        self._program = program
        self._stages = stages
        self._options = options
        self._variables = variables
        self.window = window
        self.singletons = tuple(singletons)
        self._batch_classes = tuple(dict.fromkeys(batch_classes))  # each once
        self._crew = Crew()
        self._recycler = Recycler()
        # By thread, what a worker is given besides its tasks. Each writes its own key.
        self._desks: dict[int, tuple[Callable[[str], None] | None, Allocate | None]] = {}
        # Of workers, by thread, whose set-up failed: what it failed of. Each writes its own key.
        self._unfit: dict[int, BaseException] = {}
        # What is being made, for the stall warning. Written by the workers, each its own entry;
        # read, without a lock, by the thread that watches.
        self._at: dict[int, Making] = {}

    def __getstate__(self) -> dict[str, Any]:
        # The window is of the run, not of the recipe: with another one, the workers may stay.
        return {**vars(self), "_at": {}, "_unfit": {}, "_desks": {}, "window": 0}

    def __call__(self, task: Task) -> Outcome:
        """Make the task's batch, and its item for each sink. Never raises."""
        making = Making(
            self._crew,
            task.dropping,
            self._options,
            self._variables,
            _BEGIN,
            task,
            time.monotonic(),
        )
        making.allocate = self._recycler.allocate
        if self._desks:
            making.note, allocate = self._desks.get(get_ident(), (None, None))
            making.allocate = allocate or making.allocate
        # By the making and not by the task: one that was lost may still run beside its re-run.
        key = id(making)
        self._at[key] = making
        try:
            if self._unfit and get_ident() in self._unfit:
                making.step = "the set-up of a worker"
                raise self._unfit[get_ident()]
            batch = self._program.begin(task, making) if not task.stage else _joined(task, making)
            batch = run_calls(self._stages[task.stage], batch, making)
            batch._making = None  # its actions can then be called as those of any batch
            if self._options:
                batch._options = self._options
            made = batch if task.keep else None
            return Outcome(
                made, tuple(making.items), None, "", tuple(making.dropped), len(batch.index)
            )
        except Emptied:
            return Outcome(dropped=tuple(making.dropped))
        except BaseException as error:
            # By its name, as asyncio is not imported where nobody uses it.
            if isinstance(error, _SILENT) or type(error).__name__ == "CancelledError":
                error = _spoken(error, making.step)
            return Outcome(error=error, step=making.step)
        finally:
            del self._at[key]

    def running(self) -> list[Running]:
        """Return the tasks that run in this process."""
        return [Running(one.task, one.step, one.since) for one in [*self._at.values()]]

    def give_up(self) -> None:
        """Have those who wait in an async action, or for items, wait no longer."""
        self._crew.give_up()

    def close(self) -> None:
        """Let the threads go that actions of single items, and async ones, share."""
        self._crew.close()
        self._recycler.close()

    @contextmanager
    def worker(
        self,
        name: str,
        *,
        note: Callable[[str], None] | None = None,
        allocate: Allocate | None = None,
    ) -> Iterator[None]:
        """Call the hooks, and the batch classes, for a worker that starts and ends."""
        hook = hooks().hook
        here = get_ident()
        if note is not None or allocate is not None:
            self._desks[here] = note, allocate
        ends: list[tuple[str, Callable[..., Any]]] = []
        try:
            ends.append(("flowcore_worker_ended of a hook plugin", hook.flowcore_worker_ended))
            hook.flowcore_worker_started(name=name)
            for batch_class in self._batch_classes:
                ends.append((f"{batch_class.__name__}.worker_ended", batch_class.worker_ended))
                batch_class.worker_started(name=name)
        except BaseException as error:
            self._unfit[here] = error
        try:
            yield
        finally:
            self._unfit.pop(here, None)
            self._desks.pop(here, None)
            for what, end in reversed(ends):
                try:
                    end(name=name)
                except Exception:
                    _log.exception("%s failed in %s", what, name)

    def parts(self) -> Iterator[tuple[str, object]]:
        """Generate what the work is made of, each part with what to call it in a message."""
        for place, (name, function, args, kwargs) in enumerate(itertools.chain(*self._stages)):
            step = f"step {place} ({name})"
            yield from ((f"{step}, argument {at}", value) for at, value in enumerate(args))
            yield from ((f"{step}, argument {key}", value) for key, value in kwargs.items())
            yield step, function
        for batch_class in self._batch_classes:
            yield batch_class.__name__, batch_class
        preloaded = getattr(self._program.source, "preloaded", None)
        if preloaded is not None:
            yield from ((part.where, part.source) for part in preloaded.parts)
        yield "the data of the dataset", self._program
        yield "an option of the run", self._options
        yield "a variable of the run", self._variables


def compile_recipe(
    recipe: Recipe,
    sinks: list[Sink],
    options: Mapping[str, Any],
    variables: Mapping[str, Any],
    *,
    window: int = 1,
) -> CompiledWork:
    """Resolve all that can be resolved once, so that a run looks nothing up per batch."""
    manager = hooks()
    compiler = _Compiler(manager.hook.flowcore_wrap_action.get_hookimpls(), sinks)
    stages: list[list[Call]] = [[]]
    for at, step in enumerate(recipe.steps):
        if isinstance(step, RebatchStep):
            stages.append([])
        else:
            stages[-1].append(compiler.call(step, at))
    return CompiledWork(
        compiler.program(recipe),
        stages,
        options,
        variables,
        batch_classes=compiler.batch_classes,
        singletons=compiler.singletons,
        window=window,
    )


class _Compiler:
    """Makes calls of steps.

    Args:
        wrappers: the hook implementations that wrap actions.
        sinks: the open sinks of the recipe, in order.

    Attributes:
        batch_classes: of the sources so far.
        singletons: names of the actions so far that let only one batch in at a time.
    """

    def __init__(self, wrappers: Sequence[Any], sinks: Sequence[Sink]) -> None:
        self.batch_classes: list[type[Batch]] = []
        self.singletons: list[str] = []
        self._wrappers = wrappers
        self._sinks = iter(sinks)
        # Where in the recipe a value or a join stands. Sinks take none: with other ones, or
        # without, the draws are the same.
        self._places = itertools.count()

    def program(self, recipe: Recipe) -> Program:
        """Return what makes the batches of a recipe's source."""
        source = recipe.source
        assert source is not None
        self.batch_classes.append(source.batch_class)
        if isinstance(source, Mixture):
            return Program(Mixed(source, [self._whole(part) for part in source.parts]))
        return Program(source)

    def _whole(self, recipe: Recipe) -> Program:
        program = self.program(recipe)
        program.calls = self._calls(recipe.steps)
        return program

    def _calls(self, steps: Sequence[Step]) -> list[Call]:
        return [self.call(step, at) for at, step in enumerate(steps)]

    def call(self, step: Step, at: int) -> Call:
        """Return the call of one step, which is the ``at``-th of its recipe."""
        if isinstance(step, ActionStep):
            return step.name, self._function(step, at), step.args, step.kwargs
        if isinstance(step, SinkStep):
            prepare = next(self._sinks).prepare
            return f"prepare of sink {step.name!r}", Prepare(prepare), (), {}
        place = next(self._places)
        if isinstance(step, WhenStep):
            then, otherwise = self._calls(step.then), self._calls(step.otherwise)
            return "when", When(step.condition, then, otherwise, place), (), {}
        if isinstance(step, RepeatStep):
            return "repeat", Repeat(step.times, self._calls(step.steps), place), (), {}
        if isinstance(step, JoinStep):
            assert step.recipe.source is not None
            index = step.recipe.source.index
            return "join", Join(step, index, self._whole(step.recipe), place), (), {}
        assert isinstance(step, FilterStep)
        return "filter", Filter(step), (), {}

    def _function(self, step: ActionStep, at: int) -> Callable[..., Any]:
        function = step.function
        for wrapper in reversed(self._wrappers):
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
            self.singletons.append(step.name)
            function = Singly(function, step.function)
        if holds_value((step.args, dict(step.kwargs))):
            function = Resolving(function, next(self._places))
        return function


def _joined(task: Task, making: Making) -> Batch:
    """Return the batch that the first call of a later stage is given."""
    batch = concatenated([piece(*part) for part in task.parts], type(task.parts[0][0]))
    batch.number, batch.epoch = task.number, task.epoch
    batch._seed = branch_seed(task.seed, 2, task.stage)
    batch._making = making
    return batch


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
