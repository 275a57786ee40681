"""A flowcore sink that fills a TensorFlow queue: ``pipeline.put_into_tf_queue(queue=...)``.

TensorFlow is imported when `TFQueueSink` is first asked for, and not by the package itself: a
worker process that only prepares arrays has no need of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcore_tf_queue.sink import TFQueueSink

__all__ = ["TFQueueSink"]


def __getattr__(name: str) -> Any:
    if name == "TFQueueSink":
        from flowcore_tf_queue.sink import TFQueueSink

        return TFQueueSink
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
