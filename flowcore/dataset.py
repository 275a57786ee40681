"""The dataset: an index, the batch class of its items, and data that is already there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from flowcore.batch import Batch, action_mark
from flowcore.errors import PipelineError, explain
from flowcore.index import Index, IndexLike
from flowcore.pipeline import Pipeline
from flowcore.recipe import Recipe, Source

__all__ = ["Dataset"]


class Dataset:
    """An index, and the batch class that loads and processes its items.

    Args:
        index: an int ``n`` for the ids ``0..n-1``, a sequence or array of unique ids, an `Index`.
        batch_class: `Batch`, or a subclass of it.
        preloaded: data in memory, one entry for each id in the order of the ids: an array, a tuple
            of arrays, a dict of arrays by component, or an object whose ``__getitem__`` takes an
            int64 array of positions. A batch gets a copy of its part; the data is not written to.

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
        self._source = Source(Index(index), batch_class, preloaded)
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
