"""Shards in runs: together they have every item once, each as many batches, and may change."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import OptionError

WORLDS = [1, 2, 3, 5, 8]


def shards(pipeline, world, **arguments):
    return [pipeline.gen_batch(shard=(rank, world), **arguments) for rank in range(world)]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 80),
    batch_size=st.integers(1, 11),
    n_epochs=st.integers(1, 3),
    stops=st.lists(st.tuples(st.sampled_from(WORLDS), st.integers(0, 7)), max_size=6),
)
def test_worlds_that_change_at_resumes_have_every_item_once_in_each_epoch(
    n, batch_size, n_epochs, stops
):
    counts = np.zeros((n_epochs, n), int)
    start = {"seed": 5}
    for world, rounds in [*stops, (3, 10**6)]:
        states = []
        for run in shards(
            fc.Dataset(n).p, world, batch_size=batch_size, n_epochs=n_epochs, shuffle=True, **start
        ):
            for _, batch in zip(range(rounds), run, strict=False):
                if not batch.filler:
                    counts[batch.epoch, batch.index] += 1
            states.append(run.state_dict())
            run.close()
        assert {json.dumps({**state, "items": 0}) for state in states} == {
            json.dumps({**states[0], "items": 0})
        }
        start = {"resume": states[0]}
    assert (counts == 1).all()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("uneven", ["pad", "drop", "short"])
def test_how_many_batches_a_shard_has_is_known_before_the_start(world, uneven):
    runs = shards(fc.Dataset(101).p, world, batch_size=7, uneven=uneven, n_epochs=2)
    known = [len(run) for run in runs]
    assert known == [len(list(run)) for run in runs]
    assert len(set(known)) == 1 or uneven == "short"


def test_a_sink_is_told_the_batches_and_items_of_its_shard():
    class Told(fc.Sink):
        def open(self, run):
            self.run = run

        def prepare(self, batch):
            return len(batch)

        def put(self, item, cancel):
            pass

        @property
        def result(self):
            return self.run.batches, self.run.items

    for rank in range(3):
        report = fc.Dataset(100).p.put_into(Told()).run(7, shard=(rank, 3))
        assert report.results["Told"] == (report.batches, report.items)


def test_the_report_counts_fillers():
    report = fc.Dataset(10).p.run(4, shard=(1, 2))
    assert (report.batches, report.fillers) == (2, 1)


def test_a_filler_is_the_batch_that_it_repeats_byte_for_byte():
    class Noise(fc.Batch):
        @fc.action
        def draw(self):
            self.data = self.rng.random(len(self))
            return self

    pipeline = fc.Dataset(10, Noise).p.draw()
    first = next(pipeline.gen_batch(4, seed=1))
    filler = list(pipeline.gen_batch(4, seed=1, shard=(1, 2)))[-1]
    assert (filler.filler, first.filler) == (True, False)
    assert (filler.number, filler.data.tolist()) == (first.number, first.data.tolist())


def test_more_shards_than_batches_have_fillers_alone():
    runs = shards(fc.Dataset(3).p, 8, batch_size=2)
    found = [[batch.filler for batch in run] for run in runs]
    assert found == [[False], [False], *[[True]] * 6]


def test_an_empty_dataset_has_no_batch_for_any_shard():
    assert [list(run) for run in shards(fc.Dataset(0).p, 3, batch_size=2)] == [[], [], []]


def test_shards_of_batches_by_length_have_as_many_batches():
    lengths = np.random.default_rng(0).integers(1, 100, 57)
    sampler = fc.samplers.ByLength(lengths, tokens=250)
    runs = shards(fc.Dataset(57).p, 3, batch_size=1, sampler=sampler, seed=1)
    assert len({len(run) for run in runs}) == 1
    found = [batch.index for run in runs for batch in run if not batch.filler]
    assert sorted(np.concatenate(found).tolist()) == list(range(57))


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0), 1, "all", (0, 1, 2), (0.0, 1)], ids=str)
def test_a_shard_that_cannot_be_is_refused_in_the_call(shard):
    with pytest.raises(OptionError):
        fc.Dataset(4).p.gen_batch(2, shard=shard)


def test_shards_of_a_shuffled_run_need_a_seed():
    pipeline = fc.Dataset(9).p
    for order in ({"shuffle": True}, {"sampler": fc.samplers.Weighted([1] * 9)}):
        with pytest.raises(OptionError, match="needs a seed"):
            pipeline.gen_batch(2, shard=(0, 2), **order)
    runs = shards(pipeline, 2, batch_size=2, shuffle=True, resume={"epoch": 0, "seed": 1})
    assert {id_ for run in runs for batch in run for id_ in batch.index} == set(range(9))
    assert next(pipeline.gen_batch(2, shuffle=np.random.default_rng(1), shard=(0, 2))) is not None


def test_another_uneven_is_refused_in_the_call():
    with pytest.raises(OptionError, match="uneven must be"):
        fc.Dataset(4).p.gen_batch(2, uneven="repeat")


def test_auto_is_what_the_launcher_says(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert next(fc.Dataset(4).p.gen_batch(2, shard="auto")).index.tolist() == [2, 3]
