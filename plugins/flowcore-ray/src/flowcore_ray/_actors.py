"""Actors: hired, torn down, ended. Each call looks first whether this process is still connected.

Ray would else start a new Ray of its own accord, in whatever thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray

__all__ = ["alive", "check_connected", "hire", "kill", "torn_down"]


def check_connected() -> None:
    """Refuse to go on where somebody has called ``ray.shutdown()``.

    Raises:
        ConnectionError: somebody has.
    """
    if not ray.is_initialized():
        raise ConnectionError("this process is not connected to Ray any more")


def hire(spare: list[Any], new: Any, key: str, work: Any, name: str) -> tuple[Any, Any]:
    """Return an actor, and an object that is why it cannot work, or ``""`` when it can.

    Args:
        spare: actors of the last run; taken from.
        new: the class of others.
        key: of the classes in the work.
        work: where it is in the object store.
        name: of the worker.

    Raises:
        ConnectionError: this process is not connected.
    """
    check_connected()
    try:
        actor = spare.pop()
    except IndexError:
        actor = new.remote()
    return actor, actor.begin.remote(name, key, [work])


def alive(actors: Sequence[Any]) -> list[Any]:
    """Return those of some idle actors that are still there."""
    found = []
    for actor in actors:
        with suppress(Exception):
            check_connected()
            ray.get(actor.look.remote())
            found.append(actor)
    return found


def torn_down(actors: Sequence[Any], patience: float) -> list[Any]:
    """Tear actors down; return those that could be in time, and end the others.

    Args:
        actors: busy or not.
        patience: how many seconds they have, together.
    """
    if not actors or not ray.is_initialized():
        return []
    ends = {actor.end.remote(): actor for actor in actors}
    done, busy = ray.wait(list(ends), num_returns=len(ends), timeout=patience)
    for each in busy:
        kill(ends[each])
    return [ends[each] for each in done]


def kill(actor: Any) -> None:
    """End an actor, whatever it does; one that is dead is left alone."""
    if ray.is_initialized():
        with suppress(Exception):
            ray.kill(actor, no_restart=True)
