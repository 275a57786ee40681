"""With `path` and `resumable` a run goes on with the file of one that was left or killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import DataError, OptionError, StateError

WAYS = [
    {"prefetch": 0},
    {"prefetch": 1, "num_workers": 1},
    {"prefetch": 5, "num_workers": 3},
]
LENGTH = 23


def numbers(path, **options):
    pipeline = fc.Dataset(LENGTH, preloaded=np.arange(LENGTH)).p
    return pipeline.put_into_numpy_buffer(path=path, **{"resumable": True, **options})


PADDED = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def records(batch):
    made = np.empty(len(batch), PADDED)
    made["a"], made["b"] = batch.data, batch.rng.random(len(batch))
    return made


def repeated(batch):
    """Return as many rows for each item as it says, so none for some batches."""
    return np.repeat(batch.data, batch.data % 4 // 2)


TENSORS = {
    "array": (lambda batch: batch.data * 1.5, "x.npy"),
    "records": (records, "x.npy"),
    "dict": (lambda batch: {"b": batch.rng.random((len(batch), 2)), "a": batch.data}, "all"),
    "tuple": (lambda batch: (batch.data, batch.data.astype("U3")), "all"),
    "other numbers of rows": (repeated, "x.npy"),
}


def content(folder):
    """Return the bytes of the results in a folder, by name."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*.npy")}
    return {name: files[name].read_bytes() for name in files if not name.startswith(".")}


def left_after(pipeline, *, state_at, batches=None, **arguments):
    """Leave a run after some batches, and return the state that it had after some of them."""
    with pipeline.gen_batch(**{"batch_size": 4, "prefetch": 0, **arguments}) as run:
        states = [run.state_dict()]
        for _ in zip(range(state_at if batches is None else batches), run, strict=False):
            states.append(run.state_dict())
    return json.loads(json.dumps(states[min(state_at, len(states) - 1)]))


@pytest.mark.parametrize(("get_tensor", "name"), TENSORS.values(), ids=list(TENSORS))
@settings(deadline=None, max_examples=40)
@given(
    batch_size=st.integers(1, 9),
    n_epochs=st.integers(1, 3),
    shard=st.sampled_from([None, (0, 2), (1, 2)]),
    stops=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(WAYS)), max_size=5
    ),
)
def test_however_often_a_run_is_stopped_the_files_are_those_of_one_run(
    tmp_path_factory, get_tensor, name, batch_size, n_epochs, shard, stops
):
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    same = {"batch_size": batch_size, "n_epochs": n_epochs, "shuffle": True, "shard": shard}
    numbers(whole / name, get_tensor=get_tensor).run(**same, seed=5)
    pipeline, start = numbers(parts / name, get_tensor=get_tensor), {"seed": 5}
    for counted, more, way in stops:  # the state is `more` batches older than the file
        state = left_after(
            pipeline, state_at=counted, batches=counted + more, **same, **start, **way
        )
        start = {"resume": state}
    pipeline.run(**same, **start)
    assert content(parts) == content(whole)


@pytest.mark.parametrize("name", ["x.npy", "all"])
def test_a_run_that_failed_is_gone_on_with_like_one_that_was_left(tmp_path, name):
    fails = True

    def get_tensor(batch):
        if fails and batch.number == 3:
            raise ZeroDivisionError
        return batch.data if name == "x.npy" else (batch.data, batch.data)

    run = numbers(tmp_path / name, get_tensor=get_tensor).gen_batch(4)
    with pytest.raises(ZeroDivisionError):
        list(run)
    assert content(tmp_path) == {}
    fails = False
    numbers(tmp_path / name, get_tensor=get_tensor).run(4, resume=run.state_dict())
    for written in content(tmp_path):
        np.testing.assert_array_equal(np.load(tmp_path / written), np.arange(LENGTH))


def test_a_run_that_is_left_leaves_the_file_of_an_earlier_one_alone(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    left_after(numbers(tmp_path / "x.npy"), state_at=2)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.ones(3))


def test_the_result_of_a_resumed_run_has_what_was_put_before_from_the_start(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    state = left_after(pipeline, state_at=2, batches=3)
    with pipeline.gen_batch(4, resume=state) as run:
        run.start()
        np.testing.assert_array_equal(run.report.results["numpy-buffer"], np.arange(8))
        next(run)
        np.testing.assert_array_equal(run.report.results["numpy-buffer"], np.arange(12))


def test_an_array_taken_from_a_run_that_was_left_stays_readable(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    with pipeline.gen_batch(4, prefetch=0) as run:
        next(run)
        state = run.state_dict()
        list(zip(range(3), run, strict=False))
        taken = run.report.results["numpy-buffer"]
    with pipeline.gen_batch(4, resume=state) as run:
        run.start()
        np.testing.assert_array_equal(taken, np.arange(16))


def test_a_run_goes_on_after_its_end_with_more_epochs(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    run = pipeline.gen_batch(4)
    list(run)
    pipeline.run(4, n_epochs=2, resume=run.state_dict())
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.tile(np.arange(LENGTH), 2))


def test_a_run_goes_on_with_a_file_that_has_more_than_it_will_put(tmp_path):
    numbers(tmp_path / "whole.npy").run(4)
    pipeline = numbers(tmp_path / "x.npy")
    state = left_after(pipeline, state_at=2, batches=9, n_epochs=2)
    pipeline.run(4, resume=state)
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_the_complete_file_stays_until_the_resumed_run_has_another(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    run = pipeline.gen_batch(4)
    list(run)
    left_after(pipeline, state_at=1, n_epochs=2, resume=run.state_dict())
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


class Closed(fc.Sink):
    """Says when the sinks before it have been closed."""

    def __init__(self):
        self.event = threading.Event()

    def prepare(self, batch):
        return None

    def put(self, item, cancel):
        pass

    def close(self, error):
        self.event.set()


def test_a_run_that_is_over_for_the_sink_before_its_last_batches_are_handed_over_goes_on(tmp_path):
    closed = Closed()
    pipeline = numbers(tmp_path / "x.npy").put_into(closed)
    with pipeline.gen_batch(4, prefetch=9) as run:
        next(run)
        assert closed.event.wait(10)
        state = run.state_dict()
    assert state["items"] == 4
    assert list(content(tmp_path)) == ["x.npy"]
    pipeline.run(4, resume=state)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


def test_at_the_very_start_there_is_nothing_to_go_on_from_and_the_run_just_starts(tmp_path):
    for options in ({}, {"resumable": False}):
        pipeline = numbers(tmp_path / "x.npy", **options)
        pipeline.run(4, resume=pipeline.gen_batch(4).state_dict())
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


def test_a_place_in_batches_of_another_size_is_one_in_items(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    left_after(pipeline, state_at=4)
    pipeline.run(5, resume={"epoch": 0, "batch": 2})  # 10 items are two batches of 4 and a half
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


def test_a_place_inside_of_a_batch_with_other_numbers_of_rows_is_refused(tmp_path):
    pipeline = numbers(tmp_path / "x.npy", get_tensor=repeated)
    left_after(pipeline, state_at=4)
    with pytest.raises(StateError, match="after 10 items, which is inside of a batch of 4 items"):
        pipeline.run(5, resume={"epoch": 0, "batch": 2})


def test_a_place_after_more_items_than_there_are_is_an_error_with_both_numbers(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    left_after(pipeline, state_at=2)
    text = refused(StateError, pipeline, {"epoch": 0, "batch": 4})
    assert "has 8 items" in text
    assert "counts 16" in text


@pytest.mark.parametrize("state_at", range(1, 6))
def test_steps_behind_the_sink_that_drop_items_change_nothing(tmp_path, state_at):
    pipeline = numbers(tmp_path / "x.npy").filter(lambda batch: batch.data % 3 > 0)
    state = left_after(pipeline, state_at=state_at)
    pipeline.run(4, resume=state)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


def test_a_run_without_resume_starts_over_and_says_so(tmp_path, caplog):
    pipeline = numbers(tmp_path / "x.npy")
    left_after(pipeline, state_at=4)
    pipeline.run(9)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))
    (record,) = caplog.records
    assert "starts over, and does not go on with" in record.getMessage()
    assert str(tmp_path / ".x.npy.resume") in record.getMessage()


def test_a_run_that_starts_over_after_a_complete_one_says_nothing(tmp_path, caplog):
    for _ in range(2):
        numbers(tmp_path / "x.npy").run(9)
    assert caplog.records == []


# What cannot be gone on with


def refused(error, pipeline, state, **arguments):
    with pytest.raises(error) as caught:
        pipeline.run(**{"batch_size": 4, "resume": state, **arguments})
    return str(caught.value)


def test_fewer_batches_than_the_state_counts_are_an_error_with_both_numbers(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    state = left_after(pipeline, state_at=4)
    left_after(pipeline, state_at=2)  # starts over
    text = refused(StateError, pipeline, state)
    assert "the unfinished file has 2 batches" in text
    assert "counts 4" in text
    assert "next:" in text


def test_nothing_to_go_on_from_is_an_error_that_says_what_was_looked_for(tmp_path):
    state = left_after(numbers(tmp_path / "x.npy"), state_at=2)
    text = refused(OptionError, numbers(tmp_path / "y.npy"), state)
    assert f"looked for {tmp_path / '.y.npy.resume'}" in text


def test_a_sink_that_is_not_resumable_has_kept_nothing_and_says_so(tmp_path):
    pipeline = numbers(tmp_path / "x.npy", resumable=False)
    text = refused(OptionError, pipeline, left_after(pipeline, state_at=2))
    assert "resumable=True" in text
    assert list(tmp_path.iterdir()) == []


def test_a_complete_file_that_another_run_has_replaced_is_not_gone_on_with(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    run = pipeline.gen_batch(4)
    list(run)
    np.save(tmp_path / "x.npy", np.zeros(LENGTH, int))
    text = refused(OptionError, pipeline, run.state_dict(), n_epochs=2)
    assert "x.npy is not what the run has written that was there" in text


@pytest.mark.parametrize(
    ("get_tensor", "both"),
    [
        (lambda batch: batch.data[:, None], ["(1,)", "()"]),
        (lambda batch: batch.data * 1.5, ["float64", "int64"]),
        (lambda batch: {"x": batch.data}, ["'x'", "one array"]),
    ],
)
def test_items_that_do_not_fit_the_file_are_an_error_with_both_and_leave_it(
    tmp_path, get_tensor, both
):
    pipeline = numbers(tmp_path / "x.npy")
    state = left_after(pipeline, state_at=2)
    other = numbers(tmp_path / "x.npy", get_tensor=get_tensor)
    text = refused(DataError, other, {"epoch": 0, "batch": 2})
    assert all(part in text for part in [*both, "the unfinished x.npy"])
    pipeline.run(4, resume=state)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


def test_a_file_that_something_else_has_cut_is_refused(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    state = left_after(pipeline, state_at=4)
    (file,) = tmp_path.rglob("array.npy")
    os.truncate(file, file.stat().st_size - 9)
    text = refused(StateError, pipeline, state)
    assert "has 14 rows, and is to have 16" in text


@pytest.mark.parametrize("name", ["array.npy", "index.json"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name):
    pipeline = numbers(tmp_path / "x.npy")
    state = left_after(pipeline, state_at=4)
    (file,) = tmp_path.rglob(name)
    file.write_bytes(b"nonsense")
    assert "cannot go on from" in refused(OptionError, pipeline, state)


@pytest.mark.parametrize("resumable", [1, "yes", None])
def test_resumable_is_true_or_false(tmp_path, resumable):
    with pytest.raises(OptionError, match="resumable must be True or False"):
        numbers(tmp_path / "x.npy", resumable=resumable)


@pytest.mark.parametrize("options", [{}, {"capacity": 3}])
def test_resumable_without_a_path_is_refused(options):
    with pytest.raises(OptionError, match="there is no path"):
        numbers(None, **options)


# Without a path


def test_in_memory_a_resumed_run_gives_the_items_from_there_on():
    pipeline = numbers(None, resumable=False)
    state = left_after(pipeline, state_at=2)
    result = pipeline.run(4, resume=state).results["numpy-buffer"]
    np.testing.assert_array_equal(result, np.arange(8, LENGTH))


def test_a_buffer_of_a_resumed_run_gives_the_batches_from_there_on():
    pipeline = numbers(None, resumable=False, capacity=9)
    state = left_after(pipeline, state_at=2)
    with pipeline.feed(4, resume=state) as feed:
        found = [batch.tolist() for batch in feed.results["numpy-buffer"]]
    assert found == [[*range(at, min(at + 4, LENGTH))] for at in range(8, LENGTH, 4)]


# Two at once


def test_of_two_runs_at_once_the_second_is_refused_and_the_first_is_whole(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    first = pipeline.gen_batch(4)
    next(first)
    with pytest.raises(OptionError, match="another run writes here"):
        pipeline.run(4)
    list(first)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


def test_a_run_that_nobody_holds_any_more_is_waited_for(tmp_path):
    pipeline = numbers(tmp_path / "x.npy")
    run = pipeline.gen_batch(4, prefetch=2)
    next(run)
    state = run.state_dict()
    del run  # its threads end by and by
    pipeline.run(4, resume=state)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


PROGRAM = """
import json, os, signal, sys
import numpy as np
import flowcore as fc

pipeline = fc.Dataset(23, preloaded=np.arange(23)).p.put_into_numpy_buffer(
    path=sys.argv[1], resumable=True
)
run = pipeline.gen_batch(2, prefetch=int(sys.argv[2]))
"""
WAITS = """
next(run)
print("has it", flush=True)
sys.stdin.read()
"""
DIES = """
for _ in zip(range(5), run):
    print(json.dumps(run.state_dict()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
FORKS = """
next(run)
print(json.dumps(run.state_dict()), flush=True)
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
os._exit(0)
"""
FILLS = """
import resource

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 100, 128 + 100))  # bytes in a file, then OSError
try:
    for _ in run:
        print(json.dumps(run.state_dict()), flush=True)
except OSError:
    pass
"""


@contextmanager
def program(rest, path, prefetch=0):
    command = [sys.executable, "-c", PROGRAM + rest, str(path), str(prefetch)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.stdin.close()  # what waits for it goes on


def test_a_run_of_another_process_is_left_alone(tmp_path):
    with program(WAITS, tmp_path / "x.npy") as process:
        assert process.stdout.readline() == "has it\n"
        with pytest.raises(OptionError, match="another run writes here"):
            numbers(tmp_path / "x.npy").run(4)


@pytest.mark.skipif(os.name == "nt", reason="has no SIGKILL")
@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_what_was_put_before_the_state_is_there_after_a_kill(tmp_path, prefetch, at):
    with program(DIES, tmp_path / "x.npy", prefetch) as process:
        states = process.stdout.read().splitlines()
    assert process.returncode == -signal.SIGKILL
    assert content(tmp_path) == {}
    numbers(tmp_path / "x.npy").run(2, resume=json.loads(states[at]))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


@pytest.mark.skipif(os.name == "nt", reason="has no fork")
def test_a_worker_that_outlives_a_killed_run_does_not_keep_its_file(tmp_path):
    with program(FORKS, tmp_path / "x.npy") as process:
        state = json.loads(process.stdout.readline())
        assert process.wait(10) == -signal.SIGKILL
        numbers(tmp_path / "x.npy").run(2, resume=state)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))


@pytest.mark.skipif(os.name == "nt", reason="has no limit for the size of a file")
def test_a_full_disk_loses_nothing_of_what_was_put_before(tmp_path):
    with program(FILLS, tmp_path / "x.npy") as process:
        states = process.stdout.read().splitlines()
    assert 0 < len(states) < 11
    numbers(tmp_path / "x.npy").run(2, resume=json.loads(states[-1]))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.arange(LENGTH))
