"""The pipeline: an immutable recipe, written by attribute access, and the four ways to run it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

from flowcore.batch import Batch, action_mark
from flowcore.errors import (
    AmbiguousPlugin,
    ArgumentError,
    PipelineError,
    RunInProgress,
    UnknownAction,
    explain,
    near,
)
from flowcore.plugins import find, identifier, install_hint, load, names
from flowcore.recipe import ActionStep, Recipe, SinkStep, Step
from flowcore.run.engine import Engine, make_one
from flowcore.run.handles import Feed, Run
from flowcore.run.report import Report
from flowcore.run.settings import Settings
from flowcore.sampler import Shuffle
from flowcore.sinks import Sink, as_sink

__all__ = ["Pipeline"]

_PUT = "put_into_"


class Pipeline:
    """An immutable recipe of steps over the batches of a dataset; nothing in it is executed.

    Each step is written as a call, and returns a new pipeline: ``pipeline.name(...)`` is an action
    of the batch class, ``pipeline.pack.name(...)`` one of an installed action pack,
    ``pipeline.put_into_<sink>(...)`` an installed sink. What can be known to be wrong is refused
    in that call.

    A pipeline is made by a dataset (``dataset.p``); ``Pipeline()`` is a recipe over none.
    """

    def __init__(self, recipe: Recipe | None = None) -> None:
        self._recipe = recipe or Recipe()
        self._lock = threading.Lock()  # next_batch may be called in several threads
        self._run: tuple[dict[str, Any], Run] | None = None  # the run of next_batch

    # Writing

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, as data."""
        return self._recipe.steps

    def put_into(self, sink: str | Sink, /, **options: Any) -> Pipeline:
        """Send each batch, as it is at this step, into a sink.

        Args:
            sink: the name of an installed sink, ``"distribution:name"``, or a `Sink`.
            options: the sink's own, with a name.

        Raises:
            UnknownPlugin, AmbiguousPlugin, BrokenPlugin: the name does not lead to one sink.
            ArgumentError, OptionError: options that the sink does not take.
        """
        if isinstance(sink, Sink) and options:
            raise PipelineError("options go with a sink's name, not with a Sink object")
        made = as_sink((sink, options) if isinstance(sink, str) else sink)
        return self._then(SinkStep(made.sink_name or type(made).__name__, made, options))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copy, pickle and inspect ask every object for
            raise AttributeError(name)
        function: Any = getattr(self._batch_class, name, None)
        if action_mark(function) is not None:
            return self._writer(name, function)
        for pack in names("flowcore.actions"):
            if identifier(pack) == name:
                return _Pack(self, pack)
        if name.startswith(_PUT):
            return self._sink_writer(name.removeprefix(_PUT))
        raise self._unknown(name, function)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pipeline, (self._recipe,)  # a copy has a run of its own

    def __dir__(self) -> list[str]:
        actions = [name for name, _ in _actions(self._batch_class)]
        packs = [identifier(name) for name in names("flowcore.actions")]
        sinks = [_PUT + identifier(name) for name in names("flowcore.sinks")]
        return sorted({*super().__dir__(), *actions, *packs, *sinks})

    def __repr__(self) -> str:
        return str(self._recipe)

    # Running

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
            options: ``seed``, ``executor``, ``num_workers``, ``sink``, ``ordered``, ``on_error``,
                ``retries``, ``stall_warning``, ``progress`` (see the reference), and those that the
                sinks, action packs and the executor of this pipeline declare.

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
            options: those of the run that its action packs declare.

        Raises:
            IndexError: the epoch has no such batch.
            Exception: what an action raises.
        """
        recipe = Recipe(
            self._recipe.source, tuple(step for step in self.steps if isinstance(step, ActionStep))
        )
        arguments = _arguments(batch_size, shuffle, 1, False, 0, {**options, "seed": seed})
        return make_one(recipe, Settings.of(arguments), number, epoch)

    # Writing, inside

    @property
    def _batch_class(self) -> type[Batch]:
        source = self._recipe.source
        return Batch if source is None else source.batch_class

    def _then(self, step: Step) -> Pipeline:
        return Pipeline(self._recipe.then(step))

    def _writer(
        self, name: str, function: Callable[..., Any], run_options: Mapping[str, str] | None = None
    ) -> Callable[..., Pipeline]:
        """Return what writes a step of ``function``; it looks like ``function`` to a help."""

        @functools.wraps(function)
        def write(*args: Any, **kwargs: Any) -> Pipeline:
            return self._then(ActionStep(name, function, args, kwargs, run_options or {}))

        return write

    def _sink_writer(self, attribute: str) -> Callable[..., Pipeline]:
        found = [name for name in names("flowcore.sinks") if identifier(name) == attribute]
        if len(found) > 1:
            raise AmbiguousPlugin(
                explain(
                    f"sinks {' and '.join(map(repr, found))} are both called {_PUT}{attribute}",
                    next=f"put_into({found[0]!r}, ...) says which",
                )
            )
        name = found[0] if found else attribute.replace("_", "-")
        find("flowcore.sinks", name)  # an unknown one is told what is installed

        def write(*args: Any, **options: Any) -> Pipeline:
            if args:
                raise ArgumentError(
                    explain(
                        f"{_PUT}{attribute} takes its options by name, got {args[0]!r:.60}",
                        next=f"{_PUT}{attribute}(option=...)",
                    )
                )
            return self.put_into(name, **options)

        write.__name__ = _PUT + attribute
        write.__doc__ = f"Send each batch into the sink {name!r}; its options are the arguments."
        return write

    def _unknown(self, name: str, function: object) -> UnknownAction:
        owner = self._batch_class.__name__
        if callable(function):
            return UnknownAction(
                explain(
                    f"{owner}.{name} is not an action",
                    why="it is not marked",
                    next=f"write @flowcore.action above `def {name}`",
                )
            )
        actions = [action for action, _ in _actions(self._batch_class)]
        packs = [identifier(pack) for pack in names("flowcore.actions")]
        hint = near(name, [attribute for attribute in dir(self) if attribute[0] != "_"])
        hint = install_hint("flowcore.actions", name) or hint
        if not hint and self._batch_class is Batch and self._recipe.source is not None:
            hint = "pass your batch class to the dataset: Dataset(index, MyBatch)"
        if self._recipe.source is None:
            hint = hint or "start the pipeline from a dataset, whose batch class has the actions"
        return UnknownAction(
            explain(
                f"no action, action pack or sink is called {name!r}",
                where=f"a pipeline over {owner}",
                why=f"actions of {owner}: {', '.join(actions) or 'none'}; "
                f"action packs: {', '.join(packs) or 'none'}",
                next=hint,
            )
        )


class _Pack:
    """The namespace of an action pack: ``pipeline.arrays``."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self._pipeline, self._name = pipeline, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        pack = load("flowcore.actions", self._name)
        function = getattr(pack, name, None)
        if function is None or action_mark(function) is None:
            known = [action for action, _ in _actions(pack)]
            raise UnknownAction(
                explain(
                    f"action pack {self._name!r} has no action {name!r}",
                    why=f"it has: {', '.join(known) or 'none'}",
                    next=near(name, known),
                )
            )
        dotted = f"{identifier(self._name)}.{name}"
        return self._pipeline._writer(dotted, function, getattr(pack, "run_options", {}))

    def __dir__(self) -> list[str]:
        return [name for name, _ in _actions(load("flowcore.actions", self._name))]

    def __repr__(self) -> str:
        return f"<action pack {self._name!r}: {', '.join(dir(self))}>"


_MISSING = object()


def _actions(owner: object) -> list[tuple[str, Any]]:
    found = ((name, getattr(owner, name, None)) for name in dir(owner))
    return [(name, function) for name, function in found if action_mark(function) is not None]


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
