"""Several pipelines in one: join, zip, concat, mix; filter and rebatch. All keep the promises."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import DataError, OptionError, PipelineError


class Left(fc.Batch):
    components = "x", "noise"

    @fc.action
    def load(self):
        self.x = np.array([f"x{id_}" for id_ in self.index])
        self.noise = self.rng.random(len(self))
        return self

    @fc.action(each="item")
    def jitter(item):
        item.noise = item.rng.random()
        return item


class Right(Left):
    components = "y", "noise"

    @fc.action
    def load(self):
        self.y = np.array([f"y{id_}" for id_ in self.index])
        self.noise = self.rng.random(len(self))
        return self


left = fc.Dataset(list("abcdef"), Left)
right = fc.Dataset(list("fedcbaz"), Right)
numbers = fc.Dataset(20, preloaded={"n": np.arange(20)})


def pairs(pipeline, *names, batch_size=4, **arguments):
    """Return the values of some components, item by item."""
    batches = pipeline.gen_batch(batch_size, **arguments)
    return [row for batch in batches for row in zip(*(batch.data[n] for n in names), strict=True)]


class TestJoin:
    def test_joins_by_id_whichever_order_each_is_in(self):
        pipeline = left.p.load().join(right.p.load(), rename={"noise": "other"})
        found = pairs(pipeline, "x", "y", shuffle=True, seed=3)
        assert sorted(found) == [(f"x{id_}", f"y{id_}") for id_ in "abcdef"]

    def test_both_sides_draw_for_themselves(self):
        pipeline = left.p.load().join(right.p.load(), rename={"noise": "other"})
        found = pairs(pipeline, "noise", "other", seed=3)
        assert all(one != other for one, other in found)

    def test_an_id_that_the_other_side_lacks_is_refused_where_it_is_written(self):
        with pytest.raises(PipelineError, match="lacks ids: 'z'"):
            right.p.load().join(left.p.load())

    def test_components_that_both_have_are_refused_where_it_is_written(self):
        with pytest.raises(PipelineError, match="both sides have a component 'noise'"):
            left.p.load().join(right.p.load())
        with pytest.raises(PipelineError, match="no component 'nois' to rename"):
            left.p.load().join(right.p.load(), rename={"nois": "other"})

    def test_preloaded_components_that_both_have_are_an_error_of_the_batch(self):
        with pytest.raises(DataError, match="both sides of a join have a component 'n'"):
            numbers.p.join(numbers.p).run(5)

    def test_data_without_a_name_is_an_error_of_the_batch(self):
        with pytest.raises(DataError, match="needs components by name"):
            numbers.p.join(fc.Dataset(20, preloaded=np.arange(20))).run(5)

    @pytest.mark.parametrize("other", [3, None, fc.Pipeline(), [1, 2]])
    def test_what_is_no_pipeline_over_a_dataset_is_refused(self, other):
        with pytest.raises(PipelineError, match="join"):
            left.p.join(other)

    def test_steps_that_change_the_items_cannot_be_on_the_other_side(self):
        with pytest.raises(PipelineError, match=r"cannot have the step \.filter"):
            left.p.join(right.p.filter(lambda batch: batch.y == "ya"))

    def test_a_join_over_10_to_the_8_ids_costs_nothing(self):
        many = fc.Dataset(10**8)
        assert len(many.p.join(fc.Dataset(10**8)).steps) == 1


class TestZip:
    def test_pairs_the_items_at_the_same_positions(self):
        other = fc.Dataset(range(100, 106), preloaded={"n": np.arange(6)})
        found = pairs(left.p.load().zip(other), "x", "n", shuffle=True, seed=1)
        assert sorted(found) == [(f"x{id_}", n) for n, id_ in enumerate("abcdef")]

    def test_another_number_of_items_is_refused(self):
        with pytest.raises(PipelineError, match="as many items on both sides: 6, and 7"):
            left.p.zip(right)


class TestConcat:
    def test_has_all_items_of_the_first_before_those_of_the_next(self):
        pipeline = fc.concat([fc.Dataset(range(3)), fc.Dataset(range(3, 8))])
        assert [b.index.tolist() for b in pipeline.gen_batch(4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]

    def test_each_item_is_made_by_its_own_pipeline(self):
        one = fc.Dataset(["a", "b"], Left).p.load()
        two = fc.Dataset(["c"], Left).p.load().jitter()
        assert [x for (x,) in pairs(fc.concat([one, two]), "x")] == ["xa", "xb", "xc"]

    @given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 7), st.booleans())
    def test_has_each_item_once_in_the_place_that_the_order_gives_it(self, sizes, batch_size, mix):
        ends = np.cumsum([0, *sizes]).tolist()
        parts = [
            fc.Dataset(size, preloaded={"n": np.arange(start, start + size)})
            for start, size in zip(ends, sizes, strict=False)
        ]
        batches = list(fc.concat(parts).gen_batch(batch_size, shuffle=mix, seed=1))
        found = [n for batch in batches for n in batch.n.tolist()]
        assert found == [n for batch in batches for n in batch.positions.tolist()]
        assert sorted(found) == list(range(ends[-1]))

    def test_ids_that_several_parts_have_are_told_apart_by_the_part(self):
        pipeline = fc.concat([fc.Dataset(["a", "b"]), fc.Dataset(["b"])])
        assert next(pipeline.gen_batch(3)).index.tolist() == [(0, "a"), (0, "b"), (1, "b")]

    def test_goes_on_with_the_actions_of_the_nearest_common_class(self):
        pipeline = fc.concat([left.p.load(), fc.Dataset(["g"], Left).p.load()]).jitter()
        assert len(pairs(pipeline, "x", "noise")) == 7
        mixed = fc.concat([left.p.load(), fc.Dataset(["g"], Right).p.load()])
        assert mixed.jitter().steps[0].name == "jitter"  # Right is a Left

    def test_a_common_augmentation_of_an_item_does_not_depend_on_the_batch_size(self):
        pipeline = fc.concat([left.p.load(), fc.Dataset(["g"], Left).p.load()]).jitter()
        found = [dict(pairs(pipeline, "x", "noise", batch_size=n, seed=1)) for n in (2, 7)]
        assert found[0] == found[1]

    def test_parts_of_different_components_are_an_error_of_the_batch(self):
        pipeline = fc.concat([left.p.load(), fc.Dataset(["z"], Right).p.load()])
        with pytest.raises(DataError, match="different components"):
            pipeline.run(10)

    def test_numbers_of_different_dtypes_become_the_wider_one_and_unequal_shapes_objects(self):
        one = fc.Dataset(1, preloaded={"n": np.zeros(1, np.float32)})
        two = fc.Dataset(1, preloaded={"n": np.zeros(1, np.float64)})
        assert next(fc.concat([one, two]).gen_batch(2)).n.dtype == np.float64
        three = fc.Dataset(1, preloaded={"n": np.zeros((1, 2))})
        assert [np.shape(n) for n in next(fc.concat([one, three]).gen_batch(2)).n] == [(), (2,)]

    def test_a_joined_concat_finds_its_ids(self):
        whole = fc.Dataset(list("abcg"), Left).p.load()
        parts = fc.concat([fc.Dataset(["g", "c"], Right).p, fc.Dataset(["b", "a"], Right).p]).load()
        found = pairs(whole.join(parts, rename={"noise": "other"}), "x", "y")
        assert found == [(f"x{id_}", f"y{id_}") for id_ in "abcg"]

    @pytest.mark.parametrize("parts", [[], None, 3, left, [3], [fc.Pipeline()]])
    def test_what_is_no_list_of_pipelines_over_datasets_is_refused(self, parts):
        with pytest.raises(PipelineError, match="concat"):
            fc.concat(parts)

    def test_steps_for_the_whole_are_refused_in_a_part(self):
        with pytest.raises(PipelineError, match=r"cannot have the step \.rebatch"):
            fc.concat([left.p.rebatch(2)])


class TestMix:
    @given(
        st.lists(st.integers(1, 30), min_size=1, max_size=4),
        st.data(),
        st.sampled_from(["first", "all"]),
        st.booleans(),
    )
    def test_keeps_the_proportions_all_along(self, sizes, data, stop, shuffle):
        weights = data.draw(st.lists(st.integers(1, 5), min_size=len(sizes), max_size=len(sizes)))
        ends = np.cumsum(sizes)
        pipeline = fc.mix([fc.Dataset(size) for size in sizes], weights, stop=stop)
        batches = pipeline.gen_batch(7, shuffle=shuffle, seed=1)
        positions = np.concatenate([batch.positions for batch in batches])
        parts = np.searchsorted(ends, positions, side="right")
        for part, weight in enumerate(weights):
            had = np.cumsum(parts == part)
            due = np.arange(1, len(parts) + 1) * weight / sum(weights)
            assert (abs(had - due) <= len(sizes)).all()

    @given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.booleans())
    def test_ends_with_the_first_part_that_has_no_item_left(self, sizes, shuffle):
        pipeline = fc.mix([fc.Dataset(size) for size in sizes])
        found = [b.positions for b in pipeline.gen_batch(5, shuffle=shuffle, seed=1)]
        found = np.concatenate([np.arange(0), *found])
        assert len(found) == len(set(found.tolist())) >= min(sizes)

    @given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.booleans())
    def test_or_when_all_were_gone_through_each_pass_of_a_part_whole(self, sizes, shuffle):
        pipeline = fc.mix([fc.Dataset(size) for size in sizes], stop="all")
        found = np.concatenate(
            [b.positions for b in pipeline.gen_batch(5, shuffle=shuffle, seed=1)]
        )
        start = 0
        for size in sizes:
            inside = found[(found >= start) & (found < start + size)]
            for first in range(0, len(inside) - size + 1, size):
                assert sorted(inside[first : first + size]) == list(range(start, start + size))
            assert len(inside) >= size
            start += size

    def test_an_item_that_comes_again_in_an_epoch_draws_anew(self):
        short = fc.Dataset(["a"], Left).p.load().jitter()
        pipeline = fc.mix([short, fc.Dataset(list("bcdef"), Left).p.load()], stop="all")
        drawn = [noise for x, noise in pairs(pipeline, "x", "noise", seed=1) if x == "xa"]
        assert len(drawn) == len(set(drawn)) == 5

    def test_also_behind_a_rebatch(self):
        short = fc.Dataset(["a"], Left).p.load()
        pipeline = fc.mix([short, fc.Dataset(list("bcdef"), Left).p.load()], stop="all")
        found = pairs(pipeline.rebatch(3).jitter(), "x", "noise", seed=1)
        assert len({noise for x, noise in found if x == "xa"}) == 5

    def test_each_epoch_is_shuffled_anew(self):
        pipeline = fc.mix([fc.Dataset(30), fc.Dataset(30)])
        batches = list(pipeline.gen_batch(60, shuffle=True, seed=1, n_epochs=2))
        assert batches[0].positions.tolist() != batches[1].positions.tolist()

    def test_has_an_order_of_its_own(self):
        with pytest.raises(OptionError, match="order of its own"):
            fc.mix([left]).gen_batch(2, shuffle=lambda order: order)

    @pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, np.nan], [1, np.inf], [[1, 2]]])
    def test_weights_that_are_not_one_above_0_for_each_part_are_refused(self, weights):
        with pytest.raises(OptionError, match="weight above 0 for each"):
            fc.mix([left, right], weights)

    def test_a_part_without_items_and_another_stop_are_refused(self):
        with pytest.raises(PipelineError, match="without items"):
            fc.mix([left, fc.Dataset(0)])
        with pytest.raises(OptionError, match="stop must be"):
            fc.mix([left], stop="last")


class TestFilter:
    def test_keeps_the_items_that_the_predicate_is_true_of_with_all_their_data(self):
        pipeline = numbers.p.filter(lambda batch: batch.n % 3 == 0)
        batches = list(pipeline.gen_batch(8))
        assert [batch.n.tolist() for batch in batches] == [[0, 3, 6], [9, 12, 15], [18]]
        assert all((batch.index == batch.n).all() for batch in batches)

    def test_may_look_at_one_item_at_a_time(self):
        pipeline = left.p.load().filter(lambda item: item.x in ("xb", "xf"), each="item")
        assert [b.index.tolist() for b in pipeline.gen_batch(4)] == [["b"], ["f"]]

    def test_a_batch_that_nothing_is_left_of_is_left_out(self):
        pipeline = numbers.p.filter(lambda batch: batch.n > 16)
        run = pipeline.gen_batch(5, prefetch=2)
        assert [batch.n.tolist() for batch in run] == [[17, 18, 19]]
        assert (run.report.batches, run.report.skipped, run.report.epochs) == (1, [], 1)

    def test_how_many_batches_are_left_is_not_known_before(self):
        with pytest.raises(TypeError, match="filters has no len"):
            len(numbers.p.filter(lambda batch: batch.n > 1).gen_batch(5))

    def test_an_endless_run_that_nothing_is_left_of_is_an_error(self):
        pipeline = numbers.p.filter(lambda batch: batch.n < 0)
        with pytest.raises(DataError, match="no item of epoch 0 is left"):
            pipeline.gen_batch(5, n_epochs=None).__next__()

    @pytest.mark.parametrize(
        "predicate",
        [lambda b: True, lambda b: b.n, lambda b: b.n[1:] > 1],
        ids=["one bool", "numbers", "too few"],
    )
    def test_a_predicate_that_gives_no_bool_for_each_item_is_an_error_of_the_batch(self, predicate):
        with pytest.raises(DataError, match="not a bool for each of the 5 items"):
            numbers.p.filter(predicate).run(5)

    def test_what_is_no_predicate_is_refused(self):
        with pytest.raises(OptionError, match="filter takes a function"):
            numbers.p.filter("n > 3")
        with pytest.raises(OptionError, match="each="):
            numbers.p.filter(lambda item: True, each="row")

    def test_a_batch_made_again_is_filtered_too(self):
        pipeline = numbers.p.filter(lambda batch: batch.n % 3 == 0)
        assert pipeline.batch(1, batch_size=8).n.tolist() == [9, 12, 15]
        with pytest.raises(IndexError, match="left by the filters"):
            numbers.p.filter(lambda batch: batch.n > 9).batch(0, batch_size=5)


class TestRebatch:
    @given(st.integers(1, 25), st.integers(1, 25), st.integers(0, 5), st.booleans())
    def test_cuts_the_items_that_are_left_in_order(self, size, batch_size, prefetch, drop_last):
        pipeline = numbers.p.filter(lambda batch: batch.n % 4 != 1)
        whole = [n for (n,) in pairs(pipeline, "n", batch_size=batch_size, shuffle=True, seed=1)]
        run = pipeline.rebatch(size, drop_last=drop_last).gen_batch(
            batch_size, shuffle=True, seed=1, n_epochs=2, prefetch=prefetch
        )
        batches = [(batch.epoch, batch.number, batch.n.tolist()) for batch in run]
        cut = [whole[start : start + size] for start in range(0, len(whole), size)]
        if drop_last and len(cut[-1]) < size:
            del cut[-1]
        first = [(0, number, part) for number, part in enumerate(cut)]
        assert batches[: len(cut)] == first
        assert [epoch for epoch, _, _ in batches[len(cut) :]] == [1] * len(cut)

    @given(st.integers(1, 25), st.integers(1, 25), st.booleans(), st.integers(1, 3))
    def test_how_many_batches_come_is_known_where_nothing_is_filtered(
        self, size, batch_size, drop_last, n_epochs
    ):
        run = numbers.p.rebatch(size, drop_last=drop_last).gen_batch(batch_size, n_epochs=n_epochs)
        assert len(run) == len(list(run))

    def test_actions_and_sinks_after_it_see_the_new_batches(self):
        class Sizes(fc.Sink):
            def open(self, run):
                self.sizes = [("of", run.batch_size, run.batches)]

            def prepare(self, batch):
                return len(batch)

            def put(self, item, cancel):
                self.sizes.append(item)

            @property
            def result(self):
                return self.sizes

        pipeline = fc.Dataset(10, Left).p.load().rebatch(3).jitter().put_into(Sizes())
        report = pipeline.run(4, prefetch=3)
        assert report.results["Sizes"] == [("of", 3, 4), 3, 3, 3, 1]
        assert (report.batches, report.items, report.epochs) == (4, 10, 1)

    def test_a_batch_can_be_made_again(self):
        pipeline = numbers.p.filter(lambda batch: batch.n % 3 == 0).rebatch(2)
        expected = [batch.n.tolist() for batch in pipeline.gen_batch(6, shuffle=True, seed=2)]
        for number, values in enumerate(expected):
            batch = pipeline.batch(number, batch_size=6, shuffle=True, seed=2)
            assert batch.n.tolist() == values
        with pytest.raises(IndexError, match="it has fewer"):
            pipeline.batch(9, batch_size=6)

    def test_an_action_after_it_may_be_retried_and_gets_the_batch_as_it_was(self):
        tries = []

        class Twice(fc.Batch):
            @fc.action
            def change(self):
                self.n += 100
                tries.append(self.number)
                if len(tries) == 1:
                    raise ValueError("once")
                return self

        dataset = fc.Dataset(6, Twice, preloaded={"n": np.arange(6)})
        found = pairs(dataset.p.rebatch(3).change(), "n", batch_size=2, retries=1)
        assert [n for (n,) in found] == [100, 101, 102, 103, 104, 105]

    def test_an_error_after_it_names_the_new_batch(self):
        class Bad(fc.Batch):
            @fc.action
            def fail(self):
                raise ValueError("bad")

        pipeline = fc.Dataset(6, Bad, preloaded=np.arange(6)).p.rebatch(4).fail()
        with pytest.raises(ValueError, match="bad") as caught:
            pipeline.run(2)
        assert "in 'fail' of batch 0 of epoch 0, ids [0, 1, 2, ...]" in caught.value.__notes__[0]

    @pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
    def test_a_size_that_cannot_be_is_refused(self, size):
        with pytest.raises(OptionError, match="size must be an int of at least 1"):
            numbers.p.rebatch(size)

    def test_a_second_one_and_one_behind_a_sink_are_refused(self):
        with pytest.raises(PipelineError, match="rebatch comes once"):
            numbers.p.rebatch(2).rebatch(3)

    def test_it_needs_an_ordered_run_and_shards_that_may_differ(self):
        with pytest.raises(OptionError, match="ordered=False"):
            numbers.p.rebatch(2).gen_batch(3, ordered=False)
        with pytest.raises(OptionError, match="uneven='short'"):
            numbers.p.rebatch(2).gen_batch(3, shard=(0, 2))
        found = [
            n
            for rank in range(3)
            for (n,) in pairs(numbers.p.rebatch(2), "n", shard=(rank, 3), uneven="short")
        ]
        assert sorted(found) == list(range(20))


RECIPES = {
    "join": left.p.load().join(right.p.load().jitter(), rename={"noise": "other"}).jitter(),
    "zip": left.p.load().zip(fc.Dataset(6, Right).p.load(), rename={"noise": "other"}),
    "concat": fc.concat([left.p.load().jitter(), fc.Dataset(["g"], Left).p.load()]).jitter(),
    "mix": fc.mix([left.p.load().jitter(), fc.Dataset(["g"], Left).p.load()], stop="all"),
    "filter": left.p.load().filter(lambda batch: batch.noise > 0.3).jitter(),
    "rebatch": left.p.load().filter(lambda batch: batch.noise > 0.3).rebatch(2).jitter(),
    "when": left.p.load().when(fc.R("integers", 2), fc.Pipeline().jitter()),
    "repeat": left.p.load().repeat(fc.R("integers", 3), fc.Pipeline().jitter()),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_executor_gives_the_bytes_that_serial_gives(recipe, prefetch, workers):
    def content(**way):
        run = recipe.gen_batch(2, shuffle=True, seed=5, n_epochs=2, **way)
        return [
            (b.epoch, b.number, b.index.tolist(), {k: v.tolist() for k, v in b.data.items()})
            for b in run
        ]

    found = content(prefetch=prefetch, num_workers=workers if prefetch else None)
    assert found == content(executor="serial")


def test_an_error_behind_a_rebatch_comes_after_the_batches_that_were_cut_before_it():
    failed = threading.Event()

    class Failing(fc.Batch):
        @fc.action
        def load(self):
            if self.number == 5:
                failed.set()
                raise LookupError("source batch 5")
            self.data = self.positions * 1.0
            return self

        @fc.action
        def finish_late(self):
            assert failed.wait(20)
            return self

    pipe = fc.Dataset(14, Failing).p.load().rebatch(7).finish_late()
    given = []
    with pytest.raises(LookupError):
        given.extend(b.number for b in pipe.gen_batch(2, num_workers=6, prefetch=6))
    assert given == [0]
