import pytest

from flowcore.testing import ExecutorContract
from flowcore_ray import RayExecutor


class TestTheContract(ExecutorContract):
    kills_workers = True
    opens_sockets = True  # to the servers of the cluster

    @pytest.fixture(scope="class")
    @classmethod
    def executor(cls, connected):
        with RayExecutor(2) as executor:
            yield executor
