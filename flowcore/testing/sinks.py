"""The contract of a sink as tests, for its author to subclass."""

# ruff: noqa: D102 - a test's name is its description

from __future__ import annotations

import copy
import inspect
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pytest

from flowcore.dataset import Dataset
from flowcore.errors import Cancelled, OptionError
from flowcore.sinks import Cancel, Sink, SinkRun
from flowcore.testing.batches import Broken, PlainBatch
from flowcore.testing.leaks import watched
from flowcore.testing.meeting import within_a_second

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from flowcore.batch import Batch
    from flowcore.pipeline import Pipeline
    from flowcore.run.handles import Run
    from flowcore.run.report import Report

__all__ = ["SinkContract"]

_THREADS = {"executor": "threads", "num_workers": 2, "prefetch": 4}
_INLINE = {"prefetch": 0}
_HOW = {"inline": _INLINE, "threads": _THREADS, "unordered": {**_THREADS, "ordered": False}}

every_way = pytest.mark.parametrize("how", _HOW.values(), ids=_HOW)
inline_and_threads = pytest.mark.parametrize("how", [_INLINE, _THREADS], ids=["inline", "threads"])


class SinkContract:
    """What a run, and its user, may expect of any sink.

    Override the fixture `sink` and, as far as the sink has the ability, what follows it::

        class TestListSink(SinkContract):
            @pytest.fixture
            def sink(self):
                return ListSink()

            def received(self, result):
                return result

    pytest makes a new object of the class for each test, so what a method sets on ``self`` (the
    queue behind the sink, say) is there in the others.
    """

    #: The items can be looked at afterwards, by `received`.
    keeps_items: ClassVar[bool] = True
    #: ``put`` waits when the sink is full; `sink_with_room` makes one, and `take` makes room.
    bounded: ClassVar[bool] = False
    #: All runs put into one place, which the user gave to the sink: a queue, a connection.
    shares_target: ClassVar[bool] = False
    #: What a resumed run does with what was put before the place that it goes on from. ``"rest"``:
    #: nothing, it puts the rest. ``"whole"``: it goes on with it, and after the end of the data
    #: `received` returns all, whatever `keeps_items` says. ``"refuses"``: it does not start, as it
    #: can neither keep it nor do without.
    resumes: ClassVar[Literal["rest", "whole", "refuses"]] = "rest"
    #: ``prepare`` can run in another process, as a run with worker processes needs it.
    crosses_processes: ClassVar[bool] = True

    # For the author to override

    @pytest.fixture
    def sink(self) -> Sink:
        """Return a new sink, as ``put_into`` would get it, with room for 40 batches."""
        raise NotImplementedError("override the fixture `sink` to return a new sink")

    def sink_with_room(self, puts: int) -> Sink:
        """Return a new sink that takes ``puts`` batches and is full then (if `bounded`)."""
        raise NotImplementedError("override sink_with_room(puts), or leave bounded = False")

    def take(self, result: Any) -> NDArray[Any]:
        """Take the oldest item out, as the sink's consumer does (if `bounded`).

        Args:
            result: what the sink says is its result.
        """
        raise NotImplementedError("override take(result), or leave bounded = False")

    def received(self, result: Any) -> list[NDArray[Any]]:
        """Return what the sink took, oldest first (if `keeps_items`).

        Look at it by a way around the sink, where there is one. The arrays are compared joined
        along their first axis, so they may be one for each batch, or all in one. Called once, after
        the run; where the sink `shares_target`, what is returned must be taken out.

        Args:
            result: what the sink says is its result, in the run's report.
        """
        raise NotImplementedError("override received(result), or say keeps_items = False")

    def options(self) -> dict[str, Any]:
        """Return the options of a run that the sink needs (``tf_session``); by default none."""
        return {}

    def data(self) -> NDArray[Any]:
        """Return the data to put, 20 items; by default float32 of shape (20, 3)."""
        return np.arange(60, dtype=np.float32).reshape(20, 3)

    # The contract

    @pytest.fixture(autouse=True)
    def _leaves_nothing(self, request: pytest.FixtureRequest) -> Iterator[None]:
        yield from watched(request)

    @every_way
    def test_items_arrive_complete_once_and_in_delivery_order(
        self, sink: Sink, how: Mapping[str, Any]
    ) -> None:
        watched = _Watched(sink)
        run = self._run(self._into(watched), how, shuffle=True, seed=1, n_epochs=2)
        batches = list(run)
        assert watched.puts == len(batches) == 14
        assert _same([batch.data for batch in batches], self._data_of(batches)), (
            "the sink changed the batch"
        )
        self._check_received(batches, _result(run.report))

    @every_way
    def test_the_sink_gets_the_batch_as_it_is_at_its_step(
        self, sink: Sink, how: Mapping[str, Any]
    ) -> None:
        run = self._run(self._into(sink).spoil(), how)
        self._check_received(list(run), _result(run.report))

    def test_a_run_to_the_end_has_the_result_on_its_report(self, sink: Sink) -> None:
        report = self._into(sink).run(3, **_THREADS, **self.options())
        assert (report.batches, report.items, len(report.results)) == (7, 20, 1)
        self._check_received([self._batch(*range(20))], _result(report))

    def test_a_feed_puts_everything_and_has_its_results_from_the_start(self, sink: Sink) -> None:
        with self._into(sink).feed(3, **self.options()) as feed:
            assert len(feed.results) == 1
            assert feed.wait(10), "the feed did not come to its end in 10 s"
        self._check_received([self._batch(*range(20))], _result(feed.report))

    def test_two_runs_of_one_pipeline_at_once_do_not_mix(self, sink: Sink) -> None:
        pipeline = self._into(sink)
        first, second = (self._run(pipeline, _INLINE, shuffle=True, seed=seed) for seed in (1, 2))
        pairs = list(zip(first, second, strict=True))
        if self.shares_target:
            self._check_received([batch for pair in pairs for batch in pair], _result(first.report))
        else:
            self._check_received([pair[0] for pair in pairs], _result(first.report))
            self._check_received([pair[1] for pair in pairs], _result(second.report))

    @inline_and_threads
    def test_a_sink_is_usable_again_in_a_new_run(self, sink: Sink, how: Mapping[str, Any]) -> None:
        pipeline = self._into(sink)
        for seed in (1, 2):
            run = self._run(pipeline, how, shuffle=True, seed=seed)
            self._check_received(list(run), _result(run.report))

    def test_a_sink_object_given_to_a_run_is_usable_in_the_next(self, sink: Sink) -> None:
        for seed in (1, 2):
            run = self._run(self._into(), _INLINE, sink=sink, shuffle=True, seed=seed)
            self._check_received(list(run), _result(run.report))

    @inline_and_threads
    def test_a_resumed_run_puts_exactly_what_the_state_does_not_count(
        self, sink: Sink, how: Mapping[str, Any]
    ) -> None:
        if self.resumes == "refuses":
            pytest.skip("this sink does not go on")
        watched = _Watched(sink)
        left, state, counted = self._left(watched, how)
        if self.shares_target and self.keeps_items:
            self.received(_result(left.report))  # takes it out
        puts = watched.puts
        rest = self._run(self._into(watched), how, shuffle=True, resume=state)
        batches = list(rest)
        assert watched.puts - puts == len(batches) == 5
        if self.resumes == "rest":
            self._check_received(batches, _result(rest.report))
        else:
            everything = self._data_of([*counted, *batches])
            assert _same(self.received(_result(rest.report)), everything), (
                "after a resume the sink has not what one run would have put into it"
            )

    def test_a_sink_that_cannot_go_on_says_so_before_anything_is_put(self, sink: Sink) -> None:
        if self.resumes != "refuses":
            pytest.skip("this sink goes on")
        watched = _Watched(sink)
        _, state, _ = self._left(watched, _INLINE)
        puts = watched.puts
        with pytest.raises(OptionError):
            next(self._run(self._into(watched), _INLINE, shuffle=True, resume=state))
        assert watched.puts == puts

    def test_a_run_that_is_resumed_at_the_very_start_puts_everything(self, sink: Sink) -> None:
        run = self._run(self._into(sink), _INLINE, resume={"epoch": 0, "batch": 0})
        self._check_received(list(run), _result(run.report))

    @inline_and_threads
    def test_an_exception_in_an_action_reaches_the_consumer_and_closes_the_sink_with_it(
        self, sink: Sink, how: Mapping[str, Any]
    ) -> None:
        watched, error = _Watched(sink), Broken("in an action")

        def fail(batch: Batch) -> None:
            if batch.number == 2:
                raise error

        run = self._run(self._into().call(fail).put_into(watched), how)
        batches: list[Batch] = []
        with pytest.raises(Broken) as raised:
            batches.extend(run)
        assert raised.value is error
        assert watched.closed == [error]
        assert [batch.number for batch in batches] == [0, 1]
        self._check_received(batches, _result(run.report))

    @inline_and_threads
    def test_a_sink_is_usable_again_after_a_run_that_failed(
        self, sink: Sink, how: Mapping[str, Any]
    ) -> None:
        failing = True

        def fail(batch: Batch) -> None:
            if failing and batch.number == 1:
                raise Broken

        pipeline = self._into().call(fail).put_into(sink)
        before: list[Batch] = []
        with pytest.raises(Broken):
            before.extend(self._run(pipeline, how))
        failing = False
        again = self._run(pipeline, how)
        batches = list(again)
        everything = [*before, *batches] if self.shares_target else batches
        self._check_received(everything, _result(again.report))

    @inline_and_threads
    def test_a_put_into_a_full_sink_is_given_up_within_a_second_of_the_close(
        self, how: Mapping[str, Any]
    ) -> None:
        watched = _Watched(self._bounded_sink(1))
        run = self._run(self._into(watched), how)
        first = next(run)
        caller = threading.Thread(target=lambda: next(run, None), daemon=True)
        caller.start()
        assert watched.second_put.wait(10)
        caller.join(0.2)
        assert caller.is_alive(), "put did not wait, though the sink was full"
        within_a_second(run.close)
        within_a_second(caller.join)
        assert [type(error) for error in watched.closed] == [Cancelled]
        self._check_received([first], _result(run.report))

    def test_a_feed_that_waits_at_a_full_sink_is_left_within_a_second(self) -> None:
        watched = _Watched(self._bounded_sink(1))
        with self._into(watched).feed(3, **self.options()) as feed:
            assert watched.second_put.wait(10)
            assert not feed.wait(0.2), "put did not wait, though the sink was full"
            left_at = time.monotonic()
        assert time.monotonic() - left_at < 1
        assert feed.report.batches == 1
        self._check_received([self._batch(0, 1, 2)], _result(feed.report))

    def test_put_into_a_full_sink_with_a_set_cancel_raises_cancelled_at_once(self) -> None:
        sink, cancel = self._open(self._bounded_sink(1)), Cancel()
        self._put(sink, 0, Cancel())
        cancel.set()
        with pytest.raises(Cancelled):
            within_a_second(lambda: self._put(sink, 1, cancel))
        sink.close(Cancelled())
        self._check_received([self._batch(0)], sink.result)

    @pytest.mark.parametrize("prefetch", [0, 1, 8])
    def test_a_consumer_that_takes_one_item_for_each_batch_is_never_stuck(
        self, prefetch: int
    ) -> None:
        run = self._run(self._into(self._bounded_sink(1)), {"prefetch": prefetch}, n_epochs=2)
        for batch in run:
            assert _same([self.take(_result(run.report))], self._data_of([batch]))
        assert run.report.batches == 14

    def test_prepare_gives_the_same_item_in_another_process(self, sink: Sink) -> None:
        if not self.crosses_processes:
            pytest.skip("prepare of this sink stays in its process")
        sink = self._open(sink)
        prepare = pickle.loads(pickle.dumps(sink.prepare))  # as it is sent to a worker
        batch = self._batch(0)
        sink.put(pickle.loads(pickle.dumps(prepare(batch))), Cancel())
        sink.close(Cancelled())
        self._check_received([batch], sink.result)

    def test_an_unknown_option_is_refused_when_the_step_is_written(self, sink: Sink) -> None:
        # The pipeline checks the options of a step by the signature; **options would hide typos.
        with pytest.raises(TypeError, match="no_such_option"):
            inspect.signature(type(sink)).bind_partial(no_such_option=1)

    def test_every_option_of_a_run_is_declared_with_what_it_is(self, sink: Sink) -> None:
        assert set(self.options()) <= set(sink.run_options)
        assert all(isinstance(what, str) and what for what in sink.run_options.values())

    # Inside

    def _into(self, *sinks: Sink) -> Any:  # a Pipeline, whose actions no type checker knows
        data = self.data()
        pipeline: Pipeline = Dataset(len(data), PlainBatch, data).p
        for sink in sinks:
            pipeline = pipeline.put_into(sink)
        return pipeline

    def _run(self, pipeline: Pipeline, how: Mapping[str, Any], **options: Any) -> Run:
        return pipeline.gen_batch(3, **{**how, **options, **self.options()})

    def _left(self, sink: Sink, how: Mapping[str, Any]) -> tuple[Run, dict[str, Any], list[Batch]]:
        """Leave a run, and return it with a state that is a batch older, and what that counts."""
        with self._run(self._into(sink), how, shuffle=True, seed=1) as run:
            counted = [next(run), next(run)]
            state = run.state_dict()
            next(run)
        return run, state, counted

    def _bounded_sink(self, puts: int) -> Sink:
        if not self.bounded:
            pytest.skip("this sink is never full")
        return self.sink_with_room(puts)

    def _open(self, sink: Sink) -> Sink:
        sink.open(SinkRun(options=self.options(), batch_size=1, batches=20, items=20))
        return sink

    def _batch(self, *positions: int) -> Batch:
        data = self.data()
        return Dataset(len(data), PlainBatch, data).create_batch(positions)

    def _put(self, sink: Sink, position: int, cancel: Cancel) -> None:
        sink.put(sink.prepare(self._batch(position)), cancel)

    def _data_of(self, batches: Iterable[Batch]) -> list[NDArray[Any]]:
        data = self.data()
        return [data[batch.positions] for batch in batches]

    def _check_received(self, batches: list[Batch], result: Any) -> None:
        if self.keeps_items:
            assert _same(self.received(result), self._data_of(batches))


class _Watched(Sink):
    """Passes everything on to a sink, and notes the puts and how it is closed."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.run_options = sink.run_options  # type: ignore[misc]  # that of the sink it stands for
        self.second_put = threading.Event()
        self._puts: list[None] = []
        self.closed: list[BaseException | None] = []

    def __copy__(self) -> _Watched:
        # A run opens a copy. It writes its notes where the original has them.
        twin = _Watched(copy.copy(self._sink))
        vars(twin).update({**vars(self), "_sink": twin._sink})
        return twin

    @property
    def puts(self) -> int:
        return len(self._puts)

    def open(self, run: SinkRun) -> None:
        self._sink.open(run)
        self.lookahead = self._sink.lookahead

    def prepare(self, batch: Batch) -> Any:
        return self._sink.prepare(batch)

    def put(self, item: Any, cancel: Cancel) -> None:
        self._puts.append(None)
        if len(self._puts) == 2:
            self.second_put.set()
        self._sink.put(item, cancel)

    def close(self, error: BaseException | None) -> None:
        self.closed.append(error)
        self._sink.close(error)

    @property
    def result(self) -> Any:
        return self._sink.result


def _result(report: Report) -> Any:
    (result,) = report.results.values()
    return result


def _same(arrays: list[NDArray[Any]], expected: list[NDArray[Any]]) -> bool:
    """Whether the arrays, joined, are equal to those expected; a sink may change the dtype."""
    if not arrays or not expected:
        return len(arrays) == len(expected)
    return bool(np.array_equal(np.concatenate(arrays), np.concatenate(expected)))
