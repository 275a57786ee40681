"""The state machine of the core's tests, over runs whose workers are processes too."""

import importlib.util
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings

from flowcore.testing import leaves_nothing

_PATH = Path(__file__).parents[1] / "core" / "test_run_machine.py"
_SPEC = importlib.util.spec_from_file_location("flowcore_run_machine", _PATH)
machine = sys.modules[_SPEC.name] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(machine)


class RunsOfProcesses(machine.Runs):
    ways: ClassVar = [
        *machine.Runs.ways,
        {"executor": "processes", "prefetch": 1, "num_workers": 1},
        {"executor": "processes", "prefetch": 4, "num_workers": 2},
        {"executor": "processes", "prefetch": 3, "num_workers": 1, "threads_per_worker": 2},
    ]

    def __init__(self):
        super().__init__()
        self.watch = leaves_nothing()
        self.watch.__enter__()

    def teardown(self):
        super().teardown()
        vars(self).pop("live", None)
        vars(self).pop("pipeline", None)
        self.watch.__exit__(None, None, None)


@pytest.mark.timeout(600)
class TestRunsOfProcesses(RunsOfProcesses.TestCase):
    settings = settings(machine.TestRuns.settings, max_examples=15)
