"""The warning when a sink, or a task, stands still."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["StallWatch", "Wait"]

_log = logging.getLogger("flowcore")

_SLOWEST = 60.0  # seconds between looks, however late the warning


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that has begun and not ended: since when, and what it is when it takes too long.

    ``key`` tells it from all others of the run.
    """

    key: object
    since: float
    describe: Callable[[], str]


class StallWatch:
    """Says once of each put, and each task, that it has not come to its end for ``seconds``.

    `check` is called by a thread of its own, or, where the run has no other thread, by waits that
    poll their cancel token.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        # What to look at: the running tasks. Set once by the thread that starts the run.
        self.tasks: Callable[[], Iterable[Wait]] = tuple
        # The put that is in progress. Written by the delivering thread, read by the one that looks.
        self._put: Wait | None = None
        self._warned: set[object] = set()
        self._next_look = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, key: object, describe: Callable[[], str]) -> None:
        """Note that a put begins, in the delivering thread."""
        self._put = Wait(key, time.monotonic(), describe)

    def end(self) -> None:
        """Note that it has ended."""
        self._put = None

    def check(self) -> None:
        """Warn of what has taken too long, once of each; does nothing soon after the last look."""
        now = time.monotonic()
        if self._seconds is None or now < self._next_look:
            return
        self._next_look = now + min(self._seconds / 10, _SLOWEST)
        put = self._put
        for wait in [put] if put is not None else self.tasks():
            waited = now - wait.since
            if waited >= self._seconds and wait.key not in self._warned:
                self._warned.add(wait.key)
                _log.warning("flowcore has waited %.3g s for %s", waited, wait.describe())

    def start(self) -> None:
        """Check in a thread of its own until `stop`."""
        if self._seconds is not None:
            self._thread = threading.Thread(target=self._watch, name="flowcore-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            with suppress(RuntimeError):  # a Ctrl-C came while it was started
                self._thread.join(0.5)  # no more than a log handler may take; it is a daemon

    def _watch(self) -> None:
        assert self._seconds is not None
        while not self._stop.wait(min(self._seconds / 5, _SLOWEST)):
            try:
                self.check()
            except Exception:  # of one warning; there may be others to give
                _log.exception("a stall could not be described")
