"""The batches of a run: which there are, what is in each, and where a run is after so many.

All of it is computed from the run's arguments: batch k of epoch e is made from (sampler, seed, e,
k) alone, and the place of a run is a count. So a run begins anywhere at once, and a part of the
batches can be made on another machine.

Batches are numbered over all shards: in each round, rank r of w takes the r-th of the next w. Where
the batches of an epoch do not fill its last round, ``uneven`` says what becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import DataError, OptionError, explain
from flowcore.executors.base import Task
from flowcore.sampler import Batches, BatchSampler, Order, Sampler, checked_positions
from flowcore.shard import Shard

__all__ = ["Plan", "Position", "Uneven"]

Uneven = Literal["pad", "drop", "short"]

_BLOCK = 1 << 13  # positions that are computed at a time, at most: the arrays fit into a cache


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between two batches of a run.

    Attributes:
        epoch: from zero.
        batch: number, over all shards, of the batch that comes next.
        skip: items of that batch that are through already: those of a run that rebatches.
        number: of the next batch, as it is after rebatching.
    """

    epoch: int = 0
    batch: int = 0
    skip: int = 0
    number: int = 0


@dataclass(kw_only=True, eq=False)
class Plan:
    """The batches of a run, and of this shard's part of it.

    Attributes:
        sampler: orders the items of each epoch.
        length: number of items of the index.
        batch_size: items in a batch; the last batch of an epoch may be shorter.
        seed: of the run.
        n_epochs: passes over the index; ``None`` has no end.
        drop_last: leave a last short batch out.
        shard: which of the batches are this run's.
        uneven: what becomes of a last round that has fewer batches than there are shards: ``"pad"``
            repeats batches of the epoch, marked as fillers; ``"drop"`` leaves it out; ``"short"``
            gives some shards a batch less.
        start: where the run begins.
        beyond: places, counted from the start, that another run has handed over already.
        dropping: items that fail are dropped at the first attempt.
        epoch_batches: number of batches in an epoch, over all shards, without fillers.

    Raises:
        OptionError: an endless run whose epoch holds no batch; a start behind the end.
    """

    sampler: Sampler
    length: int
    batch_size: int
    seed: int = 0
    n_epochs: int | None = 1
    drop_last: bool = False
    shard: Shard = field(default_factory=Shard)
    uneven: Uneven = "pad"
    start: Position = Position()
    beyond: tuple[int, ...] = ()
    dropping: bool = False

    def __post_init__(self) -> None:
        # What was computed last: used by one thread at a time, the one that makes tasks. Orders are
        # kept for some epochs, as a batch of one that is over may be needed once more.
        self._orders: dict[int, Order | Batches] = {}
        self._block: tuple[int, int, NDArray[np.int64]] = (-2, 0, np.arange(0))
        self._ahead = 1  # batches that the next block has
        self._size = self.sampler.size(self.length)
        self._formed = isinstance(self.sampler, BatchSampler)
        self._world, self._repeats = self.shard.world, self.sampler.repeats
        self.epoch_batches = self._count()
        if self.start.batch >= self.epoch_batches and self.start.batch:
            self._check_start()
            self.start = Position(self.start.epoch + 1)
        if self.n_epochs is None and not self.rounds():
            raise OptionError(self._endless())
        if self.n_epochs is not None and self.start.epoch > self.n_epochs:
            raise OptionError(
                explain(
                    f"a run of {self.n_epochs} epochs cannot start in epoch {self.start.epoch}, "
                    "counted from 0",
                    next=f"n_epochs={self.start.epoch + 1} or more: it counts all epochs, those "
                    "that are through too",
                )
            )
        self.beyond = self._known_beyond()

    def _count(self) -> int:
        if isinstance(self.sampler, BatchSampler):
            if self.drop_last:
                raise OptionError(
                    explain(
                        f"drop_last=True, and the sampler {self.sampler} forms the batches itself",
                        next="leave drop_last out",
                    )
                )
            return len(self._batches(self.start.epoch))
        return (self._size + (0 if self.drop_last else self.batch_size - 1)) // self.batch_size

    def _check_start(self) -> None:
        if self.start.batch > self.epoch_batches:
            raise OptionError(
                f"a run cannot start at batch {self.start.batch} of an epoch, "
                f"which has {self.epoch_batches}: {self._described()}"
            )

    def _described(self) -> str:
        return f"{self._size} items, batch_size={self.batch_size}, drop_last={self.drop_last}" + (
            f", shard {self.shard.rank} of {self.shard.world}, uneven={self.uneven!r}"
            if self.shard.world > 1
            else ""
        )

    def _endless(self) -> str:
        return explain(
            "an endless run (n_epochs=None) whose epoch holds no batch",
            why=self._described(),
            next="give it data, a smaller batch_size, or drop_last=False",
        )

    # Counting

    def rounds(self, done: int = 0) -> int:
        """Return how many batches this shard has of an epoch, of which ``done`` are through."""
        left, world = self.epoch_batches - done, self.shard.world
        if self.uneven == "pad":
            left += world - 1
        elif self.uneven == "short":
            left += world - 1 - self.shard.rank
        return max(left, 0) // world

    def _known_beyond(self) -> tuple[int, ...]:
        """Return those of the places `beyond` that the run has."""
        given = self.beyond
        self.beyond = ()
        total = self.batches
        return tuple(place for place in sorted(set(given)) if total is None or place < total)

    @property
    def batches(self) -> int | None:
        """Number of batches that this run has from its start on; ``None`` if there is no end."""
        if self.n_epochs is None:
            return None
        epochs = self.n_epochs - self.start.epoch
        if not epochs:
            return 0
        return self.rounds(self.start.batch) + (epochs - 1) * self.rounds() - len(self.beyond)

    @property
    def items(self) -> int | None:
        """Number of items in them, those `beyond` too; ``None`` if there is no end."""
        if self.n_epochs is None:
            return None
        epochs = self.n_epochs - self.start.epoch
        first = self.epoch_items(self.start.batch)
        return first + (epochs - 1) * self.epoch_items() if epochs else 0

    def epoch_items(self, done: int = 0) -> int:
        """Return how many items are in this shard's batches of an epoch, from batch ``done`` on."""
        rounds, world = self.rounds(done), self.shard.world
        if isinstance(self.sampler, BatchSampler):
            numbers = np.arange(done + self.shard.rank, done + rounds * world, world)
            batches = self._batches(self.start.epoch)
            numbers %= max(1, self.epoch_batches)
            if hasattr(batches, "sizes"):
                return int(batches.sizes(numbers).sum())
            return sum(len(batches[number]) for number in numbers.tolist())
        if not rounds:
            return 0
        last = (done + (rounds - 1) * world + self.shard.rank) % self.epoch_batches
        rest = min(self.batch_size, self._size - last * self.batch_size)
        return (rounds - 1) * self.batch_size + rest  # only a last round can have the short batch

    def position(self, done: int) -> Position:
        """Return where the run is when ``done`` of this shard's batches are through."""
        if not done:
            return self.start
        first, each, world = self.rounds(self.start.batch), self.rounds(), self.shard.world
        if done < first:
            return Position(self.start.epoch, self.start.batch + done * world)
        epochs, rounds = divmod(done - first, each) if each else (0, 0)
        return Position(self.start.epoch + 1 + epochs, rounds * world)

    # Tasks

    def __iter__(self) -> Iterator[tuple[int, Task]]:
        """Generate the tasks of this shard, from the start on, each with its place."""
        epoch, done, world = self.start.epoch, self.start.batch, self.shard.world
        place, beyond = 0, frozenset(self.beyond)
        while self.n_epochs is None or epoch < self.n_epochs:
            first = done + self.shard.rank
            for number in range(first, first + self.rounds(done) * world, world):
                if place not in beyond:
                    yield place, self.task(epoch, number)
                place += 1
            epoch, done = epoch + 1, 0

    def task(self, epoch: int, number: int) -> Task:
        """Return the task of one batch; behind the last come fillers, which repeat one."""
        filler = number >= self.epoch_batches
        if filler:
            number %= self.epoch_batches
        positions = self.positions(epoch, number)
        task = Task(epoch, number, positions, self.seed, filler, self.dropping)
        if self._repeats:
            # Of an item that comes twice, each has a random stream of its own: by its place.
            first = number << 32 if self._formed else number * self.batch_size
            task.keys = np.arange(first, first + len(task.positions))
        return task

    def positions(self, epoch: int, number: int) -> NDArray[np.int64]:
        """Return the positions of one batch: int64, read-only."""
        if self._formed:
            batches = self._batches(epoch)
            with self._noted(epoch):
                positions = self._checked(batches[number], epoch)
                self._check_count(min(1, len(positions)), 1, f"items in batch {number}", epoch)
            return positions
        its, first, block = self._block
        rounds, rest = number - first, 0
        if self._world > 1:
            rounds, rest = divmod(rounds, self._world)
        start = rounds * self.batch_size
        if rest or its != epoch or not 0 <= start < len(block):
            block, start = self._next_block(epoch, number), 0
            self._block = epoch, number, block
        return block[start : start + self.batch_size]

    def _next_block(self, epoch: int, number: int) -> NDArray[np.int64]:
        """Compute the batch ``number`` and those that this shard has after it."""
        before, first = self._block[:2]
        follows = number > first if epoch == before else epoch == before + 1
        self._ahead = min(2 * self._ahead, _BLOCK // self.batch_size) if follows else 1
        world, size = self.shard.world, min(self.batch_size, max(1, self._size))
        count = max(1, min(self._ahead, (self.epoch_batches - number - 1) // world + 1))
        if world == 1:
            places: slice | NDArray[np.int64] = slice(
                number * size, min((number + count) * size, self._size)
            )
        else:
            numbers = np.arange(number, number + count * world, world)
            places = (numbers[:, None] * size + np.arange(size)).ravel()
            places = places[places < self._size]  # cuts the short batch, which is the last
        order = self._order(epoch)
        with self._noted(epoch):
            block = self._checked(order[places], epoch)
            wanted = places.stop - places.start if isinstance(places, slice) else len(places)
            self._check_count(len(block), wanted, "positions at once", epoch)
        return block

    def _checked(self, positions: object, epoch: int) -> NDArray[np.int64]:
        where = f"{self.sampler} in epoch {epoch}"
        found = checked_positions(positions, self.length, where).copy()  # it may be the user's own
        found.flags.writeable = False  # an action must not change what a retry reads
        return found

    def _order(self, epoch: int) -> Order:
        if epoch not in self._orders:
            with self._noted(epoch):
                order: Any = self.sampler.order(self.length, seed=self.seed, epoch=epoch)
                order = np.asarray(order) if isinstance(order, (list, tuple)) else order
                self._check_count(len(order), self._size, "positions", epoch)
            self._keep(epoch, order)
        return self._orders[epoch]

    def _keep(self, epoch: int, order: Order | Batches) -> None:
        self._orders[epoch] = order
        while len(self._orders) > max(4, _BLOCK // max(1, self._size)):
            del self._orders[next(iter(self._orders))]

    def _batches(self, epoch: int) -> Batches:
        assert isinstance(self.sampler, BatchSampler)
        if epoch not in self._orders:
            with self._noted(epoch):
                batches = self.sampler.batches(
                    self.length, self.batch_size, seed=self.seed, epoch=epoch
                )
                if not (hasattr(batches, "__len__") and hasattr(batches, "__getitem__")):
                    raise DataError(
                        explain(
                            f"a sampler gave {type(batches).__name__} as the batches of an epoch",
                            next="return a list of arrays of positions",
                        )
                    )
                if self._orders:
                    self._check_count(len(batches), self.epoch_batches, "batches", epoch)
            self._keep(epoch, batches)
        return self._orders[epoch]

    @contextmanager
    def _noted(self, epoch: int) -> Iterator[None]:
        where = f"in the order of epoch {epoch}, by {self.sampler}"
        try:
            yield
        except StopIteration as error:  # which would end the run without a word
            raise DataError(f"a sampler raised StopIteration, {where}") from error
        except Exception as error:
            error.add_note(f"flowcore: {where}")
            raise

    def _check_count(self, found: int, expected: int, what: str, epoch: int) -> None:
        if found != expected:
            raise DataError(
                explain(
                    f"sampler {self.sampler} gave {found} {what} in epoch {epoch}, not {expected}",
                    why="how many there are is known before the start, as in every other epoch",
                )
            )
