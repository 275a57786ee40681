"""What a hostile reviewer lost, repeated or hung with, once: each stays mended."""

import copy
import gc
import threading
import weakref

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import ActionError, DataError, OptionError, PipelineError, StateError


class Numbers(fc.Batch):
    components = ("x",)

    @fc.action
    def load(self):
        self.x = self.positions * 10
        return self

    @fc.action
    def turn(self):
        return self.subset(np.arange(len(self))[::-1])

    @fc.action
    def keep(self, value):
        self.kept = value
        return self


class Others(Numbers):
    components = ("y",)

    @fc.action
    def load(self):
        self.y = self.positions * 10
        return self


ds = fc.Dataset(20, Numbers)
loaded = ds.p.load()


@pytest.mark.parametrize(
    "pipeline",
    [
        loaded.join(fc.Dataset(20, Others).p.load().turn()),
        fc.concat([fc.Dataset(20, Others).p.load().turn()]),
    ],
    ids=["join", "concat"],
)
def test_an_inner_pipeline_that_reorders_its_items_is_an_error(pipeline):
    with pytest.raises(DataError, match="changed its items, or their order"):
        pipeline.run(5)


def test_a_batch_sampler_goes_on_with_its_batch_size_alone():
    sampler = fc.samplers.ByLength(range(20), buckets=3)
    run = loaded.gen_batch(2, sampler=sampler, seed=1)
    next(run)
    with pytest.raises(StateError, match="batch_size was 2, and is 4"):
        loaded.gen_batch(4, sampler=sampler, resume=run.state_dict())


def test_places_beyond_the_end_of_a_shorter_run_are_not_counted():
    run = loaded.gen_batch(10, n_epochs=2, seed=1)
    state = {**run.state_dict(), "beyond": [1, 2, 10**9]}
    rest = loaded.gen_batch(10, resume=state)
    assert len(rest) == 1
    assert [batch.number for batch in rest] == [0]


def test_adding_pipelines_does_not_get_round_the_rules_of_rebatch():
    for first in (fc.Pipeline().rebatch(4), fc.Pipeline().put_into(Drop())):
        with pytest.raises(PipelineError, match="rebatch comes once"):
            loaded + first + fc.Pipeline().rebatch(3)


class Drop(fc.Sink):
    def prepare(self, batch):
        return None

    def put(self, item, cancel):
        pass


def test_a_join_in_a_template_is_checked_when_it_is_bound():
    with pytest.raises(PipelineError, match="as many items"):
        fc.Pipeline().load().zip(fc.Dataset(30)) << ds
    with pytest.raises(PipelineError, match="lacks ids: 7"):
        ds.p.when(lambda batch: True, fc.Pipeline().join(fc.Dataset(7)))


class TestVariables:
    def test_one_without_a_default_is_needed_in_a_copy_too(self):
        with pytest.raises(OptionError, match="a variable 'v'"):
            copy.deepcopy(loaded.keep(fc.V("v"))).run(5)

    def test_one_is_needed_if_it_has_no_default_anywhere(self):
        with pytest.raises(OptionError, match="a variable 'v'"):
            loaded.keep(fc.V("v")).keep(fc.V("v", 2)).run(5)

    def test_those_of_recipes_deep_inside_are_known(self):
        inner = fc.concat([fc.Dataset(20, Others).p.load().keep(fc.V("q"))])
        pipeline = loaded.join(inner)
        with pytest.raises(OptionError, match="a variable 'q'"):
            pipeline.run(5)
        assert pipeline.run(5, variables={"q": 1}).batches == 4


@pytest.mark.parametrize("name", ["index", "number", "data", "subset", "a b", "_seed", 5])
def test_a_component_cannot_be_renamed_to_what_a_batch_has(name):
    with pytest.raises(OptionError):
        loaded.join(fc.Dataset(20, Others).p.load(), rename={"y": name})


def test_a_component_that_is_not_there_cannot_be_renamed():
    other = fc.Dataset(20, preloaded={"s": np.arange(20)})
    with pytest.raises(DataError, match="no component 'typo' to rename"):
        loaded.join(other, rename={"typo": "u"}).run(5)


def test_a_state_of_uneven_shards_is_of_its_shard():
    run = fc.Dataset(10).p.gen_batch(2, shard=(1, 2), uneven="short", seed=1)
    list(run)
    with pytest.raises(StateError, match="shard was"):
        fc.Dataset(10).p.gen_batch(2, resume=run.state_dict(), shard=(0, 2), uneven="short")


def test_items_that_are_through_are_those_of_the_batch_that_a_state_names():
    class Flaky(Numbers):
        broken = False

        @fc.action
        def load(self):
            if Flaky.broken and self.number == 1:
                raise OSError("flaky")
            return self

    pipeline = fc.Dataset(24, Flaky).p.load().rebatch(7)
    run = pipeline.gen_batch(6, on_error="skip")
    next(run)
    Flaky.broken = True
    rest = pipeline.gen_batch(6, on_error="skip", resume=run.state_dict())
    assert [batch.index.tolist() for batch in rest] == [list(range(12, 19)), list(range(19, 24))]
    run.close()


def test_two_draws_of_a_recipe_never_share_a_stream():
    class Two(Numbers):
        @fc.action
        def first(self, values):
            self.first_value = values[0]
            return self

        @fc.action
        def second(self, value):
            self.second_value = value
            return self

    pipeline = fc.Dataset(2, Two).p.first([fc.R("normal")]).second(fc.R("normal"))
    batch = pipeline.batch(0, batch_size=2, seed=1)
    assert batch.first_value != batch.second_value


def test_a_predicate_of_an_item_gives_a_bool_and_is_no_coroutine():
    with pytest.raises(DataError, match="gave None, not a bool"):
        loaded.filter(lambda item: None, each="item").run(5)

    async def later(item):
        return False

    with pytest.raises(OptionError, match="filter takes a function"):
        loaded.filter(later, each="item")


def test_a_filter_deep_inside_makes_the_number_of_batches_unknown_and_a_join_impossible():
    filtered = fc.concat([fc.concat([loaded.filter(lambda batch: batch.x > 50)])])
    with pytest.raises(TypeError, match="filters"):
        len(filtered.gen_batch(5))
    with pytest.raises(PipelineError, match=r"cannot have the step \.filter"):
        fc.Dataset(20).p.join(filtered)


@pytest.mark.parametrize("way", [{}, {"prefetch": 3}], ids=["inline", "threads"])
def test_an_endless_run_whose_epochs_never_fill_a_batch_is_an_error(way):
    with pytest.raises(DataError, match="is left"):
        next(loaded.rebatch(50, drop_last=True).gen_batch(5, n_epochs=None, **way))


@pytest.mark.parametrize("way", [{}, {"prefetch": 3}], ids=["inline", "threads"])
def test_the_report_of_dropped_items_keeps_no_batch(way):
    alive = weakref.WeakSet()

    class Heavy(Numbers):
        @fc.action(each="item")
        def check(item):
            alive.add(item._batch)
            raise ValueError("bad") if item.id % 4 == 0 else AssertionError

    run = fc.Dataset(40, Heavy).p.check().gen_batch(4, on_error="skip_items", **way)
    assert list(run) == []
    gc.collect()
    assert len(run.report.skipped_items) == 40
    assert len(alive) == 0


def test_closing_an_inline_run_that_awaits_is_its_end():
    begun = threading.Event()

    class Waits(Numbers):
        @fc.action
        async def wait(self):
            import asyncio

            begun.set()
            await asyncio.Event().wait()

    run = fc.Dataset(4, Waits).p.wait().gen_batch(2, on_error="skip")
    got = []
    consumer = threading.Thread(target=lambda: got.append(next(run, "the end")))
    consumer.start()
    assert begun.wait(10)
    run.close()
    consumer.join(10)
    assert got == ["the end"]
    assert run.report.skipped == []


def test_two_thousand_failures_are_no_overflow():
    class Fails(Numbers):
        tries = 0

        @fc.action
        def load(self):
            Fails.tries += 1
            if Fails.tries < 1500:
                raise OSError("busy")
            return self

    assert fc.Dataset(1, Fails).p.load().run(1, retries=2000).batches == 1


def test_a_batch_size_far_above_the_index_takes_no_memory():
    assert next(ds.p.gen_batch(10**11, shard=(0, 2))).index.tolist() == list(range(20))


def test_a_rebatch_to_less_does_no_more_than_is_asked_for():
    done = []

    class Counted(Numbers):
        @fc.action
        def count(self):
            done.append(self.number)
            return self

    run = fc.Dataset(1000, Counted, preloaded={"x": np.arange(1000)}).p.rebatch(1).count()
    assert next(run.gen_batch(1000)).number == 0
    assert done == [0]


def test_an_error_before_a_rebatch_says_how_to_see_it_again():
    class Bad(Numbers):
        @fc.action
        def load(self):
            if self.number == 3:
                raise ValueError("bad")
            return self

    pipeline = fc.Dataset(40, Bad).p.load().rebatch(4)
    with pytest.raises(ValueError, match="bad") as caught:
        pipeline.run(10, seed=1)
    note = caught.value.__notes__[0]
    call = note.partition("make it again here: ")[2]
    with pytest.raises(ValueError, match="bad"):
        eval(call, {"pipeline": pipeline})


@pytest.mark.parametrize("times", [-3, True, "2", 1.5, None])
def test_a_number_of_times_that_a_run_says_is_checked(times):
    pipeline = loaded.repeat(fc.V("times"), fc.Pipeline().turn())
    with pytest.raises(ActionError, match="not an int from 0 on"):
        pipeline.run(5, variables={"times": times})


def test_behind_a_rebatch_a_retry_sees_objects_as_they_were():
    seen = []

    class Lists(Numbers):
        @fc.action
        def mark(self):
            seen.append([list(one) for one in self.x])
            for one in self.x:
                one.append("seen")
            if len(seen) == 1:
                raise OSError("busy")
            return self

    objects = np.empty(3, object)
    objects[:] = [[], [], []]
    pipeline = fc.Dataset(3, Lists, preloaded={"x": objects}).p.rebatch(3).mark()
    assert pipeline.run(3, retries=1).batches == 1
    assert seen == [[[], [], []]] * 2


def test_a_seed_is_below_2_to_the_128():
    with pytest.raises(OptionError, match=r"below 2\*\*128"):
        loaded.gen_batch(2, seed=2**128)
