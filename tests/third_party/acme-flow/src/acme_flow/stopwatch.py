"""A hook plugin that counts the batches delivered, and times every action, in this process."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowcore import Batch, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stopwatch", "stopwatch"]


class Stopwatch:
    """What it has seen, of all runs together.

    Attributes:
        delivered: number of batches.
        calls: how often each action was called, by its name.
        seconds: how long those calls took, by its name.
    """

    def __init__(self) -> None:
        self.delivered = 0
        self.calls: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()  # actions run in several threads, and so do runs

    def add(self, action: str, seconds: float) -> None:
        """Count one call of an action."""
        with self._lock:
            self.calls[action] += 1
            self.seconds[action] += seconds

    @hookimpl
    def flowcore_wrap_action(self, event: Any) -> Callable[..., Batch]:
        """Return the action, timed."""
        return _Timed(event.name, event.function)

    @hookimpl
    def flowcore_batch_delivered(self) -> None:
        """Count the batch."""
        with self._lock:
            self.delivered += 1


@dataclass(frozen=True, slots=True)
class _Timed:
    """An action, timed by the stopwatch of the process it runs in; picklable if the action is."""

    name: str
    action: Callable[..., Batch]

    def __call__(self, *args: Any, **kwargs: Any) -> Batch:
        start = time.perf_counter()
        try:
            return self.action(*args, **kwargs)
        finally:
            stopwatch.add(self.name, time.perf_counter() - start)


stopwatch = Stopwatch()
