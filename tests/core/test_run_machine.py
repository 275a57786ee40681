"""Whatever is done with runs of one pipeline, in whatever order, each gives what serial gives.

The model is the list of batches of one serial run. Every run is a place in it.
"""

import gc
import json
import threading
import time
from types import SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

import flowcore as fc
from flowcore.errors import PipelineError, RunInProgress
from flowcore.testing.batches import Broken, contents, seen


class MachineBatch(fc.Batch):
    @fc.action
    def load(self):
        self.data = self.positions + self.rng.random(len(self))
        return self

    @fc.action
    def fail(self, numbers):
        if self.number in numbers:
            raise Broken(self.number)
        return self


class Kept(fc.Sink):
    """Keeps what it is given."""

    def __init__(self):
        self.items = []

    def __getstate__(self):
        return {}  # `prepare` needs nothing of it

    def put(self, item, cancel):
        self.items.append(contents(item))


class Runs(RuleBasedStateMachine):
    """Runs of one pipeline, several at a time."""

    #: How a run may be made: its executor, and how far ahead it goes.
    ways: ClassVar = [
        {"executor": "serial", "prefetch": 0},
        {"executor": "threads", "prefetch": 0},
        {"executor": "threads", "prefetch": 1, "num_workers": 1},
        {"executor": "threads", "prefetch": 4, "num_workers": 2},
    ]

    runs, states = Bundle("runs"), Bundle("states")

    @initialize(
        data=st.data(),
        items=st.integers(1, 12),
        batch_size=st.integers(1, 4),
        epochs=st.integers(0, 3),
        bad=st.sets(st.integers(0, 11), max_size=2),
        on_error=st.sampled_from(["raise", "skip"]),
        ordinary=st.fixed_dictionaries({"shuffle": st.booleans(), "drop_last": st.booleans()}),
    )
    def describe(self, data, items, batch_size, epochs, bad, on_error, ordinary):
        way = st.sampled_from(self.ways)
        self.draw_way = lambda: dict(data.draw(way))
        self.options = {"batch_size": batch_size, "n_epochs": epochs, "seed": 5, **ordinary}
        good = fc.Dataset(items, MachineBatch).p.load()
        whole = list(good.gen_batch(**self.options))
        first_bad = next((at for at, batch in enumerate(whole) if batch.number in bad), None)
        self.fails = on_error == "raise" and first_bad is not None
        kept = whole[:first_bad] if self.fails else [one for one in whole if one.number not in bad]
        self.sizes = [len(batch) for batch in kept]
        self.model = seen(kept)
        self.items = [contents(batch.get_tensor()) for batch in kept]
        self.epochs = epochs if whole else 0
        self.skipped = 0 if self.fails else len(whole) - len(kept)
        self.options["on_error"] = on_error
        self.pipeline = good.fail(bad)
        self.state_at = {}  # what the state is after so many batches
        self.current = None  # the run of next_batch
        self.live = []

    # Runs

    @rule(target=runs)
    def begin(self):
        way = self.draw_way()
        return self._begun(self.pipeline.gen_batch(**self.options, **way), 0, way)

    @rule(target=runs, state=states, by_method=st.booleans())
    def resume(self, state, by_method):
        at, text = state
        resume = {} if by_method else {"resume": json.loads(text)}
        way = self.draw_way()
        run = self.pipeline.gen_batch(**self.options, **way, **resume)
        if by_method:
            run.load_state_dict(json.loads(text))
        return self._begun(run, at, way)

    @rule(one=runs)
    def take(self, one):
        self._take(one, one.run.__next__)

    @rule(one=runs, most=st.integers(2, 12))
    def take_several(self, one, most):
        for _ in range(most):
            self._take(one, one.run.__next__)

    @rule(one=runs)
    def close(self, one):
        one.run.close()
        one.left = True

    @rule(one=consumes(runs))
    def collect(self, one):
        self.live.remove(one)
        one.run = None
        gc.collect()

    @rule(target=states, one=runs)
    def look_where_it_is(self, one):
        return self._checked_state(one)

    @rule(one=runs, state=states)
    def go_elsewhere_when_it_has_started(self, one, state):
        if one.begun:
            with pytest.raises(PipelineError, match="has started"):
                one.run.load_state_dict(json.loads(state[1]))

    # The other ways to run

    @rule(leave_early=st.booleans())
    def feed(self, leave_early):
        sink = Kept()
        try:
            with self.pipeline.feed(**self.options, **self.draw_way(), sink=sink) as feed:
                if not leave_early:
                    assert feed.wait(20)
        except Broken:
            assert self.fails
        else:
            assert leave_early or not self.fails
        assert sink.items == self.items[: len(sink.items)]
        assert leave_early or len(sink.items) == len(self.items)

    @rule()
    def run_to_the_end(self):
        sink = Kept()
        try:
            report = self.pipeline.run(**self.options, **self.draw_way(), sink=sink)
        except Broken:
            assert self.fails
        else:
            assert not self.fails
            assert (report.batches, report.items) == (len(self.model), sum(self.sizes))
            assert len(report.skipped) == self.skipped
            assert report.epochs == self.epochs
        assert sink.items == self.items

    @rule()
    def take_with_next_batch(self):
        if self.current is None:
            self.current = SimpleNamespace(at=0, start=0, left=False, way=self.draw_way())
        arguments = {**self.options, **self.current.way}
        self._take(self.current, lambda: self.pipeline.next_batch(**arguments))

    @precondition(lambda self: self.current is not None)
    @rule()
    def take_with_other_arguments(self):
        arguments = {**self.options, **self.current.way, "prefetch": 3}
        with pytest.raises(RunInProgress, match="prefetch"):
            self.pipeline.next_batch(**arguments)

    @rule()
    def reset(self):
        self.pipeline.reset()
        self.current = None

    # What holds all the time

    @invariant()
    def a_report_counts_what_was_delivered(self):
        for one in getattr(self, "live", ()):
            taken = one.at - one.start
            ahead = one.run.report.batches - taken
            assert 0 <= ahead <= one.way["prefetch"]
            assert one.run.report.items >= sum(self.sizes[one.start : one.at])

    def teardown(self):
        for one in getattr(self, "live", ()):
            one.run.close()
            self._checked_state(one)
        if hasattr(self, "pipeline"):
            self.pipeline.reset()
        end = time.monotonic() + 1
        while left := [one for one in threading.enumerate() if one.name.startswith("flowcore-")]:
            assert time.monotonic() < end, left
            left[0].join(0.1)

    # Parts

    def _begun(self, run, at, way):
        one = SimpleNamespace(run=run, start=at, at=at, left=False, begun=False, way=way)
        self.live.append(one)
        return one

    def _take(self, one, take):
        """Take a batch of a run: it must be the one at its place, or the end that is due."""
        one.begun = True
        try:
            batch = take()
        except StopIteration:
            assert one.left or (one.at == len(self.model) and not self.fails)
        except Broken:
            assert self.fails
            assert one.left or one.at == len(self.model)
        else:
            assert not one.left
            assert seen([batch]) == self.model[one.at : one.at + 1]
            one.at += 1

    def _checked_state(self, one):
        state = one.run.state_dict()
        text = json.dumps(state)
        assert json.loads(text) == state
        assert state["batches"] == one.at
        assert state["items"] == sum(self.sizes[: one.at])
        assert text == self.state_at.setdefault(one.at, text), "it depends on the way there"
        return one.at, text


TestRuns = Runs.TestCase
TestRuns.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    print_blob=True,
    phases=set(Phase) - {Phase.explain},  # which takes longer than a test may
    suppress_health_check=[HealthCheck.too_slow],
)
