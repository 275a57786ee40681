"""A sink that writes a file of JSON lines, one for each item."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from flowcore import Batch, Cancel, Sink, SinkRun

__all__ = ["JSONLinesSink"]


class JSONLinesSink(Sink):
    """Writes ``{"id": ..., "data": ...}`` for each item, or with its components in place of data.

    The file appears at the end of the data, whole. A run that fails or is left leaves no file, and
    one of an earlier run as it was.

    Args:
        path: of the file; its folder must exist.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def open(self, run: SinkRun) -> None:
        """Start a file beside ``path``, under a name that no other run uses."""
        self._part = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}.part")
        self._file = self._part.open("x", encoding="utf-8")

    def prepare(self, batch: Batch) -> str:
        """Return the batch's lines."""
        columns = batch.data if batch.components else {"data": batch.get_tensor()}
        values = {"id": batch.index, **columns}
        rows = zip(*(np.asarray(column).tolist() for column in values.values()), strict=True)
        return "".join(json.dumps(dict(zip(values, row, strict=True))) + "\n" for row in rows)

    def put(self, item: str, cancel: Cancel) -> None:
        """Write the lines; there is always room."""
        self._file.write(item)

    def close(self, error: BaseException | None) -> None:
        """Give the file its name, or remove it if the run did not come to its end."""
        self._file.close()
        if error is None:
            self._part.replace(self._path)
        else:
            self._part.unlink()

    @property
    def result(self) -> Any:
        """The path of the file."""
        return self._path
