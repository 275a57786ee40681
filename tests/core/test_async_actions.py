"""Async actions: tasks on an event loop in its own thread, and the threads that wait for them."""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import pickle
import signal
import threading

import numpy as np
import pytest

from flowcore import Batch, action
from flowcore.crew import Crew
from flowcore.errors import ActionError, Cancelled
from flowcore.items import Making


class Pages(Batch):
    components = ("text",)

    @action(each="item")
    async def fetch(item, bad=()):
        await asyncio.sleep(0)
        if item.id in bad:
            raise ValueError(item.id)
        item.text = f"page {item.id}"
        return item

    @action
    async def fetch_all(self):
        await asyncio.sleep(0)
        self.text = np.array([f"page {id_}" for id_ in self.index])
        return self


class Meeting:
    """Where coroutines wait until ``parties`` are in it."""

    def __init__(self, parties):
        self.parties, self.inside, self.all = parties, 0, asyncio.Event()

    async def join(self):
        self.inside += 1
        if self.inside == self.parties:
            self.all.set()
        await asyncio.wait_for(self.all.wait(), 5)


@pytest.fixture
def crew():
    crew = Crew()
    yield crew
    crew.close()


def loop_threads():
    return [t for t in threading.enumerate() if t.name == "flowcore-loop"]


# --- items ----------------------------------------------------------------------------------------


def test_an_async_per_item_action_is_called_with_a_batch_as_any_other():
    batch = Pages([1, 2])
    assert batch.fetch() is batch
    assert batch.text.tolist() == ["page 1", "page 2"]


def test_a_direct_call_leaves_no_loop_behind():
    Pages([1]).fetch()
    assert loop_threads() == []


def test_a_direct_call_is_possible_where_a_loop_is_running():
    async def main():
        return Pages([1]).fetch().text.tolist()

    assert asyncio.run(main()) == ["page 1"]


def test_all_items_are_in_progress_at_once_by_default(crew):
    meeting = Meeting(50)

    async def join(item):
        await meeting.join()

    assert crew.map(join, range(50)) == [None] * 50


def test_no_more_items_are_in_progress_than_the_concurrency(crew):
    running, most = set(), []

    async def count(item):
        running.add(item)
        await asyncio.sleep(0)
        most.append(len(running))
        running.remove(item)

    crew.map(count, range(20), 3)
    assert max(most) == 3


def test_items_of_several_threads_share_one_loop(crew):
    loops, met = set(), threading.Barrier(3, timeout=5)

    async def look(item):
        loops.add(asyncio.get_running_loop())

    def call():
        met.wait()
        crew.map(look, range(3))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(loops) == len(loop_threads()) == 1


def test_the_error_of_an_item_is_the_users_own_with_a_note_of_its_id():
    with pytest.raises(ValueError, match="2") as caught:
        Pages([1, 2, 3]).fetch(bad=[2, 3])
    assert caught.value.__notes__ == ["flowcore: item 2 (position 1)"]


def test_the_error_of_the_first_item_goes_out_whichever_is_first(crew):
    later = asyncio.Event()

    async def fail(item):
        if item == 0:
            await asyncio.wait_for(later.wait(), 5)
        later.set()
        raise ValueError(item)

    results = crew.map(fail, range(2), go_on=False)
    assert str(results[0]) == "0"


def test_items_behind_one_that_failed_are_cancelled(crew):
    last_began, ended = asyncio.Event(), []

    async def fail(item):
        if item == 1:
            await last_began.wait()
            raise ValueError("broken")
        if item == 3:
            last_began.set()
        try:
            if item > 1:
                await asyncio.Event().wait()  # for ever
        finally:
            ended.append(item)

    results = crew.map(fail, range(4), go_on=False)
    assert str(results[1]) == "broken"
    assert sorted(ended) == [0, 2, 3]
    assert [type(result) for result in results[2:]] == [ActionError, ActionError]


def test_an_item_that_goes_on_when_it_is_cancelled_does_not_hold_up_the_error(crew):
    last_began, free = asyncio.Event(), asyncio.Event()

    async def fail(item):
        if item == 0:
            await last_began.wait()
            raise ValueError("broken")
        last_began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await free.wait()
        await free.wait()

    first, second = crew.map(fail, range(2), go_on=False)
    assert str(first) == "broken"
    assert isinstance(second, Cancelled)


def test_an_async_item_that_fails_is_dropped_and_the_rest_goes_on(crew):
    batch = Pages([1, 2, 3])
    batch._making = making = Making(crew, dropping=True)
    batch.fetch(bad=[2])
    assert batch.text.tolist() == ["page 1", "page 3"]
    assert [dropped.id for dropped in making.dropped] == [2]


def test_an_async_item_sees_the_context_variables_of_the_caller(crew):
    variable = contextvars.ContextVar("variable")
    variable.set("the caller's")

    async def look(item):
        seen = variable.get()
        variable.set("an item's")
        return seen

    assert crew.map(look, range(2)) == ["the caller's"] * 2
    assert variable.get() == "the caller's"


# --- a whole batch --------------------------------------------------------------------------------


def test_a_direct_call_of_an_async_action_gives_a_coroutine():
    coroutine = Pages([1]).fetch_all()
    assert inspect.iscoroutine(coroutine)
    assert asyncio.run(coroutine).text.tolist() == ["page 1"]


def test_a_crew_waits_for_a_coroutine(crew):
    batch = Pages([1, 2])
    assert crew.wait(batch.fetch_all()) is batch


def test_an_error_of_a_coroutine_is_raised_as_it_is(crew):
    async def fail():
        raise TimeoutError("the user's own")

    with pytest.raises(TimeoutError, match="the user's own"):
        crew.wait(fail())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_is_raised_and_leaves_the_loop_alive(crew, error):
    async def fail():
        raise error

    async def fail_in_a_task():
        await asyncio.create_task(fail())

    for function in (fail, fail_in_a_task):
        with pytest.raises(error):
            crew.wait(function())
    assert crew.wait(asyncio.sleep(0, "alive")) == "alive"


def test_a_cancelled_coroutine_is_an_ordinary_error(crew):
    async def fail():
        raise asyncio.CancelledError

    with pytest.raises(ActionError, match="CancelledError") as caught:
        crew.wait(fail())
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


def test_a_cancelled_item_is_an_ordinary_error_and_is_dropped(crew):
    batch = Pages([1, 2])
    batch._making = making = Making(crew, dropping=True)

    async def fail(item):
        if item.id == 1:
            raise asyncio.CancelledError
        return {"text": "page 2"}

    action(each="item")(fail)(batch)
    assert batch.index.tolist() == [2]
    assert isinstance(making.dropped[0].error, ActionError)


def test_a_coroutine_that_stops_the_loop_stops_nothing(crew):
    async def stop():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return "alive"

    assert crew.wait(stop()) == "alive"


def test_a_coroutine_may_call_async_actions_that_wait(crew):
    async def outer():
        batch = Pages([1])
        batch._making = Making(crew)
        return batch.fetch().text.tolist()

    assert crew.wait(outer()) == ["page 1"]


# --- leaving --------------------------------------------------------------------------------------


def waiting(crew, cancelled):
    """Return a thread that waits for a coroutine that never ends, once that has begun."""
    begun, caught = threading.Event(), []

    async def hang():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def call():
        with pytest.raises(Cancelled):
            crew.wait(hang())
        caught.append(True)

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(5)
    return caller, caught


def test_closing_a_crew_cancels_its_tasks_and_lets_go_of_those_who_wait():
    crew, cancelled = Crew(), threading.Event()
    caller, caught = waiting(crew, cancelled)
    crew.close()
    caller.join(5)
    assert caught
    assert cancelled.is_set()
    assert loop_threads() == []


def test_closing_a_crew_lets_go_of_those_who_wait_although_the_loop_is_held_up():
    crew, held, free = Crew(), threading.Event(), threading.Event()

    async def hold_up():
        held.set()
        free.wait()

    def call():
        with pytest.raises(Cancelled):
            crew.wait(hold_up())

    caller = threading.Thread(target=call)
    caller.start()
    assert held.wait(5)
    crew.close()
    caller.join(5)
    assert not caller.is_alive()
    free.set()
    for thread in loop_threads():
        thread.join(5)


def test_closing_a_crew_does_not_wait_for_a_task_that_will_not_end():
    crew, begun, free = Crew(), threading.Event(), []

    async def stubborn():
        free.append(asyncio.Event())
        begun.set()
        while True:
            try:
                await free[0].wait()
            except asyncio.CancelledError:
                continue
            return

    def call():
        with pytest.raises(Cancelled):
            crew.wait(stubborn())

    caller = threading.Thread(target=call)
    caller.start()
    assert begun.wait(5)
    crew.close()
    caller.join(5)
    assert loop_threads() == []


@pytest.mark.filterwarnings("error")
def test_a_crew_that_is_closed_begins_no_coroutine():
    crew = Crew()
    crew.close()
    with pytest.raises(Cancelled):
        crew.wait(asyncio.sleep(0))
    gc.collect()  # one that was never awaited would warn now


def test_a_coroutine_may_close_its_crew():
    crew = Crew()

    async def close():
        crew.close()

    with pytest.raises(Cancelled):
        crew.wait(close())


def test_a_crew_that_is_collected_leaves_no_loop():
    crew = Crew()
    crew.wait(asyncio.sleep(0))
    threads = loop_threads()
    assert threads
    del crew
    gc.collect()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_a_crew_that_is_pickled_has_no_loop(crew):
    crew.wait(asyncio.sleep(0))
    twin = pickle.loads(pickle.dumps(crew))
    assert len(loop_threads()) == 1
    twin.close()


def test_a_ctrl_c_ends_the_wait_of_the_main_thread_and_its_coroutine_with_the_crew(crew):
    cancelled = threading.Event()

    async def hang():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        crew.wait(hang())
    crew.close()
    assert cancelled.wait(5)


def test_a_ctrl_c_ends_the_wait_of_the_main_thread_for_items_of_helpers(crew):
    free = threading.Event()

    def item(number):
        if threading.current_thread() is threading.main_thread():
            assert held.wait(5)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        else:
            held.set()
            free.wait()

    held = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        crew.map(item, range(2), 2)
    free.set()
