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

__all__ = ["Pickled", "dumps", "forget", "read_work", "write_work"]

#: A pickle, and the buffers of its arrays, which Ray keeps in shared memory as they are.
Pickled: TypeAlias = "tuple[bytes, Sequence[Any]]"

# The classes that went by value, by the key of their work; here, and in the workers.
_CLASSES: dict[str, list[type]] = {}


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
    _CLASSES[key] = classes
    return out.getvalue(), buffers


def read_work(pickled: Pickled, key: str) -> Work:
    """Return the work, in a worker; its arrays look at the object store, and are read-only."""
    work: Work
    work, _CLASSES[key] = pickle.loads(pickled[0], buffers=pickled[1])
    return work


def forget(key: str) -> None:
    """Let go of the classes of a work."""
    _CLASSES.pop(key, None)


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


def _class(key: str, number: int) -> type:
    return _CLASSES[key][number]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, out: io.BytesIO, key: str, beside: Any) -> None:
        super().__init__(out, protocol=5, buffer_callback=beside)
        self._key = key
        self._numbers = {id(kind): at for at, kind in enumerate(_CLASSES.get(key, ()))}

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) and id(value) in self._numbers:
            return _class, (self._key, self._numbers[id(value)])
        return super().reducer_override(value)


class _WorkPickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, out: io.BytesIO, classes: list[type], beside: Any) -> None:
        super().__init__(out, protocol=5, buffer_callback=beside)
        self._classes = classes

    def reducer_override(self, value: Any) -> Any:
        reduced = super().reducer_override(value)
        if isinstance(value, type) and reduced is not NotImplemented:
            self._classes.append(value)
            return _with_slots(value, reduced)
        return reduced


def _with_slots(kind: type, reduced: Any) -> Any:
    """Return how a class is made with its slots, which cloudpickle adds when it is too late."""
    make, parts, *rest = reduced
    slots = vars(kind).get("__slots__")
    if not slots or make.__name__ != "_make_skeleton_class" or issubclass(kind, tuple):
        return reduced
    constructor, name, bases, given, *others = parts
    return make, (constructor, name, bases, {**given, "__slots__": slots}, *others), *rest
