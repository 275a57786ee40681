"""An action pack for batches whose data is one array of strings."""

from __future__ import annotations

import zlib

import numpy as np

from flowcore import Batch, action

__all__ = ["bag_of_words", "lower"]


@action
def lower(batch: Batch) -> Batch:
    """Make all text lower case."""
    batch.data = np.strings.lower(batch.data)
    return batch


@action
def bag_of_words(batch: Batch, buckets: int = 64) -> Batch:
    """Make each text a count of its words, hashed: a float32 array ``(len(batch), buckets)``."""
    counts = np.zeros((len(batch), buckets), np.float32)
    for row, text in zip(counts, batch.data, strict=True):
        for word in text.split():
            row[zlib.crc32(word.encode()) % buckets] += 1
    batch.data = counts
    return batch
