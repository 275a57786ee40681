"""Tables in Markdown, and pictures, of what `harness` has measured."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import Measure, Round, Target, Work

__all__ = ["machine", "plot", "ratios", "table", "targets"]

COLOURS = {"floor": "#9a9a9a", "flowcore": "#1f6fb4"}  # by the first word; peers have the other
PEER = "#d9a441"


def table(work: Work, result: dict[str, Any]) -> str:
    """Return the table of one work: medians, ranges, and ratios inside the rounds."""
    found: list[Round] = result["rounds"]
    first = work.measures[0]
    shown = [one for one in work.systems if _values(found, one, first.name)]
    references = [one for one in work.references if one in shown]
    heads = ["system", f"{first.unit}, median (range)", *(f"of `{one}`" for one in references)]
    heads += [measure.unit for measure in work.measures[1:]]
    lines = [_line(heads), "|---|" + "---:|" * (len(heads) - 1)]
    for system in shown:
        cells = [system, _with_range(_values(found, system, first.name), first)]
        cells += [f"{_median(ratios(found, system, first.name, one)):.2f}" for one in references]
        cells += [_middle(_values(found, system, one.name), one) for one in work.measures[1:]]
        lines.append(_line(cells))
    absent = [f"Left out: {one}: {why}" for one, why in result["absent"].items()]
    others = [one["others"] for each in found for one in each.values()]
    quiet = f"Other programs took at most {max(others, default=0.0):.2f} of a core meanwhile."
    return "\n".join([*lines, "", *absent, quiet])


def targets(works: Iterable[tuple[Work, dict[str, Any]]]) -> str:
    """Return the table of what was to be reached, and what was."""
    lines = [
        _line(["work", "system", "measure", "target", "measured", ""]),
        "|---|" * 1 + "---|" * 5,
    ]
    for work, result in works:
        for target in work.targets:
            lines.append(_line([work.key, *_reached(work, target, result["rounds"])]))
    return "\n".join(lines)


def _reached(work: Work, target: Target, found: list[Round]) -> list[str]:
    measure = next(one for one in work.measures if one.name == target.measure)
    if target.of is None:
        values, of, unit = _values(found, target.system, target.measure), "", measure.unit
    else:
        values = ratios(found, target.system, target.measure, target.of, target.of_measure)
        of, unit = f" of `{target.of}`", f"ratio of {measure.unit}"
    wanted = f"{'at least' if measure.more else 'at most'} {target.bound:g}{of}"
    if not values:
        return [target.system, unit, wanted, "not measured", ""]
    value = _median(values)
    met = value >= target.bound if measure.more else value <= target.bound
    spread = f"{value:.3g} ({min(values):.3g} to {max(values):.3g})"
    return [target.system, unit, wanted, spread, "met" if met else "**missed**"]


def ratios(
    found: list[Round], system: str, measure: str, of: str, of_measure: str | None = None
) -> list[float]:
    """Return a system's measure divided by that of another one, for each round that has both."""
    return [
        each[system][measure] / each[of][of_measure or measure]
        for each in found
        if system in each and of in each and measure in each[system]
    ]


def plot(work: Work, result: dict[str, Any], path: Path) -> None:
    """Draw a bar for each system, with its range, the best on top of its kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found, first = result["rounds"], work.measures[0]
    shown = [one for one in work.systems if _values(found, one, first.name)]
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.32 * len(shown)), layout="constrained")
    for system in reversed(shown):
        values = _values(found, system, first.name)
        middle = _median(values)
        reach = [[middle - min(values)], [max(values) - middle]]
        colour = COLOURS.get(system.split(",")[0].split()[0], PEER)
        axes.barh(system, middle, xerr=reach, color=colour, capsize=3)
        axes.annotate(
            f"{middle:,.{first.digits}f}",
            (max(values), system),
            xytext=(6, -4),
            textcoords="offset points",
        )
    every = [_median(_values(found, one, first.name)) for one in shown]
    if max(every) > 50 * min(every) > 0:
        axes.set_xscale("log")
    axes.margins(x=0.12)
    better = "more" if first.more else "less"
    axes.set_xlabel(f"{first.unit}: median and range; {better} is better")
    axes.set_title(f"{work.key}: {work.title}", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def machine(packages: Sequence[str]) -> str:
    """Return a line about this machine and what is installed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [
        ("Python", platform.python_version()),
        *((one, _installed(one)) for one in packages),
    ]
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}; {', '.join(map(' '.join, versions))}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _values(found: list[Round], system: str, measure: str) -> list[float]:
    return [each[system][measure] for each in found if system in each and measure in each[system]]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def _middle(values: Sequence[float], measure: Measure) -> str:
    return f"{_median(values):,.{measure.digits}f}" if values else ""


def _with_range(values: Sequence[float], measure: Measure) -> str:
    low, high = (f"{one:,.{measure.digits}f}" for one in (min(values), max(values)))
    return f"{_middle(values, measure)} ({low} to {high})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
