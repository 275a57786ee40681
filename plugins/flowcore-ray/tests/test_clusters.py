"""Programs of their own: each is a script, as users write them, with its own way to a cluster."""

import subprocess
import sys
from textwrap import dedent

import pytest

WORK = """
import hashlib, sys, threading
import flowcore as fc, numpy as np

class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code

class Noise(fc.Batch):
    @fc.action
    def make(self):
        self.data = self.rng.random((len(self), 50_000))
        return self

    @fc.action
    def refuse(self, number):
        if self.number == number:
            raise Refused(7, "the text")
        return self

pipeline = fc.Dataset(400, Noise).p.make()

def seen(run):
    return [(type(batch), batch.number, batch.data.tobytes()) for batch in run]
"""


def run_script(folder, source, *arguments):
    """Run a script; return what it printed."""
    script = folder / "script.py"
    script.write_text(WORK + dedent(source))
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", script, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(120)  # clusters take seconds to start, more where the tests of others run
def test_a_node_that_is_removed_in_the_middle_of_a_run_costs_time_and_no_batch(tmp_path):
    run_script(
        tmp_path,
        """
        import ray
        from ray.cluster_utils import Cluster

        room = {"object_store_memory": 200_000_000}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **room})
        node = cluster.add_node(num_cpus=2, **room)
        ray.init(address=cluster.address, log_to_driver=False)

        def digest(batch):
            return batch.epoch, batch.number, hashlib.sha256(batch.data).digest()

        def where(batch):
            return ray.get_runtime_context().get_node_id()

        nodes, found = [], []
        sink = type("Where", (fc.Sink,), {
            "prepare": lambda self, batch: where(batch),
            "put": lambda self, item, cancel: nodes.append(item),
        })()
        options = {"executor": "ray", "num_workers": 3, "prefetch": 8, "sink": sink}
        remove = threading.Thread(target=cluster.remove_node, args=(node, False))
        left = 40
        with pipeline.gen_batch(4, seed=1, n_epochs=None, **options) as run:
            while left:
                found.append(digest(next(run)))
                if remove.ident is None and len(set(nodes)) == 2:
                    remove.start()  # now that both nodes are at work
                left -= remove.ident is not None and not remove.is_alive()
        expected = pipeline.gen_batch(4, seed=1, n_epochs=None)
        assert found == [digest(next(expected)) for _ in found]
        assert run.report.skipped == []
        ray.shutdown()
        cluster.shutdown()
        """,
    )


@pytest.mark.timeout(120)
def test_a_ray_that_a_run_started_is_gone_at_its_end(tmp_path):
    run_script(
        tmp_path,
        """
        import psutil, ray
        from flowcore.errors import OptionError

        def refused(**options):
            try:
                next(pipeline.gen_batch(4, executor="ray", num_workers=1, **options))
            except OptionError as error:
                return str(error)

        assert "no Ray cluster can be reached" in refused(address="127.0.0.1:9")
        assert "no node has what each worker needs" in refused(num_gpus=64)
        batches = list(pipeline.gen_batch(40, executor="ray", num_workers=1, prefetch=2, seed=1))
        assert not ray.is_initialized()
        _, left = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=5)
        assert left == []
        # The memory of the object store is there as long as the batches are.
        expected = list(pipeline.gen_batch(40, seed=1))
        assert all((a.data == b.data).all() for a, b in zip(batches, expected, strict=True))
        """,
    )


def test_a_script_is_connected_by_address_and_its_own_classes_come_back(tmp_path, address):
    run_script(
        tmp_path,
        """
        options = {"executor": "ray", "address": sys.argv[1], "num_workers": 2, "num_cpus": 0.1}
        found = seen(pipeline.gen_batch(40, seed=1, **options))
        assert found == seen(pipeline.gen_batch(40, seed=1))  # compares the classes too
        try:
            list(pipeline.refuse(1).gen_batch(40, **options))
        except Refused as error:
            assert (error.code, str(error)) == (7, "7: the text")
        else:
            raise AssertionError("nothing was raised")
        """,
        address,
    )


def test_a_program_may_end_in_the_middle_of_a_run(tmp_path, address):
    printed = run_script(
        tmp_path,
        """
        run = pipeline.gen_batch(4, executor="ray", address=sys.argv[1], num_workers=1, prefetch=2)
        print(next(run).number)
        """,
        address,
    )
    assert printed.strip() == "0"


def test_a_connection_that_the_user_ends_in_the_middle_of_a_run_is_an_error(tmp_path, address):
    run_script(
        tmp_path,
        """
        import ray
        from flowcore.errors import PipelineError

        ray.init(address=sys.argv[1], log_to_driver=False)
        run = pipeline.gen_batch(4, executor="ray", num_workers=1, num_cpus=0.1, prefetch=2)
        next(run)
        ray.shutdown()
        try:
            list(run)
        except PipelineError as error:
            assert "not connected to Ray any more" in str(error)
        else:
            raise AssertionError("nothing was raised")
        assert not ray.is_initialized()  # Ray itself would have started another one
        """,
        address,
    )
