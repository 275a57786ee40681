"""Measures everything, and writes tables, pictures and figures: ``python benchmarks/run.py``.

It takes minutes and says whether all works; with ``--long``, which figures are worth keeping need,
the better part of an hour. ``--only overhead,images`` takes some files.
"""

from __future__ import annotations

import argparse
import importlib
import json
from datetime import date
from pathlib import Path
from typing import Any

from harness import Work
from report import machine, plot, table, targets

__all__ = ["FILES", "main"]

FILES = (
    "overhead",
    "feeding",
    "images",
    "transfer",
    "waiting",
    "starting",
    "shuffling",
    "resuming",
    "growth",
    "discovery",
)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--long", action="store_true", help="more work, several rounds")
    parser.add_argument("--rounds", type=int, help="of each file; by default as each says")
    parser.add_argument("--only", default=",".join(FILES), help=f"of {', '.join(FILES)}")
    parser.add_argument("--out", type=Path, help="a folder for tables, figures and pictures")
    given = parser.parse_args()
    unknown = sorted({*given.only.split(",")} - {*FILES})
    if unknown:
        parser.error(f"no file is called {', '.join(unknown)}; there are {', '.join(FILES)}")
    done: list[tuple[Work, dict[str, Any]]] = []
    for name in given.only.split(","):
        work: Work = importlib.import_module(name).WORK
        result = work.measure(short=not given.long, rounds=given.rounds)
        done.append((work, result))
        rows = table(work, result)
        print(f"\n## {work.key}: {work.title}\n\n{rows}", flush=True)
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / f"{name}.json").write_text(json.dumps(result, indent=1))
            (given.out / f"{name}.inc").write_text(f"{rows}\n")
            plot(work, result, given.out / f"{name}.png")
    packages = sorted({package for work, _ in done for package in work.packages})
    where = f"{date.today():%d %B %Y}. {machine(packages)}."
    print(f"\n## What was to be reached\n\n{targets(done)}\n\n{where}")
    if given.out is not None:
        (given.out / "targets.inc").write_text(f"{targets(done)}\n\n{where}\n")


if __name__ == "__main__":
    main()
