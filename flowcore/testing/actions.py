"""The contract of an action pack as tests, for its author to subclass."""

# ruff: noqa: D102 - a test's name is its description

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from flowcore.actions import action_mark
from flowcore.batch import Batch
from flowcore.errors import ArgumentError
from flowcore.plugins import identifier, plugins
from flowcore.testing.batches import contents, seen

if TYPE_CHECKING:
    from flowcore.dataset import Dataset
    from flowcore.pipeline import Pipeline

__all__ = ["ActionsContract"]

Call = tuple[tuple[Any, ...], Mapping[str, Any]]


class ActionsContract:
    """What a pipeline, and its user, may expect of any action pack.

    Set `pack` and `calls`, and override the fixture `dataset`::

        class TestArrays(ActionsContract):
            pack = flowcore_arrays
            calls = {"cast": [(("float32",), {})], "scale": [((), {"factor": 2})]}

            @pytest.fixture
            def dataset(self):
                return fc.Dataset(10, preloaded=np.arange(30).reshape(10, 3))
    """

    #: What the entry point names: a module, or an object.
    pack: ClassVar[Any] = None
    #: Example calls of each action: its name to (args, kwargs), without the batch.
    calls: ClassVar[Mapping[str, Sequence[Call]]] = {}

    # For the author to override

    @pytest.fixture
    def dataset(self) -> Dataset:
        """Return a dataset of a few items on which all of `calls` work."""
        raise NotImplementedError("override the fixture `dataset`")

    # The contract

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give each test that asks for ``name`` and ``call`` every example call."""
        if {"name", "call"} <= set(metafunc.fixturenames):
            cases = {
                f"{name}-{at}": (name, call)
                for name, calls in self.calls.items()
                for at, call in enumerate(calls)
            }
            metafunc.parametrize(("name", "call"), cases.values(), ids=cases)
        elif "public_name" in metafunc.fixturenames:
            metafunc.parametrize("public_name", self._public_names())

    @pytest.fixture
    def namespace(self) -> str:
        """The attribute of a pipeline that leads to the pack."""
        infos = [info for info in plugins("flowcore.actions") if info.load() is self.pack]
        assert infos, f"no entry point in flowcore.actions leads to {self.pack!r}"
        return identifier(infos[0].name)

    def test_the_pack_has_actions(self) -> None:
        assert self._public_names(), f"{self.pack!r} has no function marked @flowcore.action"

    def test_an_action_has_a_docstring_and_an_example_call(self, public_name: str) -> None:
        assert inspect.getdoc(getattr(self.pack, public_name)), "no docstring"
        assert self.calls.get(public_name), "no call in `calls`"

    def test_a_call_returns_a_batch_without_a_pipeline(
        self, dataset: Dataset, name: str, call: Call
    ) -> None:
        made = self._call(name, call, _all_of(dataset))
        assert isinstance(made, Batch), f"{name} returned {made!r:.60}; end it with: return batch"

    def test_a_call_does_not_write_to_the_arrays_that_it_is_given(
        self, dataset: Dataset, name: str, call: Call
    ) -> None:
        # They may be part of preloaded data: a view of a file in memory, items of an object array.
        batch = _all_of(dataset)
        given = batch.data
        before = contents(copy.deepcopy(given))
        self._call(name, call, batch)
        assert contents(given) == before
        assert contents(_all_of(dataset).data) == before

    def test_a_call_gives_the_same_bytes_under_every_executor_and_again(
        self, dataset: Dataset, namespace: str, name: str, call: Call
    ) -> None:
        args, kwargs = call
        pipeline: Pipeline = getattr(getattr(dataset.p, namespace), name)(*args, **kwargs)
        threads = {"executor": "threads", "num_workers": 2, "prefetch": 4}
        first, again, threaded = (
            seen(pipeline.gen_batch(3, shuffle=True, seed=1, n_epochs=2, **how))
            for how in ({"executor": "serial"}, {"executor": "serial"}, threads)
        )
        assert again == first, "the same seed gave something else; draw from batch.rng"
        assert threaded == first

    def test_wrong_arguments_are_refused_where_the_step_is_written(
        self, dataset: Dataset, namespace: str, public_name: str
    ) -> None:
        write = getattr(getattr(dataset.p, namespace), public_name)
        with pytest.raises(ArgumentError):
            write(no_such_argument=1)

    # Inside

    def _public_names(self) -> list[str]:
        return [
            name
            for name in dir(self.pack)
            if not name.startswith("_") and action_mark(getattr(self.pack, name)) is not None
        ]

    def _call(self, name: str, call: Call, batch: Batch) -> Any:
        function: Callable[..., Any] = getattr(self.pack, name)
        args, kwargs = call
        return function(batch, *args, **kwargs)


def _all_of(dataset: Dataset) -> Batch:
    return dataset.create_batch(list(dataset.index))
