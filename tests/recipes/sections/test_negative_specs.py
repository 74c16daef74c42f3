"""Sources of negatives and filters in a recipe: what contradicts itself; recipes without them stay as they are."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cerank import recipes
from cerank.core.decode import help_text_of
from cerank.errors import RecipeError
from cerank.files.hashing import sha256_json
from cerank.recipes.plan import without_defaults
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Stage
from cerank.recipes.sections.negative_specs import FalseNegativeFilters, NegativeSource


def table(**stage: Any) -> dict[str, Any]:
    return {"name": "r", "chain": ["one"], "stages": {"one": {"steps": 5} | stage}}


def sources(*given: dict[str, Any], **stage: Any) -> dict[str, Any]:
    return {"negative_sources": list(given), **stage}


FIRST, ANY, STEP = {"source": "first-stage"}, {"source": "collection"}, {"source": "in-batch"}


@pytest.mark.parametrize(
    ("stage", "key"),
    [
        (sources(FIRST | {"share": 0}, ANY | {"share": 0}), "negative_sources"),
        (sources(FIRST | {"share": -1}), "negative_sources[0].share"),
        (sources({"source": "web"}), "negative_sources[0].source"),
        (sources({"share": 1}), "negative_sources"),
        (sources(FIRST | {"size": 3}), "negative_sources"),
        (sources({"source": "mined"}), "negative_sources[0].run"),
        (sources(FIRST | {"ranks": [9, 3]}), "negative_sources[0].ranks"),
        (sources(FIRST | {"sampler": "best"}), "negative_sources[0].sampler"),
        (sources(FIRST, ANY | {"ranks": [1, 3]}), "negative_sources[1].ranks"),
        (sources(FIRST, ANY | {"run": "bm25"}), "negative_sources[1].run"),
        (sources(FIRST, FIRST), "negative_sources[1]"),
        (sources(STEP), "negative_sources"),
        (sources(FIRST, STEP, groups_per_step=1), "negative_sources"),
        (sources(FIRST, STEP, in_batch=2), "in_batch"),
        (sources(FIRST, unretrieved="judged"), "unretrieved"),
        (sources(ANY, negatives_from="judged"), "negatives_from"),
        (sources(FIRST, source="teacher", teacher="embedding", loss="ranknet"), "negative_sources"),
        ({"false_negatives": {"relative_margin": 0.05}}, "false_negatives.scores"),
        ({"false_negatives": {"scores": "a.run"}}, "false_negatives.scores"),
        ({"false_negatives": {"unscored": "drop"}}, "false_negatives"),
        ({"false_negatives": {"near_duplicates": 0}}, "false_negatives.near_duplicates"),
        ({"false_negatives": {"top_p": 1.0, "scores": "a.run"}}, "false_negatives.top_p"),
        ({"false_negatives": {"relative_margin": 1.5, "scores": "a.run"}}, "false_negatives.relative_margin"),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_key(stage: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from(table(**stage), "r.toml")
    assert any(line.startswith(f"stages.one.{key}") for line in caught.value.what.split("\n")), caught.value.what


def test_only_a_cross_encoder_of_the_recipe_scores_single_pairs() -> None:
    values = table(false_negatives={"scores": "llm", "relative_margin": 0.1})
    values["teachers"] = {"llm": {"kind": "listwise", "model": "m", "server": "http://localhost:8000/v1"}}
    with pytest.raises(RecipeError) as caught:
        recipe_from(values, "r.toml")
    assert caught.value.what.startswith("stages.one.false_negatives.scores")


@pytest.mark.parametrize("kind", [NegativeSource, FalseNegativeFilters])
def test_every_key_is_explained_in_one_line(kind: type[msgspec.Struct]) -> None:
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        assert 0 < len(help_text_of(hint)) <= 100, f"{kind.__name__}.{name}"


def test_a_recipe_with_sources_is_written_and_read_back(tmp_path: Path) -> None:
    stage = sources(FIRST | {"share": 2, "ranks": [3, 30]}, ANY, {"source": "mined", "run": "bm25"})
    stage["false_negatives"] = {"scores": "bm25", "relative_margin": 0.05}
    recipe = recipe_from(table(**stage), "r.toml")
    for full in (False, True):
        path = tmp_path / "copy.toml"
        path.write_text(recipes.render(recipe, full), encoding="utf-8")
        assert recipes.load(str(path)).recipe == recipe


def test_paths_of_mined_files_and_scores_are_from_the_recipes_folder(tmp_path: Path) -> None:
    (tmp_path / "mined.run").write_text("q 0 d 1 1 t\n")
    (tmp_path / "r.toml").write_text(
        'name = "r"\nchain = ["one"]\n[stages.one]\nsteps = 1\n[stages.one.false_negatives]\n'
        'scores = "./mined.run"\nmax_score = 1.0\n'
        '[[stages.one.negative_sources]]\nsource = "mined"\nrun = "./mined.run"\n'
    )
    stage = recipes.load(str(tmp_path / "r.toml")).recipe.stages["one"]
    whole = str((tmp_path / "mined.run").resolve())
    assert (stage.negative_sources[0].run, stage.false_negatives.scores) == (whole, whole)


def test_a_stage_without_sources_and_filters_has_the_identity_that_it_had() -> None:
    stage = Stage(steps=5, window=(2, 9))
    assert without_defaults(stage) == {"steps": 5, "window": (2, 9)}
    assert sha256_json(without_defaults(stage)) == sha256_json({"steps": 5, "window": [2, 9]})
    with_share = Stage(steps=5, negative_sources=(NegativeSource(source="collection", share=1.0),))
    assert without_defaults(with_share) == {"steps": 5, "negative_sources": ({"source": "collection"},)}
