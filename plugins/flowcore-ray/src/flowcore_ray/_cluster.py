"""The way to a cluster: the one that this process is in, another one, or one that is made here."""

from __future__ import annotations

import logging
import math
import os
import socket
from urllib.parse import urlsplit

import ray

from flowcore.cores import usable_cores
from flowcore.errors import OptionError, explain
from flowcore_ray._needs import Needs

__all__ = ["connect"]

_log = logging.getLogger("flowcore")
_ANSWERS = 5.0  # seconds in which a cluster's address must answer; Ray itself tries for minutes


def connect(address: str | None, needs: Needs, num_workers: int) -> bool:
    """Connect this process to Ray if it is not; return whether it is for us to disconnect.

    Raises:
        OptionError: there is no cluster at the address, or this process is connected to another; or
            no node of a Ray made here has what a worker needs.
    """
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", here):
            raise OptionError(
                explain(
                    f"address={address!r}, and this process is connected to Ray at {here}",
                    next="leave address= out, or call ray.shutdown() first",
                )
            )
        _check_nodes(needs, local=False)
        return False
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        cpus = max(usable_cores(), math.ceil(num_workers * needs.num_cpus))
        ray.init(
            address="local", num_cpus=cpus, include_dashboard=False, logging_level=logging.WARNING
        )
    else:
        _join(address)
    try:
        _check_nodes(needs, local=address == "local")
    except BaseException:
        ray.shutdown()
        raise
    return True


def _join(address: str) -> None:
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if parts.port is not None:
            socket.create_connection((parts.hostname, parts.port), _ANSWERS).close()
        ray.init(address=address, logging_level=logging.WARNING)
    except (Exception, SystemExit) as error:  # Ray exits where no cluster answers
        raise OptionError(
            explain(
                f"no Ray cluster can be reached at {address!r}: {type(error).__name__}: {error}",
                next="address='host:6379', as `ray start --head` prints it; or leave it out for a "
                "Ray on this machine",
            )
        ) from error


def _check_nodes(needs: Needs, local: bool) -> None:
    """Say so if no node has what a worker needs: Ray would wait for one without a word."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {name: amount for name, amount in needs.amounts().items() if amount}
    if any(all(node.get(name, 0) >= wanted[name] for name in wanted) for node in nodes):
        return
    text = explain(
        f"no node has what each worker needs: {wanted}",
        where=f"the nodes have {[{name: node.get(name, 0) for name in wanted} for node in nodes]}",
        next="ask for less with num_cpus=, num_gpus=, memory= or resources=; or add such a node",
    )
    if local:
        raise OptionError(text)
    _log.warning("%s", text)  # a cluster may grow
