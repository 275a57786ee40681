"""Promise 2: ``prepare`` in the workers, in parallel; ``put`` in the one delivering thread."""

import threading

import numpy as np
import pytest

from flowcore import Batch, Dataset, Sink, action
from flowcore.errors import Cancelled, OptionError, RunInProgress


class Numbers(Batch):
    @action
    def load(self):
        self.data = self.positions * 1
        return self

    @action
    def double(self):
        self.data *= 2  # in place
        return self

    @action
    def fail(self, number):
        if self.number == number:
            raise ValueError("broken")
        return self


class Noting(Sink):
    """Notes what is done to it, in which thread; runs of a pipeline share the notes."""

    def __init__(self, name="", *, fails=None):
        self.name, self.fails, self.notes, self.threads = name, fails, [], set()

    def note(self, what):
        self.notes.append(what)
        self.threads.add((what.split()[0], threading.current_thread().name))
        if self.fails == what:
            raise OSError(f"{self.name} failed to {what}")

    def open(self, run):
        self.note("open")

    def prepare(self, batch):
        return batch.data.tolist()

    def put(self, item, cancel):
        self.note(f"put {item}")

    def close(self, error):
        self.note(f"close {type(error).__name__}")


@pytest.fixture
def pipe():
    return Dataset(4, Numbers).p.load()


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    pass


# The two phases


def test_prepare_runs_in_several_workers_at_once(pipe):
    both = threading.Barrier(2, timeout=10)  # breaks, and fails the run, if they take turns

    class Meeting(Noting):
        def prepare(self, batch):
            both.wait()
            return super().prepare(batch)

    assert pipe.put_into(Meeting()).run(1, num_workers=2).batches == 4


def test_put_runs_in_one_thread_which_is_no_worker(pipe):
    class Watched(Noting):
        def prepare(self, batch):
            self.threads.add(("prepare", threading.current_thread().name))
            return super().prepare(batch)

    sink = Watched()
    pipe.run(1, n_epochs=5, num_workers=3, sink=sink)
    threads = {
        phase: {name for one, name in sink.threads if one == phase} for phase, _ in sink.threads
    }
    assert threads["put"] == {"flowcore-deliver"}
    assert threads["prepare"] <= {f"flowcore-worker-{number}" for number in range(3)}


def test_without_prefetch_all_of_a_sink_runs_in_the_calling_thread(pipe):
    sink = Noting()
    pipe.run(2, sink=sink)
    assert {thread for _, thread in sink.threads} == {threading.current_thread().name}


def test_an_item_is_the_tensor_of_the_batch_where_a_sink_does_not_say(pipe):
    class Plain(Sink):
        def put(self, item, cancel):
            items.append(item)

    items = []
    pipe.put_into(Plain()).run(4)
    assert isinstance(items[0], np.ndarray)
    assert items[0].tolist() == [0, 1, 2, 3]


def test_a_batch_that_is_made_again_is_put_once(pipe):
    class Fragile(Noting):
        def prepare(self, batch):
            self.notes.append("prepare")
            if self.notes.count("prepare") == 1:
                raise ValueError("not yet")
            return super().prepare(batch)

    sink = Fragile()
    pipe.run(4, retries=1, sink=sink)
    assert sink.notes == ["open", "prepare", "prepare", "put [0, 1, 2, 3]", "close NoneType"]


# Several sinks


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_sink_sees_the_batch_as_it_is_at_its_step(pipe, prefetch):
    sinks = [Noting(), Noting(), Noting()]
    pipe.put_into(sinks[0]).double().put_into(sinks[1]).double().run(
        2, prefetch=prefetch, sink=sinks[2]
    )
    assert [[note for note in sink.notes if "put" in note] for sink in sinks] == [
        ["put [0, 1]", "put [2, 3]"],
        ["put [0, 2]", "put [4, 6]"],
        ["put [0, 4]", "put [8, 12]"],
    ]


def test_the_items_of_a_batch_are_put_in_the_order_of_the_recipe(pipe):
    order = []

    class Ordered(Noting):
        def put(self, item, cancel):
            order.append((self.name, item))

    pipe.put_into(Ordered("a")).put_into(Ordered("b")).run(2, num_workers=2)
    assert order == [("a", [0, 1]), ("b", [0, 1]), ("a", [2, 3]), ("b", [2, 3])]


def test_the_sinks_that_are_open_are_closed_if_one_refuses_to(pipe):
    first, second, third = Noting(), Noting("second", fails="open"), Noting()
    with pytest.raises(OSError, match="second failed to open"):
        pipe.put_into(first).put_into(second).put_into(third).run(2, num_workers=2)
    assert [sink.notes for sink in (first, second, third)] == [
        ["open", "close OSError"],
        ["open"],
        [],
    ]


def test_all_sinks_are_closed_though_one_fails_to(pipe):
    first, second = Noting("first", fails="close NoneType"), Noting()
    with pytest.raises(OSError, match="first failed to close"):
        pipe.put_into(first).put_into(second).run(4)
    assert second.notes[-1] == "close NoneType"


# Opening and closing


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize(
    ("how", "told"),
    [("exhausted", "close NoneType"), ("failed", "close ValueError"), ("left", "close Cancelled")],
)
def test_a_sink_is_opened_and_closed_once_and_told_how_it_ended(pipe, prefetch, how, told):
    sink = Noting()
    if how == "failed":
        pipe = pipe.fail(1)
    run = pipe.gen_batch(1, n_epochs=None if how == "left" else 1, prefetch=prefetch, sink=sink)
    if how == "left":
        next(run)
        run.close()
    elif how == "failed":
        with pytest.raises(ValueError, match="broken"):
            list(run)
    else:
        list(run)
    run.close()
    assert (sink.notes[0], sink.notes[-1]) == ("open", told)
    assert sum(note.startswith(("open", "close")) for note in sink.notes) == 2


def test_a_sink_is_closed_when_the_last_batch_is_delivered_not_when_the_next_is_asked_for(pipe):
    sink = Noting()
    run = pipe.gen_batch(4, sink=sink)
    next(run)
    assert sink.notes[-1] == "close NoneType"


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_sink_that_fails_to_close_is_an_error_after_the_last_batch(pipe, prefetch):
    run = pipe.gen_batch(2, prefetch=prefetch, sink=Noting("it", fails="close NoneType"))
    assert [next(run).number, next(run).number] == [0, 1]
    for _ in range(2):
        with pytest.raises(OSError, match="it failed to close") as raised:
            next(run)
    assert "while sink 'Noting' was closed" in raised.value.__notes__[0]


def test_a_sink_that_fails_to_close_after_an_error_is_logged_and_the_error_raised(pipe, caplog):
    with pytest.raises(ValueError, match="broken"):
        pipe.fail(1).run(1, sink=Noting("it", fails="close ValueError"))
    assert "it failed to close" in caplog.text


def test_each_run_opens_a_copy_of_the_sink_that_is_written_in_the_pipeline(pipe):
    class Keeping(Sink):
        def open(self, run):
            self.items = []

        def put(self, item, cancel):
            self.items.append(item.tolist())

        @property
        def result(self):
            return self.items

    written = Keeping()
    pipe = pipe.put_into(written)
    one, other = pipe.gen_batch(2), pipe.gen_batch(4)
    list(zip(one, other, strict=False))
    list(one)
    assert one.report.results == {"Keeping": [[0, 1], [2, 3]]}
    assert other.report.results == {"Keeping": [[0, 1, 2, 3]]}
    assert not hasattr(written, "items")


# A sink object that is given to a run


def test_a_sink_object_given_to_a_run_is_opened_itself(pipe):
    sink = Noting()
    pipe.run(4, sink=sink)
    pipe.run(2, sink=sink)
    assert sink.notes == [
        *["open", "put [0, 1, 2, 3]", "close NoneType"],
        *["open", "put [0, 1]", "put [2, 3]", "close NoneType"],
    ]


def test_a_sink_object_is_refused_by_a_second_run_at_once_and_free_after_the_first(pipe):
    sink = Noting()
    with pipe.gen_batch(1, sink=sink) as run:
        next(run)
        with pytest.raises(RunInProgress, match="Noting object serves another run"):
            pipe.run(1, sink=sink)
        assert next(run).number == 1
    pipe.run(4, sink=sink)
    assert sink.notes[-2:] == ["put [0, 1, 2, 3]", "close NoneType"]


def test_a_sink_object_that_could_not_be_opened_is_free(pipe):
    sink = Noting(fails="open")
    with pytest.raises(OSError, match="failed to open"):
        pipe.run(1, sink=sink)
    sink.fails = None
    assert pipe.run(1, sink=sink).batches == 4


# Sinks that give out their first item late


class Shuffling(Noting):
    lookahead = 4


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_run_that_prefetches_less_than_a_sink_looks_ahead_is_refused(pipe, prefetch):
    sink = Shuffling()
    with pytest.raises(OptionError, match="prefetch=3 or more"):
        next(pipe.gen_batch(1, prefetch=prefetch, sink=sink))
    assert sink.notes == ["open", "close OptionError"]


def test_a_run_that_prefetches_enough_or_has_no_consumer_is_not_refused(pipe):
    assert next(pipe.gen_batch(1, prefetch=3, sink=Shuffling())).number == 0
    assert pipe.run(1, sink=Shuffling()).batches == 4
    with pipe.feed(1, sink=Shuffling()) as feed:
        assert feed.wait(10)


def test_cancelled_is_what_a_sink_is_closed_with_when_its_feed_is_left(pipe):
    class Full(Noting):
        def put(self, item, cancel):
            blocked.set()
            assert cancel.wait(10)
            raise Cancelled

    blocked, sink = threading.Event(), Full()
    with pipe.feed(1, sink=sink):
        assert blocked.wait(10)
    assert sink.notes == ["open", "close Cancelled"]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_sink_whose_result_raises_is_an_error_and_not_a_hang(pipe, prefetch):
    closed = []

    class Unreadable(Sink):
        def put(self, item, cancel):
            pass

        def close(self, error):
            closed.append(error)

        @property
        def result(self):
            raise LookupError("it is gone")

    with pytest.raises(LookupError, match="it is gone"):
        pipe.run(2, sink=Unreadable(), prefetch=prefetch)
    assert closed == [None]
