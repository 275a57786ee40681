"""The helper threads and the event loop that the actions of one run share in one process.

Both are made on first use, so a run that needs none makes none. Who waits for items does items, so
calls within calls cannot wait for each other, however few threads there are.
"""

from __future__ import annotations

import inspect
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from flowcore.errors import Cancelled

if TYPE_CHECKING:
    from flowcore.loop import Caught, Loop

__all__ = ["Crew"]

_PATIENCE = 0.4  # seconds that close() waits for threads that are still in an action
_SLICE = 0.25  # seconds; as in run.engine, a Ctrl-C just before a wait is seen after one slice


class Crew:
    """What runs the items of per-item actions, and ``async def`` actions.

    Any thread may call any method. A crew that is pickled arrives as a fresh one. One that is
    collected without `close` leaves no thread behind.

    Not `concurrent.futures.ThreadPoolExecutor`: its threads hold up the interpreter's exit, and it
    waits for them without limit.

    Args:
        max_threads: how many helper threads there may be; ``None`` for as many as are asked for.
    """

    def __init__(self, max_threads: int | None = None) -> None:
        self._max_threads = max_threads
        # The threads know the state alone, so that a crew that has threads can be collected.
        self._state = _State()
        self._close = weakref.finalize(self, _close, self._state)

    def __reduce__(self) -> tuple[type[Crew], tuple[int | None]]:
        return Crew, (self._max_threads,)

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        concurrency: int | None = None,
        *,
        go_on: bool = True,
    ) -> list[Any]:
        """Call ``function`` with each item; return the results, or exceptions, in their order.

        Items are begun in order, each in a copy of the caller's context variables. An ordinary
        function runs in the calling thread, and with a ``concurrency`` above 1 also in helper
        threads; an ``async def`` function runs on the event loop.

        Args:
            function: of one argument.
            items: the arguments.
            concurrency: at most so many items at once; ``None`` means 1, or all for ``async def``.
            go_on: whether items are begun after one that failed. If not, the exception at the
                lowest place is the same however many run at once; what was not begun has a
                `Cancelled` in its place.

        Raises:
            Cancelled: the crew was closed before all were done.
            BaseException: what an item raised, if it is no `Exception`: a Ctrl-C, a `SystemExit`.
        """
        if inspect.iscoroutinefunction(function):
            from flowcore.loop import run_all  # it takes asyncio, which most programs do without

            results: list[Any] = self.wait(run_all(function, items, concurrency, go_on))
        else:
            results = self._map(function, items, concurrency or 1, go_on)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
        return results

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        """Run a coroutine on the event loop; return its result, or raise its error, here.

        It sees the caller's context variables. An interrupted wait cancels it. A wait on the loop's
        own thread holds up the loop, and uses another.

        Raises:
            Cancelled: the crew was closed.
            ActionError: the coroutine raised `asyncio.CancelledError`.
        """
        loop = self._state.open_loop()
        if loop.thread is not threading.current_thread():
            return _result(loop.submit(awaitable))
        other = Crew(self._max_threads)
        try:
            return other.wait(awaitable)
        finally:
            other.close()

    def close(self) -> None:
        """Cancel what is pending, give up items not begun, and wait up to 0.4 s for the threads.

        A thread that is still in a user's function ends with that function. It may be called again.
        """
        self._close()

    def give_up(self) -> None:
        """Do the same without waiting for the threads, for who must not wait."""
        _give_up(self._state)

    def _map(
        self, function: Callable[[Any], Any], items: Sequence[Any], concurrency: int, go_on: bool
    ) -> list[Any]:
        state, job = self._state, _Job(function, items, go_on)
        state.jobs.add(job)
        try:
            if state.closed:  # asked after the job was added, so that `close` sees it or is seen
                job.stopped = True
            state.call(job, min(concurrency, len(items)) - 1, self._max_threads)
            job.work()
            job.wait()
        finally:
            job.stopped = True  # for helpers that come late
            state.jobs.discard(job)
        if state.closed and not job.over:
            raise _given_up()
        return job.results


class _State:
    """What a crew shares with its threads.

    ``lock`` guards it. It is reentrant, as a collection, or a signal handler, may close the crew in
    a thread that holds it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.closed = False
        self.loop: Loop | None = None
        self.helpers: list[threading.Thread] = []
        self.wanted = 0  # tickets that no helper is through with
        # Written by whoever maps, read by the helpers; ``None`` ends them.
        self.tickets: SimpleQueue[_Job | None] = SimpleQueue()
        self.jobs: set[_Job] = set()  # each added and taken out by its own thread

    def open_loop(self) -> Loop:
        """Return the event loop; one that is closed if the crew is."""
        from flowcore.loop import Loop

        if self.loop is not None:
            return self.loop
        with self.lock:
            if self.loop is None:
                self.loop = Loop()
                if self.closed:
                    self.loop.close()
            return self.loop

    def call(self, job: _Job, wanted: int, most: int | None) -> None:
        """Call for ``wanted`` helpers, started if there are not enough, up to ``most`` in all."""
        with self.lock:
            for _ in range(wanted if most is None else min(wanted, most)):
                self.wanted += 1
                if len(self.helpers) < (self.wanted if most is None else min(self.wanted, most)):
                    self._start()
                self.tickets.put(job)

    def _start(self) -> None:
        name = f"flowcore-items-{len(self.helpers)}"
        # A daemon, as an action that never returns must not hold up the interpreter's exit.
        thread = threading.Thread(target=_help, args=(self,), name=name, daemon=True)
        with suppress(RuntimeError):  # no more threads to be had: the others do it
            thread.start()
            self.helpers.append(thread)


class _Job:
    """The items of one `Crew.map`, which are taken in order by whoever is free."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any], go_on: bool) -> None:
        self.results: list[Any] = [_given_up()] * len(items)
        self.stopped = False  # set by any thread, for good
        self._function, self._items, self._go_on = function, items, go_on
        self._context = copy_context()
        self._begun = self._ended = 0
        # Of the two counts; held for a moment by those who take part, notified when an item ends.
        self._change = threading.Condition()

    @property
    def over(self) -> bool:
        """Every item has ended."""
        return self._ended == len(self._items)

    def work(self) -> None:
        """Do items until none is left; raise what ends more than an item, as a Ctrl-C does."""
        while (at := self._begin()) is not None:
            try:
                self.results[at] = self._context.copy().run(self._function, self._items[at])
            except Exception as error:
                self.results[at] = error
                self.stopped = self.stopped or not self._go_on
            except BaseException as error:
                self.results[at] = error
                self.stopped = True
                raise
            finally:
                self._end()

    def wait(self) -> None:
        """Wait for the items that others have begun."""
        with self._change:
            _wait_in_slices(
                lambda timeout: self._change.wait_for(lambda: self._ended == self._begun, timeout)
            )

    def _begin(self) -> int | None:
        with self._change:
            if self.stopped or self._begun == len(self._items):
                return None
            self._begun += 1
            return self._begun - 1

    def _end(self) -> None:
        with self._change:
            self._ended += 1
            if self._ended == self._begun:  # what `wait` waits for
                self._change.notify_all()


def _help(state: _State) -> None:
    while (job := state.tickets.get()) is not None:
        with suppress(BaseException):  # it is among the job's results
            job.work()
        del job  # do not keep a batch alive while waiting
        with state.lock:
            state.wanted -= 1
    state.tickets.put(None)  # for the next helper


def _result(future: Future[Caught]) -> Any:
    try:
        _wait_in_slices(lambda timeout: _done(future, timeout))
        result, error = future.result()
    except CancelledError:
        raise Cancelled("an async action was given up, as the run is being left") from None
    finally:
        future.cancel()  # of an interrupted wait; it does nothing to one that is done
    if error is not None:
        raise error
    return result


def _done(future: Future[Caught], timeout: float | None) -> bool:
    with suppress(TimeoutError):  # of this wait: those of users are among the results
        future.result(timeout)
    return future.done()


def _wait_in_slices(wait: Callable[[float | None], bool]) -> None:
    """Call ``wait`` with a time-out until it is true; without one in other than the main thread."""
    main = threading.current_thread() is threading.main_thread()
    while not wait(_SLICE if main else None):
        pass


def _given_up() -> Cancelled:
    return Cancelled("the items were given up, as the run is being left")


def _close(state: _State) -> None:
    end = time.monotonic() + _PATIENCE
    for thread in _give_up(state):
        if thread is not threading.current_thread():
            thread.join(max(0.0, end - time.monotonic()))


def _give_up(state: _State) -> list[threading.Thread]:
    """Have all threads end; return them."""
    with state.lock:
        state.closed = True
        loop, threads = state.loop, list(state.helpers)
    for job in list(state.jobs):
        job.stopped = True
    state.tickets.put(None)
    if loop is not None:
        loop.close()
        threads.append(loop.thread)
    return threads
