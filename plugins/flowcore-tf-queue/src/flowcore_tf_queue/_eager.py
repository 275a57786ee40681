"""Queues of eager TensorFlow: an enqueue that can be given up, exactly.

The only file that uses TensorFlow's private modules: an eager op run through a cancellation manager
either completes or is cancelled with nothing in the queue, and no public function offers that. Nor
does one make a tensor over an array's memory without an op.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from flowcore import Cancel
from flowcore.errors import Cancelled
from flowcore_tf_queue._arrays import Arrays
from flowcore_tf_queue._errors import closed_by_others
from flowcore_tf_queue._tensorflow import tf

# mypy does not see these modules; tests/test_eager.py says which TensorFlow moved them.
from tensorflow.python.eager import cancellation, context, execute  # isort: skip
from tensorflow.python.framework import ops  # isort: skip

__all__ = ["EagerDoor"]

_CPU = "/device:CPU:0"


class EagerDoor:
    """Puts arrays into an eager queue.

    Args:
        queue: any eager queue.
        many: put the entries of the first axis, one by one.
    """

    def __init__(self, queue: Any, many: bool) -> None:
        self._queue = queue
        self._many = many
        self._types = tuple(tf.as_dtype(dtype).as_datatype_enum for dtype in queue.dtypes)
        self._attributes = "Tcomponents", self._types, "timeout_ms", -1
        # Of all puts, until one is given up. Replaced by the thread that puts.
        self._manager = cancellation.CancellationManager()
        self._token: Cancel | None = None  # that interrupts; a run has one for all puts
        self._listening = contextlib.ExitStack()
        context.context().ensure_initialized()

    def put(self, arrays: Arrays, cancel: Cancel) -> None:
        """Put one item, or each of many; see `flowcore.Sink.put`."""
        if cancel is not self._token:
            self._listening.close()
            self._token = cancel
            self._listening.enter_context(cancel.on_set(self.interrupt))
        if not self._many:
            self._put_one(arrays, cancel)
            return
        for at in range(len(arrays[0])):
            entries = tuple(np.asarray(array[at], array.dtype) for array in arrays)
            self._put_one(entries, cancel)

    def interrupt(self) -> None:
        """Have a put that waits look at its token, and go on; called in any thread."""
        self._manager.start_cancel()

    def close_queue(self) -> None:
        """Close the queue; this waits behind the enqueues that others wait in."""
        self._queue.close()

    def close(self) -> None:
        """Let go of the token; the queue is the user's."""
        self._listening.close()

    def _put_one(self, arrays: Arrays, cancel: Cancel) -> None:
        # Tensors over the arrays' own memory, which is aligned and which nobody writes to: a copy
        # is made only of strings, and of entries that start elsewhere.
        tensors = [
            ops.EagerTensor(array, _CPU, kind)
            for array, kind in zip(arrays, self._types, strict=True)
        ]
        while not self._enqueued([self._queue.queue_ref, *tensors]):
            # In this order: a token that is set from now on interrupts the new one.
            self._manager = cancellation.CancellationManager()
            if cancel.is_set():
                raise Cancelled("the put was given up; nothing of the item is in")

    def _enqueued(self, inputs: list[Any]) -> bool:
        """Enqueue; return ``False`` if that was given up."""
        manager = self._manager
        try:
            execute.execute_with_cancellation(
                b"QueueEnqueueV2", 0, inputs, self._attributes, context.context(), manager
            )
        except tf.errors.CancelledError as error:
            if manager.is_cancelled:
                return False
            raise closed_by_others(self._queue) from error
        return True
