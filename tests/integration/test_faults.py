"""The fault matrix: each fault on each executor gives what the table in the docs says.

The table is data, in `faults_table`. What happens is said by `faults_inside`, for faults that a
test can bear, and by `faults_hit`, for those that a program of its own is needed for. After each,
nothing is left, and another run in the same process gives what the serial executor gives.
"""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # workers and programs, too, import what is beside

import faults_inside
import faults_program
from faults_hit import happens_to
from faults_ray import ray_cluster
from faults_table import PAGE, cells, in_page, table
from faults_ways import THREADS, WARM, missing, open_executor, run_again

from flowcore.testing import leaves_nothing

DEADLY = ("killed once", "killed always", "killed idle")  # where the worker is the program
CELLS = [pytest.param(*cell, id=f"{cell[0]}-{cell[1]}") for cell in cells()]


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster() as WARM["ray"], open_executor("ray") as how:
        run_again("ray", how)  # its workers may stay
        yield
    del WARM["ray"]


@pytest.fixture
def executor(request):
    """Return the executor's name, if what it needs is installed."""
    name = request.param
    if missing(name):
        pytest.skip(f"{missing(name)} is not installed")
    if name == "ray":
        request.getfixturevalue("cluster")
    return name


@pytest.mark.parametrize(("fault", "executor", "expected"), CELLS, indirect=["executor"])
def test_a_fault_has_the_consequences_that_the_table_names(fault, executor, expected, tmp_path):
    if expected.startswith("not tried"):
        pytest.skip(expected)
    with leaves_nothing(sockets=executor != "ray"):  # it has connections to its own servers
        if fault in faults_program.FAULTS or (fault in DEADLY and executor in THREADS):
            seen = happens_to(executor, fault, tmp_path)
        else:
            with open_executor(executor) as how:
                seen = faults_inside.FAULTS[fault](executor, how, tmp_path)
                seen += run_again(executor, how)
    assert seen == expected


def test_the_table_in_the_docs_is_that_of_these_tests():
    assert in_page(PAGE.read_text("utf-8")) == table(), (
        "write it with: python tests/integration/faults_table.py"
    )
