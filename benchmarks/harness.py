"""Measures systems that do the same work: each in a fresh process, interleaved, in several rounds.

A file of this folder makes one `Work`, marks a function for each system, and ends with
``WORK.main()``. Such a function does the work once and returns what it measured; it imports what it
needs itself, so that no process has a system in it but the one that it measures. What is not
installed is left out, and the table says so.

Ratios are taken inside a round, and their median is shown: a machine's speed changes over minutes,
and then changes for all.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["Measure", "Round", "System", "Target", "Work", "cpu_seconds", "peak_mb"]

Measures: TypeAlias = "dict[str, float]"
Round: TypeAlias = "dict[str, Measures]"  # by system

QUIET, TRIES = 0.25, 3  # of a core that other programs may take; how often to wait for that
LONGEST = 300  # seconds for one system: a peer may hang


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured.

    Attributes:
        name: the key in what a system's function returns.
        unit: as the table's head shows it: ``"us a batch"``.
        digits: after the point.
        more: whether more is better.
    """

    name: str
    unit: str
    digits: int = 1
    more: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What flowcore is to reach: a bound on a measure, or on its ratio to that of another system.

    Attributes:
        system: whose measure.
        measure: its name.
        bound: the measure, or the ratio, is to be at most this; at least, where more is better.
        of: the system that the ratio is to; ``None`` bounds the measure itself.
        of_measure: the measure of ``of``; ``None`` for the same one.
    """

    system: str
    measure: str
    bound: float
    of: str | None = None
    of_measure: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """One way to do the work.

    Attributes:
        name: as the table shows it. Those of flowcore begin with ``flowcore``, floors with
            ``floor``; all others are peers.
        run: does the work once, in a fresh process, and returns its measures.
        every: it is measured in each n-th round only, because it takes long.
    """

    name: str
    run: Callable[[bool], Measures]
    every: int = 1


@dataclass(eq=False)
class Work:
    """Work that several systems do.

    Args:
        key: short: ``"W1"``.
        title: what it is, in a line.
        measures: what is measured; the first is drawn.
        packages: the distributions whose versions are of interest.
        references: the systems that ratios of the first measure are shown to.
        targets: what flowcore is to reach.
        rounds: how many in a long run, and in a short one.
    """

    key: str
    title: str
    measures: Sequence[Measure]
    packages: Sequence[str] = ("numpy", "flowcore")
    references: Sequence[str] = ()
    targets: Sequence[Target] = ()
    rounds: tuple[int, int] = (5, 1)
    systems: dict[str, System] = field(default_factory=dict)

    def system(
        self, name: str, *, every: int = 1
    ) -> Callable[[Callable[[bool], Measures]], Callable[[bool], Measures]]:
        """Mark a function of ``short`` that does the work, in the order of the table."""

        def mark(function: Callable[[bool], Measures]) -> Callable[[bool], Measures]:
            assert name not in self.systems, name
            self.systems[name] = System(name, function, every)
            return function

        return mark

    def main(self) -> None:
        """Be the command: measure one system in this process, or all in processes of their own."""
        parser = argparse.ArgumentParser(description=self.title)
        parser.add_argument("--one", metavar="SYSTEM", help="measure it here, and print JSON")
        parser.add_argument("--short", action="store_true", help="less work, and fewer rounds")
        parser.add_argument("--rounds", type=int, help="of all systems")
        parser.add_argument("--only", default="", help="systems with one of these words: a,b")
        parser.add_argument("--json", type=Path, help="where to write what was measured")
        given = parser.parse_args()
        if given.one is not None:
            print(json.dumps(self.systems[given.one].run(given.short)))
            return
        result = self.measure(short=given.short, rounds=given.rounds, only=given.only)
        if given.json is not None:
            given.json.write_text(json.dumps(result, indent=1))
        from report import table  # it has this module's names

        print(table(self, result))

    def measure(
        self, *, short: bool = False, rounds: int | None = None, only: str = ""
    ) -> dict[str, Any]:
        """Measure all systems; return the rounds, what is absent and why, and how busy others were.

        Rounds begin with different systems, so that none always follows the same one.
        """
        words = [word for word in only.split(",") if word]
        wanted = {*self.references, *(target.of for target in self.targets)}
        chosen = [
            one
            for one in self.systems.values()
            if not words or one.name in wanted or any(word in one.name for word in words)
        ]
        found: list[Round] = []
        absent: dict[str, str] = {}
        for number in range(self.rounds[short] if rounds is None else rounds):
            found.append({})
            turn = number * 5 % len(chosen)
            for system in chosen[turn:] + chosen[:turn]:
                if system.name in absent or number % system.every:
                    continue
                measures = self._quietest(system, short)
                print(f"  {self.key} {number} {system.name}: {measures}", file=sys.stderr)
                if isinstance(measures, str):
                    absent[system.name] = measures
                else:
                    found[-1][system.name] = measures
        return {"key": self.key, "short": short, "rounds": found, "absent": absent}

    def _quietest(self, system: System, short: bool) -> Measures | str:
        """Measure until nobody else uses the machine, a few times; the quietest time counts."""
        tries: list[Measures] = []
        while not tries or (len(tries) < TRIES and tries[-1]["others"] > QUIET):
            measures = self._once(system, short)
            if isinstance(measures, str):
                return measures
            tries.append(measures)
        return min(tries, key=lambda one: one["others"])

    def _once(self, system: System, short: bool) -> Measures | str:
        file = sys.modules[system.run.__module__].__file__
        command = [sys.executable, str(file), "--one", system.name, *["--short"] * short]
        busy, start = _busy(), time.perf_counter()
        used = cpu_seconds(resource.RUSAGE_CHILDREN)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return f"it was not ready after {LONGEST} seconds"
        took = time.perf_counter() - start
        ours = cpu_seconds(resource.RUSAGE_CHILDREN) - used
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip() and line[0] != " "]
            return lines[-1] if lines else f"exit code {done.returncode}"
        measures: Measures = json.loads(done.stdout.splitlines()[-1])
        measures["others"] = max(0.0, (_busy() - busy - ours) / took)
        return measures


def _busy() -> float:
    """Return the CPU seconds of the whole machine so far, those that its host took too."""
    try:
        import psutil
    except ImportError:
        return float("nan")
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + getattr(times, "steal", 0.0))


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    """Return the CPU seconds of this process, all its threads included; or of its children."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def peak_mb() -> float:
    """Return the most memory that this process has had resident, in MB (of 2**20 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
