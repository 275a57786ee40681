"""Values that are known only when a batch is made, written as arguments of actions.

``B.images`` is an attribute of the batch, ``R("normal", 0, 1)`` a random draw, ``V("name")`` a
variable of the run. They are plain data in a recipe; a run resolves them for each batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from flowcore.errors import ArgumentError, OptionError, explain, near
from flowcore.sampler import seed_sequence

if TYPE_CHECKING:
    from flowcore.batch import Batch

__all__ = ["B", "R", "V", "Value", "holds_value", "merged", "resolved", "variables"]

_DRAW = 3  # what the streams of `R` are for; the other purposes are those of `flowcore.sampler`


class Value:
    """What stands in a recipe for a value that each batch has of its own."""

    __slots__ = ()

    def of(self, batch: Batch, at: tuple[int, ...]) -> Any:
        """Return the value for ``batch``, at the place ``at`` of the run's recipe."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        raise ArgumentError(
            explain(
                f"{self} has no truth while the pipeline is written",
                next="let a function of the batch decide: when(lambda batch: ..., ...)",
            )
        )


@dataclass(frozen=True, slots=True)
class _Attribute(Value):
    name: str

    def of(self, batch: Batch, at: tuple[int, ...]) -> Any:
        return getattr(batch, self.name)

    def __repr__(self) -> str:
        return f"B.{self.name}"

    __bool__ = Value.__bool__


class _Attributes:
    """The batch that is being made: ``B.images`` is its component ``images``.

    Any attribute of a batch can be named: its components, ``index``, ``number``, ``epoch``.
    """

    def __getattr__(self, name: str) -> _Attribute:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Attribute(name)

    def __repr__(self) -> str:
        return "B"


B = _Attributes()


@dataclass(frozen=True, slots=True, init=False)
class R(Value):
    """A random draw, once for each batch: ``R("normal", 0, 1, size=3)``.

    What it draws is a function of the run's seed, the epoch, the batch's number, and where in the
    recipe it stands; it takes nothing from ``batch.rng``.

    Args:
        name: of a method of `numpy.random.Generator`: ``"uniform"``, ``"choice"``...
        args: of that method; they may be values themselves, such as ``B.images``.
        kwargs: likewise.

    Raises:
        OptionError: a generator has no such method.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        own = ("bit_generator", "spawn")  # which draw nothing
        draws = [draw for draw in dir(np.random.Generator) if draw[0] != "_" and draw not in own]
        if name not in draws:
            raise OptionError(
                explain(
                    f"R({name!r}) is no draw of numpy.random.Generator",
                    why=f"it has {', '.join(draws)}",
                    next=near(str(name), draws) or "R('uniform', 0, 1), or R('choice', [...])",
                )
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)

    def of(self, batch: Batch, at: tuple[int, ...]) -> Any:
        """Draw for ``batch``."""
        seed = batch._seed
        stream = seed_sequence(seed or 0, _DRAW, batch.epoch, batch.number, *at)
        rng = np.random.default_rng(None if seed is None else stream)
        args, kwargs = resolved((self.args, self.kwargs), batch, at)
        return getattr(rng, self.name)(*args, **kwargs)

    def __repr__(self) -> str:
        shown = [repr(self.name), *map(repr, self.args)]
        return (
            f"R({', '.join(shown + [f'{name}={value!r}' for name, value in self.kwargs.items()])})"
        )

    __bool__ = Value.__bool__


class _Default(Enum):
    NONE = "none"  # a member is the same object also after it was pickled


@dataclass(frozen=True, slots=True)
class V(Value):
    """A variable of the run: ``variables={"name": value}`` says what it is.

    Args:
        name: of the variable.
        default: what it is in a run that does not say; without one, such a run is refused.
    """

    name: str
    default: Any = _Default.NONE

    def of(self, batch: Batch, at: tuple[int, ...]) -> Any:
        """Return what the run says."""
        making = batch._making
        given = making.variables if making is not None else {}
        return given.get(self.name, self.default)

    @property
    def needed(self) -> bool:
        """Whether each run must say what it is."""
        return self.default is _Default.NONE

    def __repr__(self) -> str:
        return f"V({self.name!r})"

    __bool__ = Value.__bool__


def holds_value(argument: Any) -> bool:
    """Return whether there is a value in an argument, or in its lists, tuples and dicts."""
    return next(_values(argument), None) is not None


def variables(argument: Any) -> dict[str, V]:
    """Return the variables in an argument, by name."""
    return merged(value for value in _values(argument) if isinstance(value, V))


def merged(found: Iterable[V]) -> dict[str, V]:
    """Return variables by name; of several of one name, one without a default counts."""
    by_name: dict[str, V] = {}
    for value in found:
        if value.name not in by_name or value.needed:
            by_name[value.name] = value
    return by_name


def resolved(argument: Any, batch: Batch, at: tuple[int, ...]) -> Any:
    """Return an argument with its values replaced by what they are for ``batch``."""
    if isinstance(argument, Value):
        return argument.of(batch, at)
    if type(argument) in (list, tuple):
        return type(argument)(
            resolved(item, batch, (*at, number)) for number, item in enumerate(argument)
        )
    if type(argument) is dict:
        return {
            name: resolved(item, batch, (*at, number))
            for number, (name, item) in enumerate(argument.items())
        }
    return argument


def _values(argument: Any) -> Iterator[Value]:
    if isinstance(argument, Value):
        yield argument
        if isinstance(argument, R):
            yield from _values((argument.args, argument.kwargs))
    elif type(argument) in (list, tuple):
        for item in argument:
            yield from _values(item)
    elif type(argument) is dict:
        for item in argument.values():
            yield from _values(item)
