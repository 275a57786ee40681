"""Where the items of a pipeline come from: ids, the class of their batches, data that is there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore.batch import Batch
from flowcore.errors import DataError, OptionError, PipelineError, explain
from flowcore.ids import Positions, compact
from flowcore.index import Index
from flowcore.readers import Preloaded

__all__ = ["Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where items come from: an index, a class for batches, and data that is already there.

    Attributes:
        index: the ids.
        batch_class: `Batch` or a subclass of it.
        preloaded: ``None``, or what `Preloaded` takes, with an entry for each id. It is read, never
            written to. Subsets share it.
        rows: of a subset, where its items are in ``preloaded``, as an index of ints.

    Raises:
        DataError: data of another length than the index, or that does not fit the components.
        PipelineError: ``batch_class`` is no batch class.
    """

    index: Index
    batch_class: type[Batch] = Batch
    preloaded: Any = field(default=None, repr=False)
    rows: Index | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.batch_class, type) and issubclass(self.batch_class, Batch)):
            raise PipelineError(
                explain(
                    f"batch_class must be a subclass of flowcore.Batch, got {self.batch_class!r}",
                    next="derive it from flowcore.Batch, and pass the class itself: "
                    "Dataset(index, MyBatch)",
                )
            )
        if self.preloaded is not None and not isinstance(self.preloaded, Preloaded):
            object.__setattr__(self, "preloaded", Preloaded(self.preloaded))
            self._check()

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
            rows = positions if self.rows is None else self.rows.ids(positions)
            batch.data = self.preloaded.read(rows)
        return batch

    def subset(self, positions: Positions) -> Source:
        """Return the source of the items at ``positions``, in their order; the data is shared.

        Raises:
            OptionError: positions that are repeated.
        """
        chosen = compact(positions)
        index = self.index.subset(chosen)
        if self.preloaded is None:
            return replace(self, index=index)
        rows = self._rows()
        # Of ids 0..n-1 they are the same, and need no memory of their own.
        same = rows is self.index or (self.rows is None and rows == self.index)
        return replace(self, index=index, rows=index if same else rows.subset(chosen))

    def union(self, other: Source) -> Source:
        """Return the source of these items, and after them those of ``other`` with other ids.

        Raises:
            OptionError: they have not the same batch class and data.
        """
        if self.batch_class is not other.batch_class or self.preloaded is not other.preloaded:
            what = "data" if self.batch_class is other.batch_class else "batch class"
            raise OptionError(
                explain(
                    f"two datasets with not the same {what} cannot be one",
                    why="| is for parts of one dataset, and for datasets without preloaded data",
                    next="use fc.concat([one, other])",
                )
            )
        index = self.index.union(other.index)
        if self.preloaded is None:
            return replace(self, index=index)
        rows = self._rows().union(other._rows())
        return replace(self, index=index, rows=rows)

    def _rows(self) -> Index:
        return Index(len(self.index)) if self.rows is None else self.rows

    def _check(self) -> None:
        for part in self.preloaded.parts:
            if hasattr(part.source, "__len__") and len(part.source) != len(self.index):
                raise DataError(
                    explain(
                        f"{part.where} has {len(part.source)} items, "
                        f"the index has {len(self.index)}",
                        next="give every component one entry for each id, in the order of the ids",
                    )
                )
        outline = self.preloaded.outline()
        if outline is not None:
            # Without reading anything: are these the components of the batch class?
            self.batch_class(np.arange(0)).data = outline
