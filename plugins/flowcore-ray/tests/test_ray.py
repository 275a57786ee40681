"""What is Ray's own: the object store, the actors. The promises are in the contract."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from ray import cloudpickle

import flowcore as fc
from flowcore.errors import OptionError, PipelineError, WorkerLost
from flowcore.testing import leaves_nothing
from flowcore_ray import RayExecutor

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test files


class Work(fc.Batch):
    @fc.action
    def make(self, width=50_000):
        self.data = self.rng.random((len(self), width))
        return self

    @fc.action
    def store(self, function):
        self.data = function()
        return self

    @fc.action
    def zero(self):
        self.data[...] = 0
        return self

    @fc.action
    def touch(self, _):
        return self

    @fc.action(singleton=True)
    def alone(self):
        return self

    @fc.action
    def wait_for(self, path):
        while not path.exists():
            time.sleep(0.01)
        return self


def pipeline(items=8):
    return fc.Dataset(items, Work).p


def mapped_file(array):
    """Return the file whose memory, mapped in this process, an array is in."""
    address = array.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(text, 16) for text in line.split()[0].split("-"))
        if start <= address < end:
            return line.split(maxsplit=5)[-1]
    return None


# Arrays


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_batch_is_not_copied_out_of_the_object_store(warm):
    for batch in pipeline().make().gen_batch(4, executor=warm):
        assert "plasma" in mapped_file(batch.data)
        assert batch.data.ctypes.data % 64 == 0


def test_a_batch_is_read_only_and_numpy_says_so(warm):
    for width in (1, 50_000):  # one that Ray sends in its message, and one in the store
        for batch in pipeline().make(width).gen_batch(4, executor=warm):
            with pytest.raises(ValueError, match="read-only"):
                batch.data[0] = 0


def test_a_batch_lives_as_long_as_its_consumer_wants(warm):
    batches = list(pipeline(40).make().gen_batch(4, executor=warm, seed=1))
    expected = list(pipeline(40).make().gen_batch(4, seed=1))
    assert all((a.data == b.data).all() for a, b in zip(batches, expected, strict=True))


def test_an_action_after_a_rebatch_may_write_to_its_batch(warm):
    made = pipeline().make(10).rebatch(3).zero()
    assert [batch.data.sum() for batch in made.gen_batch(4, executor=warm)] == [0, 0, 0]


def test_an_action_may_write_to_its_part_of_the_data_in_memory(warm):
    data = np.ones((8, 20_000))
    zeros = fc.Dataset(8, Work, data).p.zero()
    assert [batch.data.sum() for batch in zeros.gen_batch(4, executor=warm)] == [0, 0]
    assert data.all()


def test_nothing_comes_back_that_nobody_takes(warm):
    report = pipeline().store(threading.Lock).run(4, executor=warm)  # a lock could not
    assert report.batches == 2


# The recipe


class Counted:
    def __init__(self, folder):
        self.folder = folder

    def __getstate__(self):
        (self.folder / f"pickled-{time.monotonic_ns()}").touch()
        return vars(self)

    def __setstate__(self, state):
        vars(self).update(state)
        (self.folder / f"read-{time.monotonic_ns()}").touch()


def test_the_recipe_is_pickled_once_and_read_once_by_each_worker(warm, tmp_path):
    list(pipeline(80).touch(Counted(tmp_path)).gen_batch(4, executor=warm))
    assert len(list(tmp_path.glob("pickled-*"))) == 1
    assert 1 <= len(list(tmp_path.glob("read-*"))) <= 2


def test_a_recipe_that_cannot_be_sent_names_the_step_and_what_is_in_it(warm):
    run = pipeline().make().touch({"db": threading.Lock()}).gen_batch(4, executor=warm)
    with pytest.raises(PipelineError, match=r"step 1 \(touch\), argument 0\['db'\], which is <unl"):
        next(run)


def test_a_recipe_that_a_worker_cannot_read_ends_the_run_and_says_why(warm):
    run = pipeline().touch(Unreadable()).gen_batch(4, executor=warm, on_error="skip")
    with pytest.raises(PipelineError, match="no_such_module"):
        next(run)


class Unreadable:
    def __reduce__(self):
        return __import__, ("no_such_module",)


def test_a_singleton_action_is_refused_where_there_are_two_workers(warm):
    with pytest.raises(PipelineError, match="'alone' is a singleton"):
        next(pipeline().alone().gen_batch(4, executor=warm))


# Workers


class Noted(fc.Batch):
    folder = None

    @classmethod
    def worker_started(cls, name):
        (cls.folder / f"{name}-{os.getpid()}-started").touch()

    @classmethod
    def worker_ended(cls, name):
        (cls.folder / f"{name}-{os.getpid()}-ended").touch()


def test_workers_are_set_up_and_torn_down_with_each_run_and_stay(warm, tmp_path):
    here = type("Here", (Noted,), {"folder": tmp_path})
    for _ in range(2):
        list(fc.Dataset(8, here).p.gen_batch(1, executor=warm))
    started = [path.name.removesuffix("-started") for path in tmp_path.glob("*-started")]
    ended = [path.name.removesuffix("-ended") for path in tmp_path.glob("*-ended")]
    assert sorted(started) == sorted(ended)
    assert {name[:16] for name in started} == {"flowcore-worker-"}
    assert len({name.split("-")[-1] for name in started}) == 2  # the same processes in both


def test_a_worker_that_was_killed_between_two_runs_is_replaced(warm):
    pids = {batch.data for batch in pipeline().store(os.getpid).gen_batch(1, executor=warm)}
    os.kill(pids.pop(), signal.SIGKILL)
    assert len(list(pipeline().make().gen_batch(1, executor=warm))) == 8


def test_workers_have_what_was_asked_for(connected):
    def assigned():
        return ray.get_runtime_context().get_assigned_resources()

    run = (
        pipeline()
        .store(assigned)
        .gen_batch(4, executor="ray", num_workers=1, num_cpus=0.5, memory=10_000_000, prefetch=1)
    )
    assert next(run).data == {"CPU": 0.5, "memory": 10_000_000}
    run.close()


def test_a_lost_worker_is_an_error_with_what_ray_says_of_it(warm):
    run = pipeline().store(lambda: os._exit(3)).gen_batch(8, executor=warm)
    with pytest.raises(WorkerLost, match=r"flowcore-worker-\d was lost .*\n.*Ray says: ActorDied"):
        next(run)


def test_the_stall_warning_shows_where_in_its_action_a_worker_is(warm, tmp_path, caplog):
    go = tmp_path / "go"

    def let_it_go(record):
        if "in wait_for" in record.getMessage():
            go.touch()
        return True

    caplog.handler.addFilter(let_it_go)
    list(pipeline().wait_for(go).gen_batch(8, executor=warm, stall_warning=0.2))
    assert "in wait_for" in caplog.text
    assert "default_worker.py" not in caplog.text  # Ray's own part of the stack


# Options


class Nowhere(fc.Sink):
    def prepare(self, batch):
        return None

    def put(self, item, cancel):
        pass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_workers": 0}, "num_workers"),
        ({"num_workers": True}, "num_workers"),
        ({"num_workers": 1.5}, "num_workers"),
        ({"num_cpus": -1}, "num_cpus"),
        ({"num_cpus": True}, "num_cpus"),
        ({"num_cpus": float("nan")}, "num_cpus"),
        ({"num_cpus": 1.5}, "num_cpus"),
        ({"num_gpus": "all"}, "num_gpus"),
        ({"memory": 0}, "memory"),
        ({"memory": 1e9}, "memory"),
        ({"memory": True}, "memory"),
        ({"resources": ["disk"]}, "resources"),
        ({"resources": {"disk": -1}}, r"resources\['disk'\]"),
        ({"resources": {"GPU": 1}}, "num_gpus="),
        ({"runtime_env": "pillow"}, "runtime_env"),
        ({"address": ""}, "address"),
        ({"address": 6379}, "address"),
    ],
)
def test_an_option_that_cannot_be_right_is_refused_at_once(options, said):
    with pytest.raises(OptionError, match=said):
        RayExecutor(**{"num_workers": 1, **options})


def test_an_address_other_than_that_of_the_connection_is_refused(connected):
    with pytest.raises(OptionError, match="connected to Ray at"):
        next(pipeline().gen_batch(4, executor=RayExecutor(1, address="192.0.2.1:6379")))


def test_a_cluster_without_room_is_a_warning_that_says_what_its_nodes_have(connected, caplog):
    feed = pipeline().feed(4, executor=RayExecutor(1, num_gpus=64), sink=Nowhere())
    with leaves_nothing(), feed:
        pass
    assert "no node has what each worker needs: {'CPU': 1, 'GPU': 64}" in caplog.text


def test_a_connection_of_the_user_stays(warm, connected):
    assert ray.is_initialized()
