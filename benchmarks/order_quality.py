"""How good the order of a shuffled run is, beside NumPy's own permutations, on the same tests.

Run it as ``python benchmarks/order_quality.py``; it prints a table in Markdown. The statistics are
those of ``tests/core/test_order.py``: z scores. Those of permutations that are drawn uniformly are
beyond 3 once in 400, and beyond 6 once in 10**9. In each cell stand flowcore's, and that of
``numpy.random.Generator.permutation``.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TESTS = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "core" / "test_order.py"))


def drawn(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the reference: a permutation that NumPy draws."""
    return np.random.default_rng([epoch, seed]).permutation(n)


def cells(n: int) -> list[str]:
    """Return a row of the table."""
    samples: list[Any] = [TESTS["sample"](n), TESTS["sample"](n, drawn)]
    ours, reference = map(TESTS["scores"], samples)
    return [f"{ours[name]:+.1f} / {reference[name]:+.1f}" for name in ours]


def main() -> None:
    """Print the table."""
    print("| n |", " | ".join(TESTS["STATISTICS"]), "|")
    print("|---:" * (len(TESTS["STATISTICS"]) + 1) + "|")
    for n in TESTS["SIZES"]:
        print("|", " | ".join([f"{n:,}", *cells(n)]), "|", flush=True)


if __name__ == "__main__":
    main()
