"""One item of a batch, and the calls of a function with each.

What an item is given, and draws, does not depend on the batch, the worker or the thread it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowcore.crew import Crew
from flowcore.errors import DataError, OptionError, explain, near
from flowcore.memory import Allocate
from flowcore.rows import Stacks, row_of

if TYPE_CHECKING:
    from flowcore.batch import Batch

__all__ = ["Dropped", "Emptied", "Item", "Making", "map_items"]

_OWN = frozenset({"data", "epoch", "id", "position", "rng"})
_NONE: Mapping[str, Any] = {}


class Item:
    """One item of a batch, for the function that an action runs on each.

    Every component is an attribute. Reading it gives the item's row of the batch. That is a view,
    if the component is an array: what is written into it (``item.images[...] = 0``) is written into
    the batch's own array, at once. Setting it (``item.images = ...``) keeps the value for the batch
    that the items are put together to. It may be a component that is not loaded yet; on a class
    that declares none, any name will do, unless the batch's data is one object.

    An item is for use inside of its function, by one thread at a time.
    """

    __slots__ = ("_batch", "_new", "_row", "_stacks")

    _batch: Batch
    _row: int
    _stacks: Stacks  # of all items of the batch
    _new: dict[str, Any]  # what was set, by component; the one object is called "data"

    def __init__(self, batch: Batch, row: int, stacks: Stacks) -> None:
        object.__setattr__(self, "_batch", batch)
        object.__setattr__(self, "_row", row)
        object.__setattr__(self, "_new", {})
        object.__setattr__(self, "_stacks", stacks)

    @property
    def id(self) -> Any:
        """The item's id, as an int, a string or what else it is in Python."""
        found = self._batch.index[self._row]
        dates = isinstance(found, (np.datetime64, np.timedelta64))  # the finest would become ints
        return found.item() if isinstance(found, np.generic) and not dates else found

    @property
    def position(self) -> int:
        """The item's position in the dataset's index."""
        return int(self._batch.positions[self._row])

    @property
    def epoch(self) -> int:
        """The epoch's number, from zero."""
        return self._batch.epoch

    @property
    def rng(self) -> np.random.Generator:
        """The item's own generator, a function of (seed, epoch, position)."""
        generator: np.random.Generator = self._batch.item_rngs[self._row]
        return generator

    @property
    def data(self) -> Any:
        """The item's data: a dict of its components, or its entry of the batch's one object.

        The entry of a tuple of arrays is a tuple. Setting it is the same as returning it.
        """
        batch = self._batch
        if "data" in self._new:
            return self._new["data"]
        if batch.components or self._new:
            return {name: getattr(self, name) for name in {**(batch.data or {}), **self._new}}
        return row_of(batch.data, self._row, len(batch), "data")

    @data.setter
    def data(self, value: Any) -> None:
        names = self._batch.components
        if isinstance(value, Mapping) and (names or _is_open(self._batch)):
            for name, part in value.items():
                setattr(self, name, part)
        elif len(names) > 1:
            raise DataError(
                explain(
                    f"one value ({type(value).__name__}) for {len(names)} components",
                    where=f"{type(self._batch).__name__} with components {names}",
                    next="return item, or a dict of the components that are new",
                )
            )
        else:
            self._new[names[0] if names else "data"] = value

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is no attribute above.
        if name[:1] == "_":
            raise AttributeError(name)
        if name in self._new:
            return self._new[name]
        if name in self._batch.components:
            return row_of(getattr(self._batch, name), self._row, len(self._batch), name)
        raise _no_component(self._batch, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)  # of which `data` alone can be set
        elif name in self._batch.components or (_is_open(self._batch) and name[:1] != "_"):
            self._new[name] = value
        else:
            raise _no_component(self._batch, name)

    def __repr__(self) -> str:
        return f"<Item {self.id!r} at position {self.position}>"


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that was left out of its batch.

    Attributes:
        id: of the item.
        position: in the dataset's index.
        action: the name of the step that failed.
        error: what it failed of.
    """

    id: Any
    position: int
    action: str
    error: Exception


class Emptied(BaseException):
    """No item is left of a batch: all were dropped, or filtered out. It ends the batch's steps.

    It is no error, and no `Exception`, as `GeneratorExit` is none: an action around the one that
    raises it may catch every `Exception`, and would go on with a batch of nothing.
    """


class Making:
    """What a batch knows of the run that makes it; one for each attempt at a batch.

    Not a dataclass: it is made for every batch, and a dataclass calls a function for each default.

    Attributes:
        crew: what runs its items, and its ``async def`` actions.
        dropping: whether an item that fails is left out, and the rest goes on.
        options: of the run.
        variables: of the run.
        step: the name of the action that runs.
        task: the task that it is made for, if any.
        since: when it was begun, by `time.monotonic`.
        dropped: the items that were left out.
        items: the sinks' items so far.
        note: called with each step that begins.
        allocate: makes the arrays of `Batch.empty`; ``None`` for memory of this process.
    """

    __slots__ = (
        "allocate",
        "crew",
        "dropped",
        "dropping",
        "items",
        "note",
        "options",
        "since",
        "step",
        "task",
        "variables",
    )

    def __init__(
        self,
        crew: Crew,
        dropping: bool = False,
        options: Mapping[str, Any] = _NONE,
        variables: Mapping[str, Any] = _NONE,
        step: str = "",
        task: Any = None,
        since: float = 0.0,
    ) -> None:
        self.crew, self.dropping = crew, dropping
        self.options, self.variables = options, variables
        self.step, self.task, self.since = step, task, since
        self.dropped: list[Dropped] = []
        self.items: list[Any] = []
        self.note: Callable[[str], None] | None = None
        self.allocate: Allocate | None = None


def map_items(
    function: Callable[[Item], Any], batch: Batch, concurrency: int | None = None
) -> list[Any]:
    """Call ``function`` with each item of a batch; return the results.

    Outside of a run an ordinary function is called in this thread; see `Crew.map` for the rest.
    An item's error gets a note that names it. If items are dropped, those that fail are cut out of
    the batch, and have no result.

    Raises:
        Exception: that of the first item that failed, if items are not dropped.
        Emptied: every item was dropped; the batch has length 0.
    """
    _check_names(batch)
    _ = batch.item_rngs  # made before there are threads to make it twice
    stacks = Stacks(len(batch), batch.empty)
    items = [Item(batch, row, stacks) for row in range(len(batch))]
    making = batch._making
    dropping = making is not None and making.dropping
    crew = Crew(max_threads=0) if making is None else making.crew
    try:
        results = crew.map(function, items, concurrency, go_on=dropping)
    finally:
        if making is None:
            crew.close()
    failed = [row for row, result in enumerate(results) if isinstance(result, Exception)]
    for row in failed if dropping else failed[:1]:
        _note(results[row], items[row])
    if failed and (making is None or not dropping):
        raise results[failed[0]]
    if failed and making is not None:
        making.dropped += [_dropped(items[row], results[row], making.step) for row in failed]
        _cut_out(failed, batch, items)
        results = [result for result in results if not isinstance(result, Exception)]
    return results


def _check_names(batch: Batch) -> None:
    for name in batch.components:
        if name in _OWN:
            raise OptionError(
                explain(
                    f"per-item actions cannot tell component {name!r} from the item's own {name}",
                    where=repr(batch),
                    next="give the component another name",
                )
            )


def _cut_out(failed: list[int], batch: Batch, items: list[Item]) -> None:
    kept = np.delete(np.arange(len(items)), failed)
    batch.subset(kept)
    for row, place in enumerate(kept.tolist()):
        object.__setattr__(items[place], "_row", row)
    if not len(kept):
        raise Emptied


def _is_open(batch: Batch) -> bool:
    """Whether items may name components: the class declares none, and there is no one object."""
    return not type(batch).components and batch._whole is None


def _no_component(batch: Batch, name: str) -> AttributeError:
    names = batch.components
    return AttributeError(
        explain(
            f"an item has no {name!r}",
            where=f"{type(batch).__name__} with components {names}",
            next=near(name, {*names, *_OWN})
            or (f"declare it: components = {(*names, name)}" if names else "use item.data"),
        )
    )


def _dropped(item: Item, error: Exception, step: str) -> Dropped:
    return Dropped(item.id, item.position, step, error)


def _note(error: BaseException, item: Item) -> None:
    note = f"flowcore: item {item.id!r} (position {item.position})"
    if note not in getattr(error, "__notes__", ()):  # one error may be raised again and again
        error.add_note(note)
