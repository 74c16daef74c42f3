"""Which sweep tuned a system, read from its run's recipe: how many trials it had, and what was changed since."""

from __future__ import annotations

import msgspec

from cerank.app.comparison.named_systems import short_name
from cerank.evaluation.tuning_budgets import SystemTuning
from cerank.recipes import search_space
from cerank.recipes.schema import Recipe


def of_system(recipe: Recipe, stage: str) -> SystemTuning:
    """Return the tuning of what a recipe's stage hands on.

    A stage before all those whose keys were searched is as it was without the sweep, and so had no trial.

    Args:
        recipe: recipe of the run.
        stage: name of one of its stages.
    """
    tuned = recipe.tuned
    trained = recipe.chain[: recipe.chain.index(stage) + 1] if stage in recipe.chain else recipe.chain
    searched = [path for path in tuned.settings if search_space.paths_in(path, trained)]
    if not tuned.is_tuned or not searched:
        return SystemTuning()
    return SystemTuning(
        trials=tuned.trials,
        pairs=tuned.pairs,
        sweep=tuned.sweep,
        method=tuned.method,
        measure=tuned.measure,
        validation=short_name(tuned.validation),
        by_fold=tuned.by_fold,
        changed=search_space.changed_settings(msgspec.to_builtins(recipe), tuned.settings, recipe.chain),
    )
