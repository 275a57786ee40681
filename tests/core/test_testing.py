"""The contract suites: the core's own executors and small sinks pass, broken ones are caught."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from typing import ClassVar

import numpy as np
import pytest

import flowcore as fc
from flowcore.errors import Cancelled
from flowcore.testing import ActionsContract, SinkContract

INLINE = {"prefetch": 0}
THREADS = {"executor": "threads", "num_workers": 2, "prefetch": 4}

# Sinks that keep the contract


class ListSink(fc.Sink):
    """Keeps a copy of each tensor."""

    def open(self, run):
        self._items = []

    def prepare(self, batch):
        return batch.get_tensor().copy()

    def put(self, item, cancel):
        self._items.append(item)

    @property
    def result(self):
        return self._items


class TestAListSink(SinkContract):
    @pytest.fixture
    def sink(self):
        return ListSink()

    def received(self, result):
        return result


class QueueSink(fc.Sink):
    """Puts into a queue that belongs to the user."""

    def __init__(self, target):
        self._target = target

    @staticmethod  # so that a worker in another process needs no queue
    def prepare(batch):
        return batch.get_tensor().copy()

    def put(self, item, cancel):
        while True:
            if cancel.is_set():
                raise Cancelled
            try:
                return self._target.put(item, timeout=0.01)
            except queue.Full:
                pass


class TestAQueueSink(SinkContract):
    bounded = True
    shares_target = True
    sink_class = QueueSink

    @pytest.fixture
    def sink(self):
        return self.sink_with_room(40)

    def sink_with_room(self, puts):
        self.queue = queue.Queue(puts)
        return self.sink_class(self.queue)

    def take(self, result):
        return self.queue.get(timeout=10)

    def received(self, result):
        return [self.take(result) for _ in range(self.queue.qsize())]


class NullSink(fc.Sink):
    """Keeps nothing."""

    def prepare(self, batch):
        return None

    def put(self, item, cancel):
        pass


class TestANullSink(SinkContract):
    keeps_items = False

    @pytest.fixture
    def sink(self):
        return NullSink()


class ArchiveSink(ListSink):
    """Keeps rows, and a resumed run goes on with those of the run before it."""

    def __init__(self):
        self._shelf = [[]]  # that of each run, and its copy of the sink

    def open(self, run):
        self._items = self.kept(self._shelf[-1], run)
        self._shelf.append(self._items)

    def kept(self, rows, run):
        return rows[: run.items_before]

    def put(self, item, cancel):
        self._items.extend(item)


class TestAnArchiveSink(SinkContract):
    resumes = "whole"

    @pytest.fixture
    def sink(self):
        return ArchiveSink()

    def received(self, result):
        return [np.array(result)]


# An action pack that keeps the contract


class Shades:
    """Actions on gray images."""

    @staticmethod
    @fc.action
    def invert(batch):
        """Turn white to black."""
        batch.data = 255 - batch.data
        return batch

    @staticmethod
    @fc.action
    def noise(batch, scale=1.0):
        """Add normal noise."""
        batch.data = batch.data + batch.rng.normal(0, scale, batch.data.shape)
        return batch


class TestAPack(ActionsContract):
    pack = Shades
    calls: ClassVar = {
        "invert": [((), {})],
        "noise": [((), {}), ((2.0,), {}), ((), {"scale": 3.0})],
    }

    @pytest.fixture(autouse=True)
    def _installed(self, install):
        install(
            "acme-shades", f"[flowcore.actions]\nshades = {__name__}:{type(self).pack.__name__}"
        )

    @pytest.fixture
    def dataset(self):
        return fc.Dataset(10, preloaded=np.arange(40.0).reshape(10, 4))


# Broken sinks are caught


def broken(contract, sink):
    """Return a contract about a list sink whose class is replaced by a broken one."""
    return type("Broken", (contract,), {"sink_class": sink})()


class AliasingSink(ListSink):
    def prepare(self, batch):
        return batch.get_tensor()


def test_a_sink_that_keeps_a_view_of_the_batch_is_caught():
    with pytest.raises(AssertionError):
        TestAListSink().test_the_sink_gets_the_batch_as_it_is_at_its_step(AliasingSink(), INLINE)


class OneListSink(ListSink):
    def __init__(self):
        self._items = []

    def open(self, run):
        pass


def test_a_sink_whose_runs_share_a_list_is_caught():
    with pytest.raises(AssertionError):
        TestAListSink().test_two_runs_of_one_pipeline_at_once_do_not_mix(OneListSink())
    with pytest.raises(AssertionError):
        TestAListSink().test_a_sink_is_usable_again_in_a_new_run(OneListSink(), INLINE)


class TwiceSink(ListSink):
    def put(self, item, cancel):
        self._items += [item, item]


class BackwardSink(ListSink):
    def put(self, item, cancel):
        self._items.insert(0, item)


class ForgetfulSink(ListSink):
    def put(self, item, cancel):
        self._items[:] = [item]


@pytest.mark.parametrize("sink", [TwiceSink, BackwardSink, ForgetfulSink])
def test_a_sink_that_doubles_reorders_or_loses_items_is_caught(sink):
    with pytest.raises(AssertionError):
        TestAListSink().test_items_arrive_complete_once_and_in_delivery_order(sink(), THREADS)


class ScalingSink(ListSink):
    def prepare(self, batch):
        tensor = batch.get_tensor().copy()
        batch.data *= 2
        return tensor


def test_a_sink_that_changes_the_batch_is_caught():
    with pytest.raises(AssertionError, match="changed the batch"):
        TestAListSink().test_items_arrive_complete_once_and_in_delivery_order(ScalingSink(), INLINE)


class DeafSink(QueueSink):
    """Waits for room whatever the cancel token says; ``let_go`` ends the wait for the test."""

    let_go = threading.Event()

    def put(self, item, cancel):
        while not self.let_go.is_set():
            try:
                return self._target.put(item, timeout=0.01)
            except queue.Full:
                pass
        raise Cancelled


class LossySink(QueueSink):
    def put(self, item, cancel):
        if self._target.full():
            self._target.get()  # make room
        self._target.put(item)


class HalfSink(QueueSink):
    """Leaves half of the item that it gave up."""

    def put(self, item, cancel):
        try:
            super().put(item, cancel)
        except Cancelled:
            self._target.queue.append(item[: len(item) // 2])
            raise


@pytest.fixture
def deaf_sinks_let_go():
    DeafSink.let_go.clear()
    yield
    DeafSink.let_go.set()


@pytest.mark.usefixtures("deaf_sinks_let_go")
@pytest.mark.parametrize("how", [INLINE, THREADS], ids=["inline", "threads"])
@pytest.mark.parametrize("sink", [DeafSink, LossySink, HalfSink])
def test_a_put_that_does_not_wait_and_give_up_whole_is_caught(sink, how):
    contract = broken(TestAQueueSink, sink)
    with pytest.raises(AssertionError):
        contract.test_a_put_into_a_full_sink_is_given_up_within_a_second_of_the_close(how)


@pytest.mark.usefixtures("deaf_sinks_let_go")
def test_a_put_that_is_deaf_to_a_set_cancel_is_caught():
    contract = broken(TestAQueueSink, DeafSink)
    with pytest.raises(AssertionError, match="longer than a second"):
        contract.test_put_into_a_full_sink_with_a_set_cancel_raises_cancelled_at_once()


def test_a_sink_whose_prepare_cannot_be_sent_to_a_worker_is_caught():
    class HomeboundSink(QueueSink):
        def prepare(self, batch):
            return batch.get_tensor().copy()

    with pytest.raises((TypeError, AttributeError), match=r"pickle|local"):
        TestAListSink().test_prepare_gives_the_same_item_in_another_process(
            HomeboundSink(queue.Queue())
        )


class GreedySink(ArchiveSink):
    """Keeps what the state does not count."""

    def kept(self, rows, run):
        return rows[:] if run.resumed else []


class DroppingSink(ArchiveSink):
    """Starts over, and has lost what was put before."""

    def kept(self, rows, run):
        return []


@pytest.mark.parametrize("sink", [GreedySink, DroppingSink])
def test_a_sink_that_goes_on_with_more_or_less_than_the_state_counts_is_caught(sink):
    with pytest.raises(AssertionError, match="what one run would have put into it"):
        TestAnArchiveSink().test_a_resumed_run_puts_exactly_what_the_state_does_not_count(
            sink(), INLINE
        )


class LateSink(ListSink):
    """Takes the first item of a resumed run for one that it has."""

    def open(self, run):
        super().open(run)
        self._has_it = run.resumed

    def put(self, item, cancel):
        if not self._has_it:
            super().put(item, cancel)
        self._has_it = False


def test_a_sink_that_loses_the_first_item_of_a_resumed_run_is_caught():
    contract = TestAListSink()
    with pytest.raises(AssertionError):
        contract.test_a_resumed_run_puts_exactly_what_the_state_does_not_count(LateSink(), INLINE)
    with pytest.raises(AssertionError):
        contract.test_a_run_that_is_resumed_at_the_very_start_puts_everything(LateSink())


def test_a_sink_that_goes_on_and_says_that_it_refuses_is_caught():
    contract = type("Refusing", (TestAListSink,), {"resumes": "refuses"})()
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        contract.test_a_sink_that_cannot_go_on_says_so_before_anything_is_put(ListSink())


class AnythingSink(ListSink):
    def __init__(self, **options):
        pass


def test_a_sink_that_takes_any_option_is_caught():
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        TestAListSink().test_an_unknown_option_is_refused_when_the_step_is_written(AnythingSink())


def test_a_sink_that_says_nothing_of_its_abilities_is_asked_to():
    with pytest.raises(NotImplementedError, match="keeps_items = False"):
        SinkContract().received(None)


# Broken packs are caught


class BrokenShades:
    @staticmethod
    @fc.action
    def in_place(batch):
        """Write to what is given."""
        batch.data *= 2
        return batch

    @staticmethod
    @fc.action
    def nothing(batch):
        """Forget to return."""

    @staticmethod
    @fc.action
    def random(batch):
        """Draw from elsewhere."""
        batch.data = np.random.default_rng().normal(size=len(batch))
        return batch

    @staticmethod
    @fc.action
    def lax(batch, **anything):
        return batch


class BrokenPack(TestAPack):
    """The contract about the pack above; not collected."""

    __test__ = False
    pack = BrokenShades
    calls: ClassVar = {"in_place": [((), {})], "nothing": [((), {})]}


@pytest.fixture
def numbers():
    return fc.Dataset(10, preloaded=np.arange(10.0))


@pytest.fixture
def _broken_shades(install):
    install("broken-shades", f"[flowcore.actions]\nbroken = {__name__}:BrokenShades")


def test_a_pack_that_writes_in_place_is_caught(numbers):
    with pytest.raises(AssertionError):
        BrokenPack().test_a_call_does_not_write_to_the_arrays_that_it_is_given(
            numbers, "in_place", ((), {})
        )


def test_a_pack_that_does_not_return_the_batch_is_caught(numbers):
    with pytest.raises(AssertionError, match="return batch"):
        BrokenPack().test_a_call_returns_a_batch_without_a_pipeline(numbers, "nothing", ((), {}))


@pytest.mark.usefixtures("_broken_shades")
def test_a_pack_that_draws_from_elsewhere_is_caught(numbers):
    with pytest.raises(AssertionError, match=r"batch\.rng"):
        BrokenPack().test_a_call_gives_the_same_bytes_under_every_executor_and_again(
            numbers, "broken", "random", ((), {})
        )


@pytest.mark.usefixtures("_broken_shades")
def test_a_pack_that_takes_any_argument_is_caught(numbers):
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        BrokenPack().test_wrong_arguments_are_refused_where_the_step_is_written(
            numbers, "broken", "lax"
        )


def test_an_action_without_a_docstring_or_an_example_is_caught():
    with pytest.raises(AssertionError, match="no docstring"):
        BrokenPack().test_an_action_has_a_docstring_and_an_example_call("lax")
    with pytest.raises(AssertionError, match="no call"):
        BrokenPack().test_an_action_has_a_docstring_and_an_example_call("random")


# The fixtures


def names(group="flowcore.sinks"):
    return [info.name for info in fc.plugins(group)]


def test_what_is_installed_is_found_and_can_be_used(install):
    source = """
import flowcore as fc

class Sink(fc.Sink):
    def put(self, item, cancel):
        pass
"""
    install("acme-hole", "[flowcore.sinks]\nblack-hole = acme_hole:Sink", acme_hole=source)
    assert fc.Dataset(2, preloaded=np.arange(2)).p.put_into_black_hole().run(1).batches == 2


def test_what_is_installed_after_a_look_is_found_too(install):
    for at in range(20):
        install(f"acme-{at}", f"[flowcore.sinks]\nacme-{at} = nowhere:at_all")
        assert f"acme-{at}" in names()


def test_a_distribution_that_is_installed_again_hides_its_older_self(install):
    for version in ("1.0", "2.0"):
        install(
            "acme",
            "[flowcore.sinks]\nacme = acme_again:VERSION",
            version=version,
            acme_again=f"VERSION = {version!r}",
        )
        (info,) = [info for info in fc.plugins() if info.name == "acme"]
        assert (info.version, info.load()) == (version, version)


SESSION = """
import sys
import threading

import flowcore as fc
from flowcore.testing import install, no_leaks


def test_installs(install):
    install("acme", "[flowcore.sinks]\\nacme = acme:VALUE", acme="VALUE = 1")
    assert [info.load() for info in fc.plugins("flowcore.sinks")] == [1]


def test_finds_nothing_of_it():
    assert fc.plugins("flowcore.sinks") == []
    assert "acme" not in sys.modules


def test_leaks(no_leaks):
    threading.Thread(target=threading.Event().wait, name="flowcore-stray", daemon=True).start()
"""


def test_after_a_test_nothing_is_installed_and_a_thread_that_is_left_is_an_error(tmp_path):
    (tmp_path / "test_session.py").write_text(SESSION)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_session.py"],
        cwd=tmp_path,
        env={**os.environ, "FLOWCORE_ENABLE_PLUGINS": "acme"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed, 1 error" in ended.stdout
    assert "ERROR test_session.py::test_leaks" in ended.stdout
    assert "flowcore-stray" in ended.stdout


def test_flowcore_does_not_import_its_testing_kit(tmp_path):
    program = (
        "import sys, flowcore, flowcore.cli; print({'pytest', 'flowcore.testing'} & {*sys.modules})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "set()\n"
