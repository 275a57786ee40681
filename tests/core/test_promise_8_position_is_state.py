"""Promise 8: where a run is, is small JSON, and a run goes on from there whatever runs it."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import OptionError, PipelineError, RunInProgress, StateError

pytestmark = pytest.mark.timeout(60)

WAYS = [
    {"prefetch": 0},
    {"prefetch": 3, "executor": "threads", "num_workers": 1},
    {"prefetch": 9, "executor": "threads", "num_workers": 4},
    {"prefetch": 2, "executor": "serial"},
]


class Numbers(fc.Batch):
    components = "values", "noise"

    @fc.action
    def fill(self):
        self.values = self.positions * 10
        self.noise = self.rng.random(len(self))
        return self

    @fc.action
    def keep_going(self, times=1):
        return self


PLAIN = fc.Dataset(43, Numbers).p.fill()
FILTERED = PLAIN.filter(lambda batch: batch.values % 30 != 0)
RECIPES = {
    "plain": PLAIN,
    "filter": FILTERED,
    "rebatch": FILTERED.rebatch(4),
    "rebatch to more": PLAIN.rebatch(20).keep_going(),
    "join": PLAIN.join(fc.Dataset(43, Numbers).p.fill(), rename={"values": "a", "noise": "b"}),
    "mix": fc.mix([PLAIN, fc.Dataset(20, Numbers).p.fill()], weights=[3, 1], stop="all"),
    "concat": fc.concat([PLAIN, fc.Dataset(range(50, 60), Numbers).p.fill()]),
}


def content(batch):
    data = {name: value.tolist() for name, value in batch.data.items()}
    return batch.epoch, batch.number, batch.positions.tolist(), data


def through_json(state):
    text = json.dumps(state)
    assert len(text.encode()) <= 300
    return json.loads(text)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
@settings(max_examples=25, deadline=None)
@given(
    batch_size=st.integers(1, 12),
    n_epochs=st.integers(1, 3),
    stops=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(WAYS)), max_size=5),
)
def test_runs_that_are_left_and_resumed_give_what_one_run_gives(
    recipe, batch_size, n_epochs, stops
):
    same = {"batch_size": batch_size, "n_epochs": n_epochs, "shuffle": True}
    expected = [content(batch) for batch in recipe.gen_batch(**same, seed=7)]
    found, start = [], {"seed": 7}
    for count, way in [*stops, (10**6, WAYS[2])]:
        with recipe.gen_batch(**same, **start, **way) as run:
            found += [content(batch) for _, batch in zip(range(count), run, strict=False)]
            start = {"resume": through_json(run.state_dict())}
    assert found == expected


@pytest.mark.parametrize("way", WAYS)
def test_a_run_resumed_at_every_place_gives_the_rest(way):
    same = {"batch_size": 5, "n_epochs": 2, "shuffle": True}
    expected = [content(batch) for batch in PLAIN.gen_batch(**same, seed=3)]
    run = PLAIN.gen_batch(**same, seed=3, **way)
    for done in range(len(expected) + 1):
        rest = PLAIN.gen_batch(**same, resume=run.state_dict(), **way)
        assert len(rest) == len(expected) - done
        assert [content(batch) for batch in rest] == expected[done:]
        next(run, None)


def test_a_state_counts_what_was_handed_over_and_not_what_is_in_progress():
    made = threading.Semaphore(0)

    class Counted(Numbers):
        @fc.action
        def fill(self):
            made.release()
            return self

    with fc.Dataset(40, Counted).p.fill().gen_batch(2, prefetch=6, num_workers=3) as run:
        next(run)
        for _ in range(7):  # the one handed over, and six ahead of it
            assert made.acquire(timeout=10)
        assert run.state_dict()["batch"] == 1


def test_the_state_before_the_first_batch_is_the_start():
    run = PLAIN.gen_batch(5, seed=1)
    state = run.state_dict()
    assert (state["epoch"], state["batch"], state["items"]) == (0, 0, 0)


def test_the_state_at_the_end_is_the_end_and_a_resumed_run_has_nothing():
    run = PLAIN.gen_batch(5, seed=1)
    assert len(list(run)) == 9
    rest = PLAIN.gen_batch(5, resume=run.state_dict())
    assert len(rest) == 0
    assert list(rest) == []


def test_more_epochs_can_be_added_at_a_resume():
    run = PLAIN.gen_batch(50, seed=1, shuffle=True)
    list(run)
    more = PLAIN.gen_batch(50, n_epochs=3, shuffle=True, resume=run.state_dict())
    assert [batch.epoch for batch in more] == [1, 2]


def test_unordered_a_state_holds_what_was_delivered_beyond_the_first_gap():
    gate = threading.Event()

    class Gated(Numbers):
        @fc.action
        def wait(self):
            if self.number == 0:
                assert gate.wait(10)
            return self

    pipe = fc.Dataset(12, Gated).p.wait()
    same = {"batch_size": 2, "ordered": False, "num_workers": 3, "prefetch": 5}
    with pipe.gen_batch(**same) as run:
        first = [next(run).number for _ in range(3)]
        state = through_json(run.state_dict())
        gate.set()
    assert 0 not in first
    assert (state["batch"], state["beyond"]) == (0, sorted(first))
    rest = pipe.gen_batch(**same, resume=state)
    assert len(rest) == 3
    assert sorted([batch.number for batch in rest] + first) == list(range(6))


def test_a_skipped_batch_is_through_when_the_next_one_is_handed_over():
    class Bad(Numbers):
        @fc.action
        def fail(self):
            if self.number == 1:
                raise ValueError("bad")
            return self

    run = fc.Dataset(8, Bad).p.fail().gen_batch(2, on_error="skip")
    next(run)
    assert run.state_dict()["batch"] == 1
    next(run)
    assert run.state_dict()["batch"] == 3


def test_load_state_dict_goes_on_like_resume():
    run = PLAIN.gen_batch(5, seed=1, shuffle=True)
    next(run)
    other = PLAIN.gen_batch(5, shuffle=True)
    other.load_state_dict(run.state_dict())
    assert other.seed == 1
    assert [content(batch) for batch in other] == [content(batch) for batch in run]


def test_a_run_that_has_started_loads_no_state():
    run = PLAIN.gen_batch(5)
    next(run)
    with pytest.raises(PipelineError, match="has started"):
        run.load_state_dict(run.state_dict())
    run.close()


def test_next_batch_resumes_and_says_where_it_is():
    pipe = PLAIN.keep_going()
    with pytest.raises(RunInProgress, match="no run in progress"):
        pipe.state_dict()
    first = pipe.next_batch(5, seed=1)
    state = pipe.state_dict()
    pipe.reset()
    second = pipe.next_batch(5, resume=state)
    third = pipe.next_batch(5, resume=state)
    assert [batch.number for batch in (first, second, third)] == [0, 1, 2]
    pipe.reset()


def test_run_and_feed_resume_and_a_feed_has_a_state():
    state = {"epoch": 0, "batch": 7, "seed": 1}
    assert PLAIN.run(5, resume=state).batches == 2
    with PLAIN.feed(5, resume=state) as feed:
        assert feed.wait(10)
        assert feed.state_dict()["epoch"] == 1


@pytest.mark.parametrize("resume", [{"epoch": 3, "batch": 4}, {"epoch": 3, "batch": 4, "seed": 9}])
def test_a_run_starts_anywhere(resume):
    run = PLAIN.gen_batch(5, n_epochs=4, shuffle=True, seed=9, resume=resume)
    batch = next(run)
    assert content(batch) == content(PLAIN.batch(4, 3, batch_size=5, shuffle=True, seed=9))
    run.close()


def test_the_number_of_workers_the_prefetch_and_the_sink_are_not_part_of_a_state():
    run = PLAIN.gen_batch(5, seed=1, prefetch=2)
    next(run)
    again = PLAIN.gen_batch(5, resume=run.state_dict(), executor="serial", prefetch=1)
    assert next(again).number == 1
    run.close()
    again.close()


class TestAStateOfAnotherRun:
    """It is refused where the run is made, and the first thing that differs is named."""

    @pytest.fixture
    def state(self):
        run = PLAIN.gen_batch(5, seed=1, shuffle=True)
        next(run)
        run.close()
        return run.state_dict()

    def refused(self, pipe, state, **arguments):
        with pytest.raises(StateError) as caught:
            pipe.gen_batch(**{"batch_size": 5, "shuffle": True, "resume": state, **arguments})
        return str(caught.value)

    def test_the_length_of_the_index(self, state):
        text = self.refused(fc.Dataset(44, Numbers).p.fill(), state)
        assert "the number of ids of the index was 43, and is 44" in text

    def test_the_order(self, state):
        for other in ({"shuffle": False}, {"drop_last": True}):
            assert "shuffle, sampler or drop_last was another" in self.refused(
                PLAIN, state, **other
            )
        lengths = fc.samplers.ByLength(range(1, 44))
        state = PLAIN.gen_batch(5, seed=1, sampler=lengths).state_dict()
        others = fc.samplers.ByLength(range(43, 0, -1))
        self.refused(PLAIN, state, shuffle=False, sampler=others)

    def test_the_seed(self, state):
        assert "seed was 1, and is 2" in self.refused(PLAIN, state, seed=2)

    def test_a_step(self, state):
        text = self.refused(PLAIN.keep_going(), state)
        assert "step 2 of the recipe was not there, and is .keep_going()" in text

    def test_an_argument_of_a_step(self):
        run = PLAIN.keep_going(1).gen_batch(5, seed=1, shuffle=True)
        text = self.refused(PLAIN.keep_going(2), run.state_dict())
        assert "step 2 of the recipe was another, and is .keep_going(2)" in text

    def test_other_ids(self, state):
        text = self.refused(fc.Dataset(range(1, 44), Numbers).p.fill(), state)
        assert "the source was of other ids or parts" in text

    def test_a_batch_size_that_does_not_divide_what_is_through(self, state):
        assert "batch_size was 5, and is 3" in self.refused(PLAIN, state, batch_size=3)

    def test_a_version(self, state):
        assert "version" in self.refused(PLAIN, {**state, "flowcore": 2})

    def test_a_shard_inside_of_which_batches_are_missing(self, state):
        text = self.refused(PLAIN, {**state, "beyond": [2], "shard": [0, 2]}, shard=(1, 2))
        assert "shard was (0, 2), and is (1, 2)" in text


def test_a_batch_size_that_divides_what_is_through_fits():
    run = PLAIN.gen_batch(4, seed=1, shuffle=True)
    first = [next(run), next(run), next(run)]
    run.close()
    rest = list(PLAIN.gen_batch(6, shuffle=True, resume=run.state_dict()))
    found = np.concatenate([batch.positions for batch in [*first, *rest]])
    assert sorted(found.tolist()) == list(range(43))
    assert rest[0].number == 2


@pytest.mark.parametrize(
    "resume",
    [
        17,
        "state.json",
        {},
        {"epok": 1},
        {"epoch": -1},
        {"epoch": 1.5},
        {"epoch": True},
        {"flowcore": 1, "epoch": 0},
        {"flowcore": 1, "length": 43, "batch_size": 5, "order": "", "steps": "", "beyond": 3},
    ],
)
def test_what_is_no_state_is_refused_in_the_call(resume):
    with pytest.raises(OptionError, match="resume="):
        PLAIN.gen_batch(5, resume=resume)


def test_a_place_behind_the_end_is_refused_in_the_call():
    with pytest.raises(OptionError, match="which has 9"):
        PLAIN.gen_batch(5, resume={"epoch": 0, "batch": 10})
    with pytest.raises(OptionError, match="cannot start in epoch 2"):
        PLAIN.gen_batch(5, resume={"epoch": 2})


class Recorded(fc.Sink):
    def open(self, run):
        self.run = run

    def prepare(self, batch):
        return None

    def put(self, item, cancel):
        pass

    @property
    def result(self):
        return self.run


def test_a_sink_is_told_how_many_items_went_before():
    run = PLAIN.gen_batch(4, seed=1)
    next(run)
    next(run)
    run.close()
    told = PLAIN.put_into(Recorded()).run(4, resume=run.state_dict()).results["Recorded"]
    assert (told.resumed, told.items_before, told.items, told.batches) == (True, 8, 35, 9)
    told = PLAIN.put_into(Recorded()).run(4, resume={"epoch": 0, "batch": 3}).results["Recorded"]
    assert (told.resumed, told.items_before) == (True, 12)


def test_resuming_reads_nothing_of_what_was_delivered():
    read = []

    class Source:
        def __len__(self):
            return 1000

        def __getitem__(self, positions):
            read.extend(positions.tolist())
            return positions

    ds = fc.Dataset(1000, preloaded=Source())
    next(ds.p.gen_batch(10, resume={"epoch": 0, "batch": 90, "seed": 1}))
    assert read == list(range(900, 910))
