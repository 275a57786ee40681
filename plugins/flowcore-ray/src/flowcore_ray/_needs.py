"""What each worker needs of its node: the options that Ray places it by, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from flowcore.errors import OptionError, explain

__all__ = ["Needs"]

_OWN = {"CPU": "num_cpus=", "GPU": "num_gpus=", "memory": "memory="}  # options of their own


@dataclass(frozen=True, slots=True)
class Needs:
    """What a worker needs, as the executor was given it.

    Attributes:
        num_cpus: processors, or parts of one.
        num_gpus: devices, or a part of one.
        memory: bytes; ``None`` for no limit.
        resources: the cluster's own resources, by name.
        runtime_env: what Ray makes ready on a node before the worker starts there.

    Raises:
        OptionError: a value that Ray would refuse later, in its own words or never.
    """

    num_cpus: float = 1
    num_gpus: float = 0
    memory: int | None = None
    resources: Mapping[str, float] | None = None
    runtime_env: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_amount("num_cpus", self.num_cpus)
        _check_amount("num_gpus", self.num_gpus)
        if self.memory is not None:
            _check_memory(self.memory)
        if self.resources is not None:
            _check_resources(self.resources)
        if self.runtime_env is not None and not isinstance(self.runtime_env, Mapping):
            raise OptionError(
                explain(
                    f"runtime_env must be a dict, got {self.runtime_env!r:.80}",
                    next="runtime_env={'pip': ['pillow']}, for example",
                )
            )

    def options(self) -> dict[str, Any]:
        """Return them as the options of an actor."""
        given = {
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            "memory": self.memory,
            "resources": None if self.resources is None else dict(self.resources),
            "runtime_env": None if self.runtime_env is None else dict(self.runtime_env),
        }
        return {name: value for name, value in given.items() if value is not None}

    def amounts(self) -> dict[str, float]:
        """Return how much a node must have, as Ray calls it."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory or 0}
        return {**wanted, **(self.resources or {})}


def _check_amount(name: str, value: Any) -> None:
    known = isinstance(value, Real) and not isinstance(value, bool)
    if not known or not math.isfinite(value) or value < 0 or (value > 1 and value != int(value)):
        raise OptionError(
            explain(
                f"{name} must be a whole number, or a part of one below 1, got {value!r:.80}",
                next=f"{name}=2, or {name}=0.5 for two workers on one",
            )
        )


def _check_memory(value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(
            explain(
                f"memory must be a number of bytes, an int of at least 1, got {value!r:.80}",
                next="memory=2 * 1024**3 for 2 GiB",
            )
        )


def _check_resources(value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise OptionError(
            explain(
                f"resources must be a dict of amounts by name, got {value!r:.80}",
                next="resources={'disk': 1}, for nodes that were started with such a resource",
            )
        )
    for name, amount in value.items():
        if name in _OWN:
            raise OptionError(
                explain(f"{name!r} is no resource of the cluster's own", next=f"use {_OWN[name]}")
            )
        _check_amount(f"resources[{name!r}]", amount)
