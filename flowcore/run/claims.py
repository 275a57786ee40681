"""Objects that serve one run at a time: a second run is refused them, by name and with advice."""

from __future__ import annotations

import threading

from flowcore.errors import RunInProgress, explain
from flowcore.sinks import Cancel

__all__ = ["claim", "release"]

_PATIENCE = 1.0  # seconds that a run which is being left has to be over

# Guards what is claimed; runs start and end in several threads. Reentrant, as a collection inside
# of it may end a run.
_changed = threading.Condition(threading.RLock())

# By id, with the token of the run; the object is held so that its id stays its own.
_claimed: dict[int, tuple[object, Cancel]] = {}


def claim(thing: object, cancel: Cancel) -> None:
    """Mark an object as taken by a run; wait for one that has it, and is being left.

    Args:
        thing: an executor, or a sink.
        cancel: of the run.

    Raises:
        RunInProgress: another run has it.
    """
    with _changed:
        holder = _claimed.get(id(thing))
        if holder is not None and holder[1].is_set():
            _changed.wait_for(lambda: id(thing) not in _claimed, _PATIENCE)
        if id(thing) in _claimed:
            raise RunInProgress(
                explain(
                    f"this {type(thing).__name__} object serves another run that is not over",
                    next="give each run an object of its own, or a name; or close the other run",
                )
            )
        _claimed[id(thing)] = thing, cancel


def release(thing: object) -> None:
    """Let another run have the object; does nothing if no run has it."""
    with _changed:
        _claimed.pop(id(thing), None)
        _changed.notify_all()
