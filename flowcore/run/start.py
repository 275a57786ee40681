"""Where a run begins and what it goes through, as its arguments and the recipe say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowcore.errors import OptionError, PipelineError, StateError, explain, near
from flowcore.fingerprint import digest
from flowcore.interleave import Interleaved
from flowcore.recipe import Mixture, Recipe
from flowcore.run.plan import Plan
from flowcore.run.settings import Settings
from flowcore.run.state import Identity, Resume, differs, read_state
from flowcore.sampler import BatchSampler, InOrder, Reordered, Sampler, Shuffled, draw_seed
from flowcore.steps import FilterStep, RebatchStep, SinkStep

__all__ = ["Shape", "checked_recipe", "identity_of", "plan_of", "shape_of"]


def plan_of(settings: Settings, recipe: Recipe) -> Plan:
    """Return the batches of the run; a seed that is not given is drawn.

    Raises:
        StateError: the state to go on from is of another run.
        OptionError: a sampler, or a start, that does not fit the source.
    """
    assert recipe.source is not None
    resume = Resume() if settings.resume is None else read_state(settings.resume)
    seed = settings.seed
    if resume.seed is not None:
        if seed is not None and seed != resume.seed:
            raise StateError(differs("seed", resume.seed, seed, "leave seed= out"))
        seed = resume.seed
    sampler = _sampler(settings, recipe)
    _check_identity(resume, settings, recipe)
    then = resume.identity.batch_size if resume.identity else settings.batch_size
    if isinstance(sampler, BatchSampler) and then != settings.batch_size:
        raise StateError(
            differs(
                "batch_size", then, settings.batch_size, f"batch_size={then}, as {sampler} says"
            )
        )
    if resume.shard not in (None, (settings.shard.rank, settings.shard.world)):
        raise StateError(
            differs(
                "shard",
                resume.shard,
                (settings.shard.rank, settings.shard.world),
                "go on with the shards that there were; or at the end of an epoch",
            )
        )
    if seed is None and settings.shard.world > 1 and _draws(sampler, settings.shuffle):
        raise OptionError(
            explain(
                f"shard={settings.shard.rank, settings.shard.world} of a shuffled run needs a seed",
                why="each shard would draw another, and they would not share one order",
                next="seed=..., the same int in every shard",
            )
        )
    return Plan(
        sampler=sampler,
        length=len(recipe.source.index),
        batch_size=settings.batch_size,
        seed=draw_seed(settings.shuffle, seed),
        n_epochs=settings.n_epochs,
        drop_last=bool(settings.drop_last),
        shard=settings.shard,
        uneven=settings.uneven,
        start=resume.starting(settings.batch_size),
        beyond=resume.beyond,
        dropping=settings.on_error == "skip_items" and not settings.retries,
    )


def _draws(sampler: Sampler, shuffle: object) -> bool:
    """Return whether an order follows from a seed that the run would draw for itself."""
    if isinstance(sampler, (InOrder, Reordered)):
        return False
    return not isinstance(shuffle, (np.random.Generator, np.random.RandomState))


def _sampler(settings: Settings, recipe: Recipe) -> Sampler:
    source = recipe.source
    if isinstance(source, Mixture) and source.weights is not None:
        if settings.sampler is not None or callable(settings.shuffle):
            raise OptionError(
                explain(
                    "a mixture has an order of its own",
                    next="shuffle=True or False says whether each part is shuffled; "
                    "flowcore.concat takes any order",
                )
            )
        sizes = [len(part.source.index) for part in source.parts if part.source is not None]
        shuffle = settings.shuffle is not False
        return Interleaved(sizes, source.weights, shuffle=shuffle, stop=source.stop)
    if settings.sampler is not None:
        return settings.sampler
    if settings.shuffle is False:
        return InOrder()
    drawn_from = isinstance(settings.shuffle, (bool, np.random.Generator, np.random.RandomState))
    return Shuffled() if drawn_from else Reordered(settings.shuffle)  # type: ignore[arg-type]


def identity_of(settings: Settings, recipe: Recipe) -> Identity:
    """Return what a run must have in common with one that it goes on from."""
    assert recipe.source is not None
    sampler = _sampler(settings, recipe)
    order = digest(sampler, str(sampler), bool(settings.drop_last), length=6)
    return Identity(len(recipe.source.index), settings.batch_size, order, recipe.step_digests())


def _check_identity(resume: Resume, settings: Settings, recipe: Recipe) -> None:
    then = resume.identity
    if then is None:
        return
    now = identity_of(settings, recipe)
    if then.length != now.length:
        raise StateError(differs("the number of ids of the index", then.length, now.length))
    if then.order != now.order:
        if isinstance(recipe.source, Mixture) and recipe.source.weights is not None:
            mixture = f"weights={recipe.source.weights}, stop={recipe.source.stop!r}"
            raise StateError(
                differs(
                    "the mixture, shuffle or drop_last",
                    "another",
                    f"{mixture}, shuffle={settings.shuffle}, drop_last={settings.drop_last}",
                )
            )
        here = f"sampler={settings.sampler}" if settings.sampler else f"shuffle={settings.shuffle}"
        raise StateError(
            differs(
                "shuffle, sampler or drop_last",
                "another",
                f"{here}, drop_last={settings.drop_last}",
            )
        )
    if then.steps != now.steps:
        at = next(
            at
            for at in range(0, max(len(then.steps), len(now.steps)), 3)
            if then.steps[at : at + 3] != now.steps[at : at + 3]
        )
        raise StateError(differs(*_step_that_differs(at // 3, recipe, then.steps)))


def _step_that_differs(at: int, recipe: Recipe, then: str) -> tuple[str, str, str]:
    if not at:
        return "the source", "of other ids or parts", str(recipe.headline)
    steps = [step for step in recipe.steps if not isinstance(step, SinkStep)]
    was = "another" if then[3 * at :] else "not there"
    return f"step {at} of the recipe", was, str(steps[at - 1]) if at <= len(steps) else "not there"


@dataclass(frozen=True, slots=True)
class Shape:
    """How much comes out of a run.

    Attributes:
        batch_size: items in a batch.
        batches: number of batches, at most; ``None`` if there is no end.
        items: number of items, at most; likewise.
        exact: it is what comes, if nothing fails.
    """

    batch_size: int
    batches: int | None
    items: int | None
    exact: bool


def shape_of(recipe: Recipe, plan: Plan) -> Shape:
    """Return how much comes out of a run."""
    exact = not any(isinstance(step, FilterStep) for step in recipe.all_steps())
    shape = Shape(plan.batch_size, plan.batches, plan.items, exact)
    for step in recipe.steps:
        if isinstance(step, RebatchStep):
            return Shape(step.size, _rebatched(step, plan), plan.items, exact)
    return shape


def _rebatched(step: RebatchStep, plan: Plan) -> int | None:
    if plan.n_epochs is None:
        return None
    rounding = 0 if step.drop_last else step.size - 1
    first = plan.epoch_items(plan.start.batch) - plan.start.skip
    epochs = plan.n_epochs - plan.start.epoch
    each = (plan.epoch_items() + rounding) // step.size
    return (first + rounding) // step.size + (epochs - 1) * each if epochs else 0


def checked_recipe(recipe: Recipe, settings: Settings) -> Recipe:
    """Return a recipe that can be run with the settings.

    Raises:
        PipelineError: it has no source; options, or variables, that it does not have or needs.
    """
    if recipe.source is None:
        raise PipelineError(
            explain(
                "this pipeline is a template: it has no dataset to run over",
                next="start it from a dataset: dataset.p...; or give it one: template << dataset",
            )
        )
    settings.check_options(recipe)
    _check_variables(recipe.variables(), settings.variables)
    rebatched = any(isinstance(step, RebatchStep) for step in recipe.steps)
    if rebatched and not settings.ordered:
        raise OptionError(
            explain(
                "ordered=False, and the pipeline rebatches",
                why="which items are together would depend on how fast each batch was made",
                next="leave ordered out",
            )
        )
    if rebatched and settings.shard.world > 1 and settings.uneven != "short":
        raise OptionError(
            explain(
                f"uneven={settings.uneven!r} promises each shard as many batches, and the pipeline "
                "rebatches",
                why="the items of a shard may not fill as many batches as those of another",
                next="uneven='short'; or choose the size by batch_size, without rebatch",
            )
        )
    return recipe


def _check_variables(needed: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    missing = [name for name, variable in needed.items() if variable.needed and name not in given]
    unknown = [name for name in given if name not in needed]
    if missing:
        raise OptionError(
            explain(
                f"the pipeline has a variable {missing[0]!r}, and the run does not say what it is",
                next=f"variables={{{missing[0]!r}: ...}}, or a default: V({missing[0]!r}, ...)",
            )
        )
    if unknown:
        raise OptionError(
            explain(
                f"the pipeline has no variable {unknown[0]!r}",
                why=f"it has: {', '.join(needed) or 'none'}",
                next=near(str(unknown[0]), needed),
            )
        )
