"""What TensorFlow is given without a copy: whose memory it is, and who may still write to it."""

import itertools
import threading

import numpy as np
import pytest
import tensorflow as tf

import flowcore as fc
from flowcore_tf_queue import _watch

EXECUTORS = ["serial", "threads", "processes"]
SIZE = 64 * 1024  # float32 values: 256 KB, which is memory that is used again


class Made(fc.Batch):
    @fc.action
    def fill(self):
        self.data = self.empty(SIZE, np.float32)
        self.data[...] = self.number
        return self

    @fc.action
    def fresh(self):
        self.data = np.full(SIZE, self.number, np.float32)
        return self

    @fc.action
    def look(self):
        self.first = self.data[:1]
        return self

    @fc.action
    def overwrite(self):
        self.data[...] = -1
        return self


@pytest.fixture
def queue():
    return tf.queue.FIFOQueue(100, [tf.float32])


@pytest.fixture(params=EXECUTORS)
def options(request):
    if request.param == "serial":
        return {"executor": "serial", "prefetch": 0}
    if request.param == "processes":
        pytest.importorskip("flowcore_processes")
    return {"executor": request.param, "num_workers": 2, "prefetch": 2}


def made(batches=12):
    return fc.Dataset(batches, Made).p


def memory_of(tensor):
    return np.asarray(memoryview(tensor))


def test_an_array_of_empty_is_the_memory_of_the_tensor_and_read_only_for_good(queue, options):
    with made().fill().put_into_tf_queue(queue=queue).gen_batch(1, **options) as run:
        for batch in run:
            tensor = queue.dequeue()
            assert np.shares_memory(memory_of(tensor), batch.data)
            assert (tensor.numpy() == batch.number).all()
            with pytest.raises(ValueError, match="read-only"):
                batch.data[0] = 5
            with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                batch.data.flags.writeable = True


def test_an_action_that_writes_to_it_later_fails_and_what_is_in_the_queue_stays(queue, options):
    pipeline = made().fill().put_into_tf_queue(queue=queue).overwrite()
    with pipeline.gen_batch(1, **options) as run, pytest.raises(ValueError, match="read-only"):
        next(run)


def test_any_other_array_is_copied_and_stays_the_batchs_own(queue, options):
    pipeline = made().fresh().put_into_tf_queue(queue=queue).overwrite()
    for batch in pipeline.gen_batch(1, **options):
        tensor = queue.dequeue()
        assert not np.shares_memory(memory_of(tensor), batch.data)
        assert (tensor.numpy() == batch.number).all()
        assert (batch.data == -1).all()


def test_an_array_of_empty_with_another_view_is_copied(queue, options):
    pipeline = made().fill().look().put_into_tf_queue(queue=queue).overwrite()
    for batch in pipeline.gen_batch(1, **options):
        assert (queue.dequeue().numpy() == batch.number).all()
        assert (batch.data == -1).all()


def test_two_queues_have_one_memory(queue):
    other = tf.queue.FIFOQueue(9, [tf.float32])
    pipeline = made(3).fill().put_into_tf_queue(queue=queue).put_into_tf_queue(queue=other)
    for batch in pipeline.gen_batch(1):
        assert np.shares_memory(memory_of(queue.dequeue()), memory_of(other.dequeue()))
        assert not batch.data.flags.writeable


def test_memory_is_not_used_again_while_tensors_are_kept_or_in_the_queue(queue, options):
    pipeline = made(60).fill().put_into_tf_queue(queue=queue)
    kept = []
    for number, batch in enumerate(pipeline.gen_batch(1, **options)):
        del batch  # nobody has the array but TensorFlow
        if number % 3 == 0:
            kept.append(queue.dequeue())
        assert [int(tensor[-1]) for tensor in kept] == list(range(len(kept)))
    kept += [queue.dequeue() for _ in range(queue.size())]
    assert [set(np.unique(tensor)) for tensor in kept] == [{number} for number in range(60)]


def test_strings_scalars_and_unaligned_entries_go_in_beside_it(options):
    queue = tf.queue.FIFOQueue(99, [tf.string, tf.int64, tf.float32])
    pipeline = (
        made(4)
        .fill()
        .put_into_tf_queue(
            queue=queue, get_tensor=lambda batch: (["a"], batch.number, batch.data[3:])
        )
    )
    for batch in pipeline.gen_batch(1, **options):
        text, number, rest = (part.numpy() for part in queue.dequeue())
        assert text.tolist() == [b"a"]
        assert number == batch.number
        assert rest.shape == (SIZE - 3,)


@pytest.mark.parametrize("many", [False, True])
def test_a_put_that_is_interrupted_again_and_again_is_in_once(monkeypatch, many):
    """In the calling thread a put that waits is given up, looks at its token, and goes on."""
    monkeypatch.setattr(_watch, "_SLICE", 0.0005)
    queue = tf.queue.FIFOQueue(2, [tf.float32])
    items = []

    def consume():
        pauses = itertools.cycle([0, 0.002, 0, 0.001, 0.004])
        for pause in itertools.islice(pauses, 400):
            threading.Event().wait(pause)
            items.append(float(np.squeeze(queue.dequeue().numpy())))

    consumer = threading.Thread(target=consume)
    consumer.start()
    numbers = fc.Dataset(400, preloaded=np.arange(400.0))
    numbers.p.put_into_tf_queue(queue=queue, many=many).run(4 if many else 1, prefetch=0)
    consumer.join()
    assert items == list(range(400))
    assert queue.size() == 0
