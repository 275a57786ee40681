"""Worker processes for flowcore: the executor called ``processes``."""

from flowcore_processes.executor import ProcessesExecutor

__all__ = ["ProcessesExecutor"]
