"""W6: what a program waits for at its start: the import, the first batch, its end.

Each system is a whole program, in a process that has nothing but it: 1,000 rows of 16 float32 are
doubled in batches of 32, once. The program runs unmeasured first, so that its bytecode is written
and its files are in memory; then the median of some more counts. The clock of the first batch
begins when the pipeline, or loader, is there; that of the process includes Python's own start.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

from harness import Measure, Measures, Target, Work

__all__ = ["WORK"]

RUNS = (5, 2)  # measured, in a long round and in a short one
NUMPY = "floor, NumPy"
WORK = Work(
    "W6",
    "start: import, first batch, a whole process of one small pipeline",
    [
        Measure("import_ms", "ms to import", 0),
        Measure("import_mb", "MB after it", 1),
        Measure("first_ms", "ms to the first batch", 2),
        Measure("process_ms", "ms of the process", 0),
        Measure("peak_mb", "peak MB", 0),
    ],
    packages=[
        *("numpy", "flowcore", "torch", "torchdata", "grain", "spdl"),
        *("tensorflow_cpu", "batchflow"),
    ],
    references=[NUMPY],
    targets=[
        Target("flowcore, serial", "import_ms", 0.11 / 0.06, of=NUMPY),
        Target("flowcore, serial", "import_mb", 36 / 26, of=NUMPY),
        Target("flowcore, serial", "import_ms", 110),
        Target("flowcore, serial", "import_mb", 36),
        Target("flowcore, serial", "first_ms", 2),
        Target("flowcore, serial", "process_ms", 200),
    ],
)

# What each program begins and ends with. Python's start has loaded nothing that is measured.
PROGRAM = """
import resource, sys, time
def resident():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
start = time.perf_counter()
{imports}
imported, memory = time.perf_counter(), resident()
import numpy
rows = numpy.arange(16000, dtype="f4").reshape(1000, 16)
{program}
begin = time.perf_counter()
batches = iter(made())
sums = [next(batches)]
first = time.perf_counter()
sums = [numpy.asarray(batch) for batch in [*sums, *batches]]
assert len(sums) == 32 and sum(len(one) for one in sums) == 1000, len(sums)
assert (sums[0][0] % 2 == 0).all() and sum(float(one.sum()) for one in sums) == 2 * 127992000
print([(imported - start) * 1e3, memory, (first - begin) * 1e3, resident()])
"""


def system(name: str, imports: str, program: str) -> None:
    """Mark a program: what it imports, and how it makes a function ``made`` of its batches."""
    source = PROGRAM.format(imports=imports, program=program)
    WORK.system(name)(lambda short: measured(source, RUNS[short]))


def measured(source: str, runs: int) -> Measures:
    """Return the medians of some runs of a program, after one that does not count."""
    run(source)
    columns = zip(*(run(source) for _ in range(runs)), strict=True)
    names = ("import_ms", "import_mb", "first_ms", "peak_mb", "process_ms")
    return dict(zip(names, map(statistics.median, columns), strict=True))


def run(source: str) -> Iterable[float]:
    """Return what a program prints, and the ms from its start to its end."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-P", "-c", source], capture_output=True, text=True, env=env
    )
    took = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr.splitlines()[-1])  # the harness shows it
    printed: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return [*printed, took * 1e3]


# Floors

LOOP = """
def made():
    return (rows[at : at + 32] * 2 for at in range(0, 1000, 32))
"""
POOL = """
def made():
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda at: rows[at : at + 32] * 2, range(0, 1000, 32))
"""
system(NUMPY, "import numpy", LOOP)
system(
    "floor, NumPy and a pool",
    "import numpy\nfrom concurrent.futures import ThreadPoolExecutor",
    POOL,
)

# flowcore

FLOWCORE = """
class Rows(flowcore.Batch):
    @flowcore.action
    def double(self):
        self.data = self.data * 2
        return self
pipeline = flowcore.Dataset(1000, Rows, preloaded=rows).p.double()
def made():
    try:
        while True:
            yield pipeline.next_batch(32{options}).data
    except StopIteration:
        return
"""
for name, options in {
    "serial": "",
    "serial, shuffled": ", shuffle=True",
    "threads": ", prefetch=4",
}.items():
    system(f"flowcore, {name}", "import flowcore", FLOWCORE.format(options=options))

# Peers

GRAIN = """
def made():
    source = grain.MapDataset.range(0, 1000).map(lambda at: rows[at] * 2).batch(32)
    return source.to_iter_dataset(grain.ReadOptions({options}))
"""
TORCH = """
class Rows:
    def __len__(self):
        return 1000
    def __getitems__(self, at):
        return rows[at] * 2
    __getitem__ = __getitems__
def made():
    return DataLoader(Rows(), 32, collate_fn=lambda batch: batch)
"""
NODES = """
def made():
    numbers = IterableWrapper(range(0, 1000, 32))
    return Loader(Mapper(numbers, lambda at: rows[at : at + 32] * 2))
"""
SPDL = """
def made():
    builder = PipelineBuilder().add_source(range(0, 1000, 32))
    builder.pipe(lambda at: rows[at : at + 32] * 2, concurrency=1).add_sink(4)
    line = builder.build(num_threads=1)
    with line.auto_stop():
        yield from line
"""
TF_DATA = """
def made():
    source = tensorflow.data.Dataset.from_tensor_slices(rows).batch(32)
    return source.map(lambda batch: batch * 2).as_numpy_iterator()
"""
BATCHFLOW = """
class Rows(batchflow.Batch):
    @batchflow.action
    def double(self):
        self._data = rows[self.indices] * 2
        return self
pipeline = batchflow.Dataset(1000, Rows).p.double()
def made():
    return (batch.data for batch in pipeline.gen_batch(32, n_epochs=1))
"""
system("Grain", "import grain", GRAIN.format(options="num_threads=0, prefetch_buffer_size=0"))
system("Grain, threads", "import grain", GRAIN.format(options=""))
system("PyTorch DataLoader", "from torch.utils.data import DataLoader", TORCH)
system("torchdata.nodes", "from torchdata.nodes import IterableWrapper, Loader, Mapper", NODES)
system("SPDL", "from spdl.pipeline import PipelineBuilder", SPDL)
system("tf.data", "import tensorflow", TF_DATA)
system("BatchFlow", "import batchflow", BATCHFLOW)

if __name__ == "__main__":
    WORK.main()
