"""Objects that serve one run at a time: a second run is refused them, by name and with advice."""

from __future__ import annotations

import threading

from flowcore.errors import RunInProgress, explain

__all__ = ["claim", "release"]

_lock = threading.Lock()  # runs start and end in several threads
_claimed: dict[int, object] = {}  # by id; the object is held so that its id stays its own


def claim(thing: object) -> None:
    """Mark an object as taken by a run.

    Raises:
        RunInProgress: another run has it.
    """
    with _lock:
        if id(thing) in _claimed:
            raise RunInProgress(
                explain(
                    f"this {type(thing).__name__} object serves another run that is not over",
                    next="give each run an object of its own, or a name; or close the other run",
                )
            )
        _claimed[id(thing)] = thing


def release(thing: object) -> None:
    """Let another run have the object; does nothing if no run has it."""
    with _lock:
        _claimed.pop(id(thing), None)
