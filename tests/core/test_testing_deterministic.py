"""`assert_deterministic` finds what makes a pipeline differ from itself, and says what it is."""

import functools
import itertools
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import ArgumentError, OptionError
from flowcore.testing import assert_deterministic
from flowcore.testing.batches import Seen, contents
from flowcore.testing.compare import difference
from flowcore.testing.forget import Memory


class Numbers(fc.Batch):
    components = "values", "noise"

    @fc.action
    def load(self):
        self.values = self.positions * 10
        self.noise = self.rng.random(len(self))
        return self


def dataset(batch_class=Numbers):
    return fc.Dataset([f"id-{k}" for k in range(20)], batch_class)


def pipeline(function):
    """Return a pipeline with an action that is ``function``, after one that loads."""

    class WithAction(Numbers):
        @fc.action
        def change(self):
            function(self)
            return self

    return dataset(WithAction).p.load().change()


def complaint(wrong, **options):
    with pytest.raises(AssertionError) as raised:
        assert_deterministic(wrong, 4, **options)
    what, where, why, advice = str(raised.value).splitlines()
    assert (where[:9], why[:9], advice[:9]) == ("  where: ", "  why:   ", "  next:  ")
    return {"what": what, "where": where[9:], "why": why[9:], "next": advice[9:]}


# What is right


OPTIONS = {
    "nothing": {},
    "shuffle": {"shuffle": True, "n_epochs": 2},
    "a generator that draws the seed": {"shuffle": np.random.default_rng(3)},
    "a permutation of the user's": {"shuffle": lambda order: order[::-1]},
    "drop_last": {"batch_size": 6, "drop_last": True},
    "any order": {"ordered": False},
    "a shard with a filler": {"shard": (1, 2), "batch_size": 7},
    "a start": {"resume": {"epoch": 0, "batch": 2}},
    "a state": {"seed": 0, "resume": {"epoch": 0, "batch": 2, "seed": 8}},
    "its own executor and prefetch": {"executor": "serial", "prefetch": 2},
    "no prefetch": {"prefetch": 0},
    "several executors": {"executors": ["serial", "threads"]},
    "one executor": {"executors": "threads"},
    "workers": {"num_workers": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_pipeline_that_is_right_passes_with_every_option_of_a_run(options):
    assert_deterministic(dataset().p.load(), **{"batch_size": 4, **options})


def of_three(batch):
    return batch.values % 30 != 0


RECIPES = {
    "filter": dataset().p.load().filter(of_three),
    "rebatch": dataset().p.load().filter(of_three).rebatch(3),
    "join": dataset().p.load().join(dataset().p.load(), rename={"values": "a", "noise": "b"}),
    "mix": fc.mix([dataset().p.load(), fc.Dataset(9, Numbers).p.load()], weights=[2, 1]),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_that_is_right_passes(recipe):
    assert_deterministic(recipe, 4, shuffle=True, n_epochs=2)


def test_variables_are_passed_on():
    class Scaled(Numbers):
        @fc.action
        def scale(self, factor):
            self.values = self.values * factor
            return self

    recipe = dataset(Scaled).p.load().scale(fc.V("factor"))
    assert_deterministic(recipe, 4, variables={"factor": 3})


def test_a_pool_of_the_user_is_an_executor():
    with ThreadPoolExecutor(2) as pool:
        assert_deterministic(dataset().p.load(), 4, executors=pool)


def test_items_and_batches_that_always_fail_are_no_difference():
    def fail(batch):
        if batch.number == 1:
            raise ValueError("bad")

    assert_deterministic(pipeline(fail), 4, on_error="skip")


def test_nothing_is_put_anywhere_and_the_options_of_sinks_are_taken():
    class Never(fc.Sink):
        run_options: ClassVar = {"session": "what a sink needs"}

        def open(self, run):
            raise AssertionError("opened")

        def put(self, item, cancel):
            raise AssertionError("put")

    recipe = dataset().p.load().put_into(Never())
    assert_deterministic(recipe, 4, session=1, sink=Never())


def test_nan_objects_without_equality_and_circles_are_the_same_as_themselves():
    class Thing:
        def __init__(self, value):
            self.value, self.me = value, self

    def change(batch):
        batch.noise = np.full(len(batch), np.nan)
        batch.values = np.array([Thing(float("nan")) for _ in batch.index], object)
        batch.extra = {"set": {1, 2}, "nested": [Thing(np.arange(2)), None]}

    assert_deterministic(pipeline(change), 4)


# What is wrong is caught, and the message says what


def draw_from_numpy(batch):
    batch.noise = np.random.random(len(batch))


def draw_from_python(batch):
    batch.noise = [random.random() for _ in batch.index]


@pytest.mark.parametrize("draw", [draw_from_numpy, draw_from_python])
def test_global_random_state_is_found_and_named(draw):
    said = complaint(pipeline(draw))
    assert said["what"] == "batch 0 of epoch 0 is not the same in two ways to run the pipeline"
    assert re.fullmatch(
        r"component 'noise', item 'id-0': 0\.\d+ \(serial\), 0\.\d+ \(serial, again\)",
        said["where"],
    )
    assert "the global random state, of numpy.random or random" in said["why"]
    assert "batch.rng" in said["next"]


def test_the_global_generators_are_left_as_they_are():
    np.random.seed(1)
    random.seed(1)
    expected = np.random.random(), random.random()
    np.random.seed(1)
    random.seed(1)
    complaint(pipeline(lambda batch: setattr(batch, "noise", [time.perf_counter()] * len(batch))))
    assert (np.random.random(), random.random()) == expected


CLOCK = itertools.count()


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: setattr(batch, "noise", np.full(len(batch), time.perf_counter())),
        lambda batch: setattr(batch, "noise", np.random.default_rng().random(len(batch))),
        lambda batch: setattr(batch, "noise", np.full(len(batch), next(CLOCK))),
    ],
    ids=["a clock", "a generator without a seed", "a counter of the program"],
)
def test_what_outlives_a_run_or_has_no_seed_is_found(change):
    said = complaint(pipeline(change))
    assert "(serial), " in said["where"]
    assert "(serial, again)" in said["where"]
    assert "outlives a run (a counter, a cache, a file)" in said["why"]


class Subtracting(Numbers):
    """Subtracts from each batch what it has kept from the first."""

    mean = 0.0

    @fc.action
    def subtract(self):
        if self.number == 0:
            type(self).mean = self.values.mean()
        self.values = self.values - self.mean
        return self


def test_state_between_the_batches_is_found_by_making_each_alone():
    said = complaint(dataset(Subtracting).p.load().subtract())
    assert said["what"].startswith("batch 1 of epoch 0")
    assert said["where"] == "component 'values', item 'id-4': 25.0 (serial), 40.0 (the batch alone)"
    assert "kept from other batches" in said["why"]


def test_a_batch_that_fails_when_it_is_alone_is_found():
    class Remembering(Numbers):
        @fc.action
        def subtract(self):
            if self.number == 0:
                type(self).kept = self.values.mean()
            self.values = self.values - self.kept
            return self

    said = complaint(dataset(Remembering).p.load().subtract())
    assert said["what"] == "the pipeline runs, and fails in another way to run it: the batch alone"
    assert said["where"].startswith("AttributeError: 'Remembering' object has no attribute 'kept'")


def test_a_cache_that_an_earlier_epoch_has_filled_is_found():
    class Caching(Numbers):
        known = {}  # noqa: RUF012 - that it is of the class is what is wrong

        @fc.action
        def cache(self):
            self.noise = [
                self.known.setdefault(id_, noise)
                for id_, noise in zip(self.index.tolist(), self.noise, strict=True)
            ]
            return self

    said = complaint(dataset(Caching).p.load().cache(), n_epochs=2)
    assert said["what"].startswith("batch 0 of epoch 1")
    assert "(the batch alone)" in said["where"]


KNOWN = {}


class CachingInAGlobal(Numbers):
    @fc.action
    def cache(self):
        pairs = zip(self.index.tolist(), self.noise, strict=True)
        self.noise = [KNOWN.setdefault(id_, noise) for id_, noise in pairs]
        return self


def test_a_cache_that_is_a_global_is_found_too():
    said = complaint(dataset(CachingInAGlobal).p.load().cache(), n_epochs=2)
    assert said["what"].startswith("batch 0 of epoch 1")
    assert "(the batch alone)" in said["where"]


def test_state_that_batches_share_is_found_by_threads():
    main = threading.current_thread()

    def change(batch):  # as a buffer of the class would, were it in use twice
        batch.noise = np.zeros(len(batch)) + (threading.current_thread() is not main)

    said = complaint(pipeline(change))
    assert said["where"] == (
        "component 'noise', item 'id-0': 0.0 (serial), 1.0 (threads, prefetch=1)"
    )
    assert "share" in said["why"]


def test_an_attribute_that_differs_is_named():
    said = complaint(pipeline(lambda batch: setattr(batch, "stamp", next(CLOCK))))
    assert re.match(r"batch\.stamp: \d+ \(serial\), \d+ \(serial, again\)", said["where"])


def test_batches_that_are_missing_are_named():
    calls = itertools.count()

    def only_at_first(batch):
        if next(calls) >= 3:
            raise ValueError

    said = complaint(pipeline(only_at_first), on_error="skip")
    assert said["where"] == (
        "the batch itself: batch 0 of epoch 0 (serial), no batch (serial, again)"
    )


def test_what_the_first_run_fails_of_is_raised_as_it_is():
    def fail(batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        assert_deterministic(pipeline(fail), 4)


# The place of a difference


def two_runs(one, other):
    return [
        [Seen(0, 0, contents(np.array(["a", "b"])), {"data": contents(data)})]
        for data in (one, other)
    ]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (
            {"x": np.zeros(2)},
            {"x": np.array([0.0, -0.0])},
            ("component 'x', item 'b'", "0.0", "-0.0"),
        ),
        (
            {"x": np.zeros((2, 2, 3))},
            {"x": np.arange(12.0).reshape(2, 2, 3) * np.array([[[0]], [[1]]])},
            ("component 'x', item 'b'[0][0]", "0.0", "6.0"),
        ),
        (
            {"x": np.zeros(2)},
            {"x": np.zeros(2, np.float32)},
            ("component 'x'", "an array float64 (2,)", "an array float32 (2,)"),
        ),
        ({"x": [1, [2]]}, {"x": [1, [3]]}, ("component 'x', item 'b'[0]", "2", "3")),
        ({"x": [1]}, {"x": [1, 2]}, ("component 'x', item 'b'", "nothing", "2")),
        ({"x": [1]}, {}, ("component 'x'", "[1]", "nothing")),
        (np.arange(2), np.arange(2) * 3, ("batch.data, item 'b'", "1", "3")),
        (
            {"x": np.array([None, {"k": 1}])},
            {"x": np.array([None, {"k": 2}])},
            ("component 'x', item 'b'['k']", "1", "2"),
        ),
    ],
)
def test_a_difference_is_narrowed_down_to_the_item(one, other, expected):
    found = difference(*two_runs(one, other))
    assert (found.place, found.one, found.other) == expected


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.just(2), st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from(["f8", "i2", "u1", "S3", "M8[s]", "c8"]),
    data=st.data(),
)
def test_one_byte_that_differs_is_found_where_it_is(shape, dtype, data):
    one = np.zeros(shape, dtype)
    other = one.copy()
    at = data.draw(st.integers(0, one.nbytes - 1))
    other.view(np.uint8).reshape(-1)[at] = 1
    assert difference(*two_runs({"x": one}, {"x": one.copy()})) is None
    row, *rest = np.unravel_index(at // one.itemsize, shape)
    found = difference(*two_runs({"x": one}, {"x": other}))
    expected = f"component 'x', item {'ab'[row]!r}" + "".join(f"[{place}]" for place in rest)
    assert found.place == expected
    assert found.one != found.other


# What the classes keep


class Keeping(fc.Batch):
    """Keeps things of every kind."""

    count = 0
    entries: ClassVar = {"a": 1}
    order: ClassVar = [1]
    known: ClassVar = {1}

    @staticmethod
    @functools.cache
    def cached(key):
        return object()


def test_what_a_class_has_kept_is_forgotten():
    memory, entries, cached = Memory([Keeping]), Keeping.entries, Keeping.cached("a")
    Keeping.count, Keeping.new = 5, "new"
    Keeping.entries["b"] = 2
    Keeping.order.append(2)
    Keeping.known.add(2)
    memory.forget()
    assert (Keeping.count, Keeping.order, Keeping.known) == (0, [1], {1})
    assert Keeping.entries is entries
    assert entries == {"a": 1}
    assert not hasattr(Keeping, "new")
    assert Keeping.cached("a") is not cached


# Wrong arguments


@pytest.mark.parametrize(
    ("error", "options", "text"),
    [
        (OptionError, {"n_epochs": None}, "n_epochs=2"),
        (OptionError, {"executors": ()}, "nothing to compare"),
        (ArgumentError, {"no_such_option": 1}, "no_such_option"),
        (OptionError, {"batch_size": 0}, "batch_size"),
        (OptionError, {"seed": -1}, "seed"),
        (fc.errors.UnknownPlugin, {"executors": "thread"}, "thread"),
    ],
)
def test_wrong_arguments_are_refused(error, options, text):
    with pytest.raises(error, match=text):
        assert_deterministic(dataset().p.load(), **{"batch_size": 4, **options})


def test_a_run_without_a_batch_is_refused():
    with pytest.raises(OptionError, match="nothing to compare"):
        assert_deterministic(dataset().p.load(), 40, drop_last=True)


def test_a_dataset_is_no_pipeline():
    with pytest.raises(OptionError, match=r"dataset\.p"):
        assert_deterministic(dataset(), 4)
