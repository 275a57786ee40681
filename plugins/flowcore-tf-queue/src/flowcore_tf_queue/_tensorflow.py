"""TensorFlow, imported once and checked; the only place that imports it by name."""

from __future__ import annotations

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    raise ImportError(
        "flowcore-tf-queue needs TensorFlow, which is not installed: "
        "pip install 'flowcore-tf-queue[cpu]', or 'flowcore-tf-queue[tensorflow]' for GPUs"
    ) from error

__all__ = ["tf"]

_OLDEST = (2, 16)

# Checked here, as the metadata cannot: TensorFlow has several distributions, and we require none.
if tuple(int(part) for part in tf.__version__.split(".")[:2]) < _OLDEST:
    raise ImportError(
        f"flowcore-tf-queue needs TensorFlow 2.16 or later, and {tf.__version__} is installed: "
        "pip install -U 'flowcore-tf-queue[cpu]'"
    )
