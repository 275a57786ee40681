"""Per-item actions: what an item is, how items become a batch again, and who calls the function."""

import contextvars
import gc
import inspect
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore import Batch, action
from flowcore.actions import action_mark
from flowcore.crew import Crew
from flowcore.errors import ActionError, ArgumentError, Cancelled, DataError, OptionError
from flowcore.items import Dropped, Emptied, Making


class Pictures(Batch):
    components = "images", "labels"

    @action(each="item")
    def brighten(item, by=1):
        """Add to the image."""
        item.images = item.images + by
        return item

    @action(each="item", concurrency=3, singleton=True)
    def check(item, bad=()):
        if item.id in bad:
            raise ValueError(item.id)
        return item


class Plain(Batch):
    """A batch without components."""


class Single(Batch):
    components = "x"


def pictures(n=3, **place):
    data = np.arange(n * 4.0).reshape(n, 2, 2), np.arange(n)
    return Pictures([f"{at}.png" for at in range(n)], np.arange(n) + 10, data=data, **place)


def each(function, batch, **how):
    """Call a per-item action that has not a name."""
    return action(each="item", **how)(function)(batch)


@pytest.fixture
def crew():
    crew = Crew()
    yield crew
    crew.close()


# --- the item -------------------------------------------------------------------------------------


def test_an_item_knows_its_id_position_and_epoch():
    def look(item):
        return {"labels": (item.id, item.position, item.epoch)}

    batch = each(look, pictures(2, epoch=4))
    assert batch.labels.tolist() == [["0.png", "10", "4"], ["1.png", "11", "4"]]


@pytest.mark.parametrize(
    ("ids", "kind"), [([3, 4], int), (["a", "b"], str), ([(1, 2), (3, 4)], tuple)]
)
def test_an_id_is_what_python_has_for_it(ids, kind):
    index = np.empty(2, object)
    index[:] = ids
    seen = []
    each(lambda item: seen.append(item.id) or item, Plain(ids if kind is not tuple else index))
    assert seen == ids
    assert [type(id_) for id_ in seen] == [kind, kind]


def test_an_id_that_is_a_date_keeps_its_unit():
    days = np.array(["2020-01-01"], "datetime64[ns]")
    seen = []
    each(lambda item: seen.append(item.id) or item, Plain(days))
    assert seen == [days[0]]


def test_a_component_of_an_item_is_its_row():
    sums = []
    each(lambda item: sums.append(item.images.sum()) or item, pictures())
    assert sums == [6, 22, 38]


def test_a_component_that_was_set_is_read_back():
    def twice(item):
        item.images = item.images + 1
        item.images = item.images + 1
        return item

    assert each(twice, pictures()).images[0].tolist() == [[2, 3], [4, 5]]


def test_what_is_written_into_a_row_is_written_into_the_array_of_the_batch():
    def blacken(item):
        item.images[0] = 0
        return item

    batch = pictures()
    images = batch.images
    assert each(blacken, batch).images is images
    assert not images[:, 0].any()


def test_a_component_that_no_item_sets_stays_the_object_it_is():
    batch = pictures()
    labels = batch.labels
    assert batch.brighten().labels is labels


def test_a_component_that_some_items_set_keeps_the_entries_of_the_others():
    def set_one(item):
        if item.position == 11:
            item.labels = 70
        return item

    assert each(set_one, pictures()).labels.tolist() == [0, 70, 2]


def test_a_component_that_is_declared_and_not_loaded_may_be_set():
    def load(item):
        item.images = np.full(2, item.position)
        return item

    batch = each(load, Pictures([0, 1]))
    assert batch.images.tolist() == [[0, 0], [1, 1]]


def test_a_component_that_is_new_must_be_set_for_every_item():
    def load(item):
        if item.id != "1.png":
            item.labels = 1
        return item

    batch = Pictures(["0.png", "1.png", "2.png"])
    with pytest.raises(DataError, match=r"not for item '1\.png'"):
        each(load, batch)
    assert batch.data == {}


def test_a_component_that_is_not_loaded_says_so():
    with pytest.raises(AttributeError, match="component 'images' is not loaded"):
        Pictures([0]).brighten()


def test_a_component_that_is_not_declared_cannot_be_set():
    def misspell(item):
        item.imagse = 1
        return item

    with pytest.raises(AttributeError, match="did you mean 'images'"):
        each(misspell, pictures())


def test_a_component_that_is_not_declared_cannot_be_read():
    with pytest.raises(AttributeError, match="an item has no 'imagse'"):
        each(lambda item: item.imagse, pictures())


def test_a_component_of_another_length_has_no_rows():
    batch = Pictures([0, 1], data={"images": np.zeros(3)})
    with pytest.raises(DataError, match="'images' has 3 entries for 2 items"):
        batch.brighten()


@pytest.mark.parametrize("value", [5, np.array(5), {"a": 1}, "ab", b"ab", {1, 2}], ids=repr)
def test_one_object_for_all_items_has_no_rows(value):
    with pytest.raises(DataError, match="'images' is one"):
        Pictures([0, 1], data={"images": value}).brighten()


@pytest.mark.parametrize("name", ["id", "position", "epoch", "rng"])
def test_what_an_item_is_cannot_be_set(name):
    def change(item):
        setattr(item, name, 1)
        return item

    with pytest.raises(AttributeError, match="no setter"):
        each(change, pictures())


def test_a_component_called_as_an_attribute_of_an_item_is_refused():
    with pytest.raises(OptionError, match="component 'id'"):
        each(lambda item: item, Batch([0], data={"id": [1], "x": [2]}))


def test_items_of_a_class_without_components_name_them():
    def load(item):
        item.x = item.id
        return {"y": -item.id}

    batch = each(load, Plain([1, 2]))
    assert batch.components == ("x", "y")
    assert (batch.x.tolist(), batch.y.tolist()) == ([1, 2], [-1, -2])


def test_items_may_name_more_components_beside_those_of_a_dict():
    batch = each(lambda item: {"y": item.x + 1}, Plain([0, 1], data={"x": np.arange(2)}))
    assert (batch.x.tolist(), batch.y.tolist()) == ([0, 1], [1, 2])


def test_items_of_a_batch_of_one_object_have_no_components():
    with pytest.raises(AttributeError, match=r"use item\.data"):
        each(lambda item: setattr(item, "x", 1) or item, Plain([0], data=[1]))


def test_items_cannot_set_components_and_data_as_well():
    def both(item):
        item.x = 1
        return 2

    with pytest.raises(DataError, match="not both"):
        each(both, Plain([0]))


def test_the_data_of_an_item_with_components_is_a_dict_of_those_loaded():
    def look(item):
        item.labels = 5
        assert item.data == {"labels": 5}
        item.data = {"images": 6}
        return item

    batch = each(look, Pictures([0]))
    assert (batch.images.tolist(), batch.labels.tolist()) == ([6], [5])


def test_the_data_of_an_item_without_components_is_its_entry():
    def shout(item):
        item.data = item.data.upper()
        return item

    assert each(shout, Plain([0, 1], data=["a", "bc"])).data.tolist() == ["A", "BC"]


def test_the_data_of_an_item_in_a_tuple_of_arrays_is_a_tuple():
    def swap(item):
        x, y = item.data
        return y, x

    x, y = each(swap, Plain([0, 1], data=(np.arange(2), np.ones((2, 3))))).data
    assert (x.shape, y.tolist()) == ((2, 3), [0, 1])


def test_data_that_is_a_list_of_dicts_gives_dicts_and_takes_dicts():
    batch = each(lambda item: {**item.data, "b": 2}, Plain([0, 1], data=[{"a": 1}, {"a": 3}]))
    assert batch.data.tolist() == [{"a": 1, "b": 2}, {"a": 3, "b": 2}]


def test_there_is_no_data_of_an_item_before_there_is_one_of_the_batch():
    with pytest.raises(DataError, match="'data' is one NoneType"):
        each(lambda item: item.data, Plain([0]))


# --- what a function returns ----------------------------------------------------------------------


def test_a_function_may_return_a_dict_of_what_is_new():
    batch = each(lambda item: {"labels": item.labels * 2}, pictures())
    assert batch.labels.tolist() == [0, 2, 4]


def test_a_dict_with_the_name_of_no_component_is_refused():
    with pytest.raises(AttributeError, match="did you mean 'labels'"):
        each(lambda item: {"label": 1}, pictures())


def test_a_function_may_return_the_value_of_the_only_component():
    assert each(lambda item: item.id + 1, Single([1, 2])).x.tolist() == [2, 3]


def test_a_function_may_return_the_data_of_a_batch_without_components():
    assert each(lambda item: item.id + 1, Plain([1, 2])).data.tolist() == [2, 3]


def test_one_value_for_several_components_is_refused():
    with pytest.raises(DataError, match="return item, or a dict"):
        each(lambda item: item.images, pictures())


def test_a_function_that_returns_nothing_is_told_to_return_the_item():
    with pytest.raises(ActionError, match="return item"):
        each(lambda item: None, pictures())


def test_a_function_that_returns_another_item_is_told_to_return_its_own():
    first = []

    def wrong(item):
        first.append(item)
        return first[0]

    with pytest.raises(ActionError, match="end it with: return item") as caught:
        each(wrong, pictures())
    assert caught.value.__notes__ == ["flowcore: item '1.png' (position 11)"]


def test_a_function_that_returns_a_coroutine_is_told_to_be_async():
    async def load():
        raise AssertionError

    with pytest.raises(ActionError, match="write it as: async def"):
        each(lambda item: load(), pictures())


# --- the items together ---------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=2), min_size=1, max_size=5),
    st.sampled_from(["int8", "float32", "U2", "datetime64[D]", "complex64"]),
)
def test_equal_shapes_are_stacked_in_the_dtype_they_have(values, dtype):
    arrays = [np.array(value).astype(dtype) for value in values]
    stacked = each(lambda item: arrays[item.id], Plain(range(len(arrays)))).data
    assert stacked.dtype == dtype
    assert stacked.tolist() == [array.tolist() for array in arrays]


@given(st.lists(st.one_of(st.none(), st.binary(), st.text(), st.booleans()), min_size=1))
def test_no_value_of_an_item_is_changed_when_items_are_put_together(values):
    assert (
        each(lambda item: {"x": values[item.id]}, Single(range(len(values)))).x.tolist() == values
    )


@pytest.mark.parametrize(
    "values",
    [
        [np.zeros(2), np.zeros(3)],
        [[1], [1, 2]],
        [np.zeros((2, 1)), np.zeros((2, 2))],
        [1, "a"],
        [b"a\0", b"bc"],
        [{"a": 1}, {"a": 2}],
        [np.array([None, 1]), np.array([2, 3])],
        [2**70, 1],
        [np.ma.masked_array([1, 2], [True, False])] * 2,
    ],
    ids=repr,
)
def test_what_is_not_alike_becomes_an_array_of_the_objects_as_they_are(values):
    made = each(lambda item: {"x": values[item.id]}, Single([0, 1])).x
    assert (made.shape, made.dtype) == ((2,), object)
    assert all(part is value for part, value in zip(made, values, strict=True))


def test_ints_and_floats_become_floats():
    assert each(lambda item: [1, 0.5][item.id], Single([0, 1])).x.tolist() == [1.0, 0.5]


def test_a_batch_of_no_item_stays_as_it_is():
    batch = pictures(0)
    images = batch.images
    assert batch.brighten().images is images


# --- the action -----------------------------------------------------------------------------------


def test_a_per_item_action_is_called_with_a_batch_and_returns_it():
    batch = pictures()
    assert batch.brighten(by=2) is batch
    assert batch.images[0].tolist() == [[2, 3], [4, 5]]


def test_a_per_item_action_shows_the_signature_of_its_function():
    assert str(inspect.signature(Pictures.brighten)) == "(item, by=1)"
    assert Pictures.brighten.__doc__ == "Add to the image."


def test_a_per_item_action_has_a_mark_that_says_so():
    mark = action_mark(Pictures.check)
    assert (mark.each, mark.concurrency, mark.singleton) == ("item", 3, True)
    assert action_mark(Pictures.brighten).concurrency is None


def test_a_per_item_action_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(Pictures.brighten)) is Pictures.brighten


def test_a_function_of_an_action_pack_takes_the_item_first():
    @action(each="item")
    def relabel(item, label):
        return {"labels": label}

    assert relabel(pictures(), 7).labels.tolist() == [7, 7, 7]


@pytest.mark.parametrize("value", ["batch", "", True, 1], ids=repr)
def test_a_value_of_each_that_is_not_item_is_refused(value):
    with pytest.raises(OptionError, match="each must be 'item'"):
        action(each=value)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2", float("nan")], ids=repr)
def test_a_concurrency_that_is_no_positive_int_is_refused(value):
    with pytest.raises(OptionError, match="concurrency must be a positive int"):
        action(each="item", concurrency=value)


def test_a_concurrency_of_a_whole_batch_is_refused():
    with pytest.raises(OptionError, match=r"each='item', concurrency=2"):
        action(concurrency=2)


def test_a_function_without_a_parameter_for_the_item_is_refused():
    def nothing(*, by=1): ...

    with pytest.raises(ArgumentError, match=r"def nothing\(item"):
        action(each="item")(nothing)


def test_a_function_with_a_yield_is_refused():
    def one(item):
        yield item

    async def another(item):
        yield item

    for function in (one, another):
        with pytest.raises(ArgumentError, match="has a yield"):
            action(each="item")(function)


# --- errors ---------------------------------------------------------------------------------------


def test_the_error_of_an_item_is_the_users_own_with_a_note_of_its_id():
    with pytest.raises(ValueError, match=r"1\.png") as caught:
        pictures().check(bad=["1.png", "2.png"])
    assert caught.value.__notes__ == ["flowcore: item '1.png' (position 11)"]


def test_an_error_that_is_raised_again_has_its_note_once():
    error = ValueError("the same")

    def fail(item):
        raise error

    for _ in range(2):
        with pytest.raises(ValueError, match="the same"):
            each(fail, pictures())
    assert len(error.__notes__) == 1


def test_no_item_is_begun_after_one_that_failed():
    begun = []

    def fail(item):
        begun.append(item.position)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        each(fail, pictures())
    assert begun == [10]


def test_an_error_leaves_the_batch_as_it_was():
    batch = pictures()
    images = batch.images

    def fail(item):
        item.images = 0
        if item.position == 12:
            raise ValueError("broken")
        return item

    with pytest.raises(ValueError, match="broken"):
        each(fail, batch)
    assert batch.images is images


def test_the_error_of_the_first_item_goes_out_whichever_thread_is_first(crew):
    last_failed = threading.Event()

    def fail(item):
        if item.position == 10:
            assert last_failed.wait(5)
        else:
            last_failed.set()
        raise ValueError(item.id)

    batch = pictures(2)
    batch._making = Making(crew)
    with pytest.raises(ValueError, match=r"0\.png"):
        each(fail, batch, concurrency=2)


@pytest.mark.parametrize("concurrency", [None, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_goes_out_at_once_and_drops_no_item(crew, error, concurrency):
    def leave(item):
        raise error

    batch = pictures()
    batch._making = Making(crew, dropping=True)
    with pytest.raises(error):
        each(leave, batch, concurrency=concurrency)
    assert len(batch) == 3
    assert batch._making.dropped == []


def test_an_action_that_raises_stop_iteration_is_not_taken_for_the_end_of_the_items():
    def fail(item):
        raise StopIteration

    with pytest.raises(StopIteration):
        each(fail, pictures())


# --- items that are dropped -----------------------------------------------------------------------


def test_an_item_that_fails_is_dropped_and_the_rest_goes_on(crew):
    batch = pictures(4)
    batch._making = making = Making(crew, dropping=True, step="load")

    def load(item):
        if item.position in (10, 12):
            raise ValueError(item.id)
        item.images = item.images * 0 + item.position
        return item

    each(load, batch)
    assert batch.index.tolist() == ["1.png", "3.png"]
    assert batch.positions.tolist() == [11, 13]
    assert batch.images[:, 0, 0].tolist() == [11, 13]
    assert batch.labels.tolist() == [1, 3]
    assert [(d.id, d.position, d.action, str(d.error)) for d in making.dropped] == [
        ("0.png", 10, "load", "0.png"),
        ("2.png", 12, "load", "2.png"),
    ]
    assert all(isinstance(dropped, Dropped) for dropped in making.dropped)


def test_a_component_that_an_item_set_before_one_was_dropped_keeps_its_place(crew):
    batch = pictures(3)
    batch._making = Making(crew, dropping=True)

    def load(item):
        if item.position == 10:
            raise ValueError
        if item.position == 11:
            item.labels = 70
        return item

    assert each(load, batch).labels.tolist() == [70, 2]


def test_a_batch_that_loses_every_item_is_emptied(crew):
    batch = pictures()
    batch._making = making = Making(crew, dropping=True)
    with pytest.raises(Emptied):
        batch.check(bad=["0.png", "1.png", "2.png"])
    assert len(batch) == 0
    assert len(making.dropped) == 3


def test_an_emptied_batch_is_not_caught_by_an_action_that_catches_every_exception():
    assert not issubclass(Emptied, Exception)


# --- threads --------------------------------------------------------------------------------------


def test_items_run_at_once_up_to_the_concurrency(crew):
    met = threading.Barrier(3, timeout=5)  # breaks, and fails the test, if fewer are in it

    def meet(item):
        met.wait()
        return item

    batch = pictures(3)
    batch._making = Making(crew)
    each(meet, batch, concurrency=3)


def test_no_more_items_run_at_once_than_the_concurrency(crew):
    running, most, met = [], [], threading.Barrier(2, timeout=5)

    def count(item):
        running.append(item)
        met.wait()
        most.append(len(running))
        met.wait()
        running.remove(item)
        return item

    batch = pictures(8)
    batch._making = Making(crew)
    each(count, batch, concurrency=2)
    assert max(most) == 2


def test_without_a_concurrency_items_run_one_after_the_other_in_this_thread(crew):
    seen = []
    batch = pictures()
    batch._making = Making(crew)
    each(lambda item: seen.append((item.position, threading.current_thread())) or item, batch)
    assert seen == [(at, threading.current_thread()) for at in (10, 11, 12)]


def test_a_direct_call_makes_no_thread():
    threads = set()
    each(lambda item: threads.add(threading.current_thread()) or item, pictures(), concurrency=3)
    assert threads == {threading.current_thread()}


def test_calls_within_calls_end_although_every_helper_is_taken():
    crew = Crew(max_threads=1)

    def outer(at):
        return crew.map(lambda inner: crew.map(abs, [inner, -at], 4), range(4), 4)

    assert crew.map(outer, range(4), 4)[3][2] == [2, 3]
    crew.close()


def test_items_see_the_context_variables_of_the_caller(crew):
    variable = contextvars.ContextVar("variable")
    variable.set("set by the caller")
    met = threading.Barrier(2, timeout=5)

    def look(_):
        met.wait()
        seen = variable.get()
        variable.set("set by an item")
        return seen

    assert crew.map(look, range(4), 2) == ["set by the caller"] * 4
    assert variable.get() == "set by the caller"


def test_a_crew_makes_no_thread_until_it_needs_one():
    before = threading.active_count()
    crew = Crew()
    crew.map(abs, [1, 2])
    assert threading.active_count() == before


def test_a_crew_makes_no_more_threads_than_it_may():
    names = set()
    crew = Crew(max_threads=2)
    crew.map(lambda _: names.add(threading.current_thread().name), range(50), 20)
    helpers = [t.name for t in threading.enumerate() if t.name.startswith("flowcore-items-")]
    crew.close()
    assert sorted(helpers) == ["flowcore-items-0", "flowcore-items-1"]


def test_the_threads_of_a_crew_are_used_again():
    crew = Crew()
    met = threading.Barrier(2, timeout=5)
    for _ in range(5):
        crew.map(lambda _: met.wait(), range(2), 2)
    helpers = [t for t in threading.enumerate() if t.name.startswith("flowcore-items-")]
    crew.close()
    assert len(helpers) <= 2  # a helper may not be back yet from the call before


# --- leaving --------------------------------------------------------------------------------------


def test_closing_a_crew_gives_up_the_items_that_are_not_begun():
    crew, begun = Crew(), []

    def close(item):
        begun.append(item)
        crew.close()

    with pytest.raises(Cancelled):
        crew.map(close, range(3))
    assert begun == [0]


def test_closing_a_crew_gives_up_the_items_of_its_helpers_too():
    crew, met, begun = Crew(), threading.Barrier(2, timeout=5), []

    def close(item):
        begun.append(item)
        met.wait()
        crew.close()

    with pytest.raises(Cancelled):
        crew.map(close, range(9), 2)
    assert sorted(begun) == [0, 1]


def test_a_crew_that_is_closed_begins_nothing():
    crew = Crew()
    crew.close()
    with pytest.raises(Cancelled):
        crew.map(abs, [1], 3)


def test_a_crew_may_be_closed_again_and_by_several_threads_at_once(crew):
    crew.map(abs, range(4), 2)
    closers = [threading.Thread(target=crew.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    crew.close()


def test_a_crew_is_closed_although_a_thread_is_late_in_an_item():
    crew, begun, free = Crew(), threading.Event(), threading.Event()

    def late(item):
        begun.set()
        free.wait()

    caller = threading.Thread(target=lambda: _given_up(crew, late))
    caller.start()
    assert begun.wait(5)
    crew.close()  # returns, though nobody has been let go
    free.set()
    caller.join(5)
    assert not caller.is_alive()


def _given_up(crew, function):
    with pytest.raises(Cancelled):
        crew.map(function, range(9), 2)


def test_a_crew_that_is_collected_leaves_no_thread():
    crew = Crew()
    crew.map(abs, range(4), 2)
    helpers = [t for t in threading.enumerate() if t.name.startswith("flowcore-items-")]
    assert helpers
    del crew
    gc.collect()
    for helper in helpers:
        helper.join(5)
        assert not helper.is_alive()


def test_a_crew_that_is_pickled_arrives_as_a_fresh_one(crew):
    crew.map(abs, range(4), 2)
    twin = pickle.loads(pickle.dumps(crew))
    crew.close()
    assert twin.map(abs, [-1, -2], 2) == [1, 2]
    twin.close()
