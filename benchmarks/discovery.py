"""W10: plugins: how long it takes to list them, and to resolve a name, beside 300 distributions.

The 300 are made in a folder of their own: folders of metadata as installers write them. 120 have
entry points, and 6 of these a sink; what is installed anyway comes to them. Each system is a
program in a fresh process, which runs unmeasured first; then the median of some more counts. The
clock begins when what the system needs is imported. The floors read the entry points of all once:
by the libraries for it, and by hand, file by file, with nothing parsed and no rule for a
distribution that is on the path twice.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Measure, Measures, Target, Work

__all__ = ["WORK"]

INSTALLED, SCRIPTS, PLUGINS = 300, 120, 6
RUNS = (15, 5)  # measured, in a long round and in a short one
BY_HAND, LIBRARY = "floor, the files read by hand", "floor, importlib_metadata.entry_points()"
WORK = Work(
    "W10",
    "plugins: to list all, and resolve one name, beside 300 distributions",
    [Measure("ms", "ms", 2), Measure("worst_ms", "ms at worst", 2)],
    packages=["numpy", "flowcore", "importlib-metadata", "pluggy"],
    references=[BY_HAND, LIBRARY],
    targets=[
        Target("flowcore, list all and resolve a name", "ms", 1.1, of=BY_HAND),
        Target("flowcore, list all and resolve a name", "ms", 1.1, of=LIBRARY),
    ],
)

PROGRAM = """
import time
{imports}
start = time.perf_counter()
{program}
print((time.perf_counter() - start) * 1e3)
assert {check}
"""


def system(name: str, imports: str, program: str, check: str) -> None:
    """Mark a program: what it imports, what is timed, and what must be true then."""
    source = PROGRAM.format(imports=imports, program=program, check=check)
    WORK.system(name)(lambda short: measured(source, RUNS[short]))


def measured(source: str, runs: int) -> Measures:
    """Return the median of some runs of a program, after one that does not count."""
    with installed() as folder:
        run(source, folder)
        took = [run(source, folder) for _ in range(runs)]
    return {"ms": statistics.median(took), "worst_ms": max(took)}


def run(source: str, folder: str) -> float:
    """Return what a program prints, that finds the distributions in a folder."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", source],
        capture_output=True,
        text=True,
        env=env | {"PYTHONPATH": folder},
    )
    if done.returncode:
        sys.exit(done.stderr.splitlines()[-1])  # the harness shows it
    return float(done.stdout)


@contextmanager
def installed() -> Iterator[str]:
    """Make the distributions; give the folder that they are in."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(INSTALLED):
            info = Path(folder, f"made_{number}-1.{number}.dist-info")
            info.mkdir()
            head = f"Metadata-Version: 2.1\nName: made-{number}\nVersion: 1.{number}\n"
            info.joinpath("METADATA").write_text(f"{head}\n{'What it is for. ' * 250}\n")
            info.joinpath("RECORD").write_text("made/__init__.py,,\n" * 50)
            if number < SCRIPTS:
                text = f"[console_scripts]\nmade-{number} = made.cli:main\n"
                if number < PLUGINS:
                    text += f"\n[flowcore.sinks]\nsink-{number} = made_{number}:Sink\n"
                info.joinpath("entry_points.txt").write_text(text)
        yield folder


READ = """
texts = []
for folder in sys.path:
    try:
        names = os.listdir(folder)
    except OSError:
        continue
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                with open(f"{folder}/{name}/entry_points.txt", encoding="utf-8") as file:
                    texts.append(file.read())
            except OSError:
                pass
found = [text for text in texts if "[flowcore." in text]
"""
FOUND = f"sum('made_' in text for text in found) == {PLUGINS}"
LISTED = f"sum(one.name.startswith('sink-') for one in found) == {PLUGINS}"
ONE = "one.distribution == 'made-5'"

system(BY_HAND, "import os, sys", READ, FOUND)
system(
    LIBRARY,
    "import importlib_metadata",
    "found = [one for one in importlib_metadata.entry_points() if one.group == 'flowcore.sinks']",
    LISTED,
)
system(
    "floor, importlib.metadata.entry_points()",
    "import importlib.metadata",
    "found = importlib.metadata.entry_points().select(group='flowcore.sinks')",
    LISTED,
)
FIND = "one = find('flowcore.sinks', 'sink-5')"
IMPORTS = "import flowcore\nfrom flowcore.plugins import find"
system("flowcore, list all", IMPORTS, "found = flowcore.plugins()", LISTED)
system("flowcore, resolve a name", IMPORTS, FIND, ONE)
system(
    "flowcore, list all and resolve a name",
    IMPORTS,
    f"found = flowcore.plugins()\n{FIND}",
    f"{LISTED} and {ONE}",
)
system(
    "flowcore, resolve a name once more",
    f"{IMPORTS}\nflowcore.plugins()",
    FIND,
    ONE,
)

if __name__ == "__main__":
    WORK.main()
