"""Which sweep tuned a system, read from its run's recipe: how many trials it had, and what was changed since."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cerank.app.comparison.named_systems import short_name
from cerank.evaluation.tuning_budgets import SystemTuning
from cerank.recipes import search_space
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.tuning_specs import Tuning


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
        changed=changed(recipe, tuned),
    )


def changed(recipe: Recipe, tuned: Tuning) -> tuple[str, ...]:
    """Return the keys of a recipe that no longer have the values which its sweep chose."""
    table = msgspec.to_builtins(recipe)
    return tuple(
        key
        for path, value in tuned.settings.items()
        for key in search_space.paths_in(path, recipe.chain)
        if not _is_same(_value_at(table, key.split(".")), value)
    )


def _value_at(table: object, keys: Sequence[str]) -> object:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _is_same(own: object, chosen: object) -> bool:
    """Return whether a value is the chosen one; a chosen table may leave out what the recipe fills in."""
    if isinstance(chosen, dict) and isinstance(own, dict):
        return all(_is_same(own.get(key), value) for key, value in chosen.items())
    if isinstance(chosen, list | tuple) and isinstance(own, list | tuple):
        return len(chosen) == len(own) and all(map(_is_same, own, chosen))
    return own == chosen
