"""The pipeline: writing recipes by attribute access, and the calls that run them."""

import numpy as np
import pytest

from flowcore import Batch, Dataset, Pipeline, Sink, action
from flowcore.errors import (
    ArgumentError,
    OptionError,
    PipelineError,
    RunInProgress,
    UnknownAction,
    UnknownPlugin,
)


class Digits(Batch):
    @action
    def load(self, offset=0):
        """Make the data."""
        self.data = self.positions + offset
        return self

    @action
    def add_noise(self):
        self.data = self.data + self.rng.normal(size=len(self))
        return self

    @action
    def fail(self, number):
        if self.number == number:
            raise ValueError("broken")
        return self

    def normalize(self):
        return self


class ListSink(Sink):
    """Keeps its items, and says when it is opened."""

    opened = 0

    def open(self, run):
        self.opened += 1
        self.items = []

    def put(self, item, cancel):
        self.items.append(item.tolist())


@pytest.fixture
def digits():
    return Dataset(10, Digits)


# Writing


def test_a_call_returns_a_new_pipeline_and_leaves_the_old_one(digits):
    prefix = digits.p.load()
    one, other = prefix.add_noise(), prefix.fail(3)
    assert [step.name for step in prefix.steps] == ["load"]
    assert [step.name for step in one.steps] == ["load", "add_noise"]
    assert [step.name for step in other.steps] == ["load", "fail"]


def test_pipelines_with_a_common_prefix_run_on_their_own(digits):
    prefix = digits.p.load(offset=1)
    one, other = prefix.next_batch(2), prefix.load(offset=5).next_batch(2)
    assert one.data.tolist() == [1, 2]
    assert other.data.tolist() == [5, 6]


def test_an_action_is_written_with_the_help_of_the_action_itself(digits):
    assert digits.p.load.__doc__ == "Make the data."


def test_an_unknown_name_gets_the_known_ones_and_a_near_match(digits):
    with pytest.raises(UnknownAction, match="did you mean 'load'") as raised:
        _ = digits.p.laod
    assert isinstance(raised.value, AttributeError)
    assert "add_noise" in str(raised.value)


def test_a_method_that_is_not_marked_says_what_to_write(digits):
    with pytest.raises(UnknownAction, match=r"@flowcore\.action"):
        digits.p.normalize()


def test_a_pipeline_has_only_the_attributes_that_exist(digits):
    assert hasattr(digits.p, "load")
    assert not hasattr(digits.p, "laod")
    assert not hasattr(digits.p, "put_into_nothing_of_that_name")


def test_an_unknown_sink_is_refused_where_it_is_written(digits):
    with pytest.raises(UnknownPlugin, match="'nowhere'"):
        digits.p.put_into("nowhere")
    with pytest.raises(UnknownPlugin, match="'no-where'"):
        digits.p.put_into_no_where()


@pytest.mark.parametrize("sink", [42, None, print, Digits], ids=repr)
def test_what_is_no_sink_is_refused_where_it_is_written(digits, sink):
    with pytest.raises(OptionError):
        digits.p.put_into(sink)


def test_options_go_with_the_name_of_a_sink_not_with_an_object(digits):
    with pytest.raises(PipelineError):
        digits.p.put_into(ListSink(), capacity=3)


SHELF = """
from flowcore import Sink
class Shelf(Sink):
    def __init__(self, size=3): self.size = size
    def open(self, run): self.items = []
    def put(self, item, cancel): self.items.append(item.tolist())
    @property
    def result(self): return self.items
"""


@pytest.fixture
def shelf(install):
    install("shelf-sink", "[flowcore.sinks]\nbook-shelf = shelf_sink:Shelf\n", shelf_sink=SHELF)


@pytest.mark.usefixtures("shelf")
def test_an_installed_sink_has_a_method_that_writes_it(digits):
    pipe = digits.p.load().put_into_book_shelf(size=5)
    assert pipe.run(5).results == {"book-shelf": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]}
    assert str(pipe.steps[1]) == ".put_into('book-shelf', size=5)"


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("name", ["book-shelf", "shelf-sink:book-shelf"])
def test_a_sink_is_written_by_name_too(digits, name):
    report = digits.p.load().put_into(name, size=5).run(5)
    assert report.results == {"book-shelf": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]}


@pytest.mark.usefixtures("shelf")
def test_options_that_a_sink_does_not_take_are_refused_where_they_are_written(digits):
    with pytest.raises(ArgumentError, match="did you mean 'size'"):
        digits.p.put_into_book_shelf(sise=5)


PACK = """
from flowcore import Batch, action
run_options = {"device": "where to compute"}
@action
def shift(batch, by): batch.data = batch.data + by; return batch
@action
def renew(batch): return Batch(batch.index, data=batch.data)
@action
def tell_device(batch): batch.data = batch.options["device"]; return batch
@action
def load(batch): raise AssertionError("the action of the batch class goes first")
def helper(): pass
"""


@pytest.fixture
def pack(install):
    install(
        "math-pack", "[flowcore.actions]\nmore-math = math_pack\nload = math_pack\n", math_pack=PACK
    )


@pytest.mark.usefixtures("pack")
def test_the_actions_of_a_pack_are_in_its_namespace(digits):
    pipe = digits.p.load().more_math.shift(by=100)
    assert pipe.next_batch(2).data.tolist() == [100, 101]
    assert str(pipe.steps[1]) == ".more_math.shift(by=100)"


@pytest.mark.usefixtures("pack")
def test_an_action_of_the_batch_class_goes_before_a_pack_of_its_name(digits):
    assert digits.p.load().next_batch(1).data.tolist() == [0]


@pytest.mark.usefixtures("pack")
@pytest.mark.parametrize("name", ["shfit", "helper"])
def test_what_is_no_action_of_a_pack_is_refused_with_those_that_are(digits, name):
    with pytest.raises(UnknownAction, match="renew, shift"):
        getattr(digits.p.more_math, name)


@pytest.mark.usefixtures("pack")
def test_arguments_that_a_pack_action_does_not_take_are_refused_where_they_are_written(digits):
    with pytest.raises(ArgumentError, match=r"more_math.shift\(by\)"):
        digits.p.more_math.shift()


@pytest.mark.usefixtures("pack")
def test_a_pack_reads_the_run_options_that_it_declares(digits):
    pipe = digits.p.load().more_math.tell_device()
    assert pipe.next_batch(1, device="gpu").data == "gpu"


@pytest.mark.usefixtures("pack")
def test_the_run_options_stay_when_an_action_returns_another_batch(digits):
    pipe = digits.p.load().more_math.renew().more_math.tell_device()
    assert pipe.next_batch(1, device="gpu").data == "gpu"


@pytest.mark.usefixtures("pack", "shelf")
def test_dir_lists_actions_packs_and_sinks(digits):
    listed = dir(digits.p)
    assert {"load", "add_noise", "more_math", "put_into_book_shelf", "gen_batch"} <= set(listed)
    assert "normalize" not in listed
    assert set(dir(digits.p.more_math)) == {"shift", "renew", "tell_device", "load"}


def test_a_template_is_written_but_does_not_run():
    template = Pipeline().put_into(ListSink())
    assert len(template.steps) == 1
    with pytest.raises(PipelineError, match="template"):
        template.gen_batch(4)


# next_batch


def test_next_batch_goes_through_the_data_and_then_stops_for_good(digits):
    pipe = digits.p.load()
    assert [pipe.next_batch(4).data.tolist() for _ in range(3)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    for _ in range(2):
        with pytest.raises(StopIteration):
            pipe.next_batch(4)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"batch_size": 5}, "batch_size=4, now batch_size=5"),
        ({"shuffle": True}, "shuffle=False, now shuffle=True"),
        ({"seed": 1}, "no seed, now seed=1"),
    ],
)
def test_other_arguments_than_those_of_the_run_in_progress_are_named(digits, changed, named):
    pipe = digits.p.load()
    pipe.next_batch(4)
    with pytest.raises(RunInProgress, match=named):
        pipe.next_batch(**{"batch_size": 4, **changed})
    assert pipe.next_batch(4).number == 1


def test_reset_starts_over_maybe_with_other_arguments(digits):
    pipe = digits.p.load()
    pipe.next_batch(4)
    pipe.reset()
    assert pipe.next_batch(3).data.tolist() == [0, 1, 2]


def test_reset_of_a_pipeline_that_does_not_run_does_nothing(digits):
    pipe = digits.p.load()
    pipe.reset()
    assert pipe.next_batch(1).number == 0


@pytest.mark.parametrize("prefetch", [0, 3])
def test_after_an_error_next_batch_raises_it_again_until_reset(digits, prefetch):
    pipe = digits.p.load().fail(1)
    pipe.next_batch(4, prefetch=prefetch)
    raised = []
    for _ in range(3):
        with pytest.raises(ValueError, match="broken") as info:
            pipe.next_batch(4, prefetch=prefetch)
        raised.append((info.value, len(info.value.__notes__), len(info.traceback)))
    assert raised[0][:2] == raised[1][:2] == (info.value, 1)
    assert raised[1] == raised[2], "the traceback grows each time that the error is raised"
    pipe.reset()
    assert pipe.next_batch(4, prefetch=prefetch).number == 0


def test_a_run_that_could_not_start_leaves_next_batch_free_for_other_arguments(digits):
    class Refusing(ListSink):
        def open(self, run):
            raise OSError("no disk")

    pipe = digits.p.load()
    with pytest.raises(OSError, match="no disk"):
        pipe.next_batch(4, sink=Refusing())
    assert pipe.next_batch(4).number == 0


def test_two_pipelines_are_not_in_one_run(digits):
    one, other = digits.p.load(), digits.p.load()
    one.next_batch(4)
    assert other.next_batch(3).number == 0


# gen_batch and run


def test_a_run_starts_with_the_first_next(digits):
    sink = ListSink()
    run = digits.p.load().gen_batch(4, sink=sink)
    assert sink.opened == 0
    next(run)
    assert sink.opened == 1


def test_a_run_knows_its_length_and_its_seed(digits):
    run = digits.p.load().gen_batch(4, n_epochs=3, drop_last=True, seed=5)
    assert len(run) == 6
    assert len(list(run)) == 6
    assert run.seed == 5


def test_a_run_without_end_has_no_length(digits):
    with pytest.raises(TypeError, match="no end"):
        len(digits.p.gen_batch(4, n_epochs=None))


def test_a_run_is_true_whether_it_has_an_end_or_not(digits):
    assert digits.p.gen_batch(4)
    assert digits.p.gen_batch(4, n_epochs=None)


def test_a_drawn_seed_repeats_the_run(digits):
    pipe = digits.p.load().add_noise()
    run = pipe.gen_batch(4, shuffle=True)
    drawn = [batch.data.tolist() for batch in run]
    again = pipe.gen_batch(4, shuffle=True, seed=run.seed)
    assert [batch.data.tolist() for batch in again] == drawn


def test_run_goes_to_the_end_and_returns_the_report(digits):
    report = digits.p.load().run(4, n_epochs=2)
    assert (report.batches, report.items, report.epochs) == (6, 20, 2)


def test_no_epochs_are_no_batches(digits):
    assert list(digits.p.gen_batch(4, n_epochs=0)) == []


def test_an_empty_dataset_has_no_batches():
    assert list(Dataset(0, Digits).p.load().gen_batch(4)) == []
    assert Dataset(0, Digits).p.load().run(4, n_epochs=3, prefetch=2).batches == 0


# batch


@pytest.mark.parametrize("shuffle", [False, True, lambda order: order[::-1]])
def test_batch_makes_exactly_the_batch_of_a_run(digits, shuffle):
    pipe = digits.p.load().add_noise()
    for made in pipe.gen_batch(4, shuffle=shuffle, seed=3, n_epochs=2):
        again = pipe.batch(made.number, made.epoch, batch_size=4, shuffle=shuffle, seed=3)
        assert again.index.tolist() == made.index.tolist()
        assert again.data.tobytes() == made.data.tobytes()


@pytest.mark.parametrize("place", [(3, 0), (-1, 0), (0, -1)])
def test_batch_refuses_a_place_that_does_not_exist(digits, place):
    with pytest.raises(IndexError):
        digits.p.batch(*place, batch_size=4)


def test_batch_of_an_empty_dataset_is_an_index_error():
    with pytest.raises(IndexError):
        Dataset(0).p.batch(0, batch_size=4)


def test_batch_puts_nothing_into_the_sinks(digits):
    class Untouchable(Sink):
        def open(self, run):
            raise AssertionError

        prepare = put = open

    assert digits.p.load().put_into(Untouchable()).batch(0, batch_size=2).data.tolist() == [0, 1]


def test_batch_raises_what_an_action_raises(digits):
    with pytest.raises(ValueError, match="broken"):
        digits.p.fail(0).batch(0, batch_size=2)


def test_the_note_on_an_error_gives_the_call_that_makes_the_batch_again(digits):
    pipeline = digits.p.load().fail(1)
    with pytest.raises(ValueError, match="broken") as raised:
        pipeline.run(4, shuffle=True, seed=8)
    call = raised.value.__notes__[0].partition("here: ")[2]
    with pytest.raises(ValueError, match="broken"):
        eval(call, {"pipeline": pipeline})


def test_batch_makes_the_items_of_a_numpy_numbered_batch(digits):
    assert digits.p.load().batch(np.int64(1), batch_size=4).data.tolist() == [4, 5, 6, 7]
