"""The tuning that a system had, read from its recipe."""

from __future__ import annotations

import msgspec

from cerank import recipes
from cerank.app.comparison import system_tuning
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.tuning_specs import Tuning


def tuned(overrides: tuple[str, ...] = (), **settings: object) -> Recipe:
    recipe = recipes.load("contrastive-then-distill", overrides).recipe
    spec = Tuning(sweep="rates", method="grid", trials=6, validation="dev", settings=dict(settings))
    return msgspec.structs.replace(recipe, tuned=spec)


def test_a_stage_before_those_that_were_searched_had_no_trial() -> None:
    recipe = tuned(**{"stages.distill.learning_rate": 1e-4})
    assert system_tuning.of_system(recipe, "contrastive").trials == 0
    assert system_tuning.of_system(recipe, "distill").trials == 6
    whole = tuned(**{"stages.*.learning_rate": 1e-4})
    assert system_tuning.of_system(whole, "contrastive").trials == 6


def test_settings_that_are_no_longer_those_of_the_sweep_are_named() -> None:
    settings = {"stages.*.learning_rate": 1e-4, "stages.distill.window": [1, 8]}
    both = ("stages.contrastive.learning_rate=1e-4", "stages.distill.learning_rate=1e-4")
    found = tuned((*both, "stages.distill.window=[1,8]"), **settings)
    assert system_tuning.of_system(found, "distill").changed == ()
    later = tuned((*both, "stages.distill.window=[1,9]"), **settings)
    assert system_tuning.of_system(later, "distill").changed == ("stages.distill.window",)


def test_a_recipe_that_no_sweep_tuned_has_no_trials() -> None:
    recipe = recipes.load("contrastive").recipe
    assert system_tuning.of_system(recipe, "contrastive").trials == 0
