"""Big batches from worker processes: flowcore beside its peers and beside floors written by hand.

``python benchmarks/transfer.py`` prints a table in Markdown. A batch is a float32 array of 38.5 MB.
To make it takes some milliseconds of Python and a fill, by one of two workers; the consumer reads
all of it, and sees that it is the right one. Every system runs in a process of its own, one after
another, in several rounds. Ratios are taken inside a round, and their median is shown, since a
machine's speed changes over minutes. What is not installed is left out, and said so.

NumPy is needed; psutil for CPU time and memory; matplotlib for the picture. The peers are
``torch``, ``grain`` and ``spdl``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from transfer_measure import COPIED_IN, IN_PLACE, SYSTEMS

Measures: TypeAlias = dict[str, float]
Round: TypeAlias = dict[str, Measures]  # by system

PACKAGES = ("numpy", "flowcore", "flowcore-processes", "torch", "grain", "spdl")
QUIET, TRIES = 0.2, 4  # of a core that other processes may take; how often to wait for that
LONGEST = 600  # seconds for one system: a peer may hang
COLOURS = {"ring": "#9a9a9a", "flow": "#1f6fb4"}  # by the first letters; the peers have the other


def measured(system: str, batches: int) -> Measures | str:
    """Return what a system's batches cost, or why that is not known.

    While others use the machine it is measured again, some times, and the quietest time counts.
    """
    tries: list[Measures] = []
    while not tries or (len(tries) < TRIES and tries[-1]["others"] > QUIET):
        measures = measured_once(system, batches)
        print(f"  {system}: {measures}", file=sys.stderr, flush=True)
        if isinstance(measures, str):
            return measures
        tries.append(measures)
    return min(tries, key=lambda one: one["others"])


def measured_once(system: str, batches: int) -> Measures | str:
    """Return the same, from a process of its own."""
    script = Path(__file__).with_name("transfer_measure.py")
    command = [sys.executable, str(script), system, str(batches)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return f"it was not ready after {LONGEST} seconds"
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and line[0] != " "]
        return lines[-1] if lines else f"exit code {done.returncode}"
    measures: Measures = json.loads(done.stdout.splitlines()[-1])
    return measures


def rounds(many: int, batches: int, systems: list[str]) -> tuple[list[Round], dict[str, str]]:
    """Return the measures of each round, and why some systems have none.

    Rounds begin with different systems, so that none always follows the same one.
    """
    found: list[Round] = []
    absent: dict[str, str] = {}
    for number in range(many):
        found.append({})
        turn = number * 5 % len(systems)
        for system in systems[turn:] + systems[:turn]:
            measures = absent.get(system) or measured(system, batches)
            if isinstance(measures, str):
                absent[system] = measures
            else:
                found[-1][system] = measures
    return found, absent


def row(system: str, found: list[Round]) -> str:
    """Return a system's line of the table."""

    def middle(name: str) -> str:
        return f"{statistics.median(one[system][name] for one in found):.0f}"

    def ratio(floor: str) -> str:
        ratios = [one[system]["batches_s"] / one[floor]["batches_s"] for one in found]
        return f"{statistics.median(ratios):.2f}"

    speeds = [one[system]["batches_s"] for one in found]
    cells = [
        f"{statistics.median(speeds):.1f} ({min(speeds):.1f} to {max(speeds):.1f})",
        *map(ratio, (COPIED_IN, IN_PLACE)),
        *map(middle, ("cpu_ms", "memory_mb", "peak_mb")),
    ]
    return f"| {system} | {' | '.join(cells)} |"


def report(found: list[Round], systems: list[str], absent: dict[str, str]) -> None:
    """Print the table, and what is not in it."""
    print(
        f"| system | batches/s, median (range) | of `{COPIED_IN}` | of `{IN_PLACE}` "
        "| CPU, ms a batch | memory of all, MB | peak of the consumer, MB |"
    )
    print("|---|" + "---:|" * 6)
    for system in systems:
        print(row(system, found))
    for system, reason in absent.items():
        print(f"\nLeft out: {system}: {reason}")
    others = max(one[system]["others"] for one in found for system in systems)
    print(f"\nOther processes took at most {max(0.0, others):.2f} of a core meanwhile.")


def machine() -> str:
    """Return a line about this machine and what is installed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = [("Python", platform.python_version()), *((one, installed(one)) for one in PACKAGES)]
    return (
        f"{os.cpu_count()} cores ({processor()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}; {', '.join(map(' '.join, packages))}"
    )


def processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed(package: str) -> str:
    """Return a package's version, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def plot(found: list[Round], systems: list[str], path: str) -> None:
    """Draw a bar for each system, with its range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for system in reversed(systems):
        speeds = [one[system]["batches_s"] for one in found]
        middle = statistics.median(speeds)
        reach = [[middle - min(speeds)], [max(speeds) - middle]]
        colour = COLOURS.get(system[:4], "#d9a441")
        axes.barh(system, middle, xerr=reach, color=colour, capsize=3)
        axes.annotate(
            f"{middle:.0f}", (max(speeds), system), xytext=(6, -4), textcoords="offset points"
        )
    axes.margins(x=0.08)
    axes.set_xlabel("batches of 38.5 MB a second: median and range")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of all systems (5)")
    parser.add_argument("--batches", type=int, default=120, help="of each system in a round (120)")
    parser.add_argument("--short", action="store_true", help="one round of 30 batches")
    parser.add_argument("--only", default="", help="the systems with this in their names")
    parser.add_argument("--plot", metavar="FILE", help="where to draw a picture")
    options = parser.parse_args()
    many, batches = (1, 30) if options.short else (options.rounds, options.batches)
    chosen = [one for one in SYSTEMS if options.only in one or one in (COPIED_IN, IN_PLACE)]
    found, absent = rounds(many, batches, chosen)
    systems = [system for system in chosen if system not in absent]
    print(f"{machine()}. Rounds: {many}, of {batches} batches.\n")
    report(found, systems, absent)
    if options.plot:
        plot(found, systems, options.plot)


if __name__ == "__main__":
    main()
