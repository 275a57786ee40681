"""Several pipelines as one: their items one after the other, or mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore.batch import Batch
from flowcore.errors import OptionError, PipelineError, explain
from flowcore.ids import id_array, listed
from flowcore.index import Index
from flowcore.interleave import Stop, in_turn
from flowcore.pipeline import Pipeline
from flowcore.recipe import Mixture, Recipe, flat
from flowcore.steps import NamedStep, RebatchStep, SinkStep
from flowcore.writer import as_recipe

__all__ = ["concat", "mix"]

_LOOK = 1 << 16  # ids that are looked up at a time


def concat(parts: Sequence[Any]) -> Pipeline:
    """Return a pipeline over the items of all ``parts``, those of the first before the others.

    Each item is made by the pipeline that it comes from. A shuffled run shuffles all together. The
    ids are those of the parts; if several parts have an id, all ids are ``(number of part, id)``.

    Args:
        parts: pipelines or datasets, at least one. They make the same components.

    Raises:
        PipelineError: something else; or steps that are for the whole (sinks, ``rebatch``).
    """
    return _over(parts, None, "first", "concat")


def mix(
    parts: Sequence[Any], weights: Sequence[float] | None = None, *, stop: Stop = "first"
) -> Pipeline:
    """Return a pipeline over the items of all ``parts``, in turn and in fixed proportions.

    A run takes each part in its order, or with ``shuffle=True`` in a fresh permutation each epoch.

    Args:
        parts: pipelines or datasets that are not empty. They make the same components.
        weights: how much of each, above 0, in whatever scale; kept to a thousandth. By default all
            the same.
        stop: an epoch ends when the ``"first"`` part has no item left, so some items of the others
            do not come in it; or when ``"all"`` were gone through, so some items come again.

    Raises:
        PipelineError: parts that are none, or have steps that are for the whole.
        OptionError: other weights; no such ``stop``.
    """
    if stop not in ("first", "all"):
        raise OptionError(f"stop must be 'first' or 'all', got {stop!r}")
    counts = in_turn([1.0] * len(parts) if weights is None else weights, len(parts))
    return _over(parts, counts, stop, "mix")


def _over(parts: Sequence[Any], weights: tuple[int, ...] | None, stop: Stop, name: str) -> Pipeline:
    if not isinstance(parts, (list, tuple)) or not parts:
        raise PipelineError(
            explain(
                f"{name} takes a list of pipelines, got {parts!r:.60}",
                next=f"fc.{name}([one, other])",
            )
        )
    recipes = tuple(as_recipe(part, name) for part in parts)
    sources = [_checked(recipe, name, empty=weights is None) for recipe in recipes]
    index = _Concatenated([source.index for source in sources])
    batch_class = _nearest([source.batch_class for source in sources])
    return Pipeline(Recipe(Mixture(recipes, index, batch_class, weights, stop)))


def _checked(recipe: Recipe, name: str, *, empty: bool) -> Any:
    if recipe.source is None:
        raise PipelineError(
            explain(
                f"{name} needs pipelines over datasets, and got a template",
                next=f"give it one: template << dataset; or add it: {name}([...]) + template",
            )
        )
    for step in flat(recipe.steps):
        if isinstance(step, (SinkStep, RebatchStep, NamedStep)):
            raise PipelineError(
                explain(
                    f"a part of {name} cannot have the step {step}",
                    next=f"write it after {name}([...])",
                )
            )
    if not len(recipe.source.index) and not empty:
        raise PipelineError(f"{name} cannot mix a dataset without items in: {recipe.headline}")
    return recipe.source


def _nearest(classes: list[type[Batch]]) -> type[Batch]:
    """Return the nearest class that all are, or are derived from."""
    return next(
        one for one in classes[0].__mro__ if all(issubclass(other, one) for other in classes)
    )


class _Concatenated(Index):
    """The ids of several indices, computed from theirs."""

    def __init__(self, parts: Sequence[Index]) -> None:
        super().__init__(sum(map(len, parts)))
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, parts)])
        self._tagged = any(
            _share(one, other) for at, one in enumerate(parts) for other in parts[:at]
        )

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _LOOK):
            yield from self.ids(np.arange(start, min(start + _LOOK, len(self))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Concatenated) and self._parts == other._parts

    __hash__ = None

    def __repr__(self) -> str:
        return f"Index of {' and '.join(map(repr, self._parts))}"

    def ids(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return the ids at ``positions``."""
        of = np.searchsorted(self._starts, positions, side="right") - 1
        found: list[Any] = [None] * len(positions)
        for part in np.unique(of).tolist():
            rows = np.flatnonzero(of == part)
            ids = listed(self._parts[part].ids(positions[rows] - self._starts[part]))
            for row, id_ in zip(rows.tolist(), ids, strict=True):
                found[row] = (part, id_) if self._tagged else id_
        return id_array(found)

    def find(self, ids: Any) -> NDArray[np.int64]:
        """Return the positions of ``ids``, -1 for one that is not there."""
        wanted = listed(ids)
        if self._tagged:
            return np.array([self._tagged_place(id_) for id_ in wanted], np.int64)
        found = np.full(len(wanted), -1, np.int64)
        for part, start in zip(self._parts, self._starts.tolist(), strict=False):
            inside = part.find(wanted)
            found = np.where(inside >= 0, inside + start, found)
        return found

    def _tagged_place(self, id_: Any) -> int:
        if not (isinstance(id_, tuple) and len(id_) == 2 and id_[0] in range(len(self._parts))):
            return -1
        place = int(self._parts[id_[0]].find([id_[1]])[0])
        return place + int(self._starts[id_[0]]) if place >= 0 else -1

    def subset(self, positions: Any) -> Any:
        """Refuse: a part of a mixture is chosen in the datasets that it is made of."""
        raise PipelineError("choose the items of a mixture in its datasets, before concat or mix")


def _share(one: Index, other: Index) -> bool:
    """Return whether two indices have an id in common."""
    small, big = sorted((one, other), key=len)
    for start in range(0, len(small), _LOOK):
        ids = small.ids(np.arange(start, min(start + _LOOK, len(small))))
        if (big.find(ids) >= 0).any():
            return True
    return False
