"""Where two ways to run one pipeline differ first: the batch, its part, the item, the values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from flowcore.testing.batches import Seen

__all__ = ["Difference", "difference"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing in which two runs differ.

    Attributes:
        batch: in which batch: ``batch 2 of epoch 0``.
        place: where in it: ``component 'noise', item 'id-7'``.
        one: what is there in the first run, as text.
        other: what is there in the second.
    """

    batch: str
    place: str
    one: str
    other: str


def difference(one: Sequence[Seen], other: Sequence[Seen]) -> Difference | None:
    """Return where two runs differ first; ``None`` if they are the same, byte for byte."""
    for first, second in zip_longest(one, other):
        if first is None or second is None or first[:2] != second[:2]:
            return Difference(
                _called(first or second), "the batch itself", _called(first), _called(second)
            )
        if (found := _in_batch(first, second)) is not None:
            return Difference(_called(first), *found)
    return None


def _called(batch: Seen | None) -> str:
    return "no batch" if batch is None else f"batch {batch.number} of epoch {batch.epoch}"


def _in_batch(one: Seen, other: Seen) -> tuple[str, str, str] | None:
    if one.ids != other.ids:
        place, *values = _narrowed(one.ids, other.ids)
        return f"batch.index{_at(place)}", values[0], values[1]
    for name in {**one.parts, **other.parts}:
        first, second = (seen.parts.get(name, _NOTHING) for seen in (one, other))
        if first != second:
            return _in_part(name, first, second, _values(one.ids))
    return None


def _in_part(name: str, one: Any, other: Any, ids: Sequence[Any]) -> tuple[str, str, str]:
    place, first, second = _narrowed(one, other)
    what = f"batch.{name}"
    if name == "data" and place and isinstance(place[0], str):
        what, place = f"component {place[0]!r}", place[1:]
    if place and isinstance(place[0], int) and place[0] < len(ids):
        what, place = f"{what}, item {ids[place[0]]!r}", place[1:]
    return f"{what}{_at(place)}", first, second


def _at(place: Sequence[Any]) -> str:
    return "".join(f"[{key!r}]" for key in place)


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def _narrowed(one: Any, other: Any) -> tuple[list[Any], str, str]:
    """Return where in two values, which differ, they differ first, and what is there in each."""
    if _is_array(one) and _is_array(other):
        for first, second in zip(one[:2], other[:2], strict=True):
            if first != second:
                return [], _shape(one), _shape(other)
        return _in_array(one, other)
    pairs: dict[Any, tuple[Any, Any]] = {}
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = {**one, **other}
        pairs = {key: (one.get(key, _NOTHING), other.get(key, _NOTHING)) for key in keys}
    elif isinstance(one, list) and isinstance(other, list):
        pairs = dict(enumerate(zip_longest(one, other, fillvalue=_NOTHING)))
    for key, (first, second) in pairs.items():
        if first != second:
            place, *values = _narrowed(first, second)
            return [key, *place], values[0], values[1]
    return [], _short(one), _short(other)


def _is_array(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], np.dtype)


def _shape(array: Any) -> str:
    return f"an array {array[0]} {array[1]}"


def _in_array(one: Any, other: Any) -> tuple[list[Any], str, str]:
    dtype, shape, held = one
    if isinstance(held, list):
        at = next(
            at for at, pair in enumerate(zip(held, other[2], strict=True)) if pair[0] != pair[1]
        )
        inner, first, second = _narrowed(held[at], other[2][at])
    else:
        raw = [
            np.frombuffer(array[2], np.uint8).reshape(-1, dtype.itemsize) for array in (one, other)
        ]
        at = int((raw[0] != raw[1]).any(axis=1).argmax())
        inner = []
        first, second = (repr(np.frombuffer(array[2], dtype)[at].item()) for array in (one, other))
        if first == second:  # they differ all the same: -0.0, or another NaN
            first, second = (f"{first} (0x{bytes(row[at]).hex()})" for row in raw)
    return [*map(int, np.unravel_index(at, shape)), *inner], first, second


def _values(ids: Any) -> list[Any]:
    """Return the ids that `contents` has taken apart."""
    dtype, shape, held = ids
    return (
        held if isinstance(held, list) else np.frombuffer(held, dtype)[: math.prod(shape)].tolist()
    )


def _short(value: Any) -> str:
    text = repr(value) if not _is_array(value) else _shape(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
