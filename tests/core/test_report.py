"""The report of a run: what it counts, and how it reads."""

import numpy as np
import pytest

from flowcore import Batch, Dataset, Sink, action


class Failing(Batch):
    tries = 0

    @action
    def fail(self, *numbers):
        if self.number in numbers:
            raise ValueError(f"broken {self.number}\nin two lines")
        return self

    @action
    def fail_first(self, tried):
        if self.number not in tried:
            tried.append(self.number)
            raise OSError("not yet")
        return self


class Keep(Sink):
    """Keeps the ids that it is given."""

    def open(self, run):
        self.ids = []

    def prepare(self, batch):
        return batch.index.tolist()

    def put(self, item, cancel):
        self.ids += item

    @property
    def result(self):
        return np.array(self.ids)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_report_counts_batches_items_and_epochs(prefetch):
    report = Dataset(10).p.run(4, n_epochs=3, prefetch=prefetch)
    assert (report.batches, report.items, report.epochs) == (9, 30, 3)


def test_a_report_is_kept_up_to_date_while_the_run_goes_on():
    run = Dataset(10).p.gen_batch(5, n_epochs=2)
    counted = [(run.report.batches, run.report.items, run.report.epochs) for _ in run]
    assert counted == [(1, 5, 0), (2, 10, 1), (3, 15, 1), (4, 20, 2)]


def test_seconds_count_from_the_start_and_stop_at_the_end():
    run = Dataset(2).p.gen_batch(1)
    assert run.report.seconds == 0
    next(run)
    under_way = run.report.seconds
    assert 0 < under_way < run.report.seconds
    assert len(list(run)) == 1
    at_the_end = run.report.seconds
    assert run.report.seconds == at_the_end > under_way


def test_a_skipped_batch_is_listed_with_its_place_ids_action_and_error():
    report = Dataset(list("abcdef"), Failing).p.fail(1).run(2, on_error="skip", n_epochs=2)
    first, second = report.skipped
    assert (first.epoch, first.number, first.ids.tolist(), first.action) == (
        0,
        1,
        ["c", "d"],
        "fail",
    )
    assert isinstance(first.error, ValueError)
    assert (second.epoch, second.number) == (1, 1)
    assert (report.batches, report.items, report.epochs) == (4, 8, 2)


def test_a_retried_attempt_is_listed():
    report = Dataset(3, Failing).p.fail_first([]).run(1, retries=1)
    assert [(trouble.number, str(trouble.error)) for trouble in report.retried] == [
        (0, "not yet"),
        (1, "not yet"),
        (2, "not yet"),
    ]
    assert report.batches == 3


def test_the_seed_is_there_to_repeat_the_run():
    report = Dataset(3).p.run(1, seed=11)
    assert report.seed == 11


def test_results_are_named_after_the_sinks_and_a_second_one_is_numbered():
    pipe = Dataset(2).p.put_into(Keep()).put_into(Keep())
    results = pipe.run(1, sink=Keep()).results
    assert {name: result.tolist() for name, result in results.items()} == {
        "Keep": [0, 1],
        "Keep-2": [0, 1],
        "Keep-3": [0, 1],
    }


def test_results_are_there_from_the_start_of_the_run():
    run = Dataset(2).p.put_into(Keep()).gen_batch(1)
    assert run.report.results == {}
    next(run)
    assert run.report.results["Keep"].tolist() == [0]


def test_a_report_reads_as_a_table():
    pipe = Dataset(6, Failing).p.fail(1).put_into(Keep())
    text = str(pipe.run(2, on_error="skip", seed=3))
    lines = text.splitlines()
    table = {line.split()[0]: line.split()[1] for line in lines[:7]}
    assert table.pop("seconds")
    assert table == {
        "batches": "2",
        "items": "4",
        "epochs": "1",
        "seed": "3",
        "skipped": "1",
        "retried": "0",
    }
    assert lines[7:] == [
        "  skipped batch 1 of epoch 0, ids [2, 3], in 'fail': ValueError: broken 1",
        "  Keep: array int64 (4,)",
    ]


def test_the_report_of_a_run_that_did_not_start_reads_too():
    assert "batches" in str(Dataset(2).p.gen_batch(1).report)


def test_the_report_of_a_failed_run_counts_what_was_delivered():
    run = Dataset(6, Failing).p.fail(2).gen_batch(2)
    with pytest.raises(ValueError, match="broken 2"):
        list(run)
    assert (run.report.batches, run.report.items, run.report.epochs) == (2, 4, 0)
