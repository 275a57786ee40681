import os
import secrets
import subprocess
import sys

import pytest

# Read when Ray is imported. The tests call nobody, and their clusters obey nobody else.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)

# A cluster that is no child of the tests, as clusters are: its processes are then not looked for.
# It ends with the pipe that it reads.
CLUSTER = """
import ray, subprocess, sys
if sys.argv[1:] != ["inside"]:
    subprocess.Popen([sys.executable, __file__, "inside"], start_new_session=True)
else:
    ray.init(address="local", num_cpus=4, object_store_memory=300_000_000, include_dashboard=False)
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Start a cluster of one node; return its address."""
    script = tmp_path_factory.mktemp("cluster") / "cluster.py"
    script.write_text(CLUSTER)
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        yield starter.stdout.readline().strip()
        starter.stdin.close()


@pytest.fixture(scope="session")
def connected(address):
    """Connect this process to the cluster, as a user would."""
    import ray

    ray.init(address=address, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def warm(connected):
    """Two workers that stay from test to test."""
    from flowcore_ray import RayExecutor

    with RayExecutor(2, num_cpus=0.5) as executor:
        yield executor
