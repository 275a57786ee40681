"""An event loop in a thread of its own, for coroutines that threads wait for.

No error of a coroutine can be taken for the loop's own, and none can end the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from flowcore.errors import ActionError, Cancelled, explain

__all__ = ["Caught", "Loop", "run_all"]

_PATIENCE = 0.1  # seconds that tasks have to end when they are cancelled

Caught: TypeAlias = "tuple[Any, BaseException | None]"


class Loop:
    """The loop and its thread, which is started with it. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # of closing: a signal handler may close in any place
        self._closed = False
        self._waits: set[Future[Caught]] = set()
        self._stopped = False  # of the loop's thread alone
        self._loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name="flowcore-loop", daemon=True)
        self.thread.start()

    def submit(self, awaitable: Awaitable[Any]) -> Future[Caught]:
        """Run a coroutine; return the future of its result and its error, of which one is ``None``.

        It sees the context variables of the calling thread. An `asyncio.CancelledError` of its own
        is an `ActionError`. The future is cancelled when the loop is closed; to cancel it cancels
        the coroutine.

        Raises:
            Cancelled: the loop is closed.
        """
        caught, closed = _caught(awaitable), self._closed
        try:
            if closed:
                raise RuntimeError
            # Not under the lock: to wake the loop lets the interpreter's lock go, and all the other
            # threads that submit would then wait here.
            future = asyncio.run_coroutine_threadsafe(caught, self._loop)
        except RuntimeError:  # the loop is closed
            caught.close()  # else it would warn that it was never awaited
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            text = "an async action was not begun, as the run is being left"
            raise Cancelled(text) from None
        self._waits.add(future)
        future.add_done_callback(self._waits.discard)
        if self._closed:  # asked after it was added, so that `close` sees it or is seen
            future.cancel()
        return future

    def close(self) -> None:
        """Cancel every task, let go of those who wait, and have the thread end, without waiting."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waits = list(self._waits)
        for future in waits:
            future.cancel()
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._stopped = True
        self._loop.stop()

    def _serve(self) -> None:
        while not self._stopped:
            with suppress(SystemExit, KeyboardInterrupt):  # of a task, whose result it is too
                self._loop.run_forever()
        with suppress(BaseException):  # of a task again, or of one that goes on
            self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        await _cancel([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
        await asyncio.wait_for(self._loop.shutdown_asyncgens(), _PATIENCE)


async def run_all(
    function: Callable[[Any], Coroutine[Any, Any, Any]],
    items: Sequence[Any],
    concurrency: int | None,
    go_on: bool,
) -> list[Any]:
    """Call ``function`` with each item, in a task of its own; return results and exceptions.

    See `flowcore.crew.Crew.map`.
    """
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    tasks: list[asyncio.Task[Caught]] = []
    count = waiting = len(items)  # how many are of interest, and how many of these have not ended

    def begin() -> None:
        task = loop.create_task(_called(function, items[len(tasks)]))
        task.add_done_callback(partial(end, len(tasks)))
        tasks.append(task)

    def end(at: int, task: asyncio.Task[Caught]) -> None:
        nonlocal count, waiting
        if at >= count:
            return
        waiting -= 1
        if not go_on and not task.cancelled() and task.result()[1] is not None:
            count = at + 1
            waiting = sum(not one.done() for one in tasks[:count])
        if len(tasks) < count:
            begin()
        elif not waiting and not over.done():
            over.set_result(None)

    try:
        for _ in range(min(concurrency or count, count)):
            begin()
        if tasks:
            await over
        await _cancel(tasks[count:])
        return [*map(_result, tasks), *(_given_up() for _ in items[len(tasks) :])]
    finally:
        count = 0  # nothing more is begun
        for task in tasks:
            task.cancel()


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and give them a moment to end: one that goes on must not hold up the others."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_PATIENCE)


def _result(task: asyncio.Task[Caught]) -> Any:
    if not task.done() or task.cancelled():
        return _given_up()
    result, error = task.result()
    return result if error is None else error


def _given_up() -> Cancelled:
    return Cancelled("the item was given up, as one before it failed")


async def _called(function: Callable[[Any], Coroutine[Any, Any, Any]], item: Any) -> Caught:
    return await _caught(function(item))


async def _caught(awaitable: Awaitable[Any]) -> Caught:
    try:
        return await awaitable, None
    except asyncio.CancelledError as error:
        spoken = ActionError(
            explain(
                "an async action raised CancelledError",
                why="something that it waited for was cancelled",
                next="catch it in the action",
            )
        )
        spoken.__cause__ = error
        return None, spoken
    except BaseException as error:
        return None, error
