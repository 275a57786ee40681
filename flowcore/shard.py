"""Which part of a run's global order a process takes: rank r of w, given or from its launcher.

What the ranks take together is the whole; how an order is dealt out is for the run to say.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flowcore.errors import OptionError, explain

__all__ = ["Shard", "as_shard"]

_EXPLICIT = "pass shard=(rank, world), or shard=None for the whole"


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of the global order that one process takes: ``rank`` of ``world``, from zero.

    Raises:
        OptionError: no ints, or not ``0 <= rank < world``.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        for name in ("world", "rank"):
            object.__setattr__(self, name, _int(name, getattr(self, name)))
        if self.world < 1:
            raise OptionError(
                explain(
                    f"the world of a shard must be at least 1, got {self.world}",
                    next="shard=(rank, world): world is how many processes share the items",
                )
            )
        if not 0 <= self.rank < self.world:
            raise OptionError(
                explain(
                    f"shard rank must be in 0..{self.world - 1}, got {self.rank}",
                    why="ranks count from zero, and are below the world's size",
                )
            )


def as_shard(value: object) -> Shard:
    """Return the shard that ``shard=`` of a run means.

    Args:
        value: ``None`` for the whole, 0 of 1; a ``(rank, world)`` pair of ints; a `Shard`; or
            ``"auto"`` for what the launcher of this process left in its environment. There the
            innermost launcher that speaks is believed, as each starts the next: torchrun
            (``RANK``, ``WORLD_SIZE``), jax (``JAX_PROCESS_ID``, ``JAX_NUM_PROCESSES``), TensorFlow
            (``TF_CONFIG``; the chief, or master, is rank 0), Open MPI (``OMPI_COMM_WORLD_RANK`` or
            else ``PMIX_RANK``, ``OMPI_COMM_WORLD_SIZE``), MPICH and Intel MPI (``PMI_RANK``,
            ``PMI_SIZE``), MVAPICH (``MV2_COMM_WORLD_RANK``, ``MV2_COMM_WORLD_SIZE``), SLURM
            (``SLURM_PROCID``, ``SLURM_NTASKS``). None of them: the whole.

    Raises:
        OptionError: anything else; with ``"auto"``, a variable that cannot be read, whose partner
            is missing, or that makes this process none of those that train.
    """
    if value is None:
        return Shard()
    if isinstance(value, Shard):
        return value
    if isinstance(value, str) and value == "auto":
        found = (read() for read in _LAUNCHERS)
        return next((shard for shard in found if shard is not None), Shard())
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return Shard(*value)
    raise OptionError(
        explain(
            f"shard={value!r:.80} is no shard",
            next="pass (rank, world), 'auto' to ask the launcher, or None for the whole",
        )
    )


def _int(name: str, value: Any) -> int:
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise OptionError(
        explain(
            f"the {name} of a shard must be an int, got {value!r:.80}",
            next="shard=(rank, world), as (0, 4) for the first of four",
        )
    )


def _pair(rank: str, world: str) -> Shard | None:
    """Return the shard of two variables, ``None`` if neither is set."""
    found = {name: os.environ[name] for name in (rank, world) if name in os.environ}
    if not found:
        return None
    said = ", ".join(f"{name}={value!r}" for name, value in found.items())
    if len(found) < 2:
        missing = world if rank in found else rank
        raise _unusable(said, f"{missing} is not set, and one says nothing without the other")
    try:
        return Shard(int(found[rank]), int(found[world]))
    except ValueError as error:  # an OptionError is one, too
        raise _unusable(said, str(error).splitlines()[0]) from None


def _tf_config() -> Shard | None:
    text = os.environ.get("TF_CONFIG")
    if text is None:
        return None
    said = f"TF_CONFIG={text!r}"
    try:
        config = json.loads(text)
        if not config.get("cluster"):  # TensorFlow takes this for a run of one process
            return None
        sizes = {kind: len(tasks) for kind, tasks in config["cluster"].items()}
        kind, at = config["task"]["type"], _int("index", config["task"]["index"])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        why = f"it is no JSON of a cluster and a task: {error!r}"
        raise _unusable(said, why.splitlines()[0]) from None
    ranks = [
        (one, index) for one in ("chief", "master", "worker") for index in range(sizes.get(one, 0))
    ]
    if (kind, at) not in ranks:
        raise _unusable(
            said, f"task {at} of type {kind!r} is no chief, master or worker of the cluster"
        )
    return Shard(ranks.index((kind, at)), len(ranks))


def _open_mpi() -> Shard | None:
    rank, world = "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"
    # PMIX_RANK without the size comes from other launchers that use PMIx, as srun: they say more.
    if rank not in os.environ and world in os.environ and "PMIX_RANK" in os.environ:
        rank = "PMIX_RANK"
    return _pair(rank, world)


def _slurm() -> Shard | None:
    if "SLURM_JOB_ID" not in os.environ or "SLURM_STEP_ID" in os.environ:
        return _pair("SLURM_PROCID", "SLURM_NTASKS")
    # The job's own script is told a rank, 0, and the number of tasks, but is none of them.
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks == "1":
        return None
    raise OptionError(
        explain(
            "shard='auto' finds a SLURM job, and no task of it",
            where=f"SLURM_NTASKS={tasks!r}, SLURM_STEP_ID is not set",
            why="the job's own script or shell would take one part, and nobody the others",
            next=f"start the program with srun; or {_EXPLICIT}",
        )
    )


def _unusable(said: str, why: str) -> OptionError:
    return OptionError(
        explain(
            "shard='auto' cannot be told from the environment", where=said, why=why, next=_EXPLICIT
        )
    )


# The innermost first: SLURM starts mpirun, that starts torchrun.
_LAUNCHERS: tuple[Callable[[], Shard | None], ...] = (
    partial(_pair, "RANK", "WORLD_SIZE"),
    partial(_pair, "JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    _tf_config,
    _open_mpi,
    partial(_pair, "PMI_RANK", "PMI_SIZE"),
    partial(_pair, "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    _slurm,
)
