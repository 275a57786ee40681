"""What several files of these tests need."""

import sys

import pytest


@pytest.fixture
def eager_threads():
    """Have threads take turns after a few steps, so that they meet at bad moments."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
