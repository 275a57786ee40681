"""Pickling between the run and its workers: classes of scripts, and arrays beside the pickle.

What is in a module that the workers can import goes by its name. What a script, a notebook or any
other module defines goes by value, once, with the pipeline. From then on its classes go by number,
so that a batch, or an error, comes back as what it is here.
"""

from __future__ import annotations

import functools
import io
import mmap
import os
import pickle
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from flowcore import Work
from flowcore.executors.by_number import ByNumber, Numbering, forget, remember
from flowcore.memory import ALIGNMENT
from flowcore_processes._memory import SMALL, new_file

__all__ = ["Payload", "dumps", "dumps_of_work", "read_work", "write_work"]

_STANDARD = (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)

_Cached = type(functools.cache(len))  # which cloudpickle has go by name, wherever it is defined

# Held while a work is pickled: which modules go by value is kept once for the whole process.
_LOCK = threading.Lock()


@dataclass(eq=False)
class Payload:
    """A pickled work, in a file that the workers map: its arrays are there once for all of them.

    Attributes:
        fd: of the file.
        key: of the classes that went by value.
        length: bytes of the pickle, which is at the beginning.
        buffers: where each buffer begins, and its length; this list is pickled behind them.
        end: where that is.
        named: the classes and functions that went by name.
    """

    fd: int
    key: str
    length: int
    buffers: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0
    named: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Let the file go, and the classes."""
        os.close(self.fd)
        forget(self.key)

    def is_of(self, pickled: bytes, buffers: list[memoryview], named: list[Any]) -> bool:
        """Return whether the file has this pickle, with buffers of the same contents.

        What goes by name is another thing, by the same name, once its module was loaded again.
        """
        if [*map(id, named)] != [*map(id, self.named)]:
            return False
        if (self.length, [size for _, size in self.buffers]) != (
            len(pickled),
            [*map(len, buffers)],
        ):
            return False
        there = np.frombuffer(mmap.mmap(self.fd, 0, prot=mmap.PROT_READ), np.uint8)
        parts = [(0, self.length), *self.buffers]
        return all(
            np.array_equal(there[start : start + size], np.frombuffer(own, np.uint8))
            for (start, size), own in zip(parts, [memoryview(pickled), *buffers], strict=True)
        )


def write_work(work: Work, before: Payload | None, folder: str | None) -> Payload:
    """Return a file with the pickled work: the one before, if it is of the same work.

    Args:
        work: to be sent.
        before: what was sent last.
        folder: where the file is; see `new_file`.

    Raises:
        Exception: something in it does not pickle.
        OSError: there is no memory for it.
    """
    buffers: list[memoryview] = []
    classes: list[type] = []
    named: list[Any] = []
    out = io.BytesIO()
    with _LOCK, _Modules() as modules:
        # The list is pickled after the work, when it is complete.
        _WorkPickler(out, modules, classes, named, buffers).dump((work, classes))
    pickled = out.getvalue()
    if before is not None and before.is_of(pickled, buffers, named):
        return before
    payload = Payload(new_file("work", folder), uuid.uuid4().hex, len(pickled), named=named)
    try:
        with os.fdopen(os.dup(payload.fd), "wb") as file:
            file.write(pickled)
            for data in buffers:
                file.write(bytes(-file.tell() % ALIGNMENT))
                payload.buffers.append((file.tell(), len(data)))
                file.write(data)
            payload.end = file.tell()
            file.write(pickle.dumps(payload.buffers))
    except BaseException:
        payload.close()
        raise
    remember(payload.key, classes)
    return payload


def dumps_of_work(value: object) -> bytes:
    """Return the pickle of a part of a work, as it goes to a worker."""
    out = io.BytesIO()
    with _LOCK, _Modules() as modules:
        _WorkPickler(out, modules, [], [], []).dump(value)
    return out.getvalue()


def read_work(fd: int, key: str, length: int, end: int) -> Work:
    """Return the work, in a worker. Its arrays are those of the file until they are written to."""
    content = np.frombuffer(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY), np.uint8)
    buffers = pickle.loads(content[end:].data)
    parts = [content[start : start + size] for start, size in buffers]
    work: Work
    work, classes = pickle.loads(content[:length].data, buffers=parts)
    remember(key, classes)
    return work


def dumps(
    value: object,
    key: str,
    *,
    contiguous: Callable[[NDArray[Any]], NDArray[Any]] = np.ascontiguousarray,
    beside: Callable[[pickle.PickleBuffer], bool] | None = None,
) -> bytes:
    """Return a pickle of what goes between the run and a worker.

    Args:
        value: anything.
        key: of the work.
        contiguous: makes a copy, in the order of C, of an array that is not in one piece.
        beside: called with each buffer; returns true to have it in the pickle.
    """
    out = io.BytesIO()
    _Pickler(out, key, contiguous, beside).dump(value)
    return out.getvalue()


def _code(make: Callable[..., CodeType], parts: tuple[Any, ...], filename: str) -> CodeType:
    return make(*parts).replace(co_filename=filename)


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    again: Callable[..., Any] = functools.lru_cache(**parameters)(function)
    return again


class _Pickler(ByNumber, cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, out: io.BytesIO, key: str, contiguous: Any, beside: Any) -> None:
        super().__init__(out, protocol=5, buffer_callback=beside)
        self.number(key)
        self._contiguous = contiguous

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray:
            if not value.dtype.hasobject and not (
                value.flags.c_contiguous or value.flags.f_contiguous
            ):
                return self._contiguous(value).__reduce_ex__(5)
            return NotImplemented
        return super().reducer_override(value)


class _WorkPickler(Numbering, cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(
        self,
        out: io.BytesIO,
        modules: _Modules,
        classes: list[type],
        named: list[Any],
        buffers: list[memoryview],
    ) -> None:
        super().__init__(out, protocol=5, buffer_callback=self._beside)
        self._modules, self.classes = modules, classes
        self._named, self._buffers = named, buffers

    def _beside(self, buffer: pickle.PickleBuffer) -> bool:
        data = buffer.raw()
        if data.nbytes >= SMALL:
            self._buffers.append(data)
        return data.nbytes < SMALL

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.memmap):
            return _reopened(value) or NotImplemented
        if isinstance(value, io.TextIOWrapper) and value not in _STANDARD:
            raise TypeError(f"cannot pickle the open file {value.name!r}")  # cloudpickle copies it
        if isinstance(value, CodeType):
            make, parts = self.dispatch_table[CodeType](value)
            return _code, (make, parts, value.co_filename)  # which cloudpickle leaves out
        if isinstance(value, ModuleType):
            self._modules.see(value.__name__)
        if isinstance(value, (type, FunctionType, _Cached)):
            self._modules.see(value.__module__)
        if isinstance(value, _Cached) and self._modules.go_by_value(value.__module__):
            return _cached, (value.__wrapped__, value.cache_parameters())
        reduced = super().reducer_override(value)
        if isinstance(value, (type, FunctionType)) and reduced is NotImplemented:
            self._named.append(value)
        return reduced


class _Modules:
    """Has what is in modules that workers cannot import go by value, inside of a ``with``."""

    def __init__(self) -> None:
        self._seen = {"__main__", None}  # cloudpickle itself has those go by value
        self._changed: list[Any] = []

    def see(self, name: str | None) -> None:
        """Look at a module, by its name."""
        if name in self._seen or name is None:
            return
        self._seen.add(name)
        module = sys.modules.get(name)
        if module is None or _is_found(module):
            return
        if name not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            self._changed.append(module)

    def go_by_value(self, name: str | None) -> bool:
        """Return whether what is in a module goes by value."""
        return name == "__main__" or name in cloudpickle.list_registry_pickle_by_value()

    def __enter__(self) -> _Modules:
        return self

    def __exit__(self, *exc: object) -> None:
        for module in self._changed:
            cloudpickle.unregister_pickle_by_value(module)


def _is_found(module: Any) -> bool:
    """Return whether a new interpreter finds this very module by its name."""
    name = module.__name__
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    own, there = getattr(sys.modules.get(top), "__spec__", None), _spec_of(top)
    if own is None or there is None or _place(own) != _place(there):
        return False
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    folders = there.submodule_search_locations or ()
    return name == top or not spec.has_location or str(spec.origin).startswith(tuple(folders))


def _spec_of(top: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if find is None else find(top, None)
        if spec is not None:
            return spec
    return None


def _place(spec: ModuleSpec) -> tuple[str | None, list[str]]:
    folders = list(spec.submodule_search_locations or ())
    return spec.origin, sorted(map(os.path.abspath, folders))


def _reopened(array: np.memmap[Any, Any]) -> Any:
    """Return how a worker maps the same file; ``None`` if it would not see the same values."""
    root: Any = array
    while isinstance(root.base, np.memmap):
        root = root.base
    same = root.filename is not None and root.mode != "c" and array.flags.c_contiguous
    if not same or _inode_at(root.ctypes.data) != _inode_of(root.filename):
        return None
    offset = root.offset + array.ctypes.data - root.ctypes.data
    mode = "r" if root.mode == "r" else "c"
    return np.memmap, (os.fspath(root.filename), array.dtype, mode, offset, array.shape)


def _inode_at(address: int) -> int:
    """Return the inode of the file that is mapped at an address; 0 if that cannot be found out."""
    with suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            bounds, _, _, _, inode, *_ = line.split()
            first, last = (int(bound, 16) for bound in bounds.split("-"))
            if first <= address < last:
                return int(inode)
    return 0


def _inode_of(path: str | os.PathLike[str]) -> int:
    """Return the inode of the file that has a name now; -1 if there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1
