"""Seeds and random streams of a run: where they come from, and that no two serve one end."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.sampler import draw_seed, random_stream, seed_sequence

seeds = st.integers(0, 2**64)
epochs = st.integers(0, 5)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_the_seed_and_the_same_one_when_it_starts_the_same(make):
    generator = make(5)
    first, second = draw_seed(generator, None), draw_seed(generator, None)
    assert first != second
    assert draw_seed(make(5), None) == first


def test_a_seed_that_is_given_is_the_seed():
    assert draw_seed(True, 17) == 17


def test_without_a_seed_each_run_has_another():
    assert len({draw_seed(True, None) for _ in range(5)}) == 5


@given(seeds, epochs, st.integers(0, 5))
def test_a_random_stream_is_a_function_of_its_arguments(seed, epoch, number):
    draws = [random_stream(seed, epoch, number).integers(2**63, size=4) for _ in range(2)]
    assert np.array_equal(*draws)


def test_to_draw_a_seed_from_the_system_does_not_load_numpys_generators():
    code = (
        "import sys, numpy; loaded = 'numpy.random' in sys.modules\n"  # by a NumPy below 2
        "from flowcore.sampler import draw_seed; draw_seed(True, None)\n"
        "print(loaded or 'numpy.random' not in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.stdout.strip(), done.stderr) == ("True", "")


def test_random_streams_for_different_ends_differ():
    arguments = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)]
    words = {random_stream(*one).bytes(8) for one in arguments}
    words |= {np.random.default_rng(seed_sequence(1, end, 0, 0)).bytes(8) for end in (0, 2, 3)}
    assert len(words) == len(arguments) + 3
