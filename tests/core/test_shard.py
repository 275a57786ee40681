"""Shards: what `shard=` takes, and what it finds in the environment of each launcher."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import OptionError
from flowcore.shard import Shard, as_shard

PAIRS = [
    ("RANK", "WORLD_SIZE"),
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
]
OTHERS = ["TF_CONFIG", "PMIX_RANK", "SLURM_JOB_ID", "SLURM_STEP_ID"]


@pytest.fixture(autouse=True)
def launch(monkeypatch):
    """Return a function that sets variables, where no launcher's is set otherwise."""
    for name in [*OTHERS, *(name for pair in PAIRS for name in pair)]:
        monkeypatch.delenv(name, raising=False)

    def launch(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(value))

    return launch


def tf_config(kind, index, **cluster):
    return {
        "cluster": {name: ["host:1"] * count for name, count in cluster.items()},
        "task": {"type": kind, "index": index},
    }


@given(
    st.integers(1, 100).flatmap(lambda world: st.tuples(st.integers(0, world - 1), st.just(world)))
)
def test_a_pair_is_rank_and_world(pair):
    assert as_shard(pair) == as_shard(list(pair)) == Shard(*pair)


def test_none_is_the_whole():
    assert as_shard(None) == Shard(0, 1)


def test_a_shard_is_itself():
    shard = Shard(1, 3)
    assert as_shard(shard) is shard


def test_numpy_ints_become_ints():
    shard = as_shard((np.int64(1), np.uint8(3)))
    assert shard == Shard(1, 3)
    assert type(shard.rank) is type(shard.world) is int


@pytest.mark.parametrize(
    "bad",
    [1, True, "0/4", "AUTO", b"auto", (), (0,), (0, 1, 2), {0, 4}, {"rank": 0}, 0.5, np.arange(2)],
)
def test_what_is_no_shard_is_refused_with_what_to_pass(bad):
    with pytest.raises(OptionError, match=r"is no shard\n.*\(rank, world\), 'auto'"):
        as_shard(bad)


@pytest.mark.parametrize("bad", [True, 1.0, "1", None, np.bool_(False), float("nan")])
def test_a_rank_or_world_that_is_no_int_is_refused(bad):
    with pytest.raises(OptionError, match="the rank of a shard must be an int"):
        as_shard((bad, 2))
    with pytest.raises(OptionError, match="the world of a shard must be an int"):
        as_shard((0, bad))


@pytest.mark.parametrize("rank", [-1, 4, 5])
def test_a_rank_outside_of_the_world_is_refused(rank):
    with pytest.raises(OptionError, match=rf"rank must be in 0..3, got {rank}"):
        Shard(rank, 4)


@pytest.mark.parametrize("world", [0, -1])
def test_a_world_of_nobody_is_refused(world):
    with pytest.raises(OptionError, match=rf"world of a shard must be at least 1, got {world}"):
        Shard(0, world)


def test_auto_without_a_launcher_is_the_whole():
    assert as_shard("auto") == Shard(0, 1)


@pytest.mark.parametrize(("rank", "world"), PAIRS)
def test_auto_reads_the_pair_of_a_launcher(launch, rank, world):
    launch(**{rank: "2", world: "5"})
    assert as_shard("auto") == Shard(2, 5)


@pytest.mark.parametrize("inner", range(len(PAIRS) - 1))
def test_auto_believes_the_inner_launcher(launch, inner):
    for at, (rank, world) in enumerate(PAIRS[inner:], start=inner):
        launch(**{rank: str(at), world: "9"})
    assert as_shard("auto") == Shard(inner, 9)


@pytest.mark.parametrize(("rank", "world"), PAIRS)
def test_auto_refuses_half_a_pair_and_names_both_variables(launch, rank, world):
    launch(**{world: "4"})
    with pytest.raises(OptionError, match=rf"{world}='4'[\s\S]*{rank} is not set"):
        as_shard("auto")


@pytest.mark.parametrize(("rank", "world"), PAIRS)
@pytest.mark.parametrize(
    "values", [("x", "4"), ("0", ""), ("0", "2.0"), ("4", "4"), ("0", "0"), ("-1", "2")]
)
def test_auto_refuses_values_that_are_no_shard_and_shows_them(launch, rank, world, values):
    launch(**dict(zip((rank, world), values, strict=True)))
    with pytest.raises(OptionError, match=rf"{rank}='{values[0]}', {world}='{values[1]}'"):
        as_shard("auto")


def test_open_mpi_is_read_by_its_pmix_rank_where_it_sets_no_other(launch):
    launch(PMIX_RANK="1", OMPI_COMM_WORLD_SIZE="2")
    assert as_shard("auto") == Shard(1, 2)


def test_a_pmix_rank_alone_leaves_it_to_slurm(launch):
    launch(PMIX_RANK="1", SLURM_PROCID="1", SLURM_NTASKS="2", SLURM_JOB_ID="7", SLURM_STEP_ID="0")
    assert as_shard("auto") == Shard(1, 2)


@pytest.mark.parametrize("first", ["chief", "master"])
def test_the_chief_is_rank_0_and_the_workers_follow(launch, first):
    for rank, task in enumerate([(first, 0), ("worker", 0), ("worker", 1)]):
        launch(TF_CONFIG=tf_config(*task, **{first: 1, "worker": 2, "ps": 3}))
        assert as_shard("auto") == Shard(rank, 3)


def test_workers_without_a_chief_count_from_0(launch):
    launch(TF_CONFIG=tf_config("worker", 1, worker=3))
    assert as_shard("auto") == Shard(1, 3)


@pytest.mark.parametrize("kind", ["ps", "evaluator"])
def test_a_process_that_does_not_train_has_no_shard(launch, kind):
    launch(TF_CONFIG=tf_config(kind, 0, worker=3, ps=1, evaluator=1))
    with pytest.raises(OptionError, match=f"type '{kind}' is no chief, master or worker"):
        as_shard("auto")


@pytest.mark.parametrize("config", [{}, {"environment": "cloud"}, {"cluster": {}}])
def test_a_tensorflow_configuration_without_a_cluster_is_the_whole(launch, config):
    launch(TF_CONFIG=config)
    assert as_shard("auto") == Shard(0, 1)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        [],
        7,
        {"cluster": ["host:1"]},
        {"cluster": {"worker": 2}},
        {"cluster": {"worker": ["host:1"]}},
        {"cluster": {"worker": ["host:1"]}, "task": {"type": "worker"}},
        tf_config("worker", True, worker=2),
        tf_config("worker", "1", worker=2),
        tf_config("worker", 2, worker=2),
        tf_config("worker", -1, worker=2),
        tf_config(["worker"], 0, worker=2),
        tf_config("chief", 0, worker=2),
    ],
)
def test_a_tensorflow_configuration_that_says_no_rank_is_refused(launch, config):
    launch(TF_CONFIG=config)
    with pytest.raises(OptionError, match=r"where: TF_CONFIG="):
        as_shard("auto")


def test_a_task_of_a_slurm_job_is_a_shard(launch):
    launch(SLURM_JOB_ID="7", SLURM_STEP_ID="0", SLURM_PROCID="3", SLURM_NTASKS="8")
    assert as_shard("auto") == Shard(3, 8)


def test_the_script_of_a_slurm_job_with_several_tasks_is_none_of_them(launch):
    launch(SLURM_JOB_ID="7", SLURM_PROCID="0", SLURM_NTASKS="8")
    with pytest.raises(OptionError, match=r"SLURM_NTASKS='8'[\s\S]*start the program with srun"):
        as_shard("auto")


@pytest.mark.parametrize("variables", [{}, {"SLURM_NTASKS": "1"}])
def test_the_script_of_a_slurm_job_with_one_task_is_the_whole(launch, variables):
    launch(SLURM_JOB_ID="7", SLURM_PROCID="0", **variables)
    assert as_shard("auto") == Shard(0, 1)
