"""Actions on the NumPy arrays of a batch: ``pipeline.arrays.cast("float32").arrays.flip(2)``.

Each takes a batch first and returns it, so each can be called without a pipeline too.
``components`` says which arrays it works on: the name of a component, or several; by default the
batch's only component, or its data if that has no names. An array has one entry for each item,
``(N, ...)``. No action writes into an array: each leaves new ones in the batch. If it raises, the
batch's arrays are as they were. `load` and `dump` are the ways from files and to files.
"""

from flowcore_arrays._files import dump, load
from flowcore_arrays._shapes import crop, flip, pad
from flowcore_arrays._values import apply, cast, normalize, one_hot

__all__ = ["apply", "cast", "crop", "dump", "flip", "load", "normalize", "one_hot", "pad"]
