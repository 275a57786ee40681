"""One batch of a run, made alone: for a debugger, and for whoever wants to see it again."""

from __future__ import annotations

from dataclasses import replace

from flowcore.batch import Batch
from flowcore.recipe import Recipe
from flowcore.run.compile import compile_recipe
from flowcore.run.engine import Engine
from flowcore.run.settings import Settings, action_options
from flowcore.run.start import checked_recipe, plan_of
from flowcore.steps import RebatchStep

__all__ = ["make_one"]


def make_one(recipe: Recipe, settings: Settings, number: int, epoch: int) -> Batch:
    """Make one batch of a run in this thread, through its actions and into no sink.

    Raises:
        IndexError: the epoch has no such batch.
        Exception: what an action raises.
    """
    checked_recipe(recipe, settings)
    plan = plan_of(settings, recipe)
    if any(isinstance(step, RebatchStep) for step in recipe.steps):
        return _count_to(recipe, settings, number, epoch)
    if not (0 <= number < plan.epoch_batches and epoch >= 0):
        raise IndexError(
            f"no batch {number} in epoch {epoch}: {plan.length} items in batches of "
            f"{plan.batch_size} make {plan.epoch_batches} batches, counted from 0"
        )
    options = action_options(recipe, settings.plugin_options)
    work = compile_recipe(recipe, [], options, settings.variables)
    try:
        with work.worker("flowcore-serial"):
            outcome = work(plan.task(epoch, number))
    finally:
        work.close()
    if outcome.error is not None:
        raise outcome.error
    if outcome.batch is None:
        raise IndexError(f"no item of batch {number} in epoch {epoch} is left by the filters")
    return outcome.batch


def _count_to(recipe: Recipe, settings: Settings, number: int, epoch: int) -> Batch:
    """Return a batch of a run that rebatches: it takes all before it in the epoch to know it."""
    engine = Engine(
        recipe, replace(settings, resume={"epoch": epoch}, n_epochs=epoch + 1, prefetch=0)
    )
    try:
        while (batch := engine.next()).number < number:
            pass
    except StopIteration:
        raise IndexError(f"no batch {number} in epoch {epoch}: it has fewer") from None
    finally:
        engine.close()
    return batch
