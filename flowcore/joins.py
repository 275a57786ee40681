"""Whether one source can be joined with another: what is known before a batch is made."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from flowcore.batch import Batch
from flowcore.errors import PipelineError, explain, near
from flowcore.ids import listed
from flowcore.index import Index
from flowcore.steps import JoinStep

__all__ = ["check_join"]

_LOOK = 1 << 16  # ids that are looked up at a time


class _Source(Protocol):
    @property
    def index(self) -> Index: ...

    @property
    def batch_class(self) -> type[Batch]: ...


def check_join(mine: _Source, other: _Source, step: JoinStep) -> None:
    """Refuse a join with a source that lacks items, or has components that are here too.

    Raises:
        PipelineError: likewise.
    """
    _check_items(mine.index, other.index, step)
    _check_components(mine.batch_class, other.batch_class, step)


def _check_items(mine: Index, other: Index, step: JoinStep) -> None:
    if step.by == "position":
        if len(mine) != len(other):
            raise PipelineError(
                explain(
                    f"zip needs as many items on both sides: {len(mine)}, and {len(other)}",
                    next="join(other) goes by id",
                )
            )
        return
    missing = _missing(mine, other)
    if missing:
        raise PipelineError(
            explain(
                f"the other side of the join lacks ids: {', '.join(map(repr, missing[:3]))}"
                + (", ..." if len(missing) > 3 else ""),
                next="keep those that both have: (dataset & other).p",
            )
        )


def _missing(mine: Index, other: Index) -> list[Any]:
    """Return the first ids of one index that the other does not have."""
    if mine == other:
        return []
    for start in range(0, len(mine), _LOOK):
        ids = mine.ids(np.arange(start, min(start + _LOOK, len(mine))))
        lacking = ids[other.find(ids) < 0]
        if len(lacking):
            return listed(lacking[:4])
    return []


def _check_components(mine: type[Batch], other: type[Batch], step: JoinStep) -> None:
    unknown = [name for name in step.rename if other.components and name not in other.components]
    if unknown:
        raise PipelineError(
            explain(
                f"the other side has no component {unknown[0]!r} to rename",
                why=f"it has {other.components}",
                next=near(unknown[0], other.components),
            )
        )
    both = {step.rename.get(name, name) for name in other.components} & set(mine.components)
    if both:
        name = min(both)
        raise PipelineError(
            explain(
                f"both sides have a component {name!r}",
                next=f"rename={{{name!r}: 'another name'}}",
            )
        )
