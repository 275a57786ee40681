"""The arrays of a batch that an action works on: found by name, checked, and replaced.

Nothing here writes into an array. Preloaded data, what a caller holds, and what a sink earlier in
the recipe has taken stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from flowcore import Batch
from flowcore.errors import DataError, OptionError, explain, near

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AnyBatch",
    "Components",
    "Part",
    "as_items",
    "checked_names",
    "only_name",
    "parts_of",
    "replace",
]

AnyBatch = TypeVar("AnyBatch", bound=Batch)
Components: TypeAlias = "str | Sequence[str] | None"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One array of a batch.

    Attributes:
        name: of the component; ``None`` for data that has no names.
        array: ``(N, ...)``, N the number of items in the batch.
        where: what it is called in errors.
    """

    name: str | None
    array: NDArray[Any]
    where: str

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one item."""
        return self.array.shape[1:]

    def misfit(self, what: str, *, why: str | None = None, next: str | None = None) -> DataError:
        """Return the error that says what of this array does not fit."""
        return DataError(explain(what, where=self.where, why=why, next=next))


def replace(
    batch: AnyBatch, components: Components, function: Callable[[Part], NDArray[Any]]
) -> AnyBatch:
    """Set each of ``components`` to what ``function`` makes of it; on an error none of them.

    Raises:
        OptionError: ``components`` are no names.
        DataError: the batch has no such component, it is not loaded, or it has not N items.
    """
    made = [(part.name, function(part)) for part in parts_of(batch, components)]
    for name, array in made:
        setattr(batch, "data" if name is None else name, array)
    return batch


def parts_of(batch: Batch, components: Components) -> list[Part]:
    """Return each of ``components`` of a batch, by default the only one.

    Raises:
        OptionError: ``components`` are no names.
        DataError: the batch has no such component, it is not loaded, or it has not N items.
    """
    known = batch.components
    if components is None:
        return [_part(batch, only_name(batch))]
    for name in (names := checked_names(components)):
        if name not in known:
            raise DataError(
                explain(
                    f"the batch has no component {name!r}",
                    where=repr(batch),
                    why=f"its components: {_listed(known)}" if known else "its data has no names",
                    next=near(name, known)
                    if known
                    else "leave components= out, or preload a dict: {name: array}",
                )
            )
    return [_part(batch, name) for name in names]


def only_name(batch: Batch) -> str | None:
    """Return the name of the only component of a batch, None if its data has no names.

    Raises:
        DataError: it has several.
    """
    known = batch.components
    if len(known) > 1:
        raise DataError(
            explain(
                f"which components? The batch has {len(known)}: {_listed(known)}",
                where=repr(batch),
                next=f"name one or more: components={known[0]!r}",
            )
        )
    return known[0] if known else None


def checked_names(components: str | Sequence[str]) -> tuple[str, ...]:
    """Return a name or several as a tuple, each once.

    Raises:
        OptionError: they are no names.
    """
    names = [components] if isinstance(components, str) else components
    if not isinstance(names, Sequence) or not names or not all(isinstance(n, str) for n in names):
        raise OptionError(
            explain(
                f"components must be a name or several, got {components!r:.60}",
                next="components='images', or components=('images', 'masks')",
            )
        )
    return tuple(dict.fromkeys(names))


def _part(batch: Batch, name: str | None) -> Part:
    data = batch.data
    if name is None:
        where, value = f"the data of {batch!r}", data
    else:
        where, value = f"component {name!r} of {batch!r}", data.get(name)
    if value is None:
        what = "the batch has no data yet" if name is None else f"component {name!r} is not loaded"
        next = "load it in an action before this one, or give the dataset preloaded="
        raise DataError(explain(what, where=where, next=next))
    if name is None and isinstance(value, tuple):
        what = f"the data is a tuple of {len(value)} arrays that have no names"
        next = "name them: preloaded={'images': ..., 'labels': ...}, or components in the class"
        raise DataError(explain(what, where=where, next=next))
    return Part(name, as_items(value, len(batch), where), where)


def as_items(value: Any, n: int, where: str) -> NDArray[Any]:
    """Return ``value`` as an array with one entry for each of ``n`` items.

    Raises:
        DataError: it is none.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:  # nested sequences of several lengths
        raise DataError(explain("the data makes no array", where=where, why=str(error))) from error
    if array.ndim and len(array) == n:
        return array
    raise DataError(
        explain(
            f"an array with one entry for each of {n} items is needed, "
            f"got {type(value).__name__} of shape {array.shape}",
            where=where,
        )
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
