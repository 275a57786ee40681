"""The contract of a sink: where a run's results go.

A sink has two halves. ``prepare`` runs with the actions, in parallel, maybe in another process;
``put`` runs in the process that started the run, one item at a time, in delivery order.
"""

from __future__ import annotations

import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np

from flowcore.batch import Batch, Tensor
from flowcore.errors import ArgumentError, OptionError, PluginError, explain, near
from flowcore.plugins import GROUPS, PluginInfo, find

_log = logging.getLogger("flowcore")

__all__ = ["Cancel", "Sink", "SinkRun", "copied", "sink"]


Made = TypeVar("Made")


class Cancel:
    """A token that tells waiting code to give up, at once and for good.

    Any thread may use any method. Setting it cannot be undone.

    Args:
        on_poll: called each time a wait is checked; the engine's stall warning lives on it where
            there is no other thread to give it.

    Attributes:
        given: whether it is set; to read it is no poll.
    """

    def __init__(self, on_poll: Callable[[], None] | None = None) -> None:
        # Reentrant, as a garbage collection inside of a method may call `set` in the same thread.
        self._changed = threading.Condition(threading.RLock())
        self.given = False
        self._callbacks: list[Callable[[], object]] = []
        self._on_poll = on_poll

    def is_set(self) -> bool:
        """Return whether to give up."""
        if self._on_poll is not None:
            self._on_poll()
        return self.given

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for ``timeout`` seconds; return whether it is set."""
        with self._changed:
            self._changed.wait_for(lambda: self.given, timeout)
        return self.is_set()

    def on_set(self, callback: Callable[[], object]) -> AbstractContextManager[None]:
        """Have ``callback`` called once when it is set, at once if it is, inside of a ``with``.

        The callback runs in the thread that sets it, and must not wait. When the ``with`` block is
        left it is forgotten.
        """
        return _Registered(self, callback)

    def set(self) -> None:
        """Tell everyone who waits to give up."""
        with self._changed:
            if self.given:
                return
            self.given = True
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            try:
                callback()
            except Exception:
                _log.exception("a callback of a cancel token failed")


class _Registered(AbstractContextManager[None]):
    def __init__(self, cancel: Cancel, callback: Callable[[], object]) -> None:
        self._cancel, self._callback = cancel, callback

    def __enter__(self) -> None:
        with self._cancel._changed:
            if not self._cancel.given:
                self._cancel._callbacks.append(self._callback)
                return
        self._callback()

    def __exit__(self, *exc: object) -> None:
        with self._cancel._changed:
            if self._callback in self._cancel._callbacks:
                self._cancel._callbacks.remove(self._callback)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkRun:
    """What a sink may know of the run that opens it.

    Attributes:
        options: those of the run's options that this sink declares in ``run_options``.
        batch_size: items in a batch; the last batch of an epoch may be shorter.
        batches: number of batches, ``None`` if there is no end. Fewer come if some are skipped.
        items: number of items in them, likewise.
        items_before: number of items that were handed over before the place where the run starts,
            by the run that it goes on from.
        batches_before: number of batches that they were in, so of puts before. A sink may have been
            given more items than were handed over, as a step behind it can drop some. ``None``
            where ``resume=`` says a place alone, not what a run has done.
        resumed: it goes on from a place, as ``resume=`` says; a sink that keeps what it is given in
            a file then goes on after ``items_before`` items.
        prefetch: how many batches beyond the one being consumed may be in progress or waiting.
        feed: the run was started by ``feed``: its consumer waits at the sink and is told the end
            there, so a queue is closed at the end and on a failure.
        hands_over: each batch is handed to a consumer too, and the run waits for it.
        inline: ``put`` is called in the thread that asked for the batch, maybe the main thread,
            which must be able to see a Ctrl-C: a wait must be in Python, or in short slices.
        name: what the sink is called in this run's results.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int
    batches: int | None
    items: int | None
    items_before: int = 0
    batches_before: int | None = 0
    resumed: bool = False
    prefetch: int = 0
    feed: bool = False
    hands_over: bool = True
    inline: bool = True
    name: str = ""


class Sink(ABC):
    """Where a run's results go. Subclass it, and declare the class in ``flowcore.sinks``.

    The keyword arguments of the constructor are the sink's options: ``put_into_<name>(**options)``.
    It is called when the step is written, so refuse bad values there. What is written in a pipeline
    is a description: each run opens a shallow copy of it (`copy.copy`), so what ``open`` sets on
    ``self`` belongs to that run alone. A sink object that is given to a run as ``sink=`` is opened
    itself.
    """

    #: The options of a run that this sink understands, with what they are.
    run_options: ClassVar[Mapping[str, str]] = {}

    #: What the sink is called in results and messages: its plugin's name, where made by name.
    sink_name: str = ""

    #: How many batches must be in before a consumer can take one, for a sink that shuffles. Read
    #: after ``open``; a run whose ``prefetch`` cannot reach it is refused.
    lookahead: int = 1

    def open(self, run: SinkRun) -> None:  # noqa: B027 - optional
        """Make ready for one run. Called once, in the thread that starts the run, before any task.

        Whatever it raises is raised to that thread, and the run does not start.
        """

    def prepare(self, batch: Batch) -> Any:
        """Return the item to be put for ``batch``; by default a copy of ``batch.get_tensor()``.

        Called in a worker, in any order and maybe again for the same batch; later steps may change
        the batch's arrays in place, so keep a copy of what they must not change (see `copied`).
        What it raises is an error of that batch.

        Where the workers are other processes, the item comes back pickled, and ``prepare`` is sent
        there pickled: as a method, with the sink. A sink that holds what cannot be pickled, such as
        a queue, makes ``prepare`` a property that returns a function, or an object, without it.
        """
        return copied(batch.get_tensor())

    @abstractmethod
    def put(self, item: Any, cancel: Cancel) -> None:
        """Take one item, waiting while there is no room.

        Called from one thread at a time, in delivery order, not after ``close``. The item is the
        sink's to keep.

        Raises:
            Cancelled: ``cancel`` was set while there was no room; nothing of ``item`` was taken.
        """

    def close(self, error: BaseException | None) -> None:  # noqa: B027 - optional
        """Make an end. Called once for each ``open`` that returned, after the last ``put``.

        Args:
            error: ``None`` at the end of the data, `Cancelled` if the run was left before, else
                what the run failed of.
        """

    @property
    def result(self) -> Any:
        """What ``report.results`` shows for this sink, from the start of the run; ``None`` here."""
        return None


def copied(tensor: Tensor) -> Tensor:
    """Return a copy of what ``get_tensor`` returned: an array, or a tuple or dict of arrays."""
    if isinstance(tensor, Mapping):
        return {name: np.array(part) for name, part in tensor.items()}
    if isinstance(tensor, tuple):
        return tuple(np.array(part) for part in tensor)
    return np.array(tensor)


def sink(name: str, /, **options: Any) -> Sink:
    """Make a sink by name: what ``put_into`` and ``sink=`` do with a name.

    Args:
        name: of an installed sink, or ``"distribution:name"``.
        options: the sink's own.

    Raises:
        UnknownPlugin, AmbiguousPlugin, BrokenPlugin: the name does not lead to one sink.
        ArgumentError: options that the sink does not take.
    """
    info = find("flowcore.sinks", name)
    made = make(info, Sink, options)  # type: ignore[type-abstract]
    made.sink_name = info.name
    return made


def make(info: PluginInfo, base: type[Made], options: Mapping[str, Any]) -> Made:
    """Call what a plugin names with ``options``, and return the ``base`` that it makes.

    Raises:
        BrokenPlugin: its import failed.
        ArgumentError: options that its signature does not have.
        PluginError: it is no ``base``.
    """
    what = f"{GROUPS[info.group]} {info.name!r}"
    target = info.load()
    made = target
    if callable(target) and not (isinstance(target, type) and not issubclass(target, base)):
        made = _checked_call(target, options, what)
    if isinstance(made, base):
        return made
    raise PluginError(
        explain(
            f"{what} is {made!r:.60}, which is no flowcore.{base.__name__}",
            where=f"{info.target}, of the distribution {info.distribution} {info.version}",
            next=f"let it name a subclass of flowcore.{base.__name__}",
        )
    )


def _checked_call(target: Any, options: Mapping[str, Any], what: str) -> Any:
    """Call ``target(**options)``; refuse options that its signature does not have."""
    signature = inspect.signature(target)
    try:
        signature.bind(**options)
    except TypeError as error:
        takes = list(signature.parameters)
        hint = "".join(near(name, takes) for name in options if name not in takes)
        if set(options) & set(getattr(target, "run_options", {})):
            hint = "it is an option of the run: next_batch, gen_batch, run or feed take it"
        raise ArgumentError(
            explain(f"{what}: {error}", why=f"it takes: {', '.join(takes) or 'none'}", next=hint)
        ) from None
    return target(**options)


def as_sink(value: object) -> Sink:
    """Return the sink that ``sink=`` or ``put_into`` was given: a name, a pair, or itself.

    Raises:
        OptionError: none of these.
    """
    if isinstance(value, Sink):
        return value
    if isinstance(value, str):
        return sink(value)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        return sink(value[0], **value[1])
    raise OptionError(
        explain(
            f"a sink is a name, a (name, options) pair or a flowcore.Sink, got {value!r:.80}",
            next="pass flowcore.sink('name', option=...), or make the class a subclass of Sink",
        )
    )
