"""The line that says how far a run is: ``progress=True``."""

from __future__ import annotations

import contextlib
import sys
import time

from flowcore.run.report import Report

__all__ = ["Progress"]

_EVERY = 0.2  # seconds between two lines, so that small batches do not wait for a terminal


class Progress:
    """Writes one line to the standard error, over and over, and ends it at the end.

    Used by the delivering thread.

    Args:
        report: of the run.
        batches: number of batches in the run, ``None`` if it has no end.
    """

    def __init__(self, report: Report, batches: int | None) -> None:
        self._report = report
        self._of = "" if batches is None else f"/{batches:,}"
        self._next = 0.0

    def show(self) -> None:
        """Write the line, unless it was written just now."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            self._write("")

    def end(self) -> None:
        """Write the line for the last time."""
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            self._write("\n")

    def _write(self, end: str) -> None:
        report = self._report
        rate = report.items / report.seconds if report.seconds else 0.0
        sys.stderr.write(
            f"\r{report.batches:,}{self._of} batches, {report.epochs:,} epochs, "
            f"{rate:,.0f} items/s, {report.seconds:,.1f} s {end}"
        )
        sys.stderr.flush()
