"""Contract suites for plugins, and what the tests of pipelines need: fixtures and assertions.

Subclass `SinkContract`, `ExecutorContract` or `ActionsContract` in a test file, say how to build
your object, and pytest runs the whole contract on it. Nothing else in flowcore imports this
package, which needs pytest and psutil: ``pip install 'flowcore[testing]'``.
"""

import pytest

pytest.register_assert_rewrite(  # before they are imported, so that a failure shows both sides
    *(
        f"{__name__}.{module}"
        for module in (
            "actions",
            "executor_bytes",
            "executor_delivery",
            "executor_errors",
            "executor_faults",
            "executor_leaving",
            "executor_runs",
            "install",
            "sinks",
        )
    )
)

from flowcore.testing.actions import ActionsContract  # noqa: E402
from flowcore.testing.deterministic import assert_deterministic  # noqa: E402
from flowcore.testing.executors import ExecutorContract  # noqa: E402
from flowcore.testing.install import Install, install  # noqa: E402
from flowcore.testing.leaks import leaves_nothing, no_leaks  # noqa: E402
from flowcore.testing.resumable import assert_resumable  # noqa: E402
from flowcore.testing.sinks import SinkContract  # noqa: E402

__all__ = [
    "ActionsContract",
    "ExecutorContract",
    "Install",
    "SinkContract",
    "assert_deterministic",
    "assert_resumable",
    "install",
    "leaves_nothing",
    "no_leaks",
]
