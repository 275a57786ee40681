"""The core with every plugin: one pipeline, any executor, any sink, by name."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import flowcore as fc

IMAGES = np.random.default_rng(0).integers(0, 255, (50, 6, 6)).astype(np.uint8)
LABELS = np.arange(50) % 10


@pytest.fixture
def pipeline():
    """Images and labels, prepared by an action pack with random actions."""
    dataset = fc.Dataset(50, preloaded={"images": IMAGES, "labels": LABELS})
    return (
        dataset.p.arrays.cast("float32", components="images")
        .arrays.normalize(mean=127.5, std=127.5, components="images")
        .arrays.crop((4, 4), random=True, components="images")
        .arrays.flip(axis=2, components="images")
        .arrays.one_hot(10, components="labels")
    )


EXECUTORS = {
    "serial": {"executor": "serial", "prefetch": 3},
    "1 thread": {"executor": "threads", "num_workers": 1},
    "2 threads": {"executor": "threads", "num_workers": 2},
    "8 threads": {"executor": "threads", "num_workers": 8, "prefetch": 16},
    "a pool": {},
}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_executor_fills_the_buffer_with_the_same_bytes(pipeline, executor):
    options = {"shuffle": True, "seed": 3, "n_epochs": 2, "sink": "numpy-buffer"}
    expected = pipeline.run(8, **options).results["numpy-buffer"]
    assert expected["images"].shape == (100, 4, 4)
    with ThreadPoolExecutor(3) as pool:
        found = pipeline.run(8, **options, **(EXECUTORS[executor] or {"executor": pool}))
    for component, array in found.results["numpy-buffer"].items():
        assert array.tobytes() == expected[component].tobytes()


def test_one_pipeline_puts_into_three_sinks_at_once(pipeline):
    import tensorflow as tf

    queue = tf.queue.FIFOQueue(7, [tf.float32, tf.float32])
    into_all = pipeline.put_into_tf_queue(queue=queue).put_into_null().put_into_numpy_buffer()
    report = into_all.run(8, prefetch=4)
    images = np.concatenate([queue.dequeue()[0].numpy() for _ in range(7)])
    assert np.array_equal(images, report.results["numpy-buffer"]["images"])
    assert report.results["null"].items == 50
    assert report.results["tf-queue"] is queue


def test_a_sink_is_chosen_by_name_when_the_run_is_started(pipeline):
    assert pipeline.run(8, sink="null").results["null"].batches == 7
    assert pipeline.run(8, sink=("numpy-buffer", {})).results["numpy-buffer"]["labels"].shape == (
        50,
        10,
    )
    with pipeline.feed(8, sink="tf-queue") as feed:
        assert feed.results["tf-queue"].dequeue()[1].shape == (8, 10)


def test_listing_all_plugins_imports_none_of_them(tmp_path):
    program = (
        "import sys; from flowcore.cli import main; main(['plugins'])\n"
        "import flowcore as fc; dir(fc.Dataset(1).p)\n"
        "print([m for m in sys.modules if m.startswith(('tensorflow', 'flowcore_'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *listed, imported = done.stdout.splitlines()
    assert imported == "[]"
    text = "\n".join(listed)
    for name in ("tf-queue", "null", "numpy-buffer", "arrays", "serial", "threads"):
        assert f" {name} " in text


def test_every_plugin_of_the_project_is_whole(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flowcore", "plugins", "--check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "BROKEN" in done.stdout) == (0, False), done.stdout + done.stderr
