"""What is new in recipes, in a pool of processes: the same bytes, and the same report."""

from concurrent.futures import ProcessPoolExecutor

import pytest

import flowcore as fc


class Left(fc.Batch):
    components = "x", "noise"

    @fc.action
    def load(self):
        self.x = self.positions * 1.0
        self.noise = self.rng.random(len(self))
        return self

    @fc.action(each="item", concurrency=3)
    def jitter(item, bad=()):
        if item.id in bad:
            raise ValueError(f"item {item.id}")
        item.noise = item.noise + item.rng.random()
        return item

    @fc.action(each="item")
    async def jitter_async(item):
        item.noise = item.noise + item.rng.random()
        return item

    @fc.action
    async def double(self):
        self.noise = self.noise * 2
        return self


class Right(Left):
    components = "y", "other"

    @fc.action
    def load(self):
        self.y = self.positions * 3
        self.other = self.rng.random(len(self))
        return self


def every_third(batch):
    return batch.x % 3 != 0


left = fc.Dataset(40, Left).p.load()

RECIPES = {
    "items and async": left.jitter().jitter_async().double(),
    "rebatch": left.filter(every_third).rebatch(7).jitter(),
    "join and variable": left.jitter(fc.V("bad", (3, 5))).join(fc.Dataset(40, Right).p.load()),
    "mix": fc.mix([left.jitter(bad=[39]), fc.Dataset(10, Left).p.load()], stop="all").double(),
}


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_it_gives_the_bytes_and_the_report_that_serial_gives(recipe, pool):
    def content(**way):
        run = recipe.gen_batch(8, shuffle=True, seed=2, n_epochs=2, on_error="skip_items", **way)
        batches = [
            (b.epoch, b.number, b.index.tolist(), {k: v.tolist() for k, v in b.data.items()})
            for b in run
        ]
        skipped = [(t.epoch, t.ids.tolist(), str(t.error)) for t in run.report.skipped_items]
        return batches, skipped

    expected = content(executor="serial")
    assert content(executor=pool, prefetch=1) == expected
    assert content(executor=pool, prefetch=5) == expected
