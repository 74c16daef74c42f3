"""What a recipe may say of passages, and that one which says nothing is the same as before."""

from __future__ import annotations

import tomllib

import pytest

from cerank import recipes
from cerank.errors import RecipeError
from cerank.planning.stage_keys import stage_key_by_names
from cerank.recipes.plan import without_defaults
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.sections.passage_specs import PassageSpec
from tests.refusals import refused

STAGE = {"steps": 1, "max_length": 128, "max_query_length": 32}


def recipe_of(passages=None, own=None, **stage):
    values = {"name": "r", "chain": ["a"], "stages": {"a": {**STAGE, **stage, **({"passages": own} if own else {})}}}
    return recipe_from(values | ({"passages": passages} if passages else {}), "test")


@pytest.mark.parametrize(
    ("passages", "key"),
    [
        ({"aggregation": "MaxP", "stride": 0}, "passages.stride"),
        ({"aggregation": "MaxP", "max_passages": 0}, "passages.max_passages"),
        ({"aggregation": "MaxP", "length": 40, "stride": 41}, "passages.stride"),
        ({"aggregation": "MaxP", "length": 94, "stride": 41}, "passages.length"),
        ({"aggregation": "MaxP", "length": 90, "stride": 41, "title": 4}, "passages.length"),
        ({"max_passages": 3}, "passages.aggregation"),
        ({"aggregation": "max"}, "passages.aggregation"),
    ],
)
def test_passages_that_cannot_be_are_refused_with_their_key(passages, key):
    with pytest.raises(RecipeError) as caught:
        recipe_of(passages)
    assert any(line.startswith(f"{key}: ") for line in caught.value.what.splitlines()), caught.value.what
    with pytest.raises(RecipeError) as caught:
        recipe_of(own=passages)
    assert any(line.startswith(f"stages.a.{key}: ") for line in caught.value.what.splitlines()), caught.value.what


def test_a_limit_of_documents_contradicts_passages():
    with pytest.raises(RecipeError) as caught:
        recipe_of({"aggregation": "MaxP", "length": 40, "stride": 20}, max_document_length=50)
    assert caught.value.what.startswith("stages.a.max_document_length: ")


def test_a_stage_has_its_own_table_or_that_of_the_recipe():
    fits = {"length": 40, "stride": 20}
    recipe = recipe_of({"aggregation": "MeanP", **fits}, {"aggregation": "MaxP", **fits})
    assert recipe.passages_of("a").aggregation == "MaxP"
    assert recipe.passages_of("a baseline").aggregation == "MeanP"
    assert recipe_of().passages_of("a") == PassageSpec()


def test_a_recipe_without_passages_has_the_hash_that_it_had():
    plain = recipe_of()
    assert "passages" not in str(without_defaults(plain))
    assert "document_template" not in str(without_defaults(plain))
    fits = {"aggregation": "MaxP", "length": 40, "stride": 20}
    keys = {stage_key_by_names(recipe, 0) for recipe in (plain, recipe_of(fits), recipe_of(fits | {"train_on": "all"}))}
    assert len(keys) == 3
    assert stage_key_by_names(recipe_of(fits), 0) == stage_key_by_names(recipe_of(own=fits), 0)


def test_stages_on_documents_written_by_other_templates_are_other_trainings():
    values = {"name": "r", "chain": ["a"], "stages": {"a": STAGE}}
    written = [recipe_from(values | {"data": {"document_template": text}}, "r") for text in ("", "{title}", "{text}")]
    assert len({stage_key_by_names(recipe, 0) for recipe in written}) == 3


def test_a_recipe_with_passages_reads_back_as_it_was_written(tmp_path):
    fits = {"aggregation": "choose", "length": 40, "stride": 20}
    recipe = recipe_of(fits, {**fits, "train_on": "all"})
    path = tmp_path / "r.toml"
    for full in (False, True):
        path.write_text(recipes.render(recipe, full))
        assert recipes.load(str(path)).recipe == recipe


def test_a_stage_cannot_switch_off_the_passages_of_the_recipe():
    fits = {"aggregation": "MaxP", "length": 40, "stride": 20}
    with refused(RecipeError, "recipe", "stages.a.passages.aggregation"):
        recipe_of(fits, {"aggregation": "none"})
    assert recipe_of(None, {"aggregation": "none"}).passages_of("a") == PassageSpec()
    recipe = recipe_of(fits)
    text = recipes.render(recipe, full=True)  # explains the key of the stage, and does not set it
    assert recipe_from(tomllib.loads(text), "text") == recipe
    assert '# aggregation = "none"' in text
