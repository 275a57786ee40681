"""`assert_resumable` finds what is lost, or kept, when a run is left and another goes on."""

import itertools
import re

import pytest

import flowcore as fc
from flowcore.errors import OptionError
from flowcore.testing import assert_resumable, resumable


class Numbers(fc.Batch):
    components = "values", "noise"

    @fc.action
    def load(self):
        self.values = self.positions * 10
        self.noise = self.rng.random(len(self))
        return self


PLAIN = fc.Dataset(20, Numbers).p.load()


class Running(Numbers):
    """Adds up over the batches of a run."""

    total = 0

    @fc.action
    def add_up(self):
        if self.number == 0:
            type(self).total = 0
        type(self).total += int(self.values.sum())
        self.values = self.values * 0 + self.total
        return self


def stops_of(monkeypatch, *args, **options):
    """Return after how many batches `assert_resumable` stops a run."""
    stops = []
    left = resumable._left_and_resumed
    monkeypatch.setattr(
        resumable,
        "_left_and_resumed",
        lambda trial, stop, way: stops.append(stop) or left(trial, stop, way),
    )
    assert_resumable(*args, executors="serial", prefetch=1, **options)
    return sorted({*stops})


OPTIONS = {
    "nothing": {},
    "shuffled epochs": {"shuffle": True, "n_epochs": 3},
    "drop_last": {"batch_size": 6, "drop_last": True, "n_epochs": 2},
    "any order": {"ordered": False, "n_epochs": 2},
    "a shard": {"shard": (1, 2), "n_epochs": 2},
    "a start": {"resume": {"epoch": 0, "batch": 2}, "n_epochs": 2},
    "each place": {"every": 1},
    "few places": {"every": 4},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_pipeline_that_is_right_passes_with_every_option_of_a_run(options):
    assert_resumable(PLAIN, **{"batch_size": 4, **options})


def test_a_pipeline_that_rebatches_passes():
    assert_resumable(PLAIN.filter(lambda batch: batch.values % 30 != 0).rebatch(3), 4, n_epochs=2)


def test_what_is_kept_from_batch_to_batch_is_found():
    recipe = fc.Dataset(20, Running).p.load().add_up()
    with pytest.raises(AssertionError) as raised:
        assert_resumable(recipe, 4)
    what, where, why, advice = str(raised.value).splitlines()
    assert what == "batch 1 of epoch 0 is not the same in two ways to run the pipeline"
    assert re.fullmatch(
        r"  where: component 'values', item 4: 280 \(in one run\), 220 "
        r"\(serial, left after 1 of 5 batches and resumed\)",
        where,
    )
    assert "keeps from batch to batch" in why
    assert advice.startswith("  next:  compute each batch from its ids")


def test_a_cache_of_an_earlier_epoch_is_found():
    class Caching(Numbers):
        known = {}  # noqa: RUF012 - that it is of the class is what is wrong

        @fc.action
        def cache(self):
            self.noise = [
                self.known.setdefault(id_, noise)
                for id_, noise in zip(self.index.tolist(), self.noise, strict=True)
            ]
            return self

    with pytest.raises(AssertionError, match=r"batch 0 of epoch 1 .*\n.*component 'noise', item 0"):
        assert_resumable(fc.Dataset(20, Caching).p.load().cache(), 4, n_epochs=2)


def test_a_pipeline_that_is_not_deterministic_is_told_so_first():
    class Counting(Numbers):
        calls = 0

        @fc.action
        def count(self):
            type(self).calls += 1
            self.values = self.values + self.calls
            return self

    with pytest.raises(AssertionError, match="serial, again"):
        assert_resumable(fc.Dataset(20, Counting).p.load().count(), 4)


def test_a_short_run_is_left_after_each_batch(monkeypatch):
    assert stops_of(monkeypatch, PLAIN, 4) == [1, 2, 3, 4, 5]


def test_a_long_run_is_left_at_places_all_over_it_and_at_the_ends_of_epochs(monkeypatch):
    stops = stops_of(monkeypatch, PLAIN, 1, n_epochs=3)
    assert {1, 20, 40, 59, 60} <= {*stops}
    assert len(stops) <= 12
    assert max(later - earlier for earlier, later in itertools.pairwise(stops)) <= 10


def test_every_says_after_how_many_batches(monkeypatch):
    assert stops_of(monkeypatch, PLAIN, 2, every=4) == [4, 8]


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_a_wrong_every_is_refused(every):
    with pytest.raises(OptionError, match="every must be an int of at least 1"):
        assert_resumable(PLAIN, 4, every=every)


def test_a_run_without_an_end_is_refused():
    with pytest.raises(OptionError, match="n_epochs=2"):
        assert_resumable(PLAIN, 4, n_epochs=None)


def test_a_step_that_no_run_reaches_is_refused():
    with pytest.raises(OptionError, match="every=9"):
        assert_resumable(PLAIN, 4, every=9)
