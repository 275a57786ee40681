"""Queues of eager TensorFlow: an enqueue that can be given up, exactly.

The only file that uses TensorFlow's private modules: an eager op run through a cancellation manager
either completes or is cancelled with nothing in the queue, and no public function offers that.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from flowcore.errors import Cancelled, SinkError, explain

from flowcore_tf_queue._arrays import Arrays
from flowcore_tf_queue._tensorflow import tf

# mypy does not see these modules; tests/test_eager.py says which TensorFlow moved them.
from tensorflow.python.eager import cancellation, context, execute  # isort: skip

__all__ = ["EagerDoor"]

_SLICE = 0.2  # seconds between looks at the token, where the calling thread waits


class EagerDoor:
    """Puts arrays into an eager queue.

    Args:
        queue: any eager queue.
        many: put the entries of the first axis, one by one.
        inline: ``put`` may be called in the main thread, which could not see a Ctrl-C while it is
            in TensorFlow; a helper thread then does the waiting.
    """

    def __init__(self, queue: Any, many: bool, inline: bool) -> None:
        self._queue = queue
        self._many = many
        self._types = tuple(tf.as_dtype(dtype).as_datatype_enum for dtype in queue.dtypes)
        self._helper = ThreadPoolExecutor(1, "flowcore-tf-queue") if inline else None

    def put(self, arrays: Arrays, cancel: Any) -> None:
        """Put one item, or each of many; see `flowcore.Sink.put`."""
        if not self._many:
            self._put_one(arrays, cancel)
            return
        for at in range(len(arrays[0])):
            self._put_one(tuple(array[at] for array in arrays), cancel)

    def close_queue(self) -> None:
        """Close the queue; this waits behind the enqueues that others wait in."""
        self._queue.close()

    def close(self) -> None:
        """Let the helper thread go."""
        if self._helper is not None:
            self._helper.shutdown()

    def _put_one(self, arrays: Arrays, cancel: Any) -> None:
        manager = cancellation.CancellationManager()
        with cancel.on_set(manager.start_cancel):
            if self._helper is None:
                self._enqueue(arrays, manager, cancel)
                return
            waiting = self._helper.submit(self._enqueue, arrays, manager, cancel)
            try:
                _wait_for(waiting, cancel)
            except BaseException:
                manager.start_cancel()  # a Ctrl-C: the enqueue must not outlive this call
                waiting.exception()
                raise

    def _enqueue(self, arrays: Arrays, manager: Any, cancel: Any) -> None:
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


def closed_by_others(queue: Any) -> SinkError:
    """Return the error of a queue that is closed while the run still has items for it."""
    return SinkError(
        explain(
            f"the queue {queue.name!r} was closed while the run had items for it",
            why="somebody closed it, or its session; the run did not",
            next="leave the run before you close the queue: run.close() or pipeline.reset()",
        )
    )


def _wait_for(waiting: Future[None], cancel: Any) -> None:
    while True:
        try:
            waiting.result(_SLICE)
        except NotYet:
            cancel.is_set()  # the stall warning is given by a look at the token
        else:
            return


def _adopted(array: Any) -> Any:
    """Return a tensor over the array's own memory; no copy, as the array is aligned and ours."""
    if array.dtype.hasobject or array.ndim == 0:
        return tf.convert_to_tensor(array)
    return tf.raw_ops.Identity(input=array)
