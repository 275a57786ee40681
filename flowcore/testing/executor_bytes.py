"""Promise 1: an executor gives the bytes that the serial one gives, whatever the recipe."""

# ruff: noqa: D102 - a test's name is its description

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flowcore.compose import concat, mix
from flowcore.dataset import Dataset
from flowcore.errors import PipelineError
from flowcore.pipeline import Pipeline
from flowcore.testing.batches import AlignedBatch, ItemsBatch, NamedBatch, seen
from flowcore.testing.executor_runs import ExecutorRuns, plain
from flowcore.values import B, R, V

if TYPE_CHECKING:
    from pathlib import Path

    from flowcore.batch import Batch
    from flowcore.testing.trials import AnyExecutor

__all__ = ["SameBytes"]


def _named() -> Any:
    components = {"images": np.arange(69.0).reshape(23, 3), "labels": np.arange(23)}
    return Dataset([f"id-{k}" for k in range(23)], NamedBatch, components).p


def _items(count: int = 23) -> Any:
    return Dataset(count, ItemsBatch).p.load()


def _aligned() -> Any:
    return Dataset(23, AlignedBatch, np.arange(46, dtype=np.float32).reshape(23, 2)).p


def _three_in_four(batch: Batch) -> Any:
    return batch.positions % 4 != 0


def _is_even(batch: Batch) -> bool:
    return batch.number % 2 == 0


_other: dict[str, str] = {"x": "other_x", "noise": "other_noise"}
_SHUFFLED = {"shuffle": True, "seed": 1, "n_epochs": 2}

# What is compared with `serial`: a pipeline, and the arguments of its run.
_RECIPES: dict[str, tuple[Pipeline, dict[str, Any]]] = {
    "in order, a short batch at the end": (plain().double(), {}),
    "random numbers": (plain().jitter(), _SHUFFLED),
    "several epochs, without the short batch": (plain().jitter(), {**_SHUFFLED, "drop_last": True}),
    "random numbers in a batch that replaces the first": (plain().replace().jitter(), _SHUFFLED),
    "named components": (_named().relabel(), _SHUFFLED),
    "items": (_items().jitter(), _SHUFFLED),
    "items in threads": (_items().jitter_at_once(), _SHUFFLED),
    "items on an event loop": (_items().jitter_async(), _SHUFFLED),
    "an async action": (_items().double(), _SHUFFLED),
    "bad items are left out": (
        _items().jitter_at_once(bad=(3, 5)),
        {**_SHUFFLED, "on_error": "skip_items"},
    ),
    "filter": (plain().filter(_three_in_four).jitter(), _SHUFFLED),
    "filter and rebatch": (plain().filter(_three_in_four).rebatch(5).jitter(), _SHUFFLED),
    "when and repeat": (
        _items().when(_is_even, Pipeline().jitter(), Pipeline().repeat(2, Pipeline().double())),
        _SHUFFLED,
    ),
    "join": (_items().join(_items().jitter(), rename=_other), _SHUFFLED),
    "mix": (mix([_items(), _items(10).jitter()], weights=[2, 1], stop="all").double(), _SHUFFLED),
    "concat": (concat([_items(), Dataset(range(30, 40), ItemsBatch).p.load()]), _SHUFFLED),
    "values": (
        _items().add(B.x, R("normal", size=1)).add(V("amount")),
        {**_SHUFFLED, "variables": {"amount": 3}},
    ),
    "an array that the run gives": (_aligned().double_aligned(), _SHUFFLED),
    "a shard": (plain().jitter(), {**_SHUFFLED, "shard": (1, 2)}),
}
_each_recipe = pytest.mark.parametrize(("recipe", "arguments"), _RECIPES.values(), ids=_RECIPES)


class SameBytes(ExecutorRuns):
    """The tests of promise 1."""

    @pytest.mark.parametrize("prefetch", [1, 4])
    @_each_recipe
    def test_it_gives_the_bytes_that_serial_gives_in_the_same_order(
        self, executor: AnyExecutor, recipe: Pipeline, arguments: dict[str, Any], prefetch: int
    ) -> None:
        run = self._run(recipe, executor, prefetch=prefetch, **arguments)
        assert seen(run) == seen(recipe.gen_batch(4, executor="serial", **arguments))

    def test_unordered_it_gives_the_same_batches_in_any_order(self, executor: AnyExecutor) -> None:
        run = self._run(plain().jitter(), executor, ordered=False, seed=5)
        expected = seen(plain().jitter().gen_batch(4, executor="serial", seed=5))
        assert sorted(seen(run)) == expected

    def test_a_singleton_is_alone_or_refused_where_no_lock_reaches_all_workers(
        self, executor: AnyExecutor, tmp_path: Path
    ) -> None:
        run = self._run(plain().alone(tmp_path), executor)
        if self.shares_memory:
            assert len(list(run)) == 6
        else:
            with pytest.raises(PipelineError, match="'alone' is a singleton"):
                next(run)
