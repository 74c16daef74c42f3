"""Recipes as text: what is written reads back as the same recipe, and the full text explains every key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank import recipes
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Data, Recipe, Stage

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
STAGE = st.builds(
    Stage,
    steps=st.integers(1, 100),
    loss=TEXT,
    learning_rate=st.floats(1e-300, 1000.0),
    window=st.tuples(st.integers(1, 9), st.integers(9, 99)),
    dropout=st.none() | st.floats(0, 0.9),
    keep=st.sampled_from(["best", "last"]),
)
RECIPE = st.builds(
    Recipe,
    name=TEXT.filter(str.strip),
    description=TEXT,
    seed=st.integers(0, 2**63 - 1),
    chain=st.just(("a",)),
    data=st.builds(Data, test=st.lists(TEXT, min_size=1, max_size=3, unique=True).map(tuple)),
    stages=st.builds(lambda first, second: {"a": first, "b-2_": second}, STAGE, STAGE),
)


@given(RECIPE, st.booleans())
def test_a_recipe_that_is_written_reads_back_as_itself(recipe: Recipe, full: bool) -> None:
    assert recipe_from(tomllib.loads(recipes.render(recipe, full)), "text") == recipe


@pytest.mark.parametrize("name", ["contrastive", "distill-then-contrastive"])
@pytest.mark.parametrize("full", [False, True])
def test_a_shipped_recipe_that_is_written_to_a_file_loads_as_itself(tmp_path: Path, name: str, full: bool) -> None:
    recipe = recipes.load(name).recipe
    path = tmp_path / "copy.toml"
    path.write_text(recipes.render(recipe, full), encoding="utf-8")
    assert recipes.load(str(path)).recipe == recipe


def test_the_short_text_says_what_differs_from_the_defaults_only() -> None:
    recipe = Recipe(name="r", chain=("a",), seed=42, stages={"a": Stage(steps=5, clip=0.5)})
    assert recipes.render(recipe) == 'name = "r"\nchain = ["a"]\n\n[stages.a]\nsteps = 5\nclip = 0.5\n'


def test_the_full_text_holds_every_key_with_its_explanation() -> None:
    recipe = recipes.load("distill").recipe
    lines = recipes.render(recipe, full=True).split("\n")
    start = lines.index("[stages.distill]")
    stage = lines[start : lines.index("", start)]
    assert any(line.startswith("[stages.distill.adapter]  # ") for line in lines)
    for field in msgspec.structs.fields(Stage):
        if field.name in {"adapter", "curriculum", "false_negatives", "filter", "passages"}:  # tables of their own
            continue
        (line,) = [line for line in stage if line.removeprefix("# ").startswith(f"{field.name} =")]
        assert "  # " in line


def test_a_text_with_control_characters_is_written_as_escapes() -> None:
    recipe = Recipe(name='a\x1b]0;\x07"\\\n\u202e', chain=("a",), stages={"a": Stage(steps=1)})
    written = recipes.render(recipe)
    assert all(char == "\n" or char.isprintable() for char in written)
    assert tomllib.loads(written)["name"] == recipe.name


@pytest.mark.parametrize("name", ["mine", 'a "quoted"\nname', "é"])
def test_the_template_loads_as_it_stands(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new.toml"
    path.write_text(recipes.template(name), encoding="utf-8")
    recipe = recipes.load(str(path)).recipe
    assert recipe.name == name
    assert recipe.stages == recipes.load("contrastive-then-distill").recipe.stages


def test_every_key_that_the_template_offers_can_be_uncommented(tmp_path: Path) -> None:
    lines = recipes.template("mine").split("\n")
    offered = [line.removeprefix("# ") if " = " in line and line.startswith("# ") else line for line in lines]
    path = tmp_path / "new.toml"
    path.write_text("\n".join(offered), encoding="utf-8")
    assert recipes.load(str(path)).recipe.base == "electra"
