"""The contract of a sink, for each of the three places where the results can go."""

import numpy as np
import pytest

from flowcore.errors import OptionError
from flowcore.testing import SinkContract
from flowcore_numpy_buffer import NumpyBufferSink


class TestArrays(SinkContract):
    @pytest.fixture
    def sink(self):
        return NumpyBufferSink()

    def received(self, result):
        return [] if result is None else [result]


class TestFiles(SinkContract):
    keeps_items = False  # of a run that was left or has failed there is no file
    resumes = "refuses"

    @pytest.fixture
    def sink(self, tmp_path):
        return NumpyBufferSink(path=tmp_path / "x.npy")


class TestResumableFiles(SinkContract):
    keeps_items = False  # under the name of the result
    resumes = "whole"

    @pytest.fixture
    def sink(self, tmp_path):
        return NumpyBufferSink(path=tmp_path / "x.npy", resumable=True)

    def received(self, result):
        return [np.load(result.filename)]

    def test_two_runs_of_one_pipeline_at_once_do_not_mix(self, sink):
        with pytest.raises(OptionError, match="another run writes here"):
            super().test_two_runs_of_one_pipeline_at_once_do_not_mix(sink)


class TestBuffer(SinkContract):
    bounded = True

    @pytest.fixture
    def sink(self):
        return self.sink_with_room(40)

    def sink_with_room(self, puts):
        return NumpyBufferSink(capacity=puts)

    def take(self, result):
        return result.get(timeout=10)

    def received(self, result):
        return [np.asarray(result.get(timeout=10)) for _ in range(len(result))]
