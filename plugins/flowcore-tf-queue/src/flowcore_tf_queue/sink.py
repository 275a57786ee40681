"""The sink: arrays are made in the workers, and put into a TensorFlow queue in delivery order."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from flowcore import Batch, Cancel, Sink, SinkRun
from flowcore.errors import Cancelled, OptionError, explain
from flowcore_tf_queue._arrays import Arrays, Fitter, Slots
from flowcore_tf_queue._eager import EagerDoor
from flowcore_tf_queue._errors import called
from flowcore_tf_queue._graph import GraphDoor, Ops, ops_for, raw_session
from flowcore_tf_queue._tensorflow import tf
from flowcore_tf_queue._watch import Door, InCaller

__all__ = ["TFQueueSink"]

_log = logging.getLogger("flowcore")

_PATIENCE = 0.3  # seconds that the end of a run waits for the queue to be closed


class TFQueueSink(Sink):
    """Puts batches into a TensorFlow queue.

    The queue may be of a graph (``tf.compat.v1``; every kind of queue), where the step builds its
    enqueue op when it is written, or eager. Arrays are cast where NumPy calls it ``same_kind``.
    TensorFlow gets an array of ``batch.empty``, and a read-only one, as it is, and the former is
    read-only from then on; any other is copied once, in the worker, and stays the user's: see
    `flowcore.Batch.frozen`. A put that waits is given up exactly when the run is left: the item is
    in whole, or not at all.

    Args:
        queue: the queue; by default the sink makes an eager ``FIFOQueue`` with the dtypes of the
            first item, which is its result.
        get_tensor: a function or method of the batch that returns an array, a tuple of arrays, or a
            dict for a queue with ``names``; a list is one array. By default ``batch.get_tensor()``,
            or for a queue with ``names`` the batch's components of these names.
        many: put the items of a batch one by one; the arrays' first axis counts them. A run that is
            left in the middle of a batch leaves its first items in the queue.
        capacity: of the queue that the sink makes; 8 by default.
        close_queue: whether to close the queue at the end of the data and on a failure. By default
            ``feed`` does, and the others do not; a shuffling queue is closed at the end of the
            data by all, as its last items cannot come out before. A queue of the user's is never
            closed because a run was left.

    Raises:
        OptionError: options that cannot be right.
        PipelineError: the queue's graph is finalized already.
    """

    run_options: ClassVar[dict[str, str]] = {
        "tf_session": "the session of the queue's graph; by default the starting thread's default"
    }

    def __init__(
        self,
        queue: Any = None,
        get_tensor: Callable[[Any], Any] | None = None,
        *,
        many: bool = False,
        capacity: int | None = None,
        close_queue: bool | None = None,
    ) -> None:
        _check(queue, get_tensor, capacity)
        for name, flag in {"many": many, "close_queue": close_queue}.items():
            if not isinstance(flag, bool) and not (name == "close_queue" and flag is None):
                raise OptionError(f"{name} must be True or False, got {flag!r}")
        self._queue = queue
        self._many = many
        self._capacity = 8 if capacity is None else capacity
        self._close_queue = close_queue
        self._own = queue is None
        self._run: SinkRun | None = None
        self._ops: Ops | None = None
        if queue is not None:
            graph = getattr(queue.queue_ref, "graph", None)  # an eager tensor has none
            if graph is not None:
                self._ops = ops_for(queue, graph, many)
        self._fitter = Fitter(get_tensor, None if queue is None else _slots(queue), many)

    @property
    def prepare(self) -> Callable[[Batch], Arrays]:
        """What makes a batch's arrays: an object without TensorFlow in it, for any worker."""
        return self._fitter

    def open(self, run: SinkRun) -> None:
        """Find the session, where there is need of one."""
        self._run = run
        self._made = threading.Event()  # set by the delivering thread; `result` waits for it
        if self._own:
            self._queue = None  # not that of a run before, if this object was given to one
            self._check_capacity(run)
        self._door: Door | None = None
        self._check_room(run)
        if self._ops is None and self._is_shuffle() and run.hands_over:
            _log.warning(
                "flowcore cannot see how many items an eager RandomShuffleQueue keeps back: if its "
                "min_after_dequeue is more than prefetch=%d, dequeue() waits for ever; feed() "
                "does not depend on it",
                run.prefetch,
            )
        self.lookahead = self._lookahead(run.batch_size)
        if self._ops is not None:
            session = raw_session(run.options.get("tf_session"), self._ops.graph)
            self._door = self._entered(GraphDoor(self._queue, self._ops, self._many, session))
        elif not self._own:
            self._door = self._entered(EagerDoor(self._queue, self._many))
        elif not tf.executing_eagerly():
            raise OptionError(
                explain(
                    "the sink cannot make an eager queue inside of a graph",
                    where="at the start of the run",
                    next="make a queue of the graph and pass it as queue=",
                )
            )
        if not self._own:
            self._made.set()

    def put(self, item: Arrays, cancel: Cancel) -> None:
        """Put one batch's arrays; see `Sink.put`."""
        if self._own:
            item = self._fit_own(item)
        assert self._door is not None
        self._door.put(item, cancel)

    def close(self, error: BaseException | None) -> None:
        """Close the queue, if that is due, and let the thread beside it go."""
        try:
            if self._door is not None and self._closes(error):
                self._end_queue()
        finally:
            self._made.set()
            if self._door is not None:
                self._door.close()

    @property
    def result(self) -> Any:
        """The queue. One that the sink makes is there with the first item.

        In a feed this waits for it, and is ``None`` if the run ended before; otherwise it is
        ``None`` until the first batch has been put.
        """
        if self._run is not None and self._run.feed:
            self._made.wait()
        return self._queue

    def _entered(self, door: Door) -> Door:
        assert self._run is not None
        return InCaller(door) if self._run.inline else door

    def _fit_own(self, arrays: Arrays) -> Arrays:
        if self._queue is None:
            dtypes = [tf.string if array.dtype == object else array.dtype for array in arrays]
            with tf.init_scope():  # eager, whatever graph the consumer is in
                self._queue = tf.queue.FIFOQueue(self._capacity, dtypes)
            self._slots = _slots(self._queue)
            self._door = self._entered(EagerDoor(self._queue, self._many))
            self._made.set()
            return arrays
        # What the queue takes was not known in `prepare`: the first item has said it since.
        wanted = zip(arrays, self._slots.dtypes, strict=False)
        if len(arrays) == len(self._slots.dtypes) and all(a.dtype == d for a, d in wanted):
            return arrays
        return Fitter(None, self._slots, self._many).fit(arrays, "a later batch than the first")

    def _closes(self, error: BaseException | None) -> bool:
        assert self._run is not None
        if isinstance(error, Cancelled):  # left: only a queue of our own has nobody else
            return self._own and self._run.feed
        if self._close_queue is not None:
            return self._close_queue
        # Of an eager shuffling queue it is not known how many items it keeps back.
        shuffles = self.lookahead > 1 or (self._ops is None and self._is_shuffle())
        return self._run.feed or (error is None and shuffles)

    def _end_queue(self) -> None:
        # TensorFlow closes a queue after the enqueues that wait in it, and cannot be told to stop
        # waiting; so that waiting is not ours. Nobody but this thread knows of it.
        door = self._door
        assert door is not None

        def close() -> None:
            # Closed by somebody before, or its session was: either way nobody waits for the end.
            with contextlib.suppress(tf.errors.OpError, RuntimeError):
                door.close_queue()

        closer = threading.Thread(target=close, name="flowcore-tf-queue-close", daemon=True)
        closer.start()
        closer.join(_PATIENCE)
        if closer.is_alive():
            _log.warning(
                "flowcore closes %s behind enqueues of others that wait in it; its "
                "consumer is told the end after their items. close_queue=False leaves it open",
                called(self._queue),
            )

    def _is_shuffle(self) -> bool:
        return isinstance(self._queue, tf.queue.RandomShuffleQueue)

    def _known_capacity(self) -> int:
        """Return how many items the queue has room for, -1 if that is not known."""
        if self._own:
            return self._capacity
        if self._ops is None:
            return -1  # an eager queue does not say
        try:
            return int(self._queue.queue_ref.op.get_attr("capacity"))
        except ValueError:  # one of several queues, chosen in the graph
            return -1

    def _check_capacity(self, run: SinkRun) -> None:
        """Refuse a run that must end before anybody can have the queue that it fills."""
        needed = run.items if self._many else run.batches
        if run.feed or run.hands_over or (needed is not None and needed <= self._capacity):
            return
        raise OptionError(
            explain(
                f"the sink's own queue has room for {self._capacity} items, and the run puts "
                f"{'more and more' if needed is None else needed} before anybody can take one",
                where="at the start of the run",
                next="with pipeline.feed(...) as feed: take from feed.results"
                + ("" if needed is None else f"; or capacity={needed}"),
            )
        )

    def _check_room(self, run: SinkRun) -> None:
        """Refuse a batch that a consumer, who waits for all of it to be in, would wait for."""
        if not (self._many and run.hands_over):
            return
        capacity = self._known_capacity()
        if 0 <= capacity < run.batch_size:
            raise OptionError(
                explain(
                    f"{'its own queue' if self._own else called(self._queue)} has room for "
                    f"{capacity} items, and a batch has "
                    f"{run.batch_size}: who takes items after next_batch would wait for ever",
                    where="at the start of the run",
                    why="many=True puts the items one by one, and the batch is handed over after "
                    "its last",
                    next="a capacity of batch_size or more; if another thread takes them, "
                    "pipeline.run(...) or with pipeline.feed(...)",
                )
            )

    def _lookahead(self, batch_size: int) -> int:
        """How many puts a shuffling queue needs before it gives out an item."""
        if self._ops is None or not self._is_shuffle():
            return 1
        kept = int(self._queue.queue_ref.op.get_attr("min_after_dequeue"))
        return 1 + (-(-kept // batch_size) if self._many else kept)


def _slots(queue: Any) -> Slots:
    shapes = queue.shapes or [tf.TensorShape(None)] * len(queue.dtypes)
    return Slots(
        dtypes=tuple(np.dtype(tf.as_dtype(dtype).as_numpy_dtype) for dtype in queue.dtypes),
        shapes=tuple(None if shape.rank is None else tuple(shape.as_list()) for shape in shapes),
        names=tuple(queue.names) if queue.names else None,
    )


def _check(queue: Any, get_tensor: Any, capacity: Any) -> None:
    if queue is not None and not isinstance(queue, tf.queue.QueueBase):
        raise OptionError(
            explain(
                f"queue must be a TensorFlow queue, got {type(queue).__name__}",
                next="pass a tf.queue.FIFOQueue or another of tf.queue, or leave it out",
            )
        )
    if get_tensor is not None and not callable(get_tensor):
        raise OptionError(
            explain(
                f"get_tensor must be a function or method of the batch, got {get_tensor!r:.60}",
                next="get_tensor=MyBatch.get_tensor, or lambda batch: batch.images",
            )
        )
    if queue is not None and capacity is not None:
        raise OptionError("capacity is of the queue that the sink makes: give queue or capacity")
    if capacity is not None and not (type(capacity) is int and capacity >= 1):
        raise OptionError(f"capacity must be an int of at least 1, got {capacity!r}")
