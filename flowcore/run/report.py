"""What happened in a run: counted while it goes, printed as a table, written as JSON lines."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowcore.batch import first_ids
from flowcore.errors import Cancelled
from flowcore.plugins import own_version, plugins

__all__ = ["Report", "Trouble"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A batch, or an item, that was skipped, or an attempt at a batch that was retried.

    Attributes:
        epoch: from zero.
        number: of the batch in its epoch, from zero.
        ids: array of the ids of its items; of an item, its one.
        action: the step that raised.
        error: what it raised.
    """

    epoch: int
    number: int
    ids: Any
    action: str
    error: BaseException

    def __str__(self) -> str:
        text = f"{type(self.error).__name__}: {self.error}".partition("\n")[0]
        return (
            f"batch {self.number} of epoch {self.epoch}, ids {first_ids(self.ids)}, "
            f"in {self.action!r}: {text}"
        )

    def as_json(self, what: str) -> str:
        """Return a line of JSON; ``what`` says what became of it. Ids that JSON lacks are text."""
        row = {
            "what": what,
            "epoch": self.epoch,
            "batch": self.number,
            "ids": self.ids.tolist(),
            "action": self.action,
            "error": type(self.error).__name__,
            "message": str(self.error),
            "notes": getattr(self.error, "__notes__", []),
        }
        return json.dumps(row, default=str, ensure_ascii=False)


@dataclass(slots=True, eq=False, repr=False)
class Report:
    """What happened in a run. It is kept up to date while the run goes on.

    Attributes:
        batches: number of batches delivered.
        items: number of items in them.
        epochs: number of epochs that were gone through to their end.
        seed: of the run; with it, and the same arguments, the run can be repeated.
        skipped: batches that were left out under ``on_error="skip"``.
        skipped_items: items that were left out of their batches under ``on_error="skip_items"``.
        retried: attempts that failed and were made again.
        fillers: batches that repeat items, so that a shard has as many as the others.
    """

    seed: int = 0
    batches: int = 0
    items: int = 0
    epochs: int = 0
    skipped: list[Trouble] = field(default_factory=list)
    skipped_items: list[Trouble] = field(default_factory=list)
    retried: list[Trouble] = field(default_factory=list)
    fillers: int = 0
    _ending: str = ""
    _started: float = 0.0
    _ended: float | None = None
    _read_results: Callable[[], dict[str, Any]] = dict
    _read_fingerprint: Callable[[], str] = str

    def start(self) -> None:
        """Note that the run starts."""
        self._started = time.perf_counter()

    def end(self, error: BaseException | None) -> None:
        """Note that the run is over, and whether it was left (`Cancelled`) or has failed."""
        self._ended = time.perf_counter()
        if isinstance(error, Cancelled):
            self._ending = "left before the end of the data"
        elif error is not None:
            self._ending = f"failed: {type(error).__name__}"

    @property
    def seconds(self) -> float:
        """Seconds from the start of the run to its end, or until now."""
        if not self._started:
            return 0.0
        return (time.perf_counter() if self._ended is None else self._ended) - self._started

    @property
    def results(self) -> dict[str, Any]:
        """What each sink says is its result, by the sink's name; a second one is ``name-2``."""
        return self._read_results()

    @property
    def fingerprint(self) -> str:
        """What tells the recipe from others: the same in each run of the same one."""
        return self._read_fingerprint()

    @property
    def versions(self) -> dict[str, str]:
        """The versions of Python, NumPy, flowcore and the distributions of installed plugins."""
        found = {info.distribution: info.version for info in plugins()}
        return {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "flowcore": own_version(),
            **dict(sorted(found.items())),
        }

    def write_errors(self, path: str | os.PathLike[str]) -> None:
        """Write what was skipped or retried to a file: JSON lines, and one before them on the run.

        The first line has seed, fingerprint and versions: what it takes to repeat the run.
        """
        head = {"seed": self.seed, "fingerprint": self.fingerprint, "versions": self.versions}
        lines = [json.dumps(head)]
        for what, troubles in {
            "skipped": self.skipped,
            "skipped item": self.skipped_items,
            "retried": self.retried,
        }.items():
            lines += [trouble.as_json(what) for trouble in troubles]
        with open(os.fspath(path), "w", encoding="utf-8") as file:
            file.write("\n".join([*lines, ""]))

    def __repr__(self) -> str:  # the table, as a notebook shows it
        return str(self)

    def __str__(self) -> str:
        seconds = self.seconds or 1e-9
        rows = [
            ("batches", f"{self.batches:,}", f"{self.batches / seconds:,.1f} /s"),
            ("items", f"{self.items:,}", f"{self.items / seconds:,.1f} /s"),
            ("epochs", f"{self.epochs:,}", ""),
            ("seconds", f"{self.seconds:,.2f}", ""),
            ("seed", str(self.seed), ""),
            ("skipped", f"{len(self.skipped):,}", ""),
            ("retried", f"{len(self.retried):,}", ""),
        ]
        if self.skipped_items:
            rows.insert(-1, ("items skipped", f"{len(self.skipped_items):,}", ""))
        if self.fillers:
            rows.append(("fillers", f"{self.fillers:,}", ""))
        lines = [f"{name:<8} {value:>12} {rate:>16}".rstrip() for name, value, rate in rows]
        lines += [self._ending] if self._ending else []
        for what, troubles in (("", self.skipped), ("item of ", self.skipped_items)):
            lines += [f"  skipped {what}{trouble}" for trouble in troubles[:5]]
            lines += [f"  and {len(troubles) - 5:,} more"] if len(troubles) > 5 else []
        if self._ended is not None:  # until then a result may be one that must be waited for
            lines += [f"  {name}: {_short(result)}" for name, result in self.results.items()]
        return "\n".join(lines)


def _short(result: Any) -> str:
    if _is_array(result):
        return f"array {result.dtype} {result.shape}"
    parts = result if isinstance(result, Mapping) else {}
    if isinstance(result, tuple):
        parts = dict(enumerate(result))
    if parts and all(map(_is_array, parts.values())):
        return ", ".join(f"{name} {part.dtype} {part.shape}" for name, part in parts.items())
    text = str(result)
    plain = len(text) <= 100 and "\n" not in text and " object at 0x" not in text
    return text if plain else type(result).__name__


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
