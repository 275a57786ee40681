"""Workers on a Ray cluster for flowcore: the executor called ``ray``."""

from flowcore_ray.executor import RayExecutor

__all__ = ["RayExecutor"]
