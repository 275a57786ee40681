"""Refuses to test the checkout where the installed wheel was meant."""

import os
from pathlib import Path

import pytest

import flowcore


def pytest_configure() -> None:
    checkout = Path(__file__).parent / "flowcore"
    if "FLOWCORE_TEST_INSTALLED" in os.environ and checkout in Path(flowcore.__file__).parents:
        raise pytest.UsageError(
            f"flowcore was imported from {checkout}, not from the installed wheel; "
            "run it through tox, and as 'pytest', not 'python -m pytest'"
        )
