"""What becomes of batches and items that fail: on_error, retries, back-off, limits; the report."""

import json
import platform
import threading
import time

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import DataError, OptionError, PipelineError


class Flaky(fc.Batch):
    components = ("values",)

    @fc.action
    def fail(self, failing, error=ValueError, times=10**9, tries=None):
        """Fail in the batches ``failing``, ``times`` each."""
        if tries is not None:
            tries.append(self.number)
        tried = [] if tries is None else tries
        if self.number in failing and tried.count(self.number) <= times:
            raise error(f"batch {self.number}")
        self.values = self.positions.copy()
        return self

    @fc.action(each="item")
    def check(item, bad):
        if item.id in bad:
            raise ValueError(f"item {item.id}")
        item.values = item.position
        return item


dataset = fc.Dataset(12, Flaky)

WAYS = [{"prefetch": 0}, {"prefetch": 3, "num_workers": 2}]
every_way = pytest.mark.parametrize("way", WAYS, ids=["inline", "threads"])


def ids(run):
    return [batch.index.tolist() for batch in run]


class TestAFunction:
    @every_way
    def test_decides_from_what_failed(self, way):
        seen = []

        def decide(failure):
            seen.append((failure.number, failure.action, failure.attempts, str(failure.error)))
            return "skip" if failure.number == 1 else None

        run = dataset.p.fail([1, 3]).gen_batch(3, on_error=decide, **way)
        with pytest.raises(ValueError, match="batch 3"):
            ids(run)
        assert seen == [(1, "fail", 1, "batch 1"), (3, "fail", 1, "batch 3")]
        assert [trouble.number for trouble in run.report.skipped] == [1]

    def test_may_have_a_batch_made_again(self):
        tries = []

        def again(failure):
            return "retry" if failure.attempts < 3 else "skip"

        report = dataset.p.fail([1], tries=tries).run(6, on_error=again)
        assert tries == [0, 1, 1, 1]
        assert (len(report.retried), len(report.skipped)) == (2, 1)

    def test_may_drop_items_alone(self):
        run = dataset.p.check([4]).gen_batch(3, on_error=lambda failure: "skip_items")
        assert ids(run) == [[0, 1, 2], [3, 5], [6, 7, 8], [9, 10, 11]]

    def test_that_returns_something_else_is_an_error(self):
        with pytest.raises(PipelineError, match="on_error returned 'ignore'"):
            dataset.p.fail([1]).run(6, on_error=lambda failure: "ignore")

    def test_that_raises_replaces_the_error_which_is_the_context(self):
        def give_up(failure):
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough") as caught:
            dataset.p.fail([0]).run(6, on_error=give_up)
        assert isinstance(caught.value.__context__, ValueError)


class TestItems:
    @every_way
    def test_one_that_fails_is_dropped_alone(self, way):
        run = dataset.p.check([1, 2, 7]).gen_batch(3, on_error="skip_items", **way)
        assert ids(run) == [[0], [3, 4, 5], [6, 8], [9, 10, 11]]
        found = [(t.epoch, t.number, t.ids.tolist(), t.action) for t in run.report.skipped_items]
        assert found == [(0, 0, [1], "check"), (0, 0, [2], "check"), (0, 2, [7], "check")]
        assert run.report.skipped == []
        assert "items skipped" in str(run.report)

    @every_way
    def test_a_batch_whose_items_all_fail_is_left_out(self, way):
        run = dataset.p.check([3, 4, 5]).gen_batch(3, on_error="skip_items", **way)
        assert ids(run) == [[0, 1, 2], [6, 7, 8], [9, 10, 11]]
        assert len(run.report.skipped_items) == 3

    def test_a_failure_that_is_not_of_one_item_skips_the_batch(self):
        run = dataset.p.check([0]).fail([1]).gen_batch(6, on_error="skip_items")
        assert ids(run) == [[1, 2, 3, 4, 5]]
        assert [trouble.number for trouble in run.report.skipped] == [1]

    def test_with_retries_items_are_dropped_only_after_them(self):
        tries = []
        run = (
            dataset.p.fail([], tries=tries)
            .check([1])
            .gen_batch(12, on_error="skip_items", retries=2)
        )
        assert ids(run) == [[0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]
        assert tries == [0, 0, 0, 0]
        assert (len(run.report.retried), len(run.report.skipped_items)) == (2, 1)

    def test_raised_the_error_names_the_item_and_the_batch(self):
        with pytest.raises(ValueError, match="item 4") as caught:
            dataset.p.check([4]).run(3)
        assert "item 4 (position 4)" in caught.value.__notes__[0]
        assert "in 'check' of batch 1 of epoch 0" in caught.value.__notes__[1]

    def test_without_what_was_skipped_the_dataset_runs_clean(self):
        report = dataset.p.check([1, 7]).run(3, on_error="skip_items")
        clean = dataset.without(report.skipped_items)
        assert clean.p.check([1, 7]).run(3).items == 10

    def test_an_item_that_is_dropped_on_one_side_of_a_join_is_missing(self):
        class Other(fc.Batch):
            components = ("other",)

            @fc.action(each="item")
            def load(item):
                if item.id == 2:
                    raise OSError("unreadable")
                item.other = item.id * 10
                return item

        pipeline = dataset.p.check([5]).join(fc.Dataset(12, Other).p.load())
        found = [b.other.tolist() for b in pipeline.gen_batch(6, on_error="skip_items")]
        assert found == [[0, 10, 30, 40], [60, 70, 80, 90, 100, 110]]


class TestRetries:
    def test_only_errors_of_the_classes_that_are_named_are_retried(self):
        tries = []
        pipeline = dataset.p.fail([0], OSError, times=1, tries=tries)
        assert pipeline.run(6, retries=2, retry_on=(OSError, KeyError)).batches == 2
        assert tries == [0, 0, 1]
        with pytest.raises(ValueError, match="batch 0"):
            dataset.p.fail([0], times=1, tries=[]).run(6, retries=2, retry_on=OSError)

    @every_way
    def test_back_off_waits_twice_as_long_each_time(self, way):
        at = []

        class Timed(fc.Batch):
            @fc.action
            def fail(self):
                at.append(time.monotonic())
                if len(at) < 4:
                    raise OSError("busy")
                return self

        fc.Dataset(1, Timed).p.fail().run(1, retries=3, backoff=0.02, **way)
        waits = np.diff(at)
        assert (waits >= [0.02, 0.04, 0.08]).all()

    def test_while_a_batch_waits_for_its_next_attempt_others_are_made(self):
        others = threading.Event()

        class Waits(fc.Batch):
            tried = False

            @fc.action
            def work(self):
                if self.number == 0 and not Waits.tried:
                    Waits.tried = True
                    raise OSError("busy")
                if self.number == 0:
                    assert others.is_set()
                if self.number == 3:
                    others.set()
                return self

        run = (
            fc.Dataset(4, Waits)
            .p.work()
            .gen_batch(1, retries=1, backoff=0.3, prefetch=3, num_workers=2)
        )
        assert [batch.number for batch in run] == [0, 1, 2, 3]

    @every_way
    def test_a_run_that_waits_for_a_next_attempt_is_left_at_once(self, way):
        failed = threading.Event()

        class Fails(fc.Batch):
            @fc.action
            def fail(self):
                failed.set()
                raise OSError("busy")

        run = fc.Dataset(1, Fails).p.fail().gen_batch(1, retries=1, backoff=1000, **way)
        got = []
        consumer = threading.Thread(target=lambda: got.append(next(run, None)))
        consumer.start()
        assert failed.wait(10)
        run.close()
        consumer.join(10)
        assert got == [None]


class TestMaxErrors:
    @every_way
    def test_a_count_allows_so_many_in_a_run(self, way):
        pipeline = dataset.p.fail([0, 2, 3])
        assert pipeline.run(3, on_error="skip", max_errors=3, **way).batches == 1
        with pytest.raises(ValueError, match="batch 3") as caught:
            pipeline.run(3, on_error="skip", max_errors=2, **way)
        assert "error 3, and max_errors=2" in caught.value.__notes__[-1]

    def test_a_share_allows_so_many_in_each_epoch(self):
        pipeline = dataset.p.fail([0])
        assert pipeline.run(3, n_epochs=5, on_error="skip", max_errors=0.25).batches == 15
        with pytest.raises(ValueError, match="batch 0") as caught:
            pipeline.run(3, on_error="skip", max_errors=0.2)
        assert "error 1 of the 4 batches of epoch 0" in caught.value.__notes__[-1]

    def test_items_count_too(self):
        with pytest.raises(ValueError, match="item 7"):
            dataset.p.check([1, 7]).run(3, on_error="skip_items", max_errors=1)


@pytest.mark.parametrize(
    "options",
    [
        {"on_error": "ignore"},
        {"on_error": None},
        {"backoff": -1},
        {"backoff": True},
        {"backoff": "1"},
        {"backoff": float("nan")},
        {"retry_on": ValueError("one")},
        {"retry_on": "OSError"},
        {"retry_on": [OSError]},
        {"max_errors": -1},
        {"max_errors": 1.5},
        {"max_errors": True},
        {"max_errors": "1%"},
    ],
    ids=str,
)
def test_options_that_cannot_be_right_are_refused_in_the_call(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        dataset.p.gen_batch(3, **options)


class TestTheReport:
    def test_writes_json_lines_of_all_that_failed(self, tmp_path):
        pipeline = dataset.p.check([7]).fail([0], OSError)
        report = pipeline.run(6, on_error="skip_items", retries=1, seed=5)
        report.write_errors(tmp_path / "errors.jsonl")
        head, *rows = map(json.loads, (tmp_path / "errors.jsonl").read_text().splitlines())
        assert head["seed"] == 5
        assert head["fingerprint"] == report.fingerprint
        assert head["versions"]["numpy"] == np.__version__
        found = [(row["what"], row["batch"], row["ids"], row["error"]) for row in rows]
        assert found == [
            ("skipped", 0, [0, 1, 2, 3, 4, 5], "OSError"),
            ("skipped item", 1, [7], "ValueError"),
            ("retried", 0, [0, 1, 2, 3, 4, 5], "OSError"),
            ("retried", 1, [6, 7, 8, 9, 10, 11], "ValueError"),
        ]

    def test_has_the_versions_of_what_the_run_was_made_with(self):
        versions = dataset.p.check([]).run(6).versions
        assert versions["python"] == platform.python_version()
        assert versions["flowcore"] == fc.__version__

    def test_the_fingerprint_is_that_of_the_recipe_and_leaves_the_sinks_out(self):
        class Drop(fc.Sink):
            def prepare(self, batch):
                return None

            def put(self, item, cancel):
                pass

        one, other = dataset.p.check([1]), dataset.p.check([2])
        prints = [
            pipeline.run(6, on_error="skip_items").fingerprint
            for pipeline in (one, one.put_into(Drop()), other)
        ]
        assert prints[0] == prints[1] != prints[2]


class TestShards:
    """A batch that is left out must not make one shard short of the others."""

    @every_way
    @pytest.mark.parametrize("policy", ["skip", "skip_items"])
    def test_the_batch_before_stands_in_and_is_marked(self, way, policy):
        pipeline = dataset.p.fail([2])
        run = pipeline.gen_batch(3, shard=(0, 2), on_error=policy, **way)
        found = [(batch.number, batch.index.tolist(), batch.filler) for batch in run]
        assert found == [(0, [0, 1, 2], False), (1, [3, 4, 5], True)]

    def test_what_stands_in_may_be_any_batch_that_can_be_made(self):
        bad = fc.Dataset(12, Flaky).p.check([3, 6])
        run = bad.gen_batch(3, shard=(0, 2), on_error="skip")
        found = [(batch.number, batch.index.tolist(), batch.filler) for batch in run]
        assert found == [(0, [0, 1, 2], False), (0, [0, 1, 2], True)]
        assert [trouble.number for trouble in run.report.skipped] == [2]
        assert run.report.fillers == 1

    @every_way
    def test_a_batch_that_a_filter_empties_has_a_stand_in_too(self, way):
        pipeline = dataset.p.fail([]).filter(lambda batch: batch.values < 5)
        shards = [list(pipeline.gen_batch(3, shard=(rank, 2), **way)) for rank in (0, 1)]
        assert [len(batches) for batches in shards] == [2, 2]
        found = [b.index.tolist() for batches in shards for b in batches if not b.filler]
        assert sorted(found) == [[0, 1, 2], [3, 4]]

    def test_with_uneven_short_nothing_stands_in(self):
        run = dataset.p.fail([2]).gen_batch(3, shard=(0, 2), on_error="skip", uneven="short")
        assert [batch.number for batch in run] == [0]

    def test_a_shard_that_can_make_no_batch_of_an_epoch_raises(self):
        with pytest.raises(ValueError, match="item") as caught:
            dataset.p.check(range(12)).run(3, shard=(0, 2), on_error="skip")
        assert "in spite of on_error='skip'" in caught.value.__notes__[-1]
        with pytest.raises(DataError, match="no item of epoch 0 is left"):
            dataset.p.fail([]).filter(lambda b: b.values < 0).run(3, shard=(0, 2))


def test_a_run_whose_every_batch_is_skipped_says_so(caplog):
    pipe = fc.Dataset(6, Flaky).p.fail(range(3))
    report = pipe.run(2, on_error="skip")
    assert report.batches == 0
    assert "all batches of the run were skipped; the first of 3" in caplog.text
    assert "batch 0" in caplog.text
