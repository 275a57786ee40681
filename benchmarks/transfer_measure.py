"""Measures one system of `transfer.py` in this process, and prints what it found as JSON.

The clock runs from one delivered batch to another in the middle of a longer run, so neither the
start nor the end, when workers go idle, is in it.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from transfer_work import use

__all__ = ["COPIED_IN", "IN_PLACE", "SYSTEMS"]

COPIED_IN, IN_PLACE = "ring, copied in", "ring, in place"

#: Of each system: the module, and the function in it, called with a number of batches and these.
SYSTEMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    COPIED_IN: ("ring", "ring", {"in_place": False}),
    IN_PLACE: ("ring", "ring", {"in_place": True}),
    "flowcore, processes": ("flowcore", "run", {"executor": "processes"}),
    "flowcore, processes, empty": (
        "flowcore",
        "run",
        {"executor": "processes", "action": "fill"},
    ),
    "flowcore, threads": ("flowcore", "run", {"executor": "threads"}),
    "flowcore, serial": ("flowcore", "run", {"executor": "serial", "prefetch": 0}),
    "flowcore, ProcessPoolExecutor": ("flowcore", "pool", {}),
    "PyTorch DataLoader, tensors": ("peers", "torch_tensors", {}),
    "PyTorch DataLoader, collated": ("peers", "torch_collated", {}),
    "PyTorch DataLoader, arrays": ("peers", "torch_arrays", {}),
    "Grain, mp_prefetch": ("peers", "grain", {}),
    "SPDL, SharedMemorySegmentPool": ("peers", "spdl", {"arena": True}),
    "SPDL, no arena": ("peers", "spdl", {"arena": False}),
}
BEFORE, AFTER = 30, 8  # batches outside of the clock: until all workers and all memory are there


class Meter:
    """Reads the CPU time and the memory of this process and its children; NaN without psutil."""

    def __init__(self) -> None:
        try:
            import psutil
        except ImportError:
            self.psutil: Any = None
        else:
            self.psutil, self.family = psutil, [psutil.Process()]

    def find_workers(self) -> None:
        """Look for the children; slow, so not where the clock runs."""
        if self.psutil:
            self.family[1:] = self.family[0].children(recursive=True)

    def seconds(self) -> tuple[float, float]:
        """Return the CPU seconds of these processes, and of the machine; what a host stole too."""
        if not self.psutil:
            return float("nan"), float("nan")
        times = self.psutil.cpu_times()
        ours = sum(sum(process.cpu_times()[:2]) for process in self.family)
        return ours, times.user + times.nice + times.system + getattr(times, "steal", 0.0)

    def megabytes(self) -> float:
        """Return what they have resident now; a page that several have counts once."""
        if not self.psutil or not hasattr(self.family[0].memory_full_info(), "pss"):
            return float("nan")
        return float(sum(process.memory_full_info().pss for process in self.family)) / 2**20


def measure(make: Callable[[int], Iterator[Any]], batches: int) -> dict[str, float]:
    """Return what batches cost."""
    meter, every = Meter(), BEFORE + batches + AFTER
    for number, batch in enumerate(make(every), 1):
        use(batch, number - 1)
        if number == BEFORE // 2:
            meter.find_workers()
        elif number == BEFORE:
            start, before = time.perf_counter(), meter.seconds()
        elif number == BEFORE + batches:
            took, after = time.perf_counter() - start, meter.seconds()
            megabytes = meter.megabytes()
    assert number == every, f"{number} batches of {every}"
    ours, machine = after[0] - before[0], after[1] - before[1]
    return {
        "batches_s": batches / took,
        "cpu_ms": ours * 1e3 / batches,
        "others": (machine - ours) / took,
        "memory_mb": megabytes,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (2**20 if sys.platform == "darwin" else 2**10),
    }


def main(system: str, batches: int) -> None:
    """Measure, and print."""
    module, name, arguments = SYSTEMS[system]
    function = getattr(importlib.import_module(f"transfer_{module}"), name)
    print(json.dumps(measure(lambda every: function(every, **arguments), batches)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
