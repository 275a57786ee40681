"""The worker: an actor, on whatever node Ray places it."""

from __future__ import annotations

import pickle
import sys
import threading
import traceback
from contextlib import ExitStack
from functools import partial
from typing import Any

import ray

from flowcore import Task
from flowcore.executors.by_number import forget
from flowcore.executors.wire import pack
from flowcore_ray._pickling import Pickled, dumps, read_work

__all__ = ["Worker"]


class Worker:
    """Runs tasks, one at a time. All but `stack` is called in one and the same thread."""

    def __init__(self) -> None:
        self._name = "flowcore-worker"
        self._inside = ExitStack()
        self._work: Any = None

    def __repr__(self) -> str:
        return self._name  # Ray puts it before each line that the worker prints

    def begin(self, name: str, key: str, work: list[ray.ObjectRef[Pickled]]) -> str:
        """Load the work, and set the worker up; return why the work cannot be read, or ''.

        Args:
            name: of the worker, from now on.
            key: of the classes in the work.
            work: where it is; in a list, as Ray would else fetch it before we can catch anything.
        """
        self._name, self._key, self._thread = name, key, threading.get_ident()
        try:
            self._work = read_work(ray.get(work[0]), key)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        self._inside.enter_context(self._work.worker(self._name))
        return ""

    def look(self) -> None:
        """Do nothing: it shows that the worker is alive."""

    def run(self, task: Task) -> Pickled:
        """Run a task; return the outcome, and the buffers of its arrays, as two objects."""
        buffers: list[pickle.PickleBuffer] = []

        def beside(buffer: pickle.PickleBuffer) -> None:
            buffers.append(buffer)

        plain: Any = partial(dumps, key=self._key)
        packed = pack(self._work(task), plain, partial(plain, beside=beside))
        return packed, buffers

    def stack(self) -> str:
        """Return where in the code the worker is, as text; called in a thread of its own."""
        frame = sys._current_frames().get(self._thread)
        lines = [] if frame is None else traceback.format_stack(frame)
        # What is above our own `run` is Ray's.
        own = next((at for at, line in enumerate(lines) if __file__ in line), 0)
        return "".join(lines[own + 1 :]).rstrip()

    def end(self) -> None:
        """Tear the worker down, for the work that it has."""
        self._inside.close()
        self._work = None  # and its data in the object store
        forget(self._key)
