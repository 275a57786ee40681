"""A worker process: what it does from its first line to its end.

Each of its threads has a connection to the run. A task comes in, with the number of a slot; the
batch goes out, its arrays in the slot.
"""

from __future__ import annotations

import faulthandler
import fcntl
import gc
import os
import pickle
import select
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import threadpoolctl

from flowcore import Outcome, Task, Work
from flowcore.errors import PipelineError, explain
from flowcore.executors.base import SENDING
from flowcore.executors.wire import pack
from flowcore_processes._board import Board
from flowcore_processes._desk import Desk
from flowcore_processes._memory import SMALL
from flowcore_processes._pickling import dumps, read_work

__all__ = ["main"]

_BEGIN = "making the batch"
_RECEIVING = "receiving the batch in a worker"

_pid = os.getpid()  # of the worker; 0 in a fork of it


def main(hire: dict[str, Any]) -> None:
    """Serve until the run ends the connections, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_to_this_process(hire)
    _die_with_the_run(hire["lifeline"])
    faulthandler.enable(hire["stacks"])
    faulthandler.register(signal.SIGUSR1, hire["stacks"])
    _call_itself(hire["name"])
    work = _read(hire)
    limits = threadpoolctl.threadpool_limits(hire["native"] or None)
    threads = [
        threading.Thread(target=_serve, args=(work, hire, at), name=f"flowcore-worker-{at}")
        for at in range(1, hire["threads"])
    ]
    for thread in threads:
        thread.daemon = True
        thread.start()
    _serve(work, hire, 0)  # in the main thread, which some libraries want
    for thread in threads:
        thread.join()
    del limits


def _keep_to_this_process(hire: dict[str, Any]) -> None:
    """Have the connections in no other process: a child would keep them alive, or answer too."""
    own = [*hire["connections"], hire["lifeline"], hire["memory"], hire["payload"], hire["stacks"]]
    for fd in own:
        os.set_inheritable(fd, False)

    def forget() -> None:
        global _pid
        _pid = 0
        for fd in own:
            with suppress(OSError):
                os.close(fd)

    os.register_at_fork(after_in_child=forget)


def _die_with_the_run(lifeline: int) -> None:
    """End this process when the other end of a pipe is closed: when the run's process is gone."""
    with suppress(AttributeError, OSError):  # by the kernel, where it can: native code may hold us
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)

    poll = select.poll()  # not `select`, which knows no descriptors above 1,023
    poll.register(lifeline, select.POLLIN)

    def wait() -> None:
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait, name="flowcore-lifeline", daemon=True).start()


def _call_itself(name: str) -> None:
    with suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as comm:
        comm.write(name)  # which the system cuts to 15 letters


def _read(hire: dict[str, Any]) -> Work | PipelineError:
    """Return the work; the error of one that cannot be read, which is the answer to each task."""
    try:
        return read_work(hire["payload"], hire["key"], hire["length"], hire["end"])
    except Exception as error:
        return PipelineError(
            explain(
                f"the pipeline cannot be read in a worker: {type(error).__name__}: {error}",
                next="the workers import the modules that it names: put them on PYTHONPATH, or "
                "where they are installed; or use threads",
            )
        )


def _serve(work: Work | PipelineError, hire: dict[str, Any], at: int) -> None:
    """Be one of the threads that make batches."""
    connection = Connection(hire["connections"][at])
    lane = hire["number"] * hire["threads"] + at
    board, desk = Board(hire["memory"], lane), Desk(hire["memory"])
    try:
        if isinstance(work, PipelineError):
            if connection.recv_bytes():
                _refuse(connection, desk, work, SENDING)
                connection.recv_bytes()
            return
        name = hire["name"] if hire["threads"] == 1 else f"{hire['name']}.{at}"
        with work.worker(name, note=board.note, allocate=desk.allocate):
            number = 0
            while message := connection.recv_bytes():
                number += 1
                board.begin(number, _RECEIVING)
                try:
                    slot, task = pickle.loads(message)
                except Exception as error:
                    _refuse(connection, desk, error, _RECEIVING)
                    continue
                board.note(_BEGIN)
                _answer(connection, work, task, slot, desk, hire["key"])
                del task, message
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the run is gone, or has no use for this process any more


def _answer(
    connection: Connection[Any, Any], work: Work, task: Task, slot: int | None, desk: Desk, key: str
) -> None:
    """Make a batch, and send it."""
    desk.begin(slot)
    places: list[tuple[int, int] | None] = []
    loose: list[memoryview] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        data = buffer.raw()
        if data.nbytes < SMALL:
            return True
        places.append(desk.place(data))
        if places[-1] is None:
            loose.append(data)
        return False

    packed = pack(
        outcome := work(task),
        lambda value: dumps(value, key),
        lambda value: dumps(value, key, beside=beside, contiguous=desk.copied),
    )
    failed = outcome.error is not None
    del outcome
    if failed:
        gc.collect()  # the stack of an error holds what its actions had
    kept = desk.end()
    if kept:
        gc.collect()
        kept = desk.end()
    _send(connection, packed, places, loose, desk, kept=kept)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()  # what an action printed; it may be the last thing that it does


def _refuse(connection: Connection[Any, Any], desk: Desk, error: Exception, step: str) -> None:
    """Answer a task that was not run."""
    desk.begin(None)
    _send(connection, pack(Outcome(error=error, step=step)), [], [], desk, kept=False)


def _send(
    connection: Connection[Any, Any],
    packed: bytes,
    places: list[tuple[int, int] | None],
    loose: list[memoryview],
    desk: Desk,
    *,
    kept: bool,
) -> None:
    if _pid == 0:  # an action has forked, and its child has come to the end of the action too
        os._exit(1)
    sizes = [data.nbytes for data in loose]
    head = packed, places, sizes, desk.reserved, kept, desk.problem
    connection.send_bytes(pickle.dumps(head, protocol=5))
    for data in loose:
        connection.send_bytes(data)
