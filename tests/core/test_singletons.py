"""``singleton=True``: one batch at a time in the process, and free again after an error."""

import threading

import pytest

import flowcore as fc


class Meter:
    """Counts who is inside, and lets a test hold them there."""

    def __init__(self):
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def __enter__(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *exc):
        with self.lock:
            self.inside -= 1


meter = Meter()


class Numbers(fc.Batch):
    components = ("values",)

    @fc.action(singleton=True)
    def plain(self):
        with meter:
            threading.Event().wait(0.002)  # long enough for another to come in, were it let
        return self

    @fc.action(singleton=True, each="item", concurrency=2)
    def per_item(item):
        item.values = threading.get_ident()
        return item

    @fc.action(singleton=True)
    async def waiting(self):
        with meter:
            import asyncio

            await asyncio.sleep(0.002)
        return self

    @fc.action(singleton=True)
    def fail(self):
        raise ValueError("broken")


dataset = fc.Dataset(24, Numbers)


@pytest.mark.parametrize("action", ["plain", "waiting"])
def test_two_runs_are_in_it_one_batch_at_a_time(action):
    meter.most = 0
    pipeline = getattr(dataset.p, action)()
    both = threading.Barrier(2, timeout=10)

    def run():
        both.wait()
        pipeline.run(2, prefetch=4, num_workers=3)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (meter.most, meter.inside) == (1, 0)


def test_a_per_item_action_may_be_one_too():
    assert dataset.p.per_item().run(6, prefetch=4, num_workers=3).items == 24


def test_it_is_free_after_an_error():
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            dataset.p.fail().run(2, prefetch=4, num_workers=3)
    assert dataset.p.plain().fail().run(12, on_error="skip").batches == 0
