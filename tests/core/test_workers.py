"""What a worker gives its batches: memory, set-up; and what an executor may say of its workers."""

import threading
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowcore as fc
from flowcore.errors import PipelineError, WorkerLost

pytestmark = pytest.mark.usefixtures("no_leaks")


class Filling(fc.Batch):
    @fc.action
    def fill(self):
        self.data = self.empty((len(self), 5), np.float32)
        self.data[...] = self.positions[:, None]
        return self

    @fc.action(each="item")
    def spread(item):
        return np.full(5, item.position, np.float32)


@pytest.mark.parametrize("action", ["fill", "spread"])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_the_output_of_an_action_is_aligned_on_every_executor(action, prefetch):
    pipe = getattr(fc.Dataset(10, Filling).p, action)()
    for batch in pipe.gen_batch(4, prefetch=prefetch):
        assert batch.data.ctypes.data % 64 == 0
        assert batch.data.dtype == np.float32
        assert (batch.data == batch.positions[:, None]).all()


@given(
    shape=st.one_of(
        st.integers(0, 5), st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple)
    ),
    dtype=st.sampled_from(
        ["f4", "f8", "i1", "U3", "S5", "O", "M8[s]", "c16", [("a", "f4"), ("b", "i2")], "(2,3)i4"]
    ),
)
def test_an_empty_array_has_the_shape_and_the_dtype_that_numpy_gives(shape, dtype):
    made, other = fc.Batch([0]).empty(shape, dtype), np.empty(shape, dtype)
    assert (made.shape, made.dtype, made.flags.c_contiguous) == (other.shape, other.dtype, True)
    assert made.flags.writeable
    assert made.dtype.hasobject or not made.nbytes or made.ctypes.data % 64 == 0


@pytest.mark.parametrize("shape", [-1, (-1, 3), (2, -3)])
def test_a_negative_length_is_refused(shape):
    with pytest.raises(ValueError, match="negative length"):
        fc.Batch([0]).empty(shape)


class SetUp(fc.Batch):
    told = None

    @classmethod
    def worker_started(cls, name):
        cls.told.append(("started", name))

    @classmethod
    def worker_ended(cls, name):
        cls.told.append(("ended", name))


@pytest.fixture
def told():
    SetUp.told = []
    yield SetUp.told
    SetUp.told = None


def test_the_batch_class_sets_each_worker_up_and_tears_it_down(told):
    fc.Dataset(10, SetUp).p.run(2, executor="threads", num_workers=2, prefetch=2)
    names = ["flowcore-worker-0", "flowcore-worker-1"]
    assert sorted(told) == [("ended", name) for name in names] + [
        ("started", name) for name in names
    ]


def test_so_do_the_classes_of_the_recipes_inside_of_a_recipe_each_once(told):
    class Named(fc.Batch):
        components = ("x",)

    class Other(SetUp):
        components = ("y",)

    left = fc.Dataset(10, Named, {"x": np.arange(10)}).p
    right = fc.Dataset(10, Other, {"y": np.arange(10)}).p
    left.join(right).run(2, executor="threads", num_workers=1, prefetch=2)
    assert [what for what, _ in told] == ["started", "ended"]


def test_the_calling_thread_is_a_worker_too(told):
    fc.Dataset(10, SetUp).p.run(2)
    assert told == [("started", "flowcore-serial"), ("ended", "flowcore-serial")]


def test_a_batch_that_is_made_alone_has_a_worker_that_is_set_up(told):
    fc.Dataset(10, SetUp).p.batch(1, batch_size=2)
    assert [what for what, _ in told] == ["started", "ended"]


def test_a_set_up_that_fails_is_the_error_of_the_batches():
    class Broken(fc.Batch):
        @classmethod
        def worker_started(cls, name):
            raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        fc.Dataset(10, Broken).p.run(2, prefetch=2)


class Losing(fc.Executor):
    """An executor in this thread, whose worker is lost with some tasks, as it knows."""

    def __init__(self, losses, error):
        super().__init__(2)
        self.losses, self.error = dict(losses), error
        self.submitted = []

    def start(self, work):
        self.work = work

    def submit(self, task):
        self.submitted.append(task.number)
        future = Future()
        if self.losses.get(task.number, 0) > 0:
            self.losses[task.number] -= 1
            future.set_exception(self.error())
        else:
            future.set_result(self.work(task))
        return future

    def close(self):
        pass


def lost():
    error = WorkerLost("it is gone")
    error.action = "load"
    return error


def test_a_task_that_is_known_to_have_lost_its_worker_is_run_again_beside_the_others():
    executor = Losing({2: 1}, lost)
    batches = fc.Dataset(10).p.gen_batch(1, executor=executor, prefetch=3)
    assert [batch.number for batch in batches] == list(range(10))
    assert sorted(executor.submitted) == sorted([*range(10), 2])


def test_when_it_is_lost_again_the_executors_own_error_is_raised_with_the_action():
    executor = Losing({2: 2}, lost)
    with pytest.raises(WorkerLost, match="it is gone") as raised:
        list(fc.Dataset(10).p.gen_batch(1, executor=executor, prefetch=3))
    assert "in 'load' of batch 2 of epoch 0" in "\n".join(raised.value.__notes__)


def test_retries_say_how_often_it_is_run_again():
    executor = Losing({2: 3}, lost)
    assert len(list(fc.Dataset(10).p.gen_batch(1, executor=executor, prefetch=3, retries=3))) == 10


class Single(fc.Batch):
    @fc.action(singleton=True)
    def write(self):
        return self


def test_a_singleton_action_is_refused_by_an_executor_of_several_processes():
    executor = Losing({}, lost)
    executor.processes = 2
    run = fc.Dataset(4, Single).p.write().gen_batch(1, executor=executor, prefetch=2)
    with pytest.raises(PipelineError, match=r"'write' is a singleton(.|\n)*2 processes"):
        run.start()


def test_a_singleton_action_is_refused_by_a_pool_whose_workers_are_elsewhere():
    with ProcessPoolExecutor(2) as pool, pytest.raises(PipelineError, match="is a singleton"):
        fc.Dataset(4, Single).p.write().run(1, executor=pool, prefetch=2)


class TestNobodyTakesTheBatch:
    def outcomes(self, **how):
        class Watching(Losing):
            def __init__(self):
                super().__init__({}, lost)
                self.outcomes = []

            def submit(self, task):
                future = super().submit(task)
                self.outcomes.append(future.result())
                return future

        executor = Watching()
        report = fc.Dataset(10).p.run(4, executor=executor, prefetch=2, **how)
        assert (report.batches, report.items) == (3, 10)
        return executor.outcomes

    def test_the_work_leaves_it_out_and_says_its_size(self):
        outcomes = self.outcomes()
        assert [(outcome.batch, outcome.size) for outcome in outcomes] == [
            (None, 4),
            (None, 4),
            (None, 2),
        ]

    def test_a_hook_takes_it(self, install):
        install(
            "watch",
            "[flowcore.hooks]\nwatch = watch\n",
            watch="from flowcore import hookimpl\n"
            "@hookimpl\ndef flowcore_batch_delivered(event):\n    assert len(event.batch) > 0\n",
        )
        assert all(outcome.batch is not None for outcome in self.outcomes())


def test_an_executor_object_is_free_for_the_next_run_when_the_last_one_was_collected():
    executor = Losing({}, lost)
    for _ in range(20):
        batches = fc.Dataset(50).p.gen_batch(1, executor=executor, prefetch=3)
        next(batches)
        del batches


class Ending(fc.Sink):
    def __init__(self):
        self.ended = threading.Event()

    def put(self, item, cancel):
        pass

    def prepare(self, batch):
        return None

    def close(self, error):
        self.ended.set()


def test_a_run_that_was_closed_has_no_error_of_a_batch_that_nobody_came_to():
    class Failing(fc.Batch):
        @fc.action
        def fail(self):
            if self.number == 2:
                raise LookupError
            return self

    sink = Ending()
    run = fc.Dataset(4, Failing).p.fail().gen_batch(1, prefetch=3, sink=sink)
    next(run)
    assert sink.ended.wait(20)  # of batch 2, while batch 1 waits
    run.close()
    assert list(run) == []
