"""Worker processes for flowcore: the executor called ``processes``."""

import os

if os.name != "posix":  # descriptors are inherited, and files without a name are shared
    raise ImportError(
        "flowcore-processes needs Linux, macOS or another POSIX system; elsewhere a "
        "concurrent.futures.ProcessPoolExecutor is an executor as it is: executor=pool"
    )

from flowcore_processes.executor import ProcessesExecutor

__all__ = ["ProcessesExecutor"]
