"""Promise 1, for per-item actions: an item's augmentation depends on nothing but seed and epoch."""

import threading

import numpy as np
import pytest

import flowcore as fc


class Pictures(fc.Batch):
    components = ("images",)

    @fc.action
    def load(self):
        self.images = np.ones((len(self), 8, 8), np.float32) * self.positions[:, None, None]
        return self

    @fc.action(each="item")
    def augment(item):
        flipped = item.images[::-1] if item.rng.random() < 0.5 else item.images
        item.images = flipped + item.rng.normal(size=(8, 8)).astype(np.float32)
        return item

    @fc.action(each="item", concurrency=4)
    def augment_in_threads(item):
        item.images = item.images * item.rng.random()
        return item

    @fc.action(each="item")
    async def augment_async(item):
        item.images = item.images + item.rng.random()
        return item


pipeline = fc.Dataset(130, Pictures).p.load().augment().augment_in_threads().augment_async()


def augmented(**arguments):
    """Return the bytes of every image by (epoch, id)."""
    found = {}
    with pipeline.gen_batch(**{"shuffle": True, "seed": 11, "n_epochs": 2, **arguments}) as run:
        for batch in run:
            for id_, image in zip(batch.index.tolist(), batch.images, strict=True):
                found[batch.epoch, id_] = image.tobytes()
    return found


@pytest.fixture(scope="module")
def expected():
    found = augmented(batch_size=64, executor="serial")
    assert len(set(found.values())) == len(found) == 260
    return found


@pytest.mark.parametrize("batch_size", [7, 64])
@pytest.mark.parametrize("prefetch", [0, 1, 16])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_it_is_the_same_whatever_runs_it(expected, batch_size, prefetch, workers):
    num_workers = workers if prefetch else None
    assert augmented(batch_size=batch_size, prefetch=prefetch, num_workers=num_workers) == expected


@pytest.mark.parametrize("world", [2, 3])
def test_it_is_the_same_in_every_shard(expected, world):
    found = {}
    for rank in range(world):
        found |= augmented(batch_size=7, shard=(rank, world))
    assert found == expected


def test_it_is_the_same_without_shuffling_or_filtered(expected):
    assert augmented(batch_size=9, shuffle=False) == expected
    kept = pipeline.filter(lambda batch: batch.index % 2 == 0)
    for batch in kept.gen_batch(9, seed=11, n_epochs=2):
        for id_, image in zip(batch.index.tolist(), batch.images, strict=True):
            assert expected[batch.epoch, id_] == image.tobytes()


def test_an_item_that_is_drawn_twice_in_an_epoch_is_augmented_twice():
    weights = np.zeros(130)
    weights[3] = 1
    sampler = fc.samplers.Weighted(weights, size=10)
    with pipeline.gen_batch(4, sampler=sampler, seed=1) as run:
        images = [image.tobytes() for batch in run for image in batch.images]
    assert len(set(images)) == 10


def test_no_thread_of_items_is_left_when_a_run_ends():
    before = set(threading.enumerate())
    pipeline.run(16, prefetch=4)
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [name for name in left if name.startswith("flowcore")] == []
