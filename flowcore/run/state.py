"""States of runs, as they are read: the place to go on from, and what must agree.

A state is small JSON; it holds no data, so going on from it takes no longer than starting.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowcore.errors import OptionError, StateError, explain, near
from flowcore.run.plan import Position

__all__ = ["Identity", "Resume", "differs", "read_state"]

_VERSION = 1
_PLACE = {"epoch": 0, "batch": 0, "skip": 0, "number": 0}


@dataclass(frozen=True, slots=True)
class Identity:
    """What two runs must agree in for one to go on where the other was left.

    Attributes:
        length: number of ids of the index.
        batch_size: of the run.
        order: digest of the sampler.
        steps: digests of the steps, three letters each; see `step_digests`.
    """

    length: int
    batch_size: int
    order: str
    steps: str

    def state(self) -> dict[str, Any]:
        """Return it as a part of a state."""
        return {
            "flowcore": _VERSION,
            "length": self.length,
            "batch_size": self.batch_size,
            "order": self.order,
            "steps": self.steps,
        }


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a run is to begin, as ``resume=`` says it.

    Attributes:
        start: the place.
        items: number of items handed over before; ``None`` if that is not said.
        batches: number of batches that they were in, likewise.
        seed: of the run, if it is said.
        beyond: places, from the start on, that were handed over before.
        shard: of the state, if it is that of one shard alone.
        identity: of the run that the state is of; ``None`` where only a place is given.
    """

    start: Position = field(default_factory=Position)
    items: int | None = None
    seed: int | None = None
    beyond: tuple[int, ...] = ()
    shard: tuple[int, int] | None = None
    identity: Identity | None = None
    batches: int | None = None

    def starting(self, batch_size: int) -> Position:
        """Return the place in batches of ``batch_size``.

        Raises:
            StateError: it is inside of one of them.
        """
        then = self.identity.batch_size if self.identity else batch_size
        batch, rest = divmod(self.start.batch * then, batch_size)
        if then == batch_size or not self.start.batch:
            return self.start
        if rest or self.start.skip or self.beyond or self.start.number:
            raise StateError(
                differs(
                    "batch_size",
                    then,
                    batch_size,
                    f"batch_size={then}; another one fits where it divides the "
                    f"{self.start.batch * then} items of the epoch that are through",
                )
            )
        return Position(self.start.epoch, batch)


def differs(what: str, then: object, now: object, fix: str = "") -> str:
    """Return the text of the error of a state that is of another run."""
    return explain(
        f"the state does not fit this run: {what} was {then}, and is {now}",
        where="resume=",
        next=fix
        or 'pass what the run had that the state is of; or resume={"epoch": ..., '
        '"batch": ...} starts anywhere, whatever it is',
    )


def read_state(state: object) -> Resume:
    """Read what ``resume=`` was given: a state, or a place of it.

    Raises:
        OptionError: it is neither.
    """
    if not isinstance(state, Mapping):
        raise OptionError(
            explain(
                f"resume={state!r:.60} is no state of a run",
                next='pass what run.state_dict() returned, or {"epoch": 3, "batch": 17}',
            )
        )
    if "flowcore" not in state:
        unknown = [name for name in state if name not in ("epoch", "batch", "seed")]
        if unknown or not state:
            raise OptionError(
                explain(
                    f"resume= has no use for {unknown[0]!r}"
                    if unknown
                    else "resume={} says nothing",
                    why="a place is said by epoch and batch, both counted from 0",
                    next=near(str(unknown[0]), _PLACE) if unknown else 'resume={"epoch": 0}',
                )
            )
    elif state["flowcore"] != _VERSION:
        raise StateError(differs("the version of states", state["flowcore"], _VERSION))
    try:
        return _read(state)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise OptionError(
            explain(f"resume={state!r:.100} cannot be read", why=f"{type(error).__name__}: {error}")
        ) from None


def _read(state: Mapping[str, Any]) -> Resume:
    start = Position(**{name: _count(name, state.get(name, 0)) for name in _PLACE})
    shard = state.get("shard")
    return Resume(
        start,
        None if state.get("items") is None else _count("items", state["items"]),
        None if state.get("seed") is None else _count("seed", state["seed"]),
        tuple(_count("beyond", place) for place in state.get("beyond", ())),
        None if shard is None else (_count("shard", shard[0]), _count("shard", shard[1])),
        Identity(
            _count("length", state["length"]),
            _count("batch_size", state["batch_size"]) or 1,
            str(state["order"]),
            str(state["steps"]),
        )
        if "flowcore" in state
        else None,
        None if state.get("batches") is None else _count("batches", state["batches"]),
    )


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or (number := operator.index(value)) < 0:
        raise ValueError(f"{name} must be an int of at least 0, got {value!r}")
    return number
