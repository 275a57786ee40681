"""A hash of an id: a function of its value and of a seed, the same in every process and version."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowcore.errors import OptionError, explain
from flowcore.ids import listed

__all__ = ["id_words"]


def id_words(ids: NDArray[Any], seed: int) -> NDArray[np.uint64]:
    """Return a word of 64 bits for each id, as random numbers would be; equal ids have equal ones.

    Raises:
        OptionError: an id that is no int, float, string, date, nor a tuple of these.
    """
    import hashlib  # here: it loads OpenSSL, which takes 4 ms and 4 MB

    salted = hashlib.blake2b(f"{seed}:".encode(), digest_size=8)
    return np.fromiter((_word(salted, id_) for id_ in listed(ids)), np.uint64, len(ids))


def _word(salted: Any, id_: Any) -> int:
    hashed = salted.copy()
    hashed.update(_encoded(id_))
    return int.from_bytes(hashed.digest(), "big")


def _encoded(id_: Any) -> bytes:
    """Return an id as bytes that are the same in every process, and for ids that are equal."""
    if isinstance(id_, np.number) and id_.dtype.kind in "iuf":
        id_ = id_.item()
    if isinstance(id_, float) and id_.is_integer():
        id_ = int(id_)
    if isinstance(id_, int):
        return b"int %d" % id_
    if isinstance(id_, str):
        return b"str " + id_.encode("utf-8", "surrogatepass")
    if isinstance(id_, bytes):
        return b"bytes " + id_
    if isinstance(id_, float):
        return b"float " + id_.hex().encode()
    if isinstance(id_, (date, np.datetime64)):
        return b"time " + _moment(id_).encode()
    if isinstance(id_, tuple):
        each = [_encoded(part) for part in id_]
        return b"tuple " + b"".join(b"%d:%s" % (len(part), part) for part in each)
    raise OptionError(
        explain(
            f"an id of type {type(id_).__name__} has no hash that is the same in every process",
            next="use ints, strings, dates, or tuples of these for ids",
        )
    )


def _moment(id_: date | np.datetime64[Any]) -> str:
    """Return a date or a time as text: the same in days, seconds or nanoseconds."""
    if isinstance(id_, datetime) and id_.tzinfo is not None:
        id_ = id_.astimezone(UTC).replace(tzinfo=None)
    exact = np.datetime64(id_)
    text = str(exact.astype(np.promote_types(exact.dtype, "M8[D]")))
    day, _, time = text.partition("T")
    return f"{day}T{time.rstrip('0:.')}"
