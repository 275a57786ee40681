"""Every exception that flowcore raises itself; a user's own exception is never replaced.

::

    FlowcoreError
    ├── PipelineError            the recipe, or the arguments of a run, cannot be right
    │   ├── UnknownAction        (AttributeError) a name that is no action, pack or sink
    │   ├── ArgumentError        (TypeError) arguments that a signature refuses, unknown options
    │   └── OptionError          (ValueError) a value that cannot be right
    │       └── StateError       a state that is of another run
    ├── RunInProgress            next_batch with other arguments than those of the run in progress
    ├── PluginError
    │   ├── UnknownPlugin        (LookupError, AttributeError) nobody declares the name
    │   ├── AmbiguousPlugin      several distributions declare it
    │   └── BrokenPlugin         its import failed
    ├── ActionError              (RuntimeError) an action that returned or raised what it must not
    ├── DataError                (ValueError) data that does not fit where it goes
    ├── SinkError                a sink that can take no more
    ├── Cancelled                a wait that was given up because the run is being left
    ├── TimedOut                 (TimeoutError) a batch took longer than its run allows
    └── WorkerLost               a worker died, and the batch that it was on could not be made again

A message has up to four parts: what happened, where, why, and what to do next; see `explain`.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "ActionError",
    "AmbiguousPlugin",
    "ArgumentError",
    "BrokenPlugin",
    "Cancelled",
    "DataError",
    "FlowcoreError",
    "OptionError",
    "PipelineError",
    "PluginError",
    "RunInProgress",
    "SinkError",
    "StateError",
    "TimedOut",
    "UnknownAction",
    "UnknownPlugin",
    "WorkerLost",
    "explain",
    "near",
]


class FlowcoreError(Exception):
    """The base of all errors that flowcore raises."""


class PipelineError(FlowcoreError):
    """The recipe, or the arguments of a run, cannot be right."""


class UnknownAction(PipelineError, AttributeError):
    """A pipeline was asked for a name that is no action, action pack or sink."""


class ArgumentError(PipelineError, TypeError):
    """Arguments that a signature refuses, or an option that nobody declares."""


class OptionError(PipelineError, ValueError):
    """A value that cannot be right, whatever the data."""


class StateError(OptionError):
    """The state that a run is to go on from is of another run: it says what differs first."""


class RunInProgress(FlowcoreError):
    """`next_batch` was called with other arguments than those of the run in progress."""


class PluginError(FlowcoreError):
    """The base of what can go wrong between a name and its plugin."""


class UnknownPlugin(PluginError, LookupError, AttributeError):
    """No installed distribution declares the name.

    It is an `AttributeError` too, because ``pipeline.put_into_<name>`` is an attribute.
    """


class AmbiguousPlugin(PluginError):
    """Several installed distributions declare the name."""


class BrokenPlugin(PluginError):
    """The plugin's import failed; the import's own exception is the cause."""


class ActionError(FlowcoreError, RuntimeError):
    """An action returned something that is no batch, or raised what would end a loop silently."""


class DataError(FlowcoreError, ValueError):
    """Data that does not fit where it goes: lengths, shapes, dtypes."""


class SinkError(FlowcoreError):
    """A sink can take no more, and the reason is not in the data."""


class Cancelled(FlowcoreError):
    """A wait was given up because the run is being left; nothing of the item was taken.

    `Sink.put` raises it. `Sink.close` is given one when the run was left before its end.
    """


class TimedOut(FlowcoreError, TimeoutError):
    """A batch took longer than its run allows, and was given up."""


class WorkerLost(FlowcoreError):
    """A worker died, and the batch that it was on could not be made again.

    Attributes:
        action: the step that it was in, where that is known.
    """

    action: str = ""


def explain(
    what: str, *, where: str | None = None, why: str | None = None, next: str | None = None
) -> str:
    """Return the text of an error in four parts, those not given left out."""
    parts = {"where": where, "why": why, "next": next}
    lines = [f"  {name + ':':<6} {text}" for name, text in parts.items() if text]
    return "\n".join([what, *lines])


def near(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest of ``known``, or an empty string."""
    import difflib  # here: it is needed for errors only

    match = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else ""
