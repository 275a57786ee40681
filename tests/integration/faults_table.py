"""What the fault matrix expects, as data; run as a program, it writes the table into the docs."""

from __future__ import annotations

from pathlib import Path

__all__ = ["COLUMNS", "PAGE", "TABLES", "cells", "in_page", "table"]

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "faults.md"

COLUMNS = {
    "serial": "`serial`",
    "threads": "`threads`",
    "ThreadPoolExecutor": "`ThreadPoolExecutor`",
    "processes": "`processes`",
    "threads_per_worker": "`processes`, `threads_per_worker=2`",
    "ProcessPoolExecutor": "`ProcessPoolExecutor`",
    "ray": "`ray`",
}

_BEGIN = "<!-- This table is written by tests/integration/faults_table.py -->"
_END = "<!-- Here it ends -->"


def _row(label, inside, outside=None, **others):
    """Return what to expect where actions run in the program, and where in other processes."""
    outside = inside if outside is None else outside
    at_home = dict.fromkeys(("serial", "threads", "ThreadPoolExecutor"), inside)
    return label, {**dict.fromkeys(COLUMNS, outside), **at_home, **others}


_AT_ITS_BATCH = "the exception at its batch"
_BROKEN = "`WorkerLost` as the pool is broken"
_ANEW = f"{_BROKEN}; a new one goes on with `resume=`"
_AGAIN = "nothing is lost; it alone is made again"
_BESIDE = "nothing is lost; it and what is in its process are made again"
_DIES = "the program dies"
_TO_THE_END = "the action runs to its end"
_NO_ACTION = "no action is running"
_BY_RAY = "Ray ends the program; its workers go"
_NODES = "not tried: a node has its own limits"


def _left(label):
    return _row(
        label,
        _TO_THE_END,
        "the action is ended",
        serial=_NO_ACTION,
        ProcessPoolExecutor=_TO_THE_END,
    )


_INTERRUPTED = "`KeyboardInterrupt` in the consumer; the action is interrupted"
_PICKLED = "nothing is lost; nothing is made again"

TABLES = {
    "Something raises, or cannot be sent": {
        "exception": _row("an action raises", _AT_ITS_BATCH),
        "get_tensor": _row("`get_tensor` raises", _AT_ITS_BATCH),
        "put": _row("`put` of a sink raises", _AT_ITS_BATCH),
        "result": _row("a batch does not pickle", "nothing is lost", "`ActionError` at its batch"),
        "argument": _row(
            "an argument of an action does not pickle",
            "nothing is lost",
            "`PipelineError` at the start",
        ),
        "unpicklable": _row(
            "an exception does not pickle", _AT_ITS_BATCH, "a stand-in for it at its batch"
        ),
        "unreadable": _row(
            "the pickle of an exception cannot be read",
            _AT_ITS_BATCH,
            "a stand-in for it at its batch",
        ),
    },
    "A worker is killed": {
        "killed once": _row(
            "once, while it computes",
            _DIES,
            _AGAIN,
            threads_per_worker=_BESIDE,
            ProcessPoolExecutor=_ANEW,
        ),
        "killed always": _row(
            "by its batch, each time",
            _DIES,
            "`WorkerLost` at its batch",
            ProcessPoolExecutor=_BROKEN,
        ),
        "killed writing": _row(
            "while it writes its batch",
            _PICKLED,
            _AGAIN,
            threads_per_worker=_BESIDE,
            ProcessPoolExecutor=_ANEW,
        ),
        "killed idle": _row(
            "while it is idle", _DIES, "nothing is lost", ProcessPoolExecutor=_ANEW
        ),
    },
    "The run is left": {
        "full sink": _row("by `close`, at a full sink", "the item at the door is given up"),
        "close": _left("by `close`, while an action runs"),
        "collect": _left("as nobody holds it any more, while an action runs"),
        "raise": _left("by an exception of the consumer, while an action runs"),
        "ctrl-c waiting": _row(
            "by Ctrl-C, while the consumer waits for a batch",
            f"`KeyboardInterrupt` in the consumer; {_TO_THE_END}",
            "`KeyboardInterrupt` in the consumer; the action is ended",
            serial=_INTERRUPTED,
            ProcessPoolExecutor=_INTERRUPTED,
        ),
        "ctrl-c working": _row(
            "by Ctrl-C, while the consumer works, and an action runs",
            f"`KeyboardInterrupt` in the consumer; {_TO_THE_END}",
            "`KeyboardInterrupt` in the consumer; the action is ended",
            serial=f"`KeyboardInterrupt` in the consumer; {_NO_ACTION}",
            ProcessPoolExecutor=_INTERRUPTED,
        ),
    },
    "The program is killed": {
        "terminated": _row(
            "by SIGTERM",
            _DIES,
            f"{_DIES}; its workers go",
            ProcessPoolExecutor=f"{_DIES}; its workers stay",
            ray=_BY_RAY,
        ),
        "killed": _row(
            "by SIGKILL",
            _DIES,
            f"{_DIES}; its workers go",
            ProcessPoolExecutor=f"{_DIES}; its workers stay",
        ),
    },
    "There is not enough": {
        "memory": _row("memory, in an action", "`MemoryError` at its batch", ray=_NODES),
        "kept": _row(
            "memory for the batches that the consumer keeps",
            "`MemoryError` at its batch",
            "`ActionError` at its batch",
            ProcessPoolExecutor=_BROKEN,
            ray=_BY_RAY,
        ),
        "descriptors": _row(
            "descriptors for another process",
            "nothing is lost",
            "`PipelineError` at the start",
            ProcessPoolExecutor="`WorkerLost` at the start",
            ray=_NODES,
        ),
    },
}


def cells():
    """Generate each fault with an executor, and what to expect."""
    for rows in TABLES.values():
        for fault, (_, expected) in rows.items():
            for executor in COLUMNS:
                yield fault, executor, expected[executor]


def table():
    """Return the tables as Markdown."""
    lines = [_BEGIN]
    for title, rows in TABLES.items():
        lines += ["", _line(f"**{title}**", *COLUMNS.values()), _line(*["---"] * 8)]
        lines += [_line(label, *expected.values()) for label, expected in rows.values()]
    return "\n".join([*lines, "", _END])


def in_page(page):
    """Return the part of the page that the table is to be."""
    return _BEGIN + page.partition(_BEGIN)[2].partition(_END)[0] + _END


def _line(*parts):
    return f"| {' | '.join(parts)} |"


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(text.replace(in_page(text), table()), "utf-8")
