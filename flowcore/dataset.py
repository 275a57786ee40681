"""The dataset: an index, the batch class of its items, and data that is already there.

Parts of it, and combinations of parts, are datasets too; they share the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowcore.actions import action_mark
from flowcore.batch import Batch
from flowcore.errors import PipelineError, explain
from flowcore.ids import Positions
from flowcore.index import Index, IndexLike
from flowcore.pipeline import Pipeline
from flowcore.recipe import Recipe
from flowcore.select import positions_of, positions_without
from flowcore.source import Source
from flowcore.split import folds, parts

__all__ = ["Dataset"]


class Dataset:
    """An index, and the batch class that loads and processes its items.

    Args:
        index: an int ``n`` for the ids ``0..n-1``, a sequence or array of unique ids, an `Index`.
        batch_class: `Batch`, or a subclass of it.
        preloaded: data that is there, with an entry for each id in the order of the ids: an array
            or memory map, an h5py or zarr array, an Arrow column, a pandas series, a torch dataset,
            a sequence of objects, or an object that takes an int64 array of positions, or else an
            int, in square brackets; a tuple of such; or a dict, an Arrow table, a data frame or an
            h5py group, by component. A batch gets a copy of its part; the data is not written to.

    Raises:
        OptionError: ids that are not unique.
        DataError: preloaded data of another length than the index.
        PipelineError: ``batch_class`` is none, or an action has a name that pipelines need.
    """

    def __init__(
        self, index: IndexLike, batch_class: type[Batch] = Batch, preloaded: Any = None
    ) -> None:
        if isinstance(index, Dataset):
            index = index.index
        index = index if isinstance(index, Index) else Index(index)
        self._source = Source(index, batch_class, preloaded)
        for name in dir(Pipeline):
            if action_mark(getattr(batch_class, name, None)) is not None:
                raise PipelineError(
                    explain(
                        f"an action cannot be called {name!r}",
                        where=f"{batch_class.__name__}.{name}",
                        why="pipelines have a method of that name",
                        next="rename the action",
                    )
                )

    def __len__(self) -> int:
        return len(self._source.index)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the ids."""
        return iter(self._source.index)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._source.index

    def __repr__(self) -> str:
        return f"<Dataset: {len(self)} items, {self._source.batch_class.__name__}>"

    def __getattr__(self, name: str) -> Any:
        # Reached only when the attribute does not exist: what newcomers look for here.
        text = f"a dataset has no {name!r}"
        batch_class = getattr(self.__dict__.get("_source"), "batch_class", None)
        if hasattr(Pipeline, name) or action_mark(getattr(batch_class, name, None)) is not None:
            raise AttributeError(
                explain(text, next=f"its empty pipeline has: dataset.p.{name}(...)")
            )
        raise AttributeError(text)

    @property
    def index(self) -> Index:
        """The ordered, unique ids."""
        return self._source.index

    @property
    def batch_class(self) -> type[Batch]:
        """The class of its batches."""
        return self._source.batch_class

    @property
    def p(self) -> Pipeline:
        """A new, empty pipeline over this dataset."""
        return self.pipeline()

    def pipeline(self) -> Pipeline:
        """Return a new, empty pipeline over this dataset."""
        return Pipeline(Recipe(self._source))

    def create_batch(self, ids: Sequence[Any] | NDArray[Any]) -> Batch:
        """Make a batch of the items called ``ids``, for use without a pipeline.

        Raises:
            KeyError: an id that is not in the index.
        """
        try:
            positions = self.index.positions(ids)
        except KeyError as error:
            error.add_note("flowcore: no item of the dataset has this id; see dataset.index")
            raise
        return self._source.make(positions)

    # Parts

    def __getitem__(self, items: slice | ArrayLike | Index | Dataset) -> Dataset:
        """Return the dataset of some items; it shares the data.

        Args:
            items: ids, in the order that is wanted (an array of ints is ids too); a mask, of a bool
                for each item; or a slice, of positions.

        Raises:
            OptionError: ids that are not here or are repeated, a single id, a mask of another
                length, or of floats.
        """
        return self._part(positions_of(self.index, _index_of(items)))

    def without(self, ids: ArrayLike | Index | Dataset | Iterable[Any]) -> Dataset:
        """Return the dataset of all items but some.

        Args:
            ids: of those to leave out, repeated or not; or objects that have ``ids``, as those in
                ``report.skipped`` do.

        Raises:
            OptionError: an id that is not here.
        """
        return self._part(positions_without(self.index, _index_of(ids)))

    def split(
        self,
        shares: float | Sequence[float],
        *,
        seed: int | None = 0,
        by: ArrayLike | Sequence[Any] | str | None = None,
        groups: ArrayLike | Sequence[Any] | None = None,
    ) -> tuple[Dataset, ...]:
        """Divide the items among several datasets; each keeps the order of the items.

        The same arguments give the same parts, on every machine.

        Args:
            shares: a float f for the shares f and 1 - f, or several that sum to at most 1. What is
                missing to 1 is left out. Sizes are rounded, and sum to what they should.
            seed: of the random choice; ``None`` for the first items, the next, and so on, which of
                ordered data makes parts that are not alike.
            by: a label for each item, to divide the items of each label by the shares. Or
                ``"hash"``, to choose the part of an item by its id and the seed alone: items that
                are added later move no item across, and sizes are only near the shares.
            groups: a group for each item. The items of a group go into one part, so sizes (and
                labels) are as near the shares as whole groups come.

        Raises:
            OptionError: arguments that cannot be right, or a part that would be empty.
        """
        chosen = parts(self.index, shares, seed=seed, by=by, groups=groups)
        return tuple(map(self._part, chosen))

    def kfold(
        self,
        k: int,
        *,
        seed: int | None = 0,
        by: ArrayLike | Sequence[Any] | str | None = None,
        groups: ArrayLike | Sequence[Any] | None = None,
    ) -> list[tuple[Dataset, Dataset]]:
        """Return k pairs of datasets: all other items, and a k-th of the items.

        Args:
            k: at least 2, at most the number of items.
            seed: as in `split`, and so are ``by`` and ``groups``.
            by: each k-th has as many items of each label.
            groups: a group is in one of the k parts.

        Raises:
            OptionError: arguments that cannot be right, or fewer groups than ``k``.
        """
        pairs = folds(self.index, k, seed=seed, by=by, groups=groups)
        return [(self._part(train), self._part(test)) for train, test in pairs]

    def __and__(self, other: object) -> Dataset:
        """Return the dataset of the items of this one that ``other`` has too, by id."""
        if not isinstance(other, Dataset):
            return NotImplemented
        return self._part(np.flatnonzero(self.index.is_in(other.index)))

    def __sub__(self, other: object) -> Dataset:
        """Return the dataset of the items of this one that ``other`` does not have, by id."""
        if not isinstance(other, Dataset):
            return NotImplemented
        return self._part(np.flatnonzero(~self.index.is_in(other.index)))

    def __or__(self, other: object) -> Dataset:
        """Return the dataset of these items, and after them those that only ``other`` has, by id.

        Raises:
            OptionError: other data, or another batch class, than that of this one.
        """
        if not isinstance(other, Dataset):
            return NotImplemented
        made = object.__new__(Dataset)
        made._source = self._source.union(other._source)
        return made

    def _part(self, positions: Positions) -> Dataset:
        part = object.__new__(Dataset)
        part._source = self._source.subset(positions)
        return part


def _index_of(items: Any) -> Any:
    return items.index if isinstance(items, Dataset) else items
