"""Writing a recipe: what each attribute of a pipeline stands for, and the steps of the core itself.

Nothing runs here. What can be known to be wrong is refused in the call that writes it.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from flowcore.actions import action_mark
from flowcore.batch import Batch, checked_components
from flowcore.errors import (
    AmbiguousPlugin,
    ArgumentError,
    OptionError,
    PipelineError,
    UnknownAction,
    explain,
    near,
)
from flowcore.joins import check_join
from flowcore.plugins import find, identifier, install_hint, load, names
from flowcore.recipe import Recipe
from flowcore.sinks import Sink, as_sink
from flowcore.steps import (
    ActionStep,
    FilterStep,
    JoinStep,
    NamedStep,
    RebatchStep,
    RepeatStep,
    SinkStep,
    Step,
    WhenStep,
    actions,
)
from flowcore.values import Value

__all__ = ["Writer", "as_recipe"]

_PUT = "put_into_"


class Writer:
    """The half of a pipeline that writes its recipe: each call returns a new pipeline."""

    def __init__(self, recipe: Recipe | None = None) -> None:
        self._recipe = recipe or Recipe()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, as data."""
        return self._recipe.steps

    def put_into(self, sink: str | Sink, /, **options: Any) -> Self:
        """Send each batch, as it is at this step, into a sink.

        Args:
            sink: the name of an installed sink, ``"distribution:name"``, or a `Sink`.
            options: the sink's own, with a name.

        Raises:
            UnknownPlugin, AmbiguousPlugin, BrokenPlugin: the name does not lead to one sink.
            ArgumentError, OptionError: options that the sink does not take.
        """
        if isinstance(sink, Sink) and options:
            raise PipelineError("options go with a sink's name, not with a Sink object")
        made = as_sink((sink, options) if isinstance(sink, str) else sink)
        return self._then(SinkStep(made.sink_name or type(made).__name__, made, options))

    def filter(
        self, predicate: Callable[..., Any], *, each: Literal["batch", "item"] = "batch"
    ) -> Self:
        """Keep the items that ``predicate`` is true of; a batch that none is left of is left out.

        Args:
            predicate: given the batch, returns an array with a bool for each item; with
                ``each="item"`` it is given one item, as a per-item action is, and returns a bool.
            each: what it is given.

        Raises:
            OptionError: no such ``each``, or ``predicate`` is no function.
        """
        if (
            not callable(predicate)
            or each not in ("batch", "item")
            or inspect.iscoroutinefunction(predicate)
        ):
            raise OptionError(
                explain(
                    f"filter takes a function and each='batch' or 'item', got {predicate!r:.60}, "
                    f"each={each!r}",
                    next="filter(lambda batch: batch.labels == 3)",
                )
            )
        return self._then(FilterStep(predicate, each))

    def when(self, condition: Any, step: Writer, otherwise: Writer | None = None) -> Self:
        """Take the steps of one pipeline where a condition holds, else those of another, or none.

        Args:
            condition: a function of the batch that returns a bool; or a value such as
                ``R("integers", 2)`` or ``V("augment")``.
            step: a template, or a pipeline over the same dataset: ``Pipeline().flip()``.
            otherwise: likewise.

        Raises:
            PipelineError: a condition, or steps, that cannot be there.
        """
        if not (callable(condition) or isinstance(condition, (Value, bool))):
            raise OptionError(
                explain(
                    f"the condition of when must be a function or a value, got {condition!r:.60}",
                    next="when(lambda batch: batch.epoch > 0, ...), or when(fc.V('name'), ...)",
                )
            )
        then = self._inner(step, "when")
        other = () if otherwise is None else self._inner(otherwise, "when")
        return self._then(WhenStep(condition, then, other))

    def repeat(self, times: Any, step: Writer) -> Self:
        """Take the steps of a pipeline several times.

        Args:
            times: an int of at least 0, or a value such as ``R("integers", 1, 4)``.
            step: a template, or a pipeline over the same dataset.

        Raises:
            PipelineError: a number, or steps, that cannot be there.
        """
        if not isinstance(times, Value):
            times = _count("times", times, 0)
        return self._then(RepeatStep(times, self._inner(step, "repeat")))

    def join(self, other: Any, *, rename: Mapping[str, str] | None = None) -> Self:
        """Add the components that another pipeline makes of the items of the same ids.

        Args:
            other: a pipeline, or a dataset, that has all ids of this one, in whatever order.
            rename: new names of components of ``other``.

        Raises:
            PipelineError: ids that ``other`` does not have; components that both have.
        """
        return self._joined(other, "id", rename)

    def zip(self, other: Any, *, rename: Mapping[str, str] | None = None) -> Self:
        """Add the components that another pipeline makes of the items at the same positions.

        Args:
            other: a pipeline, or a dataset, of as many items.
            rename: new names of components of ``other``.

        Raises:
            PipelineError: another number of items; components that both have.
        """
        return self._joined(other, "position", rename)

    def rebatch(self, size: int, *, drop_last: bool = False) -> Self:
        """Cut the batches anew, each with ``size`` items of what is left of those before.

        It keeps the order. A batch has items of one epoch, so the last of an epoch may be shorter.
        A recipe may have one; its sinks come after it.

        Args:
            size: items in a batch.
            drop_last: leave a last short batch out.

        Raises:
            PipelineError: a size that cannot be, a second one, or a sink before it.
        """
        return self._then(RebatchStep(_count("size", size, 1), bool(drop_last)))

    def __add__(self, other: Any) -> Self:
        """Return this pipeline with the steps of ``other`` at the end.

        One of them is a template, or both are over one dataset.
        """
        if not isinstance(other, Writer):
            return NotImplemented
        mine, others = self._recipe.source, other._recipe.source
        if mine is not None and others is not None and mine is not others:
            raise PipelineError(
                explain(
                    "two pipelines over different datasets cannot be added",
                    where=f"{self._recipe.headline} + {other._recipe.headline}",
                    next="join(other) adds components, fc.concat([...]) adds items",
                )
            )
        source = others if mine is None else mine
        whole = Recipe(None, (*self.steps, *other.steps))
        return type(self)(whole if source is None else whole.over(source))

    def __lshift__(self, dataset: Any) -> Self:
        """Return the recipe over ``dataset``: ``template << dataset``."""
        recipe = None if isinstance(dataset, Writer) else getattr(dataset, "p", None)
        source = recipe._recipe.source if isinstance(recipe, Writer) else None
        if source is None:
            raise ArgumentError(
                explain(
                    f"a template is given a dataset, not {type(dataset).__name__}",
                    next="template << dataset; pipelines are added: one + other",
                )
            )
        return type(self)(self._recipe.over(source))

    __rrshift__ = __lshift__  # dataset >> template

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copy, pickle and inspect ask every object for
            raise AttributeError(name)
        function: Any = getattr(self._batch_class, name, None)
        if action_mark(function) is not None:
            return self._writer(name, function)
        for pack in names("flowcore.actions"):
            if identifier(pack) == name:
                return _Pack(self, pack)
        if name.startswith(_PUT):
            return self._sink_writer(name.removeprefix(_PUT))
        if self._recipe.source is None and not name.startswith("_"):
            return self._later_writer(name)
        raise self._unknown(name, function)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._recipe,)  # a copy has a run of its own

    def __dir__(self) -> list[str]:
        own = [name for name, _ in actions(self._batch_class)]
        packs = [identifier(name) for name in names("flowcore.actions")]
        sinks = [_PUT + identifier(name) for name in names("flowcore.sinks")]
        return sorted({*super().__dir__(), *own, *packs, *sinks})

    def __repr__(self) -> str:
        return str(self._recipe)

    @property
    def _batch_class(self) -> type[Batch]:
        source = self._recipe.source
        return Batch if source is None else source.batch_class

    def _then(self, step: Step) -> Self:
        return type(self)(self._recipe.then(step))

    def _inner(self, pipeline: Any, name: str) -> tuple[Step, ...]:
        """Return the steps of a pipeline that goes inside of a step of this one."""
        if not isinstance(pipeline, Writer):
            raise PipelineError(
                explain(
                    f"{name} takes steps as a pipeline, got {pipeline!r:.60}",
                    next=f"{name}(..., fc.Pipeline().an_action())",
                )
            )
        recipe, source = pipeline._recipe, self._recipe.source
        if recipe.source is not None and recipe.source is not source:
            raise PipelineError(
                explain(
                    f"the steps inside of {name} are over another dataset",
                    where=f"{recipe.headline}, in {self._recipe.headline}",
                    next="write them as a template: fc.Pipeline()...",
                )
            )
        _refuse(recipe, name, SinkStep, RebatchStep)
        if recipe.source is None and source is not None:
            recipe = recipe.over(source)
        return recipe.steps

    def _joined(
        self, other: Any, by: Literal["id", "position"], rename: Mapping[str, str] | None
    ) -> Self:
        name = "join" if by == "id" else "zip"
        recipe = as_recipe(other, name)
        _refuse(recipe, name, SinkStep, RebatchStep, FilterStep)
        step = JoinStep(recipe, by, _checked_rename(rename))
        if recipe.source is None:
            raise PipelineError(f"{name} needs a pipeline over a dataset, and got a template")
        if self._recipe.source is not None:
            check_join(self._recipe.source, recipe.source, step)
        return self._then(step)

    def _later_writer(self, name: str) -> Callable[..., Self]:
        """Return what writes a step whose action is known when the template has a dataset."""
        frame = sys._getframe(2)  # below __getattr__: the line that names the action
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}"

        def write(*args: Any, **kwargs: Any) -> Any:
            return self._then(NamedStep(name, args, kwargs, where))

        write.__name__ = name
        return write

    def _writer(
        self, name: str, function: Callable[..., Any], run_options: Mapping[str, str] | None = None
    ) -> Callable[..., Self]:
        """Return what writes a step of ``function``; it looks like ``function`` to a help."""

        @functools.wraps(function)
        def write(*args: Any, **kwargs: Any) -> Any:
            return self._then(
                ActionStep(name, function, args, kwargs, run_options or {}, run_options is None)
            )

        return write

    def _sink_writer(self, attribute: str) -> Callable[..., Self]:
        found = [name for name in names("flowcore.sinks") if identifier(name) == attribute]
        if len(found) > 1:
            raise AmbiguousPlugin(
                explain(
                    f"sinks {' and '.join(map(repr, found))} are both called {_PUT}{attribute}",
                    next=f"put_into({found[0]!r}, ...) says which",
                )
            )
        name = found[0] if found else attribute.replace("_", "-")
        find("flowcore.sinks", name)  # an unknown one is told what is installed

        def write(*args: Any, **options: Any) -> Any:
            if args:
                raise ArgumentError(
                    explain(
                        f"{_PUT}{attribute} takes its options by name, got {args[0]!r:.60}",
                        next=f"{_PUT}{attribute}(option=...)",
                    )
                )
            return self.put_into(name, **options)

        write.__name__ = _PUT + attribute
        write.__doc__ = f"Send each batch into the sink {name!r}; its options are the arguments."
        return write

    def _unknown(self, name: str, function: object) -> UnknownAction:
        owner = self._batch_class.__name__
        if callable(function):
            return UnknownAction(
                explain(
                    f"{owner}.{name} is not an action",
                    why="it is not marked",
                    next=f"write @flowcore.action above `def {name}`",
                )
            )
        own = [action for action, _ in actions(self._batch_class)]
        packs = [identifier(pack) for pack in names("flowcore.actions")]
        hint = near(name, [attribute for attribute in dir(self) if attribute[0] != "_"])
        hint = install_hint("flowcore.actions", name) or hint
        if not hint and self._batch_class is Batch and self._recipe.source is not None:
            hint = "pass your batch class to the dataset: Dataset(index, MyBatch)"
        if self._recipe.source is None:
            hint = hint or "start the pipeline from a dataset, whose batch class has the actions"
        return UnknownAction(
            explain(
                f"no action, action pack or sink is called {name!r}",
                where=f"a pipeline over {owner}",
                why=f"actions of {owner}: {', '.join(own) or 'none'}; "
                f"action packs: {', '.join(packs) or 'none'}",
                next=hint,
            )
        )


class _Pack:
    """The namespace of an action pack: ``pipeline.arrays``."""

    def __init__(self, pipeline: Writer, name: str) -> None:
        self._pipeline, self._name = pipeline, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        pack = load("flowcore.actions", self._name)
        function = getattr(pack, name, None)
        if function is None or action_mark(function) is None:
            known = [action for action, _ in actions(pack)]
            raise UnknownAction(
                explain(
                    f"action pack {self._name!r} has no action {name!r}",
                    why=f"it has: {', '.join(known) or 'none'}",
                    next=near(name, known),
                )
            )
        dotted = f"{identifier(self._name)}.{name}"
        return self._pipeline._writer(dotted, function, getattr(pack, "run_options", {}))

    def __dir__(self) -> list[str]:
        return [name for name, _ in actions(load("flowcore.actions", self._name))]

    def __repr__(self) -> str:
        return f"<action pack {self._name!r}: {', '.join(dir(self))}>"


def as_recipe(value: Any, what: str) -> Recipe:
    """Return the recipe of a pipeline, or the empty one over a dataset.

    Raises:
        PipelineError: it is neither.
    """
    if not isinstance(value, Writer):
        value = getattr(value, "p", None)
    if isinstance(value, Writer):
        return value._recipe
    raise PipelineError(f"{what} takes a pipeline or a dataset, got {type(value).__name__}")


def _refuse(recipe: Recipe, name: str, *kinds: type) -> None:
    """Refuse steps that cannot be in a recipe inside of another."""
    for step in recipe.all_steps():
        if isinstance(step, kinds):
            raise PipelineError(
                explain(
                    f"a pipeline inside of {name} cannot have the step {step}",
                    next=f"leave it out there, and write it after {name}",
                )
            )


def _checked_rename(rename: Any) -> dict[str, str]:
    rename = {} if rename is None else rename
    if not isinstance(rename, Mapping) or not all(isinstance(name, str) for name in rename):
        raise OptionError(f"rename must be a dict of new names by name, got {rename!r:.60}")
    names = tuple(rename.values())
    if not all(isinstance(name, str) and name.isidentifier() and name[0] != "_" for name in names):
        raise OptionError(f"components must have names of Python, got {names!r:.60}")
    checked_components(names)
    return dict(rename)


def _count(name: str, value: Any, least: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise OptionError(f"{name} must be an int of at least {least}, got {value!r:.60}")
    return count
