"""The contract of an executor as tests, for its author to subclass."""

from __future__ import annotations

from flowcore.testing.executor_bytes import SameBytes
from flowcore.testing.executor_delivery import Delivers
from flowcore.testing.executor_errors import Errors
from flowcore.testing.executor_faults import Faults
from flowcore.testing.executor_leaving import Leaving

__all__ = ["ExecutorContract"]


class ExecutorContract(SameBytes, Delivers, Errors, Faults, Leaving):
    """What a run, and its user, may expect of any executor: the promises that go through it.

    Override the fixture `executor`, and say what it can do::

        class TestThreads(ExecutorContract):
            shares_memory = True

            @pytest.fixture
            def executor(self):
                return "threads"

    The fixture may have the scope ``"class"``, for an executor that is slow to start; it is a
    ``@classmethod`` then. What an executor object has after its first runs it may keep to the end
    of its fixture; one that goes by its name leaves nothing after each run.

    Attributes:
        parallel: several tasks are in progress at once; by default it is so.
        shares_memory: the actions run in this process, and see its objects; by default they do not.
        kills_workers: a worker that is killed is replaced, and one that is still in an action when
            the run is left is killed; by default not.
        opens_sockets: a library that it uses opens connections to its own servers when it likes;
            by default not, and sockets that are left are found.
    """
