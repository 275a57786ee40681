"""Templates: recipes without a dataset, given one later, added, and put inside of others."""

import pickle

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import ActionError, ArgumentError, OptionError, PipelineError, UnknownAction


class Numbers(fc.Batch):
    components = "values", "path"

    @fc.action
    def load(self):
        self.values = self.positions.astype(float)
        self.path = [()] * len(self)
        return self

    @fc.action
    def scale(self, factor):
        self.values = self.values * factor
        return self

    @fc.action
    def replace(self, factor):
        other = Numbers(self.index, self.positions)
        other.values = self.values * factor
        other.path = self.path
        return other


class Others(fc.Batch):
    components = ("values",)

    @fc.action
    def scale(self, factor):
        self.values = -self.positions * factor
        return self


dataset = fc.Dataset(4, Numbers)


def values(pipeline, **arguments):
    return [batch.values.tolist() for batch in pipeline.gen_batch(4, **arguments)]


@pytest.mark.parametrize("give", [lambda t: t << dataset, lambda t: dataset >> t], ids=["<<", ">>"])
def test_a_template_runs_over_the_dataset_that_it_is_given(give):
    template = fc.Pipeline().load().scale(2)
    assert values(give(template)) == [[0, 2, 4, 6]]


def test_a_template_is_not_changed_by_a_dataset_that_it_is_given():
    template = fc.Pipeline().load()
    template << dataset
    with pytest.raises(PipelineError, match="template"):
        template.run(4)


def test_another_dataset_brings_its_own_actions_of_the_same_names():
    pipeline = fc.Pipeline().scale(2)
    assert values(pipeline << fc.Dataset(3, Others)) == [[0, -2, -4]]
    bound = dataset.p.scale(3) << fc.Dataset(3, Others)
    assert values(bound) == [[0, -3, -6]]


def test_an_action_that_the_dataset_lacks_is_refused_when_it_is_given_with_the_line_of_the_step():
    template = fc.Pipeline().laod()
    with pytest.raises(UnknownAction, match="did you mean 'load'") as caught:
        template << dataset
    assert "test_templates.py:" in str(caught.value)


def test_wrong_arguments_are_refused_when_the_dataset_is_given():
    with pytest.raises(ArgumentError, match="missing a required argument: 'factor'"):
        fc.Pipeline().scale() << dataset


@pytest.mark.parametrize("what", [3, "files", None, Numbers])
def test_a_template_is_given_nothing_else(what):
    with pytest.raises(ArgumentError, match="is given a dataset, not"):
        fc.Pipeline() << what


def test_pipelines_are_added_one_after_the_other():
    tail = fc.Pipeline().scale(2).scale(3)
    assert values(dataset.p.load() + tail) == [[0, 6, 12, 18]]
    assert values((fc.Pipeline().load() + tail) << dataset) == [[0, 6, 12, 18]]
    assert values(fc.Pipeline().load() + dataset.p.scale(2)) == [[0, 2, 4, 6]]


def test_pipelines_over_different_datasets_cannot_be_added():
    with pytest.raises(PipelineError, match="different datasets"):
        dataset.p.load() + fc.Dataset(4, Numbers).p.scale(2)
    with pytest.raises(TypeError):
        dataset.p + 3


def test_a_template_pickles():
    template = pickle.loads(pickle.dumps(fc.Pipeline().load().repeat(2, fc.Pipeline().scale(2))))
    assert values(template << dataset) == [[0, 4, 8, 12]]


class TestWhen:
    def test_takes_the_steps_where_the_condition_holds(self):
        pipeline = dataset.p.load().when(
            lambda batch: batch.number == 1, fc.Pipeline().scale(10), fc.Pipeline().scale(-1)
        )
        assert [batch.values.tolist() for batch in pipeline.gen_batch(2)] == [[0, -1], [20, 30]]

    def test_without_other_steps_leaves_the_batch_as_it_is(self):
        pipeline = dataset.p.load().when(lambda batch: False, dataset.p.scale(10))
        assert values(pipeline) == [[0, 1, 2, 3]]

    def test_takes_a_value(self):
        pipeline = dataset.p.load().when(fc.V("big"), fc.Pipeline().scale(10))
        assert values(pipeline, variables={"big": True}) == [[0, 10, 20, 30]]
        assert values(pipeline, variables={"big": False}) == [[0, 1, 2, 3]]

    def test_a_step_inside_may_replace_the_batch(self):
        pipeline = dataset.p.load().when(lambda batch: True, fc.Pipeline().replace(5)).scale(2)
        assert values(pipeline) == [[0, 10, 20, 30]]

    def test_a_condition_that_gives_one_bool_for_each_item_is_an_error_of_the_batch(self):
        pipeline = dataset.p.load().when(lambda batch: batch.values > 1, fc.Pipeline().scale(2))
        with pytest.raises(ActionError, match=r"filter\(\) takes one for each item"):
            pipeline.run(4)

    @pytest.mark.parametrize("condition", [None, "epoch > 1", 3])
    def test_a_condition_that_is_neither_function_nor_value_is_refused(self, condition):
        with pytest.raises(OptionError, match="condition"):
            dataset.p.when(condition, fc.Pipeline())

    def test_an_unknown_action_inside_is_refused_where_the_dataset_is_known(self):
        with pytest.raises(UnknownAction, match="'scael'"):
            dataset.p.when(lambda batch: True, fc.Pipeline().scael(2))

    def test_steps_over_another_dataset_or_for_the_whole_are_refused(self):
        with pytest.raises(PipelineError, match="another dataset"):
            dataset.p.when(lambda batch: True, fc.Dataset(4, Numbers).p.load())
        with pytest.raises(PipelineError, match=r"cannot have the step \.rebatch"):
            dataset.p.when(lambda batch: True, fc.Pipeline().rebatch(2))
        with pytest.raises(PipelineError, match="takes steps as a pipeline"):
            dataset.p.when(lambda batch: True, "scale")

    def test_an_error_inside_names_the_action(self):
        pipeline = dataset.p.when(lambda batch: True, fc.Pipeline().scale(2))
        with pytest.raises(AttributeError, match="not loaded") as caught:
            pipeline.run(4)
        assert "in 'scale' of batch 0" in caught.value.__notes__[0]


class TestRepeat:
    def test_takes_the_steps_several_times(self):
        assert values(dataset.p.load().repeat(3, fc.Pipeline().scale(2))) == [[0, 8, 16, 24]]
        assert values(dataset.p.load().repeat(0, fc.Pipeline().scale(2))) == [[0, 1, 2, 3]]

    def test_a_loop_in_a_branch_in_a_loop(self):
        inner = fc.Pipeline().when(
            lambda batch: batch.values[1] < 100, fc.Pipeline().repeat(2, fc.Pipeline().scale(3))
        )
        assert values(dataset.p.load().repeat(9, inner))[0][1] == 729

    def test_takes_a_value(self):
        pipeline = dataset.p.load().repeat(fc.V("times", 2), fc.Pipeline().scale(2))
        assert values(pipeline) == [[0, 4, 8, 12]]
        assert values(pipeline, variables={"times": 1}) == [[0, 2, 4, 6]]

    @pytest.mark.parametrize("times", [-1, 1.5, True, None, "2"])
    def test_a_number_that_cannot_be_is_refused(self, times):
        with pytest.raises(OptionError, match="times must be an int of at least 0"):
            dataset.p.repeat(times, fc.Pipeline())


class Drawn(fc.Batch):
    components = "values", "more"

    @fc.action
    def take(self, values, more=None):
        self.values = np.broadcast_to(values, (len(self),)).copy()
        self.more = [more] * len(self)
        return self


class TestValues:
    drawn = fc.Dataset(12, Drawn)

    def test_b_is_an_attribute_of_the_batch(self):
        pipeline = self.drawn.p.take(fc.B.positions, more=[fc.B.number, {"epoch": fc.B.epoch}])
        batch = list(pipeline.gen_batch(5))[1]
        assert batch.values.tolist() == [5, 6, 7, 8, 9]
        assert batch.more[0] == [1, {"epoch": 0}]

    def test_r_draws_once_for_each_batch_and_the_same_in_each_run(self):
        pipeline = self.drawn.p.take(fc.R("uniform", 0, 1))
        one, two = (
            [batch.values.tolist() for batch in pipeline.gen_batch(3, seed=4, **way)]
            for way in ({}, {"prefetch": 3, "num_workers": 3})
        )
        assert one == two
        assert len({batch[0] for batch in one}) == 4
        assert all(len(set(batch)) == 1 for batch in one)

    def test_each_r_of_a_recipe_draws_for_itself_and_takes_nothing_from_the_batch(self):
        pipeline = self.drawn.p.take(fc.R("uniform"), [fc.R("uniform"), fc.R("uniform")])
        batch = pipeline.batch(0, batch_size=3, seed=1)
        assert len({batch.values[0], *batch.more[0]}) == 3
        alone = self.drawn.p.batch(0, batch_size=3, seed=1)
        assert batch.rng.random() == alone.rng.random()

    def test_r_takes_values(self):
        pipeline = self.drawn.p.take(fc.R("permutation", fc.B.positions))
        batch = pipeline.batch(1, batch_size=5, seed=1)
        assert sorted(batch.values.tolist()) == [5, 6, 7, 8, 9]

    def test_r_does_not_depend_on_the_sinks(self):
        pipeline = self.drawn.p.take(fc.R("uniform"))
        with_sink = next(pipeline.gen_batch(3, seed=1))
        assert pipeline.batch(0, batch_size=3, seed=1).values[0] == with_sink.values[0]

    def test_a_draw_that_no_generator_has_is_refused_where_it_is_written(self):
        with pytest.raises(OptionError, match="did you mean 'uniform'"):
            fc.R("unifrom", 0, 1)

    def test_v_is_a_variable_of_the_run(self):
        pipeline = self.drawn.p.take(fc.V("level"))
        assert pipeline.batch(0, batch_size=2, variables={"level": 7}).values.tolist() == [7, 7]

    def test_a_run_that_does_not_say_what_a_variable_is_is_refused(self):
        with pytest.raises(OptionError, match="a variable 'level', and the run does not say"):
            self.drawn.p.take(fc.V("level")).gen_batch(2)

    def test_a_run_that_says_a_variable_that_there_is_not_is_refused(self):
        pipeline = self.drawn.p.take(fc.V("level", 1))
        with pytest.raises(OptionError, match="did you mean 'level'"):
            pipeline.gen_batch(2, variables={"levle": 2})
        with pytest.raises(OptionError, match="variables must be a dict"):
            pipeline.gen_batch(2, variables=3)

    def test_a_value_has_no_truth_while_the_pipeline_is_written(self):
        for value in (fc.V("on"), fc.B.number, fc.R("uniform")):
            with pytest.raises(ArgumentError, match="no truth"):
                bool(value)

    def test_values_print_as_they_are_written(self):
        pipeline = self.drawn.p.take(fc.R("normal", 0, scale=fc.V("s")), more=fc.B.epoch)
        assert ".take(R('normal', 0, scale=V('s')), more=B.epoch)" in str(pipeline)

    def test_a_recipe_with_values_pickles(self):
        pipeline = pickle.loads(pickle.dumps(self.drawn.p.take(fc.B.positions, fc.R("uniform"))))
        assert pipeline.batch(0, batch_size=2, seed=1).values.tolist() == [0, 1]
