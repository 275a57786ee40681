"""A batch: the ids of some items, their data, and the actions on them.

A batch class is an ordinary class, whose actions can be called directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from flowcore.errors import DataError, OptionError, explain, near
from flowcore.items import Making
from flowcore.memory import Shape, aligned_empty, form_of, frozen
from flowcore.rows import ItemStreams, cut, places_of
from flowcore.sampler import random_stream

__all__ = ["Batch", "Tensor", "checked_components", "first_ids"]

Tensor = Any  # what get_tensor returns: an array, a tuple of arrays, or a dict of arrays

_TAKEN = frozenset({"index", "positions", "number", "epoch"})  # set in Batch.__init__


class Batch:
    """The ids of some items, their data, and actions.

    Subclass it, and mark methods with `action`. With ``components`` declared, each is an
    attribute (``batch.images``); without, the data is one object, ``batch.data``.

    Args:
        index: the ids of the items.
        positions: their positions in the dataset's index; by default ``0..n-1``.
        data: what `data` is set to, if given.
        number: the batch's number in its epoch, from zero.
        epoch: the epoch's number, from zero.
        seed: of `rng`; ``None`` takes fresh entropy, as a batch outside of a run has no seed.

    Attributes:
        index: array of the ids.
        positions: int64 array of the positions in the dataset's index.
        number: the batch's number in its epoch, from zero.
        epoch: the epoch's number, from zero.
    """

    components: tuple[str, ...] = ()
    #: It repeats items, so that a shard has as many batches as the others.
    filler: bool = False
    # What a run sets: what the batch knows of it while it is made, and what the items' generators
    # go by instead of the positions, one key for each.
    _making: Making | None = None
    _options: Mapping[str, Any] = {}
    _keys: NDArray[np.int64] | None = None
    _rng: np.random.Generator | None = None
    _item_rngs: ItemStreams | None = None
    _whole: Any = None

    def __init__(
        self,
        index: Sequence[Any] | NDArray[Any],
        positions: NDArray[np.int64] | None = None,
        *,
        data: Any = None,
        number: int = 0,
        epoch: int = 0,
        seed: int | None = None,
    ) -> None:
        self.index = index if type(index) is np.ndarray else np.asarray(index)
        self.positions = np.arange(len(self.index)) if positions is None else positions
        self.number = number
        self.epoch = epoch
        self._seed = seed
        if data is not None:
            self.data = data

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "components" in vars(cls):
            declared: Any = cls.components  # a lone name is taken for one component
            names = (declared,) if isinstance(declared, str) else tuple(declared or ())
            cls.components = checked_components(names)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.number} of epoch {self.epoch}, "
            f"{len(self)} items: {first_ids(self.index)}>"
        )

    def __getattr__(self, name: str) -> Any:
        # Reached only when the attribute does not exist.
        if name in self.components:
            raise AttributeError(
                explain(
                    f"component {name!r} is not loaded",
                    where=repr(self) if "index" in vars(self) else None,
                    next=f"set it in an action before: self.{name} = ...; return self; and see "
                    "that the pipeline has that action: each call returns a new pipeline",
                )
            )
        hint = near(name, {*self.components, *vars(self)}) if name[:1] != "_" else ""
        text = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(explain(text, next=hint))

    @property
    def indices(self) -> NDArray[Any]:
        """The ids of the items; another name of `index`."""
        return self.index

    @property
    def rng(self) -> np.random.Generator:
        """The batch's own generator: a function of (seed, epoch, number), made on first use."""
        if self._rng is None:
            if self._seed is None:
                self._rng = np.random.default_rng()
            else:
                self._rng = random_stream(self._seed, self.epoch, self.number)
        return self._rng

    @property
    def item_rngs(self) -> Sequence[np.random.Generator]:
        """A generator for each item: a function of (seed, epoch, position), made on first use.

        What it draws is the same in whatever batch the item is.
        """
        if self._item_rngs is None:
            keys = self.positions if self._keys is None else self._keys
            self._item_rngs = ItemStreams(self._seed, self.epoch, keys)
        return self._item_rngs

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the run that the action packs of the pipeline declare, by name."""
        return self._options if self._making is None else self._making.options

    def empty(self, shape: Shape, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """Return a C-ordered array, of whatever values, for an action to write its output into.

        It starts at a multiple of 64 bytes on every executor. Where the workers are other processes
        it is memory that the run shares with them, so that the array gets there without a copy. It
        is of this batch: an action that keeps it for later batches keeps its memory from them. A
        sink may take it as it is, and make it read-only: see `frozen`.

        Args:
            shape: of the array.
            dtype: of the array; float64 by default, as in NumPy.

        Raises:
            ValueError: a negative length.
        """
        making = self._making
        if making is None or making.allocate is None:
            return aligned_empty(shape, dtype)
        lengths, kind, _ = form_of(shape, dtype)
        return making.allocate(lengths, kind)

    def frozen(self, array: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Return the values of an array in memory that nobody writes to any more; for sinks.

        It is C-ordered, read-only, and starts at a multiple of 64 bytes; one of objects need not.
        It is the array itself, if that is so already and has the dtype: read-only down to what owns
        its memory; or from `empty`, and no other plain view of its memory exists. The latter is
        then made read-only for all, so that an action which writes to it later fails. Else it is a
        copy, from `empty`, and the array stays as it is.

        Only views of NumPy's own class are seen. Who writes after the sink's step through another
        to such an array changes what the sink has: through a view of a subclass (a record array, a
        matrix, a masked array), a `memoryview`, or a tensor of a framework; or through a view of a
        read-only array that is older than its being so.

        Args:
            array: any; what is none is made one.
            dtype: to have; by default the array's own.

        Raises:
            TypeError: NumPy calls it no cast of the same kind.
        """
        given = np.asarray(array)
        return frozen(given, given.dtype if dtype is None else np.dtype(dtype), self.empty)

    @classmethod
    def worker_started(cls, name: str) -> None:
        """Set a worker up for batches of this class; here nothing.

        Called in each worker before its first task, after the hook of the same name, in the thread
        that then makes batches; where that is the calling thread, in that. Not for a pool that the
        user made, and not for `Dataset.create_batch`. What it raises is the error of the tasks
        given to that worker.

        Args:
            name: of the worker.
        """

    @classmethod
    def worker_ended(cls, name: str) -> None:
        """Tear a worker down; the counterpart of `worker_started`, in the same thread.

        What it raises is logged, and changes nothing. A worker that is killed does not call it.
        """

    @property
    def data(self) -> Any:
        """The batch's data: a dict of the components that are loaded, or the one object set.

        Setting it takes a dict, or a tuple in the order of `components`, or for a single component
        its value. A dict on a class that declares no components names the batch's own.

        Raises:
            DataError: (on setting) names or a number of values that are not the components'.
        """
        if self.components:
            return {name: vars(self)[name] for name in self.components if name in vars(self)}
        return self._whole

    @data.setter
    def data(self, value: Any) -> None:
        # An array, as most often, is known by its type: to ask for a mapping takes longer.
        if (
            type(value) is not np.ndarray
            and isinstance(value, Mapping)
            and not type(self).components
        ):
            self.components = checked_components(tuple(value))
        if self.components:
            vars(self).update(_by_name(value, self.components, type(self).__name__))
        else:
            self._whole = value

    _data = data

    def subset(self, keep: ArrayLike) -> Self:
        """Keep some of the items, in place: their ids, data and generators; return the batch.

        Args:
            keep: a bool for each item, or the places of those to keep, in the order to have them.

        Raises:
            OptionError: ``keep`` is neither.
            DataError: a component, or the data, has no entry for each item. Nothing is changed.
        """
        places = places_of(keep, len(self))
        loaded = self.data if self.components else {"data": self._whole}
        parts = {
            name: cut(value, places, len(self), name)
            for name, value in loaded.items()
            if value is not None
        }
        if self._item_rngs is not None:
            self._item_rngs = self._item_rngs.cut(places)
        if self._keys is not None:
            self._keys = self._keys[places]
        self.index, self.positions = self.index[places], self.positions[places]
        if parts:
            self.data = parts if self.components else parts["data"]
        return self

    def take_place_of(self, other: Batch) -> None:
        """Go on as ``other``, which an action replaces by this batch.

        Generators go on where they are: those of the items, if there are as many here.
        """
        self.number, self.epoch, self.filler = other.number, other.epoch, other.filler
        self._seed, self._rng, self._making = other._seed, other._rng, other._making
        if len(self) == len(other):
            self._keys, self._item_rngs = other._keys, other._item_rngs

    def get_tensor(self) -> Tensor:
        """Return what a sink takes of this batch: one array, or a tuple with one per component.

        Override it, or give the sink another function as ``get_tensor=``.

        Raises:
            DataError: the batch has no data yet.
        """
        data = self.data
        missing = [name for name in self.components if name not in vars(self)]
        if missing and data:
            raise DataError(
                explain(
                    f"component {missing[0]!r} is not loaded, so there is no whole tensor",
                    where=repr(self),
                    why=f"loaded: {', '.join(data)}",
                    next=near(missing[0], set(vars(self)) - set(data))
                    or f"set it in an action: self.{missing[0]} = ...; or give the sink "
                    "get_tensor= to leave it out",
                )
            )
        if data is None or (isinstance(data, dict) and not data):
            raise DataError(
                explain(
                    "the batch has no data to make a tensor of",
                    where=repr(self),
                    next="load some in an action, give the dataset preloaded=, or pass the sink "
                    "get_tensor=",
                )
            )
        if isinstance(data, dict):
            data = tuple(data.values())
        if isinstance(data, tuple):
            arrays = tuple(np.asarray(value) for value in data)
            return arrays[0] if len(arrays) == 1 else arrays
        return np.asarray(data)


def _by_name(value: Any, names: tuple[str, ...], owner: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - set(names))
        if not unknown:
            return value
        problem = f"no component is called {', '.join(map(repr, unknown))}"
    elif isinstance(value, tuple):
        if len(value) == len(names):
            return dict(zip(names, value, strict=True))
        problem = f"{len(value)} values for {len(names)} components"
    elif len(names) == 1:
        return {names[0]: value}
    else:
        problem = f"one value ({type(value).__name__}) for {len(names)} components"
    raise DataError(
        explain(
            problem,
            where=f"{owner} with components {names}",
            next=f"pass a dict with the keys {names}, or a tuple in that order",
        )
    )


def checked_components(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names that components may have; refuse those that a batch has for other things."""
    taken = [name for name in names if name in _TAKEN or hasattr(Batch, name)]
    if taken or len(set(names)) < len(names):
        raise OptionError(
            explain(
                f"components cannot be called {', '.join(map(repr, taken or names))}",
                why="a batch has attributes of these names" if taken else "names are repeated",
                next="give them other names",
            )
        )
    return names


def first_ids(ids: NDArray[Any], most: int = 3) -> str:
    """Return the first ids as text, for messages."""
    shown = ", ".join(repr(id_) for id_ in ids[:most].tolist())
    return f"[{shown}{', ...' if len(ids) > most else ''}]"
