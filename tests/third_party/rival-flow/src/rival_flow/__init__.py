"""A sink of the same name as one of acme-flow's."""

from __future__ import annotations

from flowcore import Batch, Cancel, Sink, SinkRun


class CountingSink(Sink):
    """Counts the items it is given, whatever ``path`` says; its result is that number."""

    def __init__(self, path: str = "") -> None:
        self._items = 0

    def open(self, run: SinkRun) -> None:
        self._items = 0

    def prepare(self, batch: Batch) -> int:
        return len(batch)

    def put(self, item: int, cancel: Cancel) -> None:
        self._items += item

    @property
    def result(self) -> int:
        return self._items
