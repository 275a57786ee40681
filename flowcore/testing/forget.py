"""What batch classes, and globals, hold of earlier batches, taken back: as if a program began."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from flowcore.batch import Batch

__all__ = ["Memory"]


class Memory:
    """What batch classes and functions keep, as it is now.

    That is: the attributes of the classes, and of what they derive from; the globals that their
    methods and the functions name; the caches of their methods. Dicts, lists and sets are
    remembered by their entries. What is kept inside of other objects is not seen.

    Args:
        classes: of batches.
        functions: other actions.
    """

    def __init__(
        self, classes: Iterable[type[Batch]], functions: Iterable[Callable[..., Any]] = ()
    ) -> None:
        self._owners = list(
            dict.fromkeys(
                owner for one in classes for owner in one.__mro__ if owner not in Batch.__mro__
            )
        )
        self._functions = [*functions, *(one for owner in self._owners for one in _methods(owner))]
        self._was: dict[tuple[Any, str], Any] = {
            (owner, name): _copy(vars(owner)[name]) for owner, name in self._places()
        }

    def forget(self) -> None:
        """Give the classes and the globals what they had, and empty the caches."""
        for owner, name in set(self._places()) - set(self._was):
            if isinstance(owner, type):
                delattr(owner, name)
        for (owner, name), value in self._was.items():
            _restore(owner, name, value)
        for function in self._functions:
            getattr(function, "cache_clear", _nothing)()

    def _places(self) -> Iterator[tuple[Any, str]]:
        """Generate what may keep something: a class or a module, and a name in it."""
        for owner in self._owners:
            yield from ((owner, name) for name in vars(owner) if _is_kept(owner, name))
        for function in map(inspect.unwrap, self._functions):
            module = sys.modules.get(function.__module__)
            if isinstance(function, FunctionType) and module is not None:
                names = set(_names(function.__code__))
                yield from ((module, name) for name in names if _is_kept(module, name))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:  # a comprehension, say
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _methods(owner: type) -> Iterator[Callable[..., Any]]:
    for value in vars(owner).values():
        function = getattr(value, "__func__", value)
        if callable(function) and not isinstance(function, type):
            yield function


def _is_kept(owner: Any, name: str) -> bool:
    """Return whether there is something by the name that is no function, module or class."""
    value = vars(owner).get(name, _nothing)
    code = callable(value) or isinstance(value, ModuleType) or hasattr(value, "__get__")
    return not (name.startswith("__") or code)


def _copy(value: Any) -> Any:
    return copy.copy(value) if type(value) in (dict, list, set) else value


def _restore(owner: Any, name: str, value: Any) -> None:
    now: Any = vars(owner).get(name)
    if type(value) in (dict, list, set) and type(now) is type(value):
        now.clear()  # itself, as there may be other names for it
        now.extend(value) if type(value) is list else now.update(value)
    elif now is not value:
        setattr(owner, name, value)


def _nothing() -> None:
    """Stand for what is not there."""
