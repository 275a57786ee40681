"""Which items go into which part of a dataset: by shares, labels, groups, or a hash of their ids.

An item is in one part at most. The same ids, labels, groups and seed give the same parts, on every
machine.
"""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import OptionError, explain
from flowcore.idhash import id_words
from flowcore.ids import Positions
from flowcore.index import Index
from flowcore.labels import codes
from flowcore.order import Permutation
from flowcore.sampler import seed_sequence

__all__ = ["folds", "parts"]

_SPLIT = 4  # what this stream is for; the other purposes are those of `flowcore.sampler`
_BLOCK = 1 << 20  # places, or ids, that are looked at at a time
_ROUNDING = 1e-9  # 0.7, 0.2 and 0.1 sum to almost one


def parts(index: Index, shares: Any, *, seed: int | None, by: Any, groups: Any) -> list[Positions]:
    """Return the positions of each part, in the index's order.

    Args:
        index: of all items.
        shares: a float f for (f, 1 - f), or several that sum to at most 1. What is missing to 1 is
            a rest in no part.
        seed: of what is random. ``None``: the first items go into the first part, and so on.
        by: ``None``; a label for each item, to divide the items of each label by the shares; or
            ``"hash"``, to draw the part of each item from its id.
        groups: ``None``, or a group for each item; the items of a group go together.

    Raises:
        OptionError: one of these cannot be right, or a part would be empty.
    """
    wanted = _checked_shares(shares)
    seed = _checked_seed(seed)
    n = len(index)
    chosen: list[Positions]
    if by is None and groups is None and seed is None:
        ends = [0, *np.cumsum(_sizes([n], wanted)[0]).tolist()]
        chosen = [range(*pair) for pair in itertools.pairwise(ends)]
    else:
        numbers = _numbers(index, wanted, seed, by, groups)
        chosen = [np.flatnonzero(numbers == part) for part in range(len(wanted))]
    for part, share in enumerate(wanted):
        if not len(chosen[part]):
            of = f"{n} items" + ("" if groups is None else " in their groups")
            raise OptionError(
                explain(
                    f"part {part}, with a share of {share:.3g}, would have none of {of}",
                    next="make it larger, or make fewer parts",
                )
            )
    return chosen[: len(wanted)]


def folds(
    index: Index, k: Any, *, seed: int | None, by: Any, groups: Any
) -> list[tuple[Positions, Positions]]:
    """Return the positions of k pairs (all others, a k-th of the items); see `parts`.

    Raises:
        OptionError: ``k`` is no int from 2 to the number of items (of groups); as `parts`.
    """
    if (
        isinstance(k, bool)
        or not hasattr(k, "__index__")
        or not 2 <= operator.index(k) <= len(index)
    ):
        raise OptionError(f"k must be an int from 2 to the {len(index)} items, got {k!r:.60}")
    tests = parts(index, [1 / k] * operator.index(k), seed=seed, by=by, groups=groups)
    return [(_others(test, len(index)), test) for test in tests]


def _others(positions: Positions, n: int) -> NDArray[np.int64]:
    outside = np.ones(n, bool)
    outside[positions] = False
    return np.flatnonzero(outside)


def _numbers(
    index: Index, shares: list[float], seed: int | None, by: Any, groups: Any
) -> NDArray[np.int32]:
    """Return the number of the part of each item; the rest has the number after the last."""
    n = len(index)
    if isinstance(by, str):
        if by != "hash" or groups is not None or seed is None:
            raise OptionError(
                explain(
                    f"by={by!r} cannot be right",
                    why='by="hash" goes with a seed and without groups; other strings mean nothing',
                    next="pass an array of one label for each item: by=labels",
                )
            )
        return _by_hash(index, shares, seed)
    labels = np.zeros(n, np.int64) if by is None else codes(by, "by", n)
    order = _order(n, seed)
    if groups is not None:
        return _by_group(order, codes(groups, "groups", n), labels, shares)
    return _by_label(order, labels if by is not None else None, shares)


def _order(n: int, seed: int | None) -> NDArray[np.int64]:
    if seed is None:
        return np.arange(n)
    permutation = Permutation(n, seed_sequence(seed, _SPLIT))
    order = np.empty(n, np.int64)
    for start in range(0, n, _BLOCK):
        order[start : start + _BLOCK] = permutation[start : start + _BLOCK]
    return order


def _by_label(
    order: NDArray[np.int64], labels: NDArray[np.int64] | None, shares: list[float]
) -> NDArray[np.int32]:
    counts = [len(order)]
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
        counts = np.bincount(labels).tolist()
    sizes = _sizes(counts, shares)
    every = np.tile(np.arange(sizes.shape[1], dtype=np.int32), len(counts))
    numbers = np.empty(len(order), np.int32)
    numbers[order] = np.repeat(every, sizes.ravel())
    return numbers


def _sizes(counts: list[int], shares: list[float]) -> NDArray[np.int64]:
    """Divide each of ``counts`` by the shares, by largest remainders: (counts, parts and rest).

    What rounding withheld from a part is remembered, so that the parts have their shares of the
    whole too, however many labels of a few items there are.
    """
    quotas = np.outer(counts, _with_rest(shares))
    sizes = np.floor(quotas + _ROUNDING).astype(np.int64)
    owed = np.zeros(quotas.shape[1])
    for quota, size, count in zip(quotas, sizes, counts, strict=True):
        owed += quota - size
        candidates = np.where(quota - size > _ROUNDING, owed, -np.inf)
        more = np.argsort(-candidates, kind="stable")[: count - size.sum()]
        size[more] += 1
        owed[more] -= 1
    return sizes


def _by_group(
    order: NDArray[np.int64],
    groups: NDArray[np.int64],
    labels: NDArray[np.int64],
    shares: list[float],
) -> NDArray[np.int32]:
    """Give each group, the largest first, to the part that lacks most of what it has.

    Labels are weighed so that a rare one counts as much as a common one.
    """
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    totals = np.bincount(labels)
    lacking = np.outer(_with_rest(shares), np.ones(len(totals)))
    numbers = np.empty(len(order), np.int32)
    for group in np.lexsort((first, -sizes)).tolist():
        has, counts = np.unique(labels[members[group]], return_counts=True)
        brings = counts / totals[has]
        part = int(np.argmax(lacking[:, has] @ brings))
        lacking[part, has] -= brings
        numbers[members[group]] = part
    return numbers


def _by_hash(index: Index, shares: list[float], seed: int) -> NDArray[np.int32]:
    """Draw parts from ids alone, so that an item stays in its part whatever else comes and goes."""
    ends = np.cumsum(_with_rest(shares))[:-1]
    edges = np.array([min(int(end * 2.0**64), 2**64 - 1) for end in ends], np.uint64)
    numbers = np.empty(len(index), np.int32)
    for start in range(0, len(index), _BLOCK):
        places = np.arange(start, min(start + _BLOCK, len(index)))
        drawn = id_words(index.ids(places), seed)
        numbers[places] = np.searchsorted(edges, drawn, side="right")
    return numbers


def _with_rest(shares: list[float]) -> list[float]:
    rest = 1 - math.fsum(shares)
    return [*shares, rest] if rest > _ROUNDING else shares


def _checked_shares(shares: Any) -> list[float]:
    one = isinstance(shares, (float, np.floating))
    given = [shares, 1 - float(shares)] if one else shares
    try:
        if isinstance(given, str) or any(isinstance(share, (bool, np.bool_)) for share in given):
            raise TypeError
        wanted = [float(share) for share in given]
    except (TypeError, ValueError):
        wanted = []
    total = math.fsum(wanted)
    if wanted and all(share > 0 for share in wanted) and total <= 1 + _ROUNDING:
        return wanted
    raise OptionError(
        explain(
            f"the shares of a split must be above 0 and sum to at most 1, got {shares!r:.60}",
            next="split(0.8), or split([0.7, 0.2, 0.1])",
        )
    )


def _checked_seed(seed: Any) -> int | None:
    if seed is None:
        return None
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or operator.index(seed) < 0:
        raise OptionError(f"seed must be an int of at least 0, or None, got {seed!r:.60}")
    return operator.index(seed)
