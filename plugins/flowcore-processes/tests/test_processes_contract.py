import pytest

import flowcore as fc
from flowcore.testing import ExecutorContract
from flowcore_processes import ProcessesExecutor


class TestTheContract(ExecutorContract):
    kills_workers = True

    @pytest.fixture
    def executor(self):
        return "processes"


class Drawing(fc.Batch):
    @fc.action
    def draw(self):
        self.data = self.rng.random(len(self))
        return self

    @fc.action(each="item", concurrency=2)
    def jitter(item):
        item.data = item.data + item.rng.random()
        return item


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    "options", [{"threads_per_worker": 3}, {"slots": 0}, {"timeout": 60}], ids=str
)
@pytest.mark.parametrize("prefetch", [1, 5])
def test_its_options_do_not_change_the_bytes(options, prefetch):
    pipe = fc.Dataset(50, Drawing).p.draw().jitter()

    def seen(**how):
        batches = pipe.gen_batch(4, shuffle=True, seed=3, n_epochs=2, **how)
        return [(b.epoch, b.number, b.index.tolist(), b.data.tolist()) for b in batches]

    expected = seen(executor="serial")
    assert seen(executor="processes", num_workers=2, prefetch=prefetch, **options) == expected
    with ProcessesExecutor(2, **options) as executor:
        for _ in range(2):
            assert seen(executor=executor, prefetch=prefetch) == expected
