"""Classes that other processes cannot import: by value once, with the work, and then by number.

So a batch, or an error, comes back as what it is in the process of the run: ``except`` finds it.
For executors that pickle with cloudpickle, or with a library's own copy of it: a mix-in for its
pickler on each side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["ByNumber", "Numbering", "forget", "remember"]

# By the key of their work; in the process of the run, and in each worker.
_classes: dict[str, list[type]] = {}

if TYPE_CHECKING:

    class _Pickler:
        def reducer_override(self, value: Any) -> Any: ...

else:
    _Pickler = object


def remember(key: str, classes: list[type]) -> None:
    """Note which classes went by value with a work, in the same order on both sides."""
    _classes[key] = classes


def forget(key: str) -> None:
    """Let go of the classes of a work."""
    _classes.pop(key, None)


class Numbering(_Pickler):
    """Mixed into the pickler of a work: collects the classes that go by value.

    Attributes:
        classes: set it to an empty list; pickle it behind the work, when it is complete.
    """

    classes: list[type]

    def reducer_override(self, value: Any) -> Any:
        """Have the class go as cloudpickle has it go, and note it if that is by value."""
        reduced = super().reducer_override(value)
        if not isinstance(value, type) or reduced is NotImplemented:
            return reduced
        self.classes.append(value)
        return _with_slots(value, reduced)


class ByNumber(_Pickler):
    """Mixed into the pickler of what goes to and fro: the classes of a work go by number."""

    def number(self, key: str) -> None:
        """Have the classes of a work go so; call it before anything is pickled."""
        self._key = key
        self._numbers = {id(kind): at for at, kind in enumerate(_classes.get(key, ()))}

    def reducer_override(self, value: Any) -> Any:
        """Have a class of the work go by its number, and all else as cloudpickle has it go."""
        if isinstance(value, type) and id(value) in self._numbers:
            return _class, (self._key, self._numbers[id(value)])
        return super().reducer_override(value)


def _class(key: str, number: int) -> type:
    return _classes[key][number]


def _with_slots(kind: type, reduced: Any) -> Any:
    """Return how a class is made with its slots, which cloudpickle adds when it is too late."""
    make, parts, *rest = reduced
    slots = vars(kind).get("__slots__")
    if not slots or make.__name__ != "_make_skeleton_class" or issubclass(kind, tuple):
        return reduced
    constructor, name, bases, given, *others = parts
    return make, (constructor, name, bases, {**given, "__slots__": slots}, *others), *rest
