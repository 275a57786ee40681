"""What a queue is called in messages, and the errors that both kinds of queues have."""

from __future__ import annotations

from typing import Any

from flowcore.errors import SinkError, explain

__all__ = ["called", "closed_by_others"]


def called(queue: Any) -> str:
    """Return what a queue is called in messages: an eager one has no name of its own."""
    in_graph = hasattr(queue.queue_ref, "graph")
    return f"the {type(queue).__name__}" + (f" {queue.name!r}" if in_graph else "")


def closed_by_others(queue: Any) -> SinkError:
    """Return the error of a queue that is closed while the run still has items for it."""
    return SinkError(
        explain(
            f"{called(queue)} is closed, and the run has items for it",
            why="not this run closed it, but a feed before it at its end, or you",
            next="feed a new queue, or give the feed before close_queue=False; leave a run before "
            "you close its queue: run.close() or pipeline.reset()",
        )
    )
