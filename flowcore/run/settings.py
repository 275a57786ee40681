"""What a run was asked for: its arguments, checked when they are given."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from flowcore.errors import ArgumentError, OptionError, PluginError, explain, near
from flowcore.executors.base import Executor
from flowcore.executors.pool import PoolExecutor
from flowcore.executors.serial import SerialExecutor
from flowcore.hookspecs import BatchFailed, Decision
from flowcore.plugins import find, load, plugins
from flowcore.recipe import Recipe
from flowcore.run.plan import Uneven
from flowcore.run.policy import check_policy
from flowcore.run.state import read_state
from flowcore.sampler import Sampler, Shuffle
from flowcore.shard import as_shard
from flowcore.sinks import Sink, as_sink, make
from flowcore.steps import ActionStep, SinkStep

__all__ = ["Settings"]

OnError: TypeAlias = (
    "Literal['raise', 'skip', 'skip_items'] | Callable[[BatchFailed], Decision | None]"
)

_LEAST = {
    "batch_size": 1,
    "n_epochs": 0,
    "prefetch": 0,
    "seed": 0,
    "num_workers": 0,
    "retries": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The arguments of one run; see the reference for what each means.

    Raises:
        OptionError: a value that cannot be right.
        ArgumentError: an option that neither the core nor anything in the composition declares.
    """

    batch_size: int
    shuffle: Shuffle = False
    n_epochs: int | None = 1
    drop_last: bool = False
    prefetch: int | None = None
    seed: int | None = None
    sampler: Sampler | None = None
    shard: Any = None
    uneven: Uneven = "pad"
    resume: Any = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    executor: str | Executor | futures.Executor | None = None
    num_workers: int | None = None
    sink: str | tuple[str, Mapping[str, Any]] | Sink | None = None
    ordered: bool = True
    on_error: OnError = "raise"
    retries: int = 0
    backoff: float = 0.0
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception
    max_errors: int | float | None = None
    stall_warning: float | None = 30.0
    progress: bool = False
    plugin_options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """Sort the arguments of a call into the core's own and those for plugins."""
        own = {option.name for option in fields(cls)} - {"plugin_options"}
        return cls(
            **{name: value for name, value in arguments.items() if name in own},
            plugin_options={name: value for name, value in arguments.items() if name not in own},
        )

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            self._check_int(name, least)
        for name in ("drop_last", "ordered", "progress"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise OptionError(f"{name} must be True or False, got {getattr(self, name)!r}")
        self._check_stall_warning()
        if self.num_workers == 0 and self.prefetch:
            raise OptionError(
                explain(
                    f"num_workers=0 leaves nobody to prefetch {self.prefetch} batches",
                    next="prefetch=0 runs in the calling thread; else give at least one worker",
                )
            )
        if self.seed is not None and self.seed >= 2**128:
            raise OptionError(f"seed must be below 2**128, got {self.seed}")
        self._check_shuffle()
        self._check_sampler()
        check_policy(self.on_error, self.backoff, self.retry_on, self.max_errors)
        object.__setattr__(self, "shard", as_shard(self.shard))
        if self.uneven not in ("pad", "drop", "short"):
            raise OptionError(f"uneven must be 'pad', 'drop' or 'short', got {self.uneven!r}")
        if not isinstance(self.variables, Mapping):
            raise OptionError(f"variables must be a dict by name, got {self.variables!r:.80}")
        if self.resume is not None:
            read_state(self.resume)
        self._check_executor()

    def _check_stall_warning(self) -> None:
        if self.stall_warning is None:
            return
        if not _seconds(self.stall_warning) > 0:
            raise OptionError(
                explain(
                    f"stall_warning must be seconds, more than 0, got {self.stall_warning!r}",
                    next="stall_warning=None switches it off",
                )
            )
        object.__setattr__(self, "stall_warning", float(self.stall_warning))

    def _check_int(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is None and name not in ("batch_size", "retries"):
            return
        if not isinstance(value, (bool, np.bool_)):
            try:
                value = operator.index(value)
            except TypeError:
                pass
            else:
                if value >= least:
                    object.__setattr__(self, name, value)
                    return
        raise OptionError(f"{name} must be an int of at least {least}, got {value!r}")

    def _check_executor(self) -> None:
        """Refuse what is no executor, also where prefetch=0 will not use it."""
        if isinstance(self.executor, str):
            find("flowcore.executors", self.executor)
        elif not isinstance(self.executor, (Executor, futures.Executor, type(None))):
            raise OptionError(
                explain(
                    f"executor={self.executor!r:.80} is no executor",
                    next="pass an object of the class: add ()"
                    if isinstance(self.executor, type)
                    else "pass a name ('serial', 'threads'), a flowcore.Executor, or a "
                    "concurrent.futures.Executor",
                )
            )

    def _check_shuffle(self) -> None:
        shuffle: Any = self.shuffle
        if isinstance(shuffle, (bool, np.bool_)):
            object.__setattr__(self, "shuffle", bool(shuffle))
            return
        generators = (np.random.Generator, np.random.RandomState)  # that loads `numpy.random`
        if not isinstance(shuffle, generators) and not callable(shuffle):
            raise OptionError(
                explain(
                    f"shuffle={self.shuffle!r} is neither a bool, a numpy generator nor a callable",
                    why="an int is a seed to some and a buffer size to others"
                    if isinstance(shuffle, int)
                    else None,
                    next="shuffle=True, seed=... for a repeatable order; "
                    "it always shuffles the whole index",
                )
            )
        if self.seed is not None and isinstance(self.shuffle, generators):
            raise OptionError(
                explain(
                    "shuffle is a generator to draw the seed from, and seed is given too",
                    next="shuffle=True with seed=, or the generator without",
                )
            )

    def _check_sampler(self) -> None:
        if self.sampler is None:
            return
        if not isinstance(self.sampler, Sampler):
            raise OptionError(
                explain(
                    f"sampler={self.sampler!r:.80} is no flowcore.Sampler",
                    next="derive its class from flowcore.Sampler, and pass an object of it",
                )
            )
        if self.shuffle is not False:
            raise OptionError(
                explain(
                    "sampler= is given, and shuffle too",
                    why="the sampler says the order",
                    next="leave shuffle out",
                )
            )

    def workers(self) -> tuple[int, int]:
        """Return the number of workers and the prefetch, where either follows from the other."""
        most = self._most_workers()
        if isinstance(self.executor, Executor):
            workers = self.executor.num_workers
        elif isinstance(self.executor, str) and self._executor_class() is SerialExecutor:
            workers = 0
        elif self.num_workers is not None:
            workers = self.num_workers
        elif isinstance(self.executor, futures.Executor):
            workers = getattr(self.executor, "_max_workers", most)
        elif self.prefetch is not None:
            workers = min(self.prefetch, most)
        else:
            workers = 0 if self.executor is None else most
        prefetch = 2 * workers if self.prefetch is None else self.prefetch
        return workers, prefetch

    def _most_workers(self) -> int:
        named = self._executor_class() if isinstance(self.executor, str) else None
        if isinstance(named, type) and issubclass(named, Executor):
            return named.most_workers()
        return Executor.most_workers()

    def _executor_class(self) -> object:
        return load("flowcore.executors", str(self.executor))

    def make_executor(self, num_workers: int) -> Executor:
        """Return the executor of the run.

        Raises:
            UnknownPlugin, AmbiguousPlugin, BrokenPlugin: the name does not lead to an executor.
            OptionError: something that is no executor.
        """
        chosen = "threads" if self.executor is None else self.executor
        if isinstance(chosen, Executor):
            return chosen
        if isinstance(chosen, futures.Executor):
            return PoolExecutor(chosen, num_workers)
        info = find("flowcore.executors", chosen)
        options = _declared(info.load(), self.plugin_options)
        return make(info, Executor, {"num_workers": num_workers, **options})  # type: ignore[type-abstract]

    def sink_steps(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the run's own sink at its end, if it has one."""
        if self.sink is None:
            return recipe
        made = as_sink(self.sink)
        return recipe.then(
            SinkStep(made.sink_name or type(made).__name__, made, given=made is self.sink)
        )

    def check_options(self, recipe: Recipe) -> None:
        """Refuse options that nothing in the composition declares."""
        known: dict[str, str] = {}
        for step in recipe.all_steps():
            if isinstance(step, SinkStep):
                known.update(step.sink.run_options)
            elif isinstance(step, ActionStep):
                known.update(step.run_options)
        if isinstance(self.executor, str) and set(self.plugin_options) - set(known):
            known.update(getattr(load("flowcore.executors", self.executor), "run_options", {}))
        for name in self.plugin_options:
            if name not in known:
                own = sorted({option.name for option in fields(self)} - {"plugin_options"})
                raise ArgumentError(
                    explain(
                        f"unknown option {name!r} of a run",
                        why=f"the core's: {', '.join(own)}; declared by its sinks, action packs "
                        "and executor: "
                        + (", ".join(f"{one} ({what})" for one, what in known.items()) or "none"),
                        next=_option_of_sink(name, recipe)
                        or self._option_of_executor(name)
                        or near(name, {*own, *known}),
                    )
                )

    def _option_of_executor(self, name: str) -> str:
        made = self.executor
        if isinstance(made, Executor) and name in made.run_options:
            return f"the executor is made already: {type(made).__name__}(..., {name}=...)"
        for info in plugins("flowcore.executors"):
            with suppress(PluginError):
                if name in getattr(info.load(), "run_options", {}):
                    return f"it is an option of executor={info.name!r}"
        return ""


def _option_of_sink(name: str, recipe: Recipe) -> str:
    for step in recipe.steps:
        if isinstance(step, SinkStep) and name in inspect.signature(type(step.sink)).parameters:
            return (
                f"it is an option of the sink: put_into({step.name!r}, {name}=...), or "
                f"sink=({step.name!r}, {{{name!r}: ...}})"
            )
    return ""


def options_for(declared: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options given that are declared."""
    return {name: given[name] for name in declared if name in given}


def _declared(target: object, given: Mapping[str, Any]) -> dict[str, Any]:
    return options_for(getattr(target, "run_options", {}), given)


def action_options(recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the action packs of the recipe declare."""
    options: dict[str, Any] = {}
    for step in recipe.all_steps():
        if isinstance(step, ActionStep):
            options.update(options_for(step.run_options, given))
    return options


def _seconds(value: Any) -> float:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return float(value) if is_number else 0.0
