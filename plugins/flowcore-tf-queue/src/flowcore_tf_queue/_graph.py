"""Queues of a graph: an enqueue through a session that can be given up, exactly.

A session's call is given up by a deadline, and the deadline can fire while the enqueue succeeds. So
the same call counts in a table what went in: after a deadline the table, and not the error, says
whether the item is in. That holds with any number of producers and consumers.
"""

from __future__ import annotations

import contextlib
import secrets
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowcore import Cancel
from flowcore.errors import Cancelled, OptionError, PipelineError, SinkError, explain
from flowcore_tf_queue._arrays import Arrays
from flowcore_tf_queue._errors import called, closed_by_others
from flowcore_tf_queue._tensorflow import tf

from tensorflow.core.protobuf import config_pb2  # isort: skip

__all__ = ["GraphDoor", "Ops", "ops_for", "raw_session"]

_SLICE_MS = 200  # how long a call to the session may wait before the token is looked at


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Ops:
    """The ops of one queue, built when the step is written.

    ``put`` enqueues and then notes under ``key`` how many items are in; ``count`` reads that.
    """

    graph: Any
    inputs: tuple[Any, ...]
    key: Any
    before: Any  # how many items of the run were in before this put
    start: Any  # the first of the entries to put
    many: bool
    put: Any  # the operation
    count: Any
    forget: Any  # the run's entry in the table
    close: Any


# By queue, so that a pipeline written twice over one queue does not grow the graph twice.
_built: weakref.WeakKeyDictionary[Any, dict[bool, Ops]] = weakref.WeakKeyDictionary()


def ops_for(queue: Any, graph: Any, many: bool) -> Ops:
    """Return the ops of ``queue``, built in its graph at the first call.

    Raises:
        PipelineError: the graph is finalized and has no ops for this queue yet.
    """
    known = _built.setdefault(queue, {})
    if many not in known:
        if graph.finalized:
            raise PipelineError(
                explain(
                    f"the graph of {called(queue)} is finalized and takes no more ops",
                    why="MonitoredSession, Supervisor and graph.finalize() finalize a graph",
                    next="write the pipeline first, down to put_into_tf_queue, and then make the "
                    "session",
                )
            )
        with graph.as_default(), tf.name_scope("flowcore"), tf.control_dependencies(None):
            known[many] = _build(queue, graph, many)
    return known[many]


def _build(queue: Any, graph: Any, many: bool) -> Ops:
    v1 = tf.compat.v1
    inputs = tuple(
        v1.placeholder(dtype, tf.TensorShape([None]).concatenate(shape) if many else shape)
        for dtype, shape in zip(queue.dtypes, _shapes(queue), strict=True)
    )
    key, before, start = (v1.placeholder(tf.int64, []) for _ in range(3))
    table = tf.raw_ops.MutableHashTableV2(
        key_dtype=tf.int64, value_dtype=tf.int64, use_node_name_sharing=True
    )

    def enqueue(values: tuple[Any, ...], count: Any) -> Any:
        if queue.names:
            op = queue.enqueue(dict(zip(queue.names, values, strict=True)))
        else:
            op = queue.enqueue(values)
        with tf.control_dependencies([op]):
            return tf.raw_ops.LookupTableInsertV2(table_handle=table, keys=key, values=count)

    if many:

        def body(at: Any) -> Any:
            entries = tuple(_entry(part, at) for part in inputs)
            with tf.control_dependencies([enqueue(entries, before + at + 1)]):
                return at + 1

        length = tf.shape(inputs[0], out_type=tf.int64)[0]
        (end,) = tf.while_loop(lambda at: at < length, body, [start], parallel_iterations=1)
        put = end.op
    else:
        put = enqueue(inputs, before + 1)
    return Ops(
        graph=graph,
        inputs=inputs,
        key=key,
        before=before,
        start=start,
        many=many,
        put=put,
        count=tf.raw_ops.LookupTableFindV2(
            table_handle=table, keys=key, default_value=tf.constant(0, tf.int64)
        ),
        forget=tf.raw_ops.LookupTableRemoveV2(table_handle=table, keys=tf.reshape(key, [1])),
        close=queue.close(),
    )


def _shapes(queue: Any) -> list[Any]:
    return list(queue.shapes) or [tf.TensorShape(None)] * len(queue.dtypes)


def _entry(part: Any, at: Any) -> Any:
    entry = tf.gather(part, at)
    entry.set_shape(part.shape[1:])
    return entry


def raw_session(session: Any, graph: Any) -> Any:
    """Return the session to put through: that given, or the thread's default one.

    A monitored session is looked through, so that its hooks do not count our calls as steps.

    Raises:
        OptionError: there is none, or it is of another graph.
    """
    session = tf.compat.v1.get_default_session() if session is None else session
    if session is None:
        raise OptionError(
            explain(
                "a queue of a graph needs a session, and there is none",
                where="at the start of the run",
                why="tf_session= is not given, and this thread has no default session",
                next="pass tf_session=session to next_batch, gen_batch, run or feed",
            )
        )
    if hasattr(session, "run_step_fn"):
        try:
            session = session.run_step_fn(lambda step_context: step_context.session)
        except (AttributeError, RuntimeError) as error:  # how a monitored one says so
            raise OptionError(f"the session given as tf_session is closed: {error}") from error
    if not hasattr(session, "run") or not hasattr(session, "graph"):
        raise OptionError(f"tf_session must be a TensorFlow session, got {session!r:.80}")
    if session.graph is not graph:
        raise OptionError(
            explain(
                "the session is of another graph than the queue",
                where="at the start of the run",
                next="make the session with Session(graph=...) of the graph that the queue is in",
            )
        )
    return session


def _callable(session: Any, ops: Ops, options: Any) -> Callable[..., Any]:
    """Return what puts: called with the inputs, the key, the number before and, of many, the start.

    `Session.make_callable` with feeds does no more than `Session.run`, which takes five times as
    long as what is beneath it; TensorFlow has no public name for that.
    """
    feeds = [*ops.inputs, ops.key, ops.before, *([ops.start] if ops.many else [])]
    make = getattr(session, "_make_callable_from_options", None)
    if make is None:  # an object of somebody else's, around a session
        return lambda *values: session.run(ops.put, dict(zip(feeds, values, strict=True)), options)
    asked = config_pb2.CallableOptions(run_options=options)
    asked.feed.extend(feed.name for feed in feeds)
    asked.target.append(ops.put.name)
    made: Callable[..., Any] = make(asked)
    return made


class GraphDoor:
    """Puts arrays into a graph's queue through a session. Of one run; one thread at a time."""

    def __init__(self, queue: Any, ops: Ops, many: bool, session: Any) -> None:
        self._queue = queue
        self._ops = ops
        self._many = many
        self._session = session
        self._key = np.int64(secrets.randbits(62))  # of this run, among all that put into the queue
        self._in = 0  # items of this run that are in
        self._slice = tf.compat.v1.RunOptions(timeout_in_ms=_SLICE_MS)
        self._call = _callable(session, ops, self._slice)

    def put(self, arrays: Arrays, cancel: Cancel) -> None:
        """Put one item, or each of many; see `flowcore.Sink.put`.

        Given up in the middle of many, the first entries are in, each whole and once.
        """
        total = len(arrays[0]) if self._many else 1
        before, done = self._in, 0
        while done < total:
            numbers = map(np.int64, (before, done) if self._many else (before,))
            try:
                self._checked(self._call, *arrays, self._key, *numbers)
                done = total
            except tf.errors.DeadlineExceededError:
                done = int(self._checked(self._count)) - before
                if done < total and cancel.is_set():
                    raise Cancelled("the put was given up; nothing of the item is in") from None
            finally:
                self._in = before + done

    def interrupt(self) -> None:
        """Do nothing: a put that waits comes back by its deadline."""

    def close_queue(self) -> None:
        """Close the queue; this waits behind the enqueues that others wait in."""
        self._session.run(self._ops.close)

    def close(self) -> None:
        """Take the run's entry out of the table; the session is the user's."""
        with contextlib.suppress(RuntimeError, tf.errors.OpError):  # of a session that is closed
            self._session.run(self._ops.forget, {self._ops.key: self._key}, self._slice)

    def _count(self) -> Any:
        return self._session.run(self._ops.count, {self._ops.key: self._key})

    def _checked(self, call: Callable[..., Any], *values: Any) -> Any:
        try:
            return call(*values)
        except tf.errors.CancelledError as error:
            try:  # a call that waited when its session was closed says no more than that
                self._count()
            except RuntimeError as closed:
                raise self._closed_session(closed) from error
            raise closed_by_others(self._queue) from error
        except RuntimeError as error:
            if "REPLACED BY" in str(error):  # not TensorFlow's: see _watch.py
                raise
            raise self._closed_session(error) from error

    def _closed_session(self, error: RuntimeError) -> SinkError:
        return SinkError(
            explain(
                f"the session cannot be used any more: {error}",
                where=f"while an item was put into {called(self._queue)}",
                next="leave the run before you close the session: run.close() or pipeline.reset()",
            )
        )
