"""What a recipe says of the sweep that tuned it: read and written as it is, and refused where it contradicts itself."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cerank import recipes
from cerank.errors import RecipeError
from cerank.recipes.sections.tuning_specs import Tuning
from tests.refusals import refused

TUNED = Tuning(
    sweep="rates",
    sha256="ab" * 32,
    method="tpe",
    trials=24,
    pairs=9000,
    measure="nDCG@10",
    validation="./dev[:50%]",
    value=0.25,
    trial=7,
    settings={"stages.*.learning_rate": 1e-5, "stages.contrastive.window": [1, 8], "base": "minilm"},
)


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(recipes.load("contrastive").recipe, tuned=TUNED)
    for full in (False, True):
        (tmp_path / "tuned.toml").write_text(recipes.render(recipe, full))
        assert recipes.load(str(tmp_path / "tuned.toml")).recipe.tuned == TUNED


def test_a_recipe_without_it_says_nothing_of_it() -> None:
    assert "tuned" not in recipes.render(recipes.load("contrastive").recipe)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('sweep = "rates"', "tuned.trials"),
        ("trials = 3", "tuned.sweep"),
        ('sweep = "rates"\ntrials = 3\nsettings = { base = 1979-05-27 }', "tuned.settings.base"),
        ('sweep = "rates"\ntrials = -3', "tuned.trials"),
        ('sweep = "rates"\ntrails = 3', "tuned.trails"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text(f'extends = "contrastive"\n[tuned]\n{text}\n')
    with refused(RecipeError, "recipe", named):
        recipes.load(str(file))
