"""The steps that a recipe can have, as plain, immutable, checked data; nothing here runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from flowcore.actions import action_mark
from flowcore.batch import Batch
from flowcore.errors import ArgumentError, UnknownAction, explain, near
from flowcore.sinks import Sink

if TYPE_CHECKING:
    from flowcore.recipe import Recipe

__all__ = [
    "ActionStep",
    "FilterStep",
    "JoinStep",
    "NamedStep",
    "RebatchStep",
    "RepeatStep",
    "SinkStep",
    "Step",
    "WhenStep",
    "actions",
    "shown",
]


def actions(owner: object) -> list[tuple[str, Any]]:
    """Return the actions of a batch class or an action pack, with their names."""
    found = ((name, getattr(owner, name, None)) for name in dir(owner))
    return [(name, function) for name, function in found if action_mark(function) is not None]


@dataclass(frozen=True, slots=True)
class ActionStep:
    """An action and its arguments, checked against its signature.

    Attributes:
        name: as the pipeline spells it: ``load``, ``arrays.cast``.
        function: called as ``function(batch, *args, **kwargs)``; returns a batch.
        args: of the call; there may be values in them (`flowcore.values`).
        kwargs: likewise.
        run_options: those that its action pack declares.
        of_class: the batch class has it; with another class, another function of its name.

    Raises:
        ArgumentError: the signature refuses the arguments.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    run_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    of_class: bool = False

    def __post_init__(self) -> None:
        signature = inspect.signature(self.function)
        if not signature.parameters:
            raise ArgumentError(
                explain(
                    f"action {self.name!r} has no parameter for the batch",
                    next=f"write it as: def {self.name}(self, ...)",
                )
            )
        try:
            signature.bind(None, *self.args, **self.kwargs)
        except TypeError as error:
            parameters = list(signature.parameters.values())[1:]
            raise ArgumentError(
                explain(
                    f"action {self.name!r}: {error}",
                    where=f"{self}",
                    why=f"it is {self.name}{signature.replace(parameters=parameters)}",
                )
            ) from None

    def __str__(self) -> str:
        return f".{self.name}({_arguments(self.args, self.kwargs)})"

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what tells it from other steps."""
        return self.name, self.args, sorted(self.kwargs.items())


@dataclass(frozen=True, slots=True)
class NamedStep:
    """An action of a batch class that a template does not know yet.

    Attributes:
        name: of the action.
        args: of the call.
        kwargs: likewise.
        where: file and line that wrote it.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    def bound(self, batch_class: type[Batch]) -> ActionStep:
        """Return the step with the action of ``batch_class``.

        Raises:
            UnknownAction: the class has no action of that name.
            ArgumentError: its signature refuses the arguments.
        """
        function: Any = getattr(batch_class, self.name, None)
        if action_mark(function) is not None:
            try:
                return ActionStep(self.name, function, self.args, self.kwargs, of_class=True)
            except ArgumentError as error:
                if self.where:
                    error.add_note(f"flowcore: the step was written in a template, {self.where}")
                raise
        known = [name for name, _ in actions(batch_class)]
        raise UnknownAction(
            explain(
                f"{batch_class.__name__} has no action {self.name!r}",
                where=f"{self}" + (f"   ({self.where})" if self.where else ""),
                why=f"actions of {batch_class.__name__}: {', '.join(known) or 'none'}",
                next=near(self.name, known)
                or (
                    f"write @flowcore.action above `def {self.name}`" if callable(function) else ""
                ),
            )
        )

    def __str__(self) -> str:
        return f".{self.name}({_arguments(self.args, self.kwargs)})"


@dataclass(frozen=True, slots=True)
class SinkStep:
    """A sink, as described where it was written; each run opens its own copy.

    Attributes:
        name: of the sink, for messages and results.
        options: as written.
        given: the sink object belongs to the one run that it was given to, and is opened itself.
    """

    name: str
    sink: Sink
    options: Mapping[str, Any] = field(default_factory=dict)
    given: bool = False

    def __str__(self) -> str:
        arguments = _arguments((self.name,), self.options)
        return f".put_into({arguments})"


@dataclass(frozen=True, slots=True)
class FilterStep:
    """Keeps the items that a predicate is true of.

    Attributes:
        predicate: given the batch, returns a bool for each item; or given one item, returns a bool.
        each: which of the two.
    """

    predicate: Callable[..., Any]
    each: Literal["batch", "item"] = "batch"

    def __str__(self) -> str:
        each = ", each='item'" if self.each == "item" else ""
        return f".filter({_short(self.predicate)}{each})"


@dataclass(frozen=True, slots=True)
class WhenStep:
    """Steps that are taken where a condition holds, and others where it does not.

    Attributes:
        condition: a function of the batch that returns a bool, or a value (`flowcore.values`).
        then: the steps, in order.
        otherwise: likewise.
    """

    condition: Any
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...] = ()

    def __str__(self) -> str:
        otherwise = f", {shown(self.otherwise)}" if self.otherwise else ""
        return f".when({_short(self.condition)}, {shown(self.then)}{otherwise})"


@dataclass(frozen=True, slots=True)
class RepeatStep:
    """Steps that are taken several times.

    Attributes:
        times: an int, or a value (`flowcore.values`).
        steps: in order.
    """

    times: Any
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f".repeat({_short(self.times)}, {shown(self.steps)})"


@dataclass(frozen=True, slots=True)
class JoinStep:
    """The components that another recipe makes of the same items.

    Attributes:
        recipe: the other one.
        by: whether the same items are those of the same ids, or of the same positions.
        rename: new names of components of the other recipe.
    """

    recipe: Recipe
    by: Literal["id", "position"] = "id"
    rename: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        name = "join" if self.by == "id" else "zip"
        return f".{name}(<{self.recipe.headline}{shown(self.recipe.steps)}>)"


@dataclass(frozen=True, slots=True)
class RebatchStep:
    """The items of the batches before, in batches of another size.

    Attributes:
        size: items in a batch; the last batch of an epoch may be shorter.
        drop_last: leave a last short batch out.
    """

    size: int
    drop_last: bool = False

    def __str__(self) -> str:
        return f".rebatch({self.size}{', drop_last=True' if self.drop_last else ''})"


Step: TypeAlias = (
    "ActionStep | NamedStep | SinkStep | FilterStep | WhenStep | RepeatStep | JoinStep | "
    "RebatchStep"
)


def shown(steps: Sequence[Step]) -> str:
    """Return steps as they are written, one after the other."""
    return "".join(map(str, steps))


def _arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    shown = [_short(value) for value in args]
    return ", ".join([*shown, *(f"{name}={_short(value)}" for name, value in kwargs.items())])


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<array {value.dtype} {value.shape}>"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
