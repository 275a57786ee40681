"""A sink that keeps nothing and counts what it was given: how fast is a pipeline by itself?

It is also the template of a sink: the smallest one that is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flowcore import Batch, Cancel, Sink, SinkRun
from flowcore.errors import OptionError, explain

__all__ = ["Counts", "NullSink"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a `NullSink` was given so far: numbers of batches, of items in them, and of bytes."""

    batches: int = 0
    items: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.batches:,} batches, {self.items:,} items, {self.bytes:,} bytes"


class NullSink(Sink):
    """Takes every batch and keeps nothing.

    Args:
        get_tensor: called with each batch, in the workers, for an array, or a tuple or dict of
            arrays; its work is done and what it returns is dropped. By default no tensor is made.

    Attributes:
        result: `Counts`. Bytes are those of the tensors, or without ``get_tensor`` of the batches'
            data; what has no ``nbytes`` counts none.

    Raises:
        OptionError: ``get_tensor`` cannot be called.
    """

    def __init__(self, get_tensor: Callable[[Batch], Any] | None = None) -> None:
        if get_tensor is not None and not callable(get_tensor):
            raise OptionError(
                explain(
                    f"get_tensor must be a function of a batch, got {get_tensor!r:.60}",
                    next="pass the function itself: get_tensor=MyBatch.get_tensor",
                )
            )
        self._get_tensor = get_tensor
        self._counts = Counts()

    def open(self, run: SinkRun) -> None:
        """Count from zero: what is set here belongs to this run alone."""
        self._counts = Counts()

    def prepare(self, batch: Batch) -> tuple[int, int]:
        """Return the numbers of items and bytes; so nothing large leaves the worker."""
        tensor = batch.data if self._get_tensor is None else self._get_tensor(batch)
        return len(batch), _nbytes(tensor)

    def put(self, item: tuple[int, int], cancel: Cancel) -> None:
        """Count one batch. There is always room, so ``cancel`` is never waited for."""
        items, nbytes = item
        now = self._counts
        # Replaced whole: another thread that reads `result` sees one batch more, or one less.
        self._counts = Counts(now.batches + 1, now.items + items, now.bytes + nbytes)

    @property
    def result(self) -> Counts:
        """The counts, kept up to date while the run goes on."""
        return self._counts


def _nbytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, (tuple, list)):
        return sum(map(_nbytes, value))
    return int(getattr(value, "nbytes", 0))
