"""Pools of other libraries, as they are: what speaks `concurrent.futures` is an executor."""

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import WorkerLost
from flowcore.testing.batches import Broken, seen
from flowcore.testing.meeting import MeetingBatch

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
loky = pytest.importorskip("loky")

# Its class is one that the workers can import, as these pools send what a module has by its name.
pipeline = fc.Dataset(24, MeetingBatch, np.arange(48.0).reshape(24, 2)).p.jitter()
EXPECTED = seen(pipeline.gen_batch(4, seed=1))


def run_on(pool, recipe=pipeline, **options):
    return recipe.gen_batch(4, seed=1, executor=pool, num_workers=2, prefetch=3, **options)


@pytest.fixture(scope="module")
def dask_pool():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


@pytest.fixture(scope="module")
def loky_once():
    yield
    loky.get_reusable_executor(max_workers=2).shutdown(kill_workers=True)


@pytest.fixture
def loky_pool(loky_once):
    return loky.get_reusable_executor(max_workers=2)  # a new one where the last was broken


@pytest.fixture(params=["dask", "loky"])
def pool(request):
    return request.getfixturevalue(f"{request.param}_pool")


def test_it_gives_the_bytes_that_serial_gives(pool):
    assert seen(run_on(pool)) == EXPECTED


def test_unordered_it_gives_the_same_batches(pool):
    assert sorted(seen(run_on(pool, ordered=False))) == EXPECTED


def test_an_exception_arrives_in_its_batchs_place(pool):
    numbers = []
    with pytest.raises(Broken, match="in an action"):
        numbers.extend(
            batch.number for batch in run_on(pool, pipeline.fail(2, Broken, "in an action"))
        )
    assert numbers == [0, 1]


def test_a_batch_that_fails_is_skipped_and_the_pool_goes_on(pool):
    run = run_on(pool, pipeline.fail(2, Broken), on_error="skip")
    assert [batch.number for batch in run] == [0, 1, 3, 4, 5]
    assert [type(skipped.error) for skipped in run.report.skipped] == [Broken]
    assert seen(run_on(pool)) == EXPECTED


def test_a_run_that_is_left_leaves_the_pool_open(pool):
    with run_on(pool, n_epochs=None) as run:
        next(run)
    assert seen(run_on(pool)) == EXPECTED


def test_dask_has_another_worker_where_one_was_killed(dask_pool, tmp_path):
    run = run_on(dask_pool, pipeline.die(2, tmp_path / "died"))
    assert seen(run) == EXPECTED
    assert (tmp_path / "died").exists()


def test_dask_gives_a_batch_up_that_kills_its_worker_each_time(dask_pool):
    run = run_on(dask_pool, pipeline.die(2), on_error="skip")
    assert [batch.number for batch in run] == [0, 1, 3, 4, 5]
    assert [type(skipped.error) for skipped in run.report.skipped] == [WorkerLost]


def test_loky_is_broken_for_good_where_a_worker_was_killed_and_the_error_says_so(
    loky_pool, tmp_path
):
    run = run_on(loky_pool, pipeline.die(2, tmp_path / "died"))
    with pytest.raises(WorkerLost, match=r"takes no more tasks(.|\n)*make a new one"):
        seen(run)


def test_a_run_goes_on_in_another_pool_of_loky_where_one_broke(loky_pool, tmp_path):
    run = run_on(loky_pool, pipeline.die(2, tmp_path / "died"))
    before = []
    with pytest.raises(WorkerLost):
        before.extend(seen([batch])[0] for batch in run)
    again = loky.get_reusable_executor(max_workers=2)
    rest = pipeline.die(2, tmp_path / "died").gen_batch(4, executor=again, resume=run.state_dict())
    assert before + seen(rest) == EXPECTED
