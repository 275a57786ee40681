"""Queues of eager TensorFlow: an enqueue that can be given up, exactly.

The only file that uses TensorFlow's private modules: an eager op run through a cancellation manager
either completes or is cancelled with nothing in the queue, and no public function offers that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowcore import Cancel
from flowcore.errors import Cancelled
from flowcore_tf_queue._arrays import Arrays
from flowcore_tf_queue._errors import closed_by_others
from flowcore_tf_queue._tensorflow import tf

# mypy does not see these modules; tests/test_eager.py says which TensorFlow moved them.
from tensorflow.python.eager import cancellation, context, execute  # isort: skip

__all__ = ["EagerDoor"]


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

    def put(self, arrays: Arrays, cancel: Cancel) -> None:
        """Put one item, or each of many; see `flowcore.Sink.put`."""
        if not self._many:
            self._put_one(arrays, cancel)
            return
        for at in range(len(arrays[0])):
            entries = tuple(np.asarray(array[at], array.dtype) for array in arrays)
            self._put_one(entries, cancel)

    def close_queue(self) -> None:
        """Close the queue; this waits behind the enqueues that others wait in."""
        self._queue.close()

    def close(self) -> None:
        """Do nothing: the queue is the user's."""

    def _put_one(self, arrays: Arrays, cancel: Cancel) -> None:
        manager = cancellation.CancellationManager()
        with cancel.on_set(manager.start_cancel):
            self._enqueue(arrays, manager)

    def _enqueue(self, arrays: Arrays, manager: Any) -> None:
        tensors = [_adopted(array) for array in arrays]
        try:
            self._execute(
                b"QueueEnqueueV2",
                [self._queue.queue_ref, *tensors],
                ("Tcomponents", self._types, "timeout_ms", -1),
                manager,
            )
        except tf.errors.CancelledError as error:
            if manager.is_cancelled:
                raise Cancelled("the put was given up; nothing of the item is in") from None
            raise closed_by_others(self._queue) from error

    @staticmethod
    def _execute(op: bytes, inputs: list[Any], attributes: tuple[Any, ...], manager: Any) -> None:
        current = context.context()
        current.ensure_initialized()
        execute.execute_with_cancellation(op, 0, inputs, attributes, current, manager)


def _adopted(array: Any) -> Any:
    """Return a tensor over the array's own memory; no copy, as the array is aligned and ours."""
    if array.dtype.hasobject or array.ndim == 0:
        return tf.convert_to_tensor(array)
    return tf.raw_ops.Identity(input=array)
