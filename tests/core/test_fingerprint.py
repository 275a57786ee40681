"""Digests: equal things have the same one in every process, different things have others."""

import copy
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from flowcore.fingerprint import digest


@dataclass
class Point:
    x: int
    y: int


def one():
    return 1


def other():
    return 1


DIFFERENT = [
    None,
    0,
    0.0,
    False,
    "0",
    b"0",
    (),
    [],
    {},
    (0,),
    [0],
    {"a": 0},
    {"b": 0},
    {0},
    np.zeros(2),
    np.zeros(2, np.float32),
    np.zeros((2, 1)),
    np.ones(2),
    np.array(["a", None], object),
    Point(0, 0),
    Point(0, 1),
    one,
    other,
    Point,
    1 + 0j,
    np.int64(0),
]


def test_different_values_have_different_digests():
    assert len({digest(value, length=24) for value in DIFFERENT}) == len(DIFFERENT)


def test_equal_values_have_the_same_digest():
    assert [digest(value) for value in copy.deepcopy(DIFFERENT)] == list(map(digest, DIFFERENT))


def test_values_do_not_run_into_each_other():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest([1, [2]], 3) != digest([1, [2, 3]])


def test_a_set_has_the_same_digest_in_every_process():
    code = "from flowcore.fingerprint import digest; print(digest({'a', 'b', 'c', 'd'}))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert runs == [digest({"a", "b", "c", "d"})] * 2


def test_a_digest_has_the_length_asked_for():
    assert [len(digest(1, length=length)) for length in (3, 8, 24)] == [3, 8, 24]
