"""What must have come of a case: the batches, the error, the items of the sinks, the report."""

from collections import Counter

import numpy as np
from soak_case import EARLY, Case, Expected

from flowcore.testing.batches import contents

__all__ = ["check"]


def check(case: Case, way: str, expected: Expected, given) -> None:
    """Fail if what a consumer was given, in one of the ways, is not what serial gives.

    Raises:
        AssertionError: likewise.
    """
    told = f"{way}: {getattr(given, 'why', None)!r}"
    if case.breaks_pool and given.error == "WorkerLost":
        _check_batches(case, expected, given, all_of_them=False)
        return
    if way in EARLY:
        assert given.error in (None, expected.kind, "TimeoutError", "Empty"), told
    else:
        assert given.error == expected.kind, told
    hands_over = way not in ("feed", "feed left", "run")
    _check_batches(case, expected, given, all_of_them=hands_over and way not in EARLY)
    if given.report is not None:
        _check_sinks(case, expected, given)
    if given.report is not None and given.whole and given.error is None:
        _check_report(expected.report, given.report, told)


def _check_batches(case: Case, expected: Expected, given, *, all_of_them: bool) -> None:
    wanted, found = expected.batches, given.batches
    if not case.options["ordered"]:
        wanted, found = sorted(wanted, key=_place), sorted(found, key=_place)
        if not all_of_them:
            wanted = [one for one in wanted if _place(one) in set(map(_place, found))]
    elif not all_of_them:
        wanted = wanted[: len(found)]
    assert list(map(_place, found)) == list(map(_place, wanted))
    assert found == wanted


def _check_sinks(case: Case, expected: Expected, given) -> None:
    """Look at what was put: as many batches as the report says, in the order of the delivery."""
    count, results = given.report.batches, given.report.results
    wanted = expected.noise[:count]
    if "null" in results:
        assert results["null"].batches == count
    if not case.options["ordered"]:
        return
    assert contents(given.taken) == contents(wanted[: len(given.taken)])
    if given.whole and given.error is None and {"buffer", "small"} & set(case.sinks):
        assert len(given.taken) == (0 if given.batches else count)
    if count and "numpy-buffer" in results and "collect" in case.sinks:
        assert contents(results["numpy-buffer"]) == contents(np.concatenate(wanted))


def _place(batch) -> tuple[int, int]:
    return batch.epoch, batch.number


def _check_report(expected, found, told: str) -> None:
    for what in ("batches", "items", "epochs", "fillers"):
        assert getattr(found, what) == getattr(expected, what), f"{what}, {told}"
    for what in ("skipped", "skipped_items"):
        assert _troubles(getattr(found, what)) == _troubles(getattr(expected, what)), told


def _troubles(troubles) -> Counter:
    return Counter((one.epoch, one.number, str(one.ids)) for one in troubles)
