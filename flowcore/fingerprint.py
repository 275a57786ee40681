"""Short digests of what a run is made of, the same in every process: to see whether two runs agree.

Data is told apart by its value, functions and classes by their name (so that one whose code was
mended is still the same), other objects by their class and, if they are dataclasses, their fields.
What two objects differ in beyond that is not seen.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

try:  # `hashlib` has the same, and loads OpenSSL for it: 4 ms and 4 MB
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

__all__ = ["digest"]


def digest(*values: Any, length: int = 8) -> str:
    """Return ``length`` letters, digits, ``-`` or ``_`` that tell ``values`` from others."""
    hasher = blake2b(digest_size=24)
    for part in _parts(values):
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return base64.urlsafe_b64encode(hasher.digest()).decode()[:length]


def _parts(value: Any) -> Iterable[bytes | memoryview]:
    """Generate what tells a value from others."""
    yield type(value).__qualname__.encode()
    if hasattr(value, "fingerprint_parts") and not isinstance(value, type):
        yield from _parts(value.fingerprint_parts())
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype.str} {value.shape}".encode()
        yield np.ascontiguousarray(value).data.cast("B") if value.size else b""
    elif isinstance(value, Mapping):
        yield str(len(value)).encode()  # so that what follows is not taken for an item
        for name, item in value.items():
            yield from _parts(name)
            yield from _parts(item)
    elif isinstance(value, (set, frozenset)):
        yield from sorted(digest(item).encode() for item in value)
        yield str(len(value)).encode()
    elif isinstance(value, (tuple, list, np.ndarray)):
        yield str(len(value)).encode()
        for item in value:
            yield from _parts(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _parts([getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, (type(None), bool, int, float, complex, str, bytes, np.generic)):
        yield repr(value).encode()
    else:
        yield str(getattr(value, "__qualname__", "")).encode()
