"""A Ray cluster for the fault matrix, which is no child of the tests, as clusters are."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ray_cluster"]


@contextmanager
def ray_cluster():
    """Have a cluster, and this process and its programs connected to it, inside of a ``with``.

    It gives an executor whose workers stay from run to run, as they take seconds to start.
    """
    # Read when Ray is imported: the tests call nobody, and their cluster obeys nobody else.
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32)
    )
    command = [sys.executable, __file__]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}  # for its workers
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as starter:
        os.environ["RAY_ADDRESS"] = starter.stdout.readline().strip()
        import ray

        from flowcore_ray import RayExecutor

        ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
        try:
            with RayExecutor(2, num_cpus=0.5) as executor:
                yield executor
        finally:
            ray.shutdown()
            del os.environ["RAY_ADDRESS"]
            starter.stdin.close()


def _serve():
    """Be a cluster until the pipe ends: in a session of its own, with no parent that waits."""
    import ray

    ray.init(address="local", num_cpus=4, object_store_memory=300_000_000, include_dashboard=False)
    sys.stdout.write(f"{ray.get_runtime_context().gcs_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        _serve()
    else:
        subprocess.Popen([sys.executable, __file__, "inside"], start_new_session=True)
