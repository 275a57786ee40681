"""A flowcore sink that collects what a run delivers: in arrays, in .npy files, or in a buffer."""

from flowcore_numpy_buffer.buffer import Buffer, EndOfData
from flowcore_numpy_buffer.sink import NumpyBufferSink

__all__ = ["Buffer", "EndOfData", "NumpyBufferSink"]
