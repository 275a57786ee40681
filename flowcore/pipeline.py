"""The pipeline: an immutable recipe, written by attribute access, and the four ways to run it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from flowcore.batch import Batch
from flowcore.errors import RunInProgress, explain
from flowcore.recipe import Recipe
from flowcore.run.engine import Engine
from flowcore.run.handles import Feed, Run
from flowcore.run.report import Report
from flowcore.run.settings import Settings
from flowcore.run.single import make_one
from flowcore.sampler import Shuffle
from flowcore.steps import SinkStep
from flowcore.writer import Writer

__all__ = ["Pipeline"]


class Pipeline(Writer):
    """An immutable recipe of steps over the batches of a dataset; nothing in it is executed.

    Each step is written as a call, and returns a new pipeline: ``pipeline.name(...)`` is an action
    of the batch class, ``pipeline.pack.name(...)`` one of an installed action pack,
    ``pipeline.put_into_<sink>(...)`` an installed sink. What can be known to be wrong is refused
    in that call.

    A pipeline is made by a dataset (``dataset.p``). ``Pipeline()`` is a template, a recipe over
    none: ``template << dataset`` gives it one, and only then are its actions looked for.
    ``one + other`` is one after the other.
    """

    def __init__(self, recipe: Recipe | None = None) -> None:
        super().__init__(recipe)
        self._lock = threading.Lock()  # next_batch may be called in several threads
        self._run: tuple[dict[str, Any], Run] | None = None  # the run of next_batch

    def next_batch(
        self,
        batch_size: int,
        shuffle: Shuffle = False,
        n_epochs: int | None = 1,
        drop_last: bool = False,
        prefetch: int | None = None,
        **options: Any,
    ) -> Batch:
        """Return the next batch; the first call starts the run, the others go on with it.

        The arguments are those of `gen_batch`, and must be the same in each call.

        Raises:
            StopIteration: the data has ended; `reset` starts over.
            RunInProgress: other arguments than those of the run in progress.
            Exception: what the run failed of, again in each call until `reset`.
        """
        arguments = _arguments(batch_size, shuffle, n_epochs, drop_last, prefetch, options)
        with self._lock:
            if self._run is None:
                self._run = arguments, Run(self._recipe, Settings.of(arguments))
            begun, run = self._run
            different = [
                name
                for name in {**begun, **arguments}
                if not _same(begun.get(name, _MISSING), arguments.get(name, _MISSING))
            ]
            if different:
                raise RunInProgress(_other_arguments(different, begun, arguments))
            try:
                run.start()
            except BaseException:
                self._run = None  # it never ran: the next call may have better arguments
                raise
        return next(run)

    def reset(self) -> None:
        """Close the run of `next_batch`, so that its next call starts a new one."""
        with self._lock:
            if self._run is not None:
                self._run[1].close()
            self._run = None

    @property
    def report(self) -> Report | None:
        """What has happened in the run of `next_batch` so far; ``None`` if there is none."""
        return None if self._run is None else self._run[1].report

    def state_dict(self) -> dict[str, Any]:
        """Return where the run of `next_batch` is; ``resume=`` of a later run goes on from there.

        Raises:
            RunInProgress: there is no such run.
        """
        if self._run is None:
            raise RunInProgress("next_batch has not been called, so there is no run in progress")
        return self._run[1].state_dict()

    def gen_batch(
        self,
        batch_size: int,
        shuffle: Shuffle = False,
        n_epochs: int | None = 1,
        drop_last: bool = False,
        prefetch: int | None = None,
        **options: Any,
    ) -> Run:
        """Return a run: an iterator of batches, and a context manager.

        Args:
            batch_size: items in a batch; the last batch of an epoch may be shorter.
            shuffle: ``True`` for a fresh permutation of the whole index in each epoch; a
                `numpy.random.Generator` or ``RandomState`` to draw the seed from; or a callable
                that is given the positions in order, once an epoch, and returns a permutation.
            n_epochs: passes over the index; ``None`` has no end.
            drop_last: leave a last short batch out.
            prefetch: how many batches beyond the one being consumed may be in progress or waiting;
                0 runs all in the calling thread. By default 0, or twice ``num_workers`` where that
                or ``executor`` is given.
            options: ``seed``, ``sampler``, ``shard``, ``uneven``, ``resume``, ``variables``,
                ``executor``, ``num_workers``, ``sink``, ``ordered``, ``on_error``, ``retries``,
                ``backoff``, ``retry_on``, ``max_errors``, ``stall_warning``, ``progress`` (see the
                reference), and those that the sinks, action packs and the executor of this
                pipeline declare.

        Raises:
            OptionError: a value that cannot be right.
            ArgumentError: an option that nobody declares.
            UnknownPlugin, AmbiguousPlugin, BrokenPlugin: ``executor`` or ``sink``.
        """
        arguments = _arguments(batch_size, shuffle, n_epochs, drop_last, prefetch, options)
        return Run(self._recipe, Settings.of(arguments))

    def run(
        self,
        batch_size: int,
        shuffle: Shuffle = False,
        n_epochs: int | None = 1,
        drop_last: bool = False,
        prefetch: int | None = None,
        **options: Any,
    ) -> Report:
        """Run to the end of the data and return the report, with the sinks' results on it.

        The arguments are those of `gen_batch`; ``n_epochs=None`` never returns.
        """
        arguments = _arguments(batch_size, shuffle, n_epochs, drop_last, prefetch, options)
        engine = Engine(self._recipe, Settings.of(arguments), hands_over=False)
        engine.to_the_end()
        return engine.report

    def feed(
        self,
        batch_size: int,
        shuffle: Shuffle = False,
        n_epochs: int | None = 1,
        drop_last: bool = False,
        prefetch: int | None = None,
        **options: Any,
    ) -> Feed:
        """Return a feed: ``with pipeline.feed(...)`` fills the sinks while the block trains.

        The arguments are those of `gen_batch`. At the end of the data the sinks are closed, so
        that the consumer sees their own end of data.
        """
        arguments = _arguments(batch_size, shuffle, n_epochs, drop_last, prefetch, options)
        return Feed(self._recipe, Settings.of(arguments))

    def batch(
        self,
        number: int,
        epoch: int = 0,
        *,
        batch_size: int,
        shuffle: Shuffle = False,
        seed: int | None = None,
        **options: Any,
    ) -> Batch:
        """Make exactly one batch of a run here, through all actions and into no sink.

        Args:
            number: of the batch in its epoch, from zero.
            epoch: from zero.
            batch_size: of the run.
            shuffle: of the run.
            seed: of the run; needed where it shuffles, or where an action uses ``batch.rng``.
            options: ``sampler`` and ``variables`` of the run, and those that its action packs
                declare.

        Raises:
            IndexError: the epoch has no such batch.
            Exception: what an action raises.
        """
        recipe = Recipe(
            self._recipe.source,
            tuple(step for step in self.steps if not isinstance(step, SinkStep)),
        )
        arguments = _arguments(batch_size, shuffle, 1, False, 0, {**options, "seed": seed})
        return make_one(recipe, Settings.of(arguments), number, epoch)


_MISSING = object()


def _arguments(
    batch_size: int,
    shuffle: Shuffle,
    n_epochs: int | None,
    drop_last: bool,
    prefetch: int | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "batch_size": batch_size,
        "shuffle": shuffle,
        "n_epochs": n_epochs,
        "drop_last": drop_last,
        "prefetch": prefetch,
        **options,
    }


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:  # an array, or whatever else does not compare to a truth
        return False


def _other_arguments(different: list[str], begun: Any, arguments: Any) -> str:
    def show(given: Mapping[str, Any], name: str) -> str:
        return f"{name}={given[name]!r:.60}" if name in given else f"no {name}"

    return explain(
        "next_batch goes on with the run in progress, which was begun with other arguments",
        why="; ".join(f"{show(begun, name)}, now {show(arguments, name)}" for name in different),
        next="pass the same arguments (of a generator or a function, the same object), or call "
        "pipeline.reset() to start over",
    )
