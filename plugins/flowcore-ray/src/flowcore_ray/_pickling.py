"""Pickling between the run and its workers: the arrays beside the pickle, classes of scripts.

A class that workers can import goes by its name. One of a script or a notebook goes by value, once,
with the pipeline; from then on by number, so that a batch comes back as what it is here.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ray import cloudpickle

from flowcore import Work
from flowcore.executors.by_number import ByNumber, Numbering, remember

__all__ = ["Pickled", "dumps", "read_work", "write_work"]

#: A pickle, and the buffers of its arrays, which Ray keeps in shared memory as they are.
Pickled: TypeAlias = "tuple[bytes, Sequence[Any]]"


def write_work(work: Work, key: str) -> Pickled:
    """Return the pickled work, and note under a key which classes went by value.

    Raises:
        Exception: something in it does not pickle.
    """
    buffers: list[pickle.PickleBuffer] = []
    classes: list[type] = []
    out = io.BytesIO()
    # The list is pickled after the work, when it is complete.
    _WorkPickler(out, classes, buffers.append).dump((work, classes))
    remember(key, classes)
    return out.getvalue(), buffers


def read_work(pickled: Pickled, key: str) -> Work:
    """Return the work, in a worker; its arrays look at the object store, and are read-only."""
    work: Work
    work, classes = pickle.loads(pickled[0], buffers=pickled[1])
    remember(key, classes)
    return work


def dumps(
    value: object, key: str, beside: Callable[[pickle.PickleBuffer], Any] | None = None
) -> bytes:
    """Return a pickle of what goes between the run and a worker.

    Args:
        value: anything.
        key: of the work.
        beside: called with each buffer, which is then not in the pickle.
    """
    out = io.BytesIO()
    _Pickler(out, key, beside).dump(value)
    return out.getvalue()


class _Pickler(ByNumber, cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, out: io.BytesIO, key: str, beside: Any) -> None:
        super().__init__(out, protocol=5, buffer_callback=beside)
        self.number(key)


class _WorkPickler(Numbering, cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, out: io.BytesIO, classes: list[type], beside: Any) -> None:
        super().__init__(out, protocol=5, buffer_callback=beside)
        self.classes = classes
