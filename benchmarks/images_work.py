"""What `images.py` and its peers make: JPEG files, arrays of them, and how a pass is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
from family import Family
from harness import Measures, peak_mb

__all__ = [
    "AHEAD",
    "MEAN",
    "SHAPE",
    "SIDE",
    "SIZE",
    "STD",
    "WORKERS",
    "Making",
    "batch",
    "batch_in_place",
    "items_of",
    "jpegs",
    "load",
    "measured",
]

SIZE, SIDE, WORKERS, AHEAD = 32, 224, 2, 4
SHAPE = (SIZE, SIDE, SIDE, 3)
FILES, HEIGHT, WIDTH, QUALITY = 256, 375, 500, 85
#: Of the channels; with these numbers it takes 1.5 ms of CPU to make an image of a file.
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
SCALE, SHIFT = 1 / (255 * STD), MEAN / STD

BEFORE, AFTER = 40, 24  # batches outside of the clock: until all workers and all memory are there
TIMED = 96, 32  # batches under the clock, in a long run and in a short one
SEEN = slice(None, None, 32)  # of rows and columns: the pixels that are looked at

Making = Callable[[int], Iterable[Any]]  # makes so many batches


@cache
def cv() -> Any:
    """Return OpenCV, which then has no threads of its own."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


@cache
def jpegs() -> list[bytes]:
    """Return the files: waves and noise, each with a colour of its own."""
    down, across = np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH)
    wave = np.float32(15 * down[:, None, None] + 20 * np.sin(6 * np.outer(down, across))[..., None])
    noise = np.random.default_rng(1).standard_normal((HEIGHT, WIDTH, 3), np.float32)
    grain = wave + 24 * cv().GaussianBlur(noise, (0, 0), 1.0) + 6 * noise
    return [encoded(grain, number) for number in range(FILES)]


def encoded(grain: np.ndarray, number: int) -> bytes:
    """Return file ``number``."""
    colour = np.float32([64 + 8 * (number % 16), 64 + 8 * (number // 16), 128])
    pixels = np.clip(np.roll(grain, 37 * number, axis=1) + colour, 0, 255).astype(np.uint8)
    options = [cv().IMWRITE_JPEG_QUALITY, QUALITY]
    return bytes(cv().imencode(".jpg", pixels[..., ::-1], options)[1])


def load(item: int) -> np.ndarray:
    """Return an item, from its file: a float32 array of shape ``(SIDE, SIDE, 3)``, normalised."""
    return pixels(item) * SCALE - SHIFT


def pixels(item: int) -> np.ndarray:
    """Return its pixels, red first."""
    file = np.frombuffer(jpegs()[item % FILES], np.uint8)
    image = cv().resize(cv().imdecode(file, cv().IMREAD_COLOR_RGB), (SIDE, SIDE))
    _made.append(item)
    return np.asarray(image)


def items_of(number: int) -> range:
    """Return the items of a batch."""
    return range(number * SIZE, (number + 1) * SIZE)


def batch(number: int) -> np.ndarray:
    """Return a batch, whose images are stacked."""
    return np.stack([load(item) for item in items_of(number)])


def batch_in_place(number: int, whole: np.ndarray | None = None) -> np.ndarray:
    """Return it, with the images written to where they belong, which saves a copy."""
    whole = np.empty(SHAPE, np.float32) if whole is None else whole
    for place, item in zip(whole, items_of(number), strict=True):
        np.multiply(pixels(item), SCALE, out=place)
        place -= SHIFT
    return whole


def measured(make: Making, short: bool, *, off: float = 0.0) -> Measures:
    """Return what images cost in the middle of a pass; raise, if one is not right, or out of order.

    Threads are counted by the images that they made under the clock, not by those that came: as
    many batches as there are threads may come at once, or be nearly ready, when it stops.

    Args:
        make: makes so many batches.
        short: make fewer.
        off: how far the values of an image may be from OpenCV's, in the mean: files differ by 0.17.
    """
    expected = np.stack([load(item)[SEEN, SEEN].copy() for item in range(FILES)])
    family, stop, number = Family(), BEFORE + TIMED[short], -1
    for number, found in enumerate(make(stop + AFTER)):
        check(found, expected[np.array(items_of(number)) % FILES], off)
        if number == BEFORE // 2:
            family.find()
        elif number == BEFORE:
            start, cpu, before = time.perf_counter(), family.seconds(), len(_made)
        elif number == stop:
            took, cpu = time.perf_counter() - start, family.seconds() - cpu
            images = len(_made) - before or TIMED[short] * SIZE  # of processes, those that came
    assert number == stop + AFTER - 1, number
    return {"images_s": images / took, "cpu_ms": cpu / images * 1e3, "peak_mb": peak_mb()}


def check(found: Any, expected: np.ndarray, off: float) -> None:
    array = np.asarray(found)
    assert array.shape == SHAPE, array.shape
    assert array.dtype == np.float32, array.dtype
    far = np.abs(array[:, SEEN, SEEN] - expected).mean(axis=(1, 2, 3)).max()
    assert far <= off + 1e-6, far


_made: list[int] = []  # the items whose pixels were made in this process, by whatever thread
