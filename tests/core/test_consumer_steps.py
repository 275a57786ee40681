"""A run with workers whose consumer takes the steps itself: nothing is to be done ahead of it."""

import asyncio
import threading

import pytest

from flowcore import Batch, Dataset, action
from flowcore.errors import RunInProgress
from flowcore.loop import run_all


class Calling(Batch):
    @action
    def call(self, function):
        function(self)
        return self


@pytest.fixture(autouse=True)
def _no_leaks(no_leaks):
    pass


def fail(batch):
    if 0 < batch.number < 9:
        raise ValueError("a bad batch")


def threads():
    return [one.name for one in threading.enumerate() if one.name.startswith("flowcore")]


def test_it_has_no_delivering_thread():
    with Dataset(9).p.gen_batch(1, prefetch=2) as run:
        next(run)
        assert "flowcore-deliver" not in threads()


def test_its_workers_begin_when_it_is_started():
    begun = threading.Event()
    with Dataset(9, Calling).p.call(lambda _: begun.set()).gen_batch(1, prefetch=2) as run:
        run.start()
        assert begun.wait(10)


@pytest.mark.parametrize("options", [{"on_error": "skip"}, {"retries": 1, "on_error": "skip"}])
def test_what_is_left_out_is_replaced_while_the_consumer_is_busy(options):
    begun = threading.Event()

    def note(batch):
        fail(batch)
        if batch.number == 10:
            begun.set()

    with Dataset(99, Calling).p.call(note).gen_batch(1, prefetch=2, **options) as run:
        assert next(run).number == 0
        assert begun.wait(10)  # though nobody asks


def test_what_a_filter_leaves_out_is_replaced_while_the_consumer_is_busy():
    begun = threading.Event()

    def note(batch):
        if batch.number == 10:
            begun.set()

    pipeline = Dataset(99, Calling).p.call(note).filter(lambda batch: batch.index % 5 == 0)
    with pipeline.gen_batch(1, prefetch=2) as run:
        assert next(run).number == 0
        assert begun.wait(10)


def test_as_many_batches_are_begun_as_consumers_ask_for():
    together = threading.Barrier(4)
    pipeline = Dataset(40, Calling).p.call(lambda _: together.wait(10))
    taken = []
    with pipeline.gen_batch(1, prefetch=1, num_workers=4) as run:

        def consume():
            for batch in run:
                taken.append(batch.number)

        consumers = [threading.Thread(target=consume) for _ in range(4)]
        for consumer in consumers:
            consumer.start()
        for consumer in consumers:
            consumer.join(20)
    assert sorted(taken) == list(range(40))
    assert not together.broken


def test_next_inside_of_next_says_so_and_the_run_goes_on():
    seen = []

    def ask(batch):
        try:
            next(run)
        except RunInProgress as error:
            seen.append(error)

    run = Dataset(3, Calling).p.call(ask).gen_batch(1)
    assert [batch.number for batch in run] == [0, 1, 2]
    assert len(seen) == 3
    assert "next was called while it makes a batch" in str(seen[0])


def test_a_run_that_nobody_holds_leaves_no_thread():
    for _ in range(20):
        next(Dataset(99).p.gen_batch(1, prefetch=3))


def test_items_that_are_given_up_begin_no_others():
    begun = []

    async def item(number):
        begun.append(number)
        await asyncio.sleep(60)

    async def main():
        running = asyncio.create_task(run_all(item, range(99), 3, go_on=True))
        while len(begun) < 3:
            await asyncio.sleep(0)
        running.cancel()
        for _ in range(20):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert begun == [0, 1, 2]
