"""A stage's filter in a recipe: what it may say, and what it comes to in passes before anything is trained."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cerank import recipes
from cerank.core.decode import fields_of, help_text_of, hints_of
from cerank.errors import RecipeError, UsageError
from cerank.planning.several_devices import check_division
from cerank.planning.workload import FilterPasses, count_work, filter_passes, filter_sentences
from cerank.recipes.plan import without_defaults
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Compute, Recipe, Stage
from cerank.recipes.sections.filter_specs import FilterSpec
from tests.refusals import refused


def recipe_with(**spec: Any) -> Recipe:
    stage = {"steps": 100, "groups_per_step": 16, "group_size": 4, "filter": spec}
    return recipe_from({"name": "r", "chain": ["one"], "stages": {"one": stage}}, "r.toml")


@pytest.mark.parametrize(
    ("spec", "mistake"),
    [
        ({"window": 64}, "stages.one.filter.window: does nothing"),
        ({"kind": "multistage", "share": 0.3}, "stages.one.filter.share: does nothing"),
        ({"kind": "random", "floor": 0.1}, "stages.one.filter.floor: does nothing"),
        ({"kind": "multistage", "plain": 0.0}, "stages.one.filter.plain: 0 leaves no losses"),
        ({"kind": "multistage", "plain": 0.999}, "stages.one.filter.plain: all 100 steps"),
        ({"kind": "multistage", "window": 200}, "stages.one.filter.plain: 10 of 100 steps have 160 groups"),
        ({"kind": "random", "share": 1.0}, "stages.one.filter.share: expected 'float' < 1.0"),
        ({"kind": "random", "share": 0.0}, "stages.one.filter.share: expected 'float' > 0.0"),
        ({"kind": "best"}, "stages.one.filter.kind"),
        ({"kind": "multistage", "thresold": 1}, "stages.one.filter.thresold"),
    ],
)
def test_a_filter_that_contradicts_itself_is_refused_with_its_key(spec, mistake):
    with pytest.raises(RecipeError) as caught:
        recipe_with(**spec)
    assert caught.value.what.startswith(mistake)


def test_the_share_that_an_error_proposes_for_the_first_steps_is_enough():
    with pytest.raises(RecipeError) as caught:
        recipe_with(kind="multistage", window=200)
    proposed = float(caught.value.what.partition("raise it to ")[2].partition(",")[0])
    recipe_with(kind="multistage", window=200, plain=proposed)


def test_every_key_is_explained_in_one_line():
    texts = {field.name: help_text_of(hints_of(FilterSpec)[field.name]) for field in fields_of(FilterSpec)}
    assert all(text and "\n" not in text and len(text) <= 100 for text in texts.values())


def test_a_stage_without_a_filter_has_the_identity_that_it_had_before_there_were_any():
    assert "filter" not in without_defaults(Stage(steps=5))  # type: ignore[operator]
    assert "filter" in without_defaults(Stage(steps=5, filter=FilterSpec(kind="random")))  # type: ignore[operator]


def test_a_filter_comes_back_from_the_recipe_that_is_written_out():
    recipe = recipe_with(kind="multistage", floor=0.2)
    text = recipes.render(recipe)
    assert msgspec.toml.decode(text)["stages"]["one"]["filter"] == {"kind": "multistage", "floor": 0.2}


def test_passes_are_counted_before_anything_is_trained():
    stage = recipe_with(kind="multistage").stages["one"]
    assert filter_passes(stage, 100) == FilterPasses(seen=1600, plain=160, scored=1440, trained=160 + 720)
    assert filter_passes(recipe_with(kind="random", share=0.25).stages["one"], 100) == FilterPasses(1600, 0, 0, 400)
    assert filter_passes(recipe_with().stages["one"], 100) == FilterPasses(1600, 1600, 0, 1600)


def test_a_dry_run_counts_forward_passes_and_training_apart():
    recipe = recipe_with(kind="multistage")
    queries = {recipe.data.train: 500, recipe.data.validation: 20, recipe.data.test[0]: 30}
    work = {item.part: item for item in count_work(recipe, queries)}
    assert (work["train one"].units, work["train one"].pairs) == (100, 4 * 880)
    assert (work["choose one"].units, work["choose one"].pairs) == (90, 4 * 1440)
    (sentence,) = filter_sentences(recipe, list(work.values()))
    assert "1,440" in sentence
    assert filter_sentences(recipe_with(), list(work.values())) == []


def test_several_devices_are_refused():
    with refused(UsageError, "filter-not-divided", "stages.one.filter"):
        check_division(recipe_with(kind="multistage"), 8, 2)
    divided = msgspec.structs.replace(recipe_with(kind="multistage"), compute=Compute(shard_parameters=True))
    with refused(UsageError, "filter-not-divided", "compute.shard_parameters"):
        check_division(divided, 8, 1)
    check_division(recipe_with(), 8, 2)
    check_division(recipe_with(kind="multistage"), 0, 1)


def test_the_three_arms_of_the_shipped_matrix_differ_in_their_filters_alone():
    arms = [
        recipes.load(name).recipe.stages["contrastive"]
        for name in recipes.load_matrix("all-or-filtered").matrix.recipes
    ]
    assert [arm.filter.kind for arm in arms] == ["none", "multistage", "random"]
    assert len({msgspec.json.encode(msgspec.structs.replace(arm, filter=FilterSpec())) for arm in arms}) == 1


def test_the_pairs_that_a_model_scores_to_filter_negatives_are_counted_once_a_query():
    stage = {
        "steps": 50,
        "groups_per_step": 4,
        "positives": 1,
        "window": [11, 60],
        "false_negatives": {"scores": "judge", "max_score": 0.9},
    }
    values = {"name": "r", "chain": ["a"], "teachers": {"judge": {"kind": "cross-encoder", "model": "minilm"}}}

    def filtered(**changes):
        recipe = recipe_from({**values, "stages": {"a": {**stage, **changes}}}, "test")
        queries = {recipe.data.train: 120, recipe.data.validation: 10, **dict.fromkeys(recipe.data.test, 10)}
        return [(item.units, item.pairs) for item in count_work(recipe, queries) if item.part.startswith("filter ")]

    assert filtered() == [(120, 120 * 51)]
    assert filtered(steps=5) == [(20, 20 * 51)]
    sources = [{"source": "first-stage", "ranks": [1, 20]}, {"source": "collection"}]
    assert filtered(negative_sources=sources) == [(120, 120 * 21)]
    assert filtered(false_negatives={"near_duplicates": 0.9}) == []


def test_no_more_candidates_are_counted_than_there_are_documents():
    values = {
        "name": "r",
        "chain": ["a"],
        "data": {"depth": 500},
        "stages": {"a": {"steps": 5, "validation_depth": 90}},
    }
    recipe = recipe_from(values, "test")
    names = (recipe.data.train, recipe.data.validation, *recipe.data.test)
    few = {item.part: item.pairs for item in count_work(recipe, dict.fromkeys(names, 10), dict.fromkeys(names, 60))}
    many = {item.part: item.pairs for item in count_work(recipe, dict.fromkeys(names, 10))}
    test = f"re-rank {recipe.data.test[0]} by a"
    firsts = len(recipe.data.first_stages)
    assert (few[test], many[test]) == (10 * 60 * firsts, 10 * 500 * firsts)
    assert few["validate a"] / many["validate a"] == pytest.approx(60 / 90)
