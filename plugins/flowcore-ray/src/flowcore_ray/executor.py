"""The executor called ``ray``: its workers are actors, its batches come from the object store."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from flowcore import Executor, Outcome, Running, Task, Work
from flowcore.cores import usable_cores
from flowcore.errors import OptionError, explain
from flowcore.executors.wire import unsendable
from flowcore_ray._needs import Needs

if TYPE_CHECKING:
    from flowcore_ray._seat import Seat

__all__ = ["RayExecutor"]

_PATIENCE = 0.4  # seconds that `close` waits for workers to tear themselves down


class RayExecutor(Executor):
    """Runs tasks in actors of Ray, each in a process of its own on a node with room for it.

    If this process is connected to Ray, that is used, and stays. Else a run connects, or starts a
    Ray on this machine, and lets go of it at its end. The arrays of the batches are read-only: they
    look at Ray's object store. Inside of ``with RayExecutor(2) as executor:`` the actors, and the
    connection, stay from run to run.

    Args:
        num_workers: how many actors.
        num_cpus: processors for each, or a part of one; 0 needs none.
        num_gpus: devices for each, or a part of one.
        memory: bytes for each; Ray places by it, and does not hold workers to it.
        resources: of the cluster's own, for each, by name.
        runtime_env: what Ray makes ready on a node first, as Ray defines it.
        address: of a cluster, ``"host:6379"`` or ``"auto"``; by default that of the environment's
            ``RAY_ADDRESS``, or else a Ray on this machine.

    Raises:
        OptionError: a value that cannot be right.
    """

    run_options: ClassVar[Mapping[str, str]] = {
        "num_cpus": "processors for each worker",
        "num_gpus": "devices for each worker",
        "memory": "bytes for each worker",
        "resources": "of the cluster's own, for each worker",
        "runtime_env": "what Ray makes ready on a node before a worker starts there",
        "address": "of a Ray cluster",
    }

    def __init__(
        self,
        num_workers: int,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        memory: int | None = None,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        address: str | None = None,
    ) -> None:
        super().__init__(_checked(num_workers))
        self.processes = num_workers
        self._needs = Needs(num_cpus, num_gpus, memory, resources, runtime_env)
        if address is not None and (not isinstance(address, str) or not address.strip()):
            raise OptionError(
                explain(
                    f"address must be that of a cluster, got {address!r:.80}",
                    next="address='host:6379', as `ray start --head` prints it",
                )
            )
        self._address = address
        self._seats: list[Seat] = []
        self._spare: list[Any] = []  # actors that the next run goes on with
        self._keeps = False  # inside of a `with`
        self._connected = False  # by us

    def __enter__(self) -> Self:
        self._keeps = True
        return self

    def __exit__(self, *exc: object) -> None:
        self._keeps = False
        self._leave()

    @classmethod
    def most_workers(cls) -> int:
        """Return how many workers there are at most where a run does not say: one a core here."""
        return usable_cores()

    def start(self, work: Work) -> None:
        """Connect, put the work into the object store, and have actors made.

        Raises:
            OptionError: no cluster at the address; or no room in a Ray that is made here.
            PipelineError: the work cannot be pickled.
        """
        import ray

        from flowcore_ray._cluster import connect

        if not (self._connected and ray.is_initialized()):
            self._connected = connect(self._address, self._needs, self.num_workers)
        try:
            self._employ(work)
        except BaseException:  # also a Ctrl-C
            self.close()
            raise

    def submit(self, task: Task) -> Future[Outcome]:
        """Give the task to the next free actor."""
        return self._shift.submit(task)

    def running(self) -> Iterable[Running]:
        """Return the tasks that actors are on, each with a way to its stack."""
        found = [seat.running for seat in list(self._seats)]
        return [running for running in found if running is not None]

    def close(self) -> None:
        """Let the actors go: a tear-down has 0.4 s, then they are ended.

        A Ray that was started for the run ends too, which takes it about a second more.
        """
        from flowcore.executors.by_number import forget
        from flowcore_ray._actors import torn_down

        seats, self._seats = self._seats, []
        if seats:
            self._shift.close()
        actors = [actor for seat in seats if (actor := seat.actor) is not None]
        self._spare += torn_down(actors, _PATIENCE)
        end = time.monotonic() + _PATIENCE
        for thread in (thread for seat in seats for thread in seat.threads):
            if thread is not threading.current_thread():  # closed by a collection
                thread.join(max(0.0, end - time.monotonic()))
        forget(self._key)
        if not self._keeps:
            self._leave()

    def _leave(self) -> None:
        """End the actors that are left, and the connection if it is ours."""
        import ray

        from flowcore_ray._actors import kill

        spare, self._spare = self._spare, []
        for actor in spare:
            kill(actor)
        if self._connected:
            self._connected = False
            ray.shutdown()

    def _employ(self, work: Work) -> None:
        import ray

        from flowcore_ray._actors import alive, hire
        from flowcore_ray._pickling import dumps, write_work
        from flowcore_ray._seat import Seat
        from flowcore_ray._shift import Shift
        from flowcore_ray._worker import Worker

        self._key = uuid.uuid4().hex
        try:
            pickled = write_work(work, self._key)
        except Exception as error:
            raise unsendable(work, error, partial(dumps, key=self._key)) from error
        # A thread of its own for `stack`, which is asked for while the worker is busy.
        options = {**self._needs.options(), "concurrency_groups": {"aside": 1}}
        new = ray.remote(**options)(Worker)
        spare, self._spare = alive(self._spare), []
        hired = partial(hire, spare, new, self._key, ray.put(pickled))
        self._shift = Shift(2 * self.num_workers)
        for number in range(self.num_workers):
            self._seats.append(Seat(f"flowcore-worker-{number}", self._shift, hired))
            self._seats[-1].start()


def _checked(num_workers: Any) -> int:
    if not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 1:
        raise OptionError(f"num_workers must be an int of at least 1, got {num_workers!r:.80}")
    return num_workers
