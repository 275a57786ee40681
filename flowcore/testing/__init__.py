"""Contract suites for plugins, and the fixtures that their tests need.

Subclass `SinkContract`, `ExecutorContract` or `ActionsContract` in a test file, say how to build
your object, and pytest runs the whole contract on it. Nothing else in flowcore imports this
package, which needs pytest: ``pip install 'flowcore[testing]'``.
"""

import pytest

pytest.register_assert_rewrite(  # before they are imported, so that a failure shows both sides
    *(f"{__name__}.{module}" for module in ("actions", "executors", "install", "sinks"))
)

from flowcore.testing.actions import ActionsContract  # noqa: E402
from flowcore.testing.executors import ExecutorContract  # noqa: E402
from flowcore.testing.install import Install, install, no_leaks  # noqa: E402
from flowcore.testing.sinks import SinkContract  # noqa: E402

__all__ = [
    "ActionsContract",
    "ExecutorContract",
    "Install",
    "SinkContract",
    "install",
    "no_leaks",
]
