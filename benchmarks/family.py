"""Reads what this process and its children use, for the benchmarks that have worker processes."""

from __future__ import annotations

import math
from typing import Any

from harness import cpu_seconds

__all__ = ["Family"]


class Family:
    """This process and its children; without psutil, this process alone.

    The children are those of the last `find`: to look for them takes too long under a clock.
    """

    def __init__(self) -> None:
        self.children: list[Any] = []

    def find(self) -> None:
        """Look for the children."""
        try:
            import psutil
        except ImportError:
            return
        self.children = psutil.Process().children(recursive=True)

    def seconds(self) -> float:
        """Return the CPU seconds of these processes so far."""
        return cpu_seconds() + sum(sum(child.cpu_times()[:2]) for child in self.children)

    def megabytes(self) -> float:
        """Return what they have resident now; a page that several have counts once."""
        try:
            import psutil

            family = [psutil.Process(), *self.children]
            return float(sum(one.memory_full_info().pss for one in family)) / 2**20
        except (ImportError, AttributeError):  # psutil has no ``pss`` outside of Linux
            return math.nan
