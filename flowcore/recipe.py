"""The recipe of a pipeline: where its items come from and what is done to them, as plain data.

Everything here is immutable and checked when it is made; nothing here runs.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowcore.batch import Batch
from flowcore.errors import ArgumentError, DataError, PipelineError, explain
from flowcore.index import Index
from flowcore.sinks import Sink

__all__ = ["ActionStep", "Recipe", "SinkStep", "Source", "Step"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where items come from: an index, a class for batches, and data that is already there.

    Attributes:
        index: the ids.
        batch_class: `Batch` or a subclass of it.
        preloaded: ``None``, or an array, a tuple of arrays, a dict of arrays, or an object whose
            ``__getitem__`` takes an array of positions. It is read, never written to.

    Raises:
        DataError: data of another length than the index, or that does not fit the components.
        PipelineError: ``batch_class`` is no batch class.
    """

    index: Index
    batch_class: type[Batch] = Batch
    preloaded: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.batch_class, type) and issubclass(self.batch_class, Batch)):
            raise PipelineError(
                explain(
                    f"batch_class must be a subclass of flowcore.Batch, got {self.batch_class!r}",
                    next="derive it from flowcore.Batch, and pass the class itself: "
                    "Dataset(index, MyBatch)",
                )
            )
        object.__setattr__(self, "preloaded", _readable(self.preloaded))
        for name, part in _parts(self.preloaded).items():
            if hasattr(part, "__len__") and len(part) != len(self.index):
                raise DataError(
                    explain(
                        f"{name} has {len(part)} items, the index has {len(self.index)}",
                        next="give every component one entry for each id, in the order of the ids",
                    )
                )
        if self.preloaded is not None:
            # Without reading anything: are these the components of the batch class?
            self.batch_class(np.arange(0)).data = _outline(self.preloaded)

    def make(
        self,
        positions: NDArray[np.int64],
        *,
        number: int = 0,
        epoch: int = 0,
        seed: int | None = None,
    ) -> Batch:
        """Make the batch of the items at ``positions``, its preloaded data read (a copy)."""
        batch = self.batch_class(
            self.index.ids(positions), positions, number=number, epoch=epoch, seed=seed
        )
        if self.preloaded is not None:
            batch.data = self._read(positions)
        return batch

    def _read(self, positions: NDArray[np.int64]) -> Any:
        if isinstance(self.preloaded, Mapping):
            return {name: _copied(part, positions) for name, part in self.preloaded.items()}
        if isinstance(self.preloaded, tuple):
            return tuple(_copied(part, positions) for part in self.preloaded)
        return _copied(self.preloaded, positions)


@dataclass(frozen=True, slots=True)
class ActionStep:
    """An action and its arguments, checked against its signature.

    Attributes:
        name: as the pipeline spells it: ``load``, ``arrays.cast``.
        function: called as ``function(batch, *args, **kwargs)``; returns a batch.
        run_options: those that its action pack declares.

    Raises:
        ArgumentError: the signature refuses the arguments.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    run_options: Mapping[str, str] = field(default_factory=dict, repr=False)

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


Step: TypeAlias = "ActionStep | SinkStep"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A source and the steps over its batches. ``source`` is ``None`` in a template."""

    source: Source | None = None
    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Recipe:
        """Return a new recipe with ``step`` at the end."""
        return Recipe(self.source, (*self.steps, step))

    def __str__(self) -> str:
        if self.source is None:
            head = "Pipeline()"
        else:
            head = (
                f"Pipeline over {len(self.source.index)} items, {self.source.batch_class.__name__}"
            )
        return "\n".join([head, *(f"  {at}. {step}" for at, step in enumerate(self.steps, 1))])


def _outline(preloaded: Any) -> Any:
    """Return something of the structure of preloaded data that holds none."""
    if isinstance(preloaded, Mapping):
        return dict.fromkeys(preloaded)
    return tuple(preloaded) if isinstance(preloaded, tuple) else np.arange(0)


def _copied(part: Any, positions: NDArray[np.int64]) -> Any:
    """Return the items at ``positions``, which an action may write to."""
    items = part[positions]
    if isinstance(part, np.ndarray) and not part.dtype.hasobject:
        return items  # a copy already, as ``positions`` is an array
    return copy.deepcopy(items)  # a loader may give its own, and objects are only referred to


def _parts(preloaded: Any) -> dict[str, Any]:
    """Return preloaded data part by part, by what each is called in messages."""
    if isinstance(preloaded, Mapping):
        return {f"component {name!r}": part for name, part in preloaded.items()}
    if isinstance(preloaded, tuple):
        return {f"preloaded[{at}]": part for at, part in enumerate(preloaded)}
    return {} if preloaded is None else {"preloaded": preloaded}


def _readable(preloaded: Any) -> Any:
    """Return preloaded data with lists made arrays; refuse what cannot be read by positions."""
    if isinstance(preloaded, Mapping):
        return {name: _readable(part) for name, part in preloaded.items()}
    if isinstance(preloaded, tuple):
        return tuple(_readable(part) for part in preloaded)
    if isinstance(preloaded, list):
        preloaded = np.asarray(preloaded)
    if preloaded is None or (
        hasattr(preloaded, "__getitem__")
        and not isinstance(preloaded, (str, bytes))
        and getattr(preloaded, "ndim", 1) > 0
    ):
        return preloaded
    raise DataError(
        explain(
            f"preloaded data of type {type(preloaded).__name__} cannot be read by positions",
            next="pass an array, or an object whose __getitem__ takes an array of positions",
        )
    )


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
