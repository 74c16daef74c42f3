"""Recipes: complete with documented defaults, or refused with every mistake."""

from __future__ import annotations

import math
import typing
from typing import Any

import msgspec
import pytest

from cerank.core.decode import help_text_of
from cerank.errors import RecipeError
from cerank.planning.stage_keys import stage_key_by_names
from cerank.recipes.plan import Input, Plan
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Data, Evaluate, Recipe, Stage
from tests.refusals import refused


def table(**stage: Any) -> dict[str, Any]:
    return {"name": "r", "chain": ["one"], "stages": {"one": {"steps": 5} | stage}}


def mistakes_in(values: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe_from(values, "r.toml")
    assert caught.value.where == "r.toml"
    assert "cerank recipes show" in caught.value.hint
    return caught.value.what.split("\n")


def test_what_is_left_out_has_its_default() -> None:
    recipe = recipe_from(table(), "r.toml")
    assert recipe == Recipe(name="r", chain=("one",), stages={"one": Stage(steps=5)})
    assert recipe.chained() == (("one", Stage(steps=5)),)


@pytest.mark.parametrize("kind", [Recipe, Stage, Data, Evaluate])
def test_every_key_is_explained_in_one_line(kind: type[msgspec.Struct]) -> None:
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        text = help_text_of(hint)
        assert text, f"{kind.__name__}.{name} says nothing"
        assert "\n" not in text
        assert len(text) <= 100


@pytest.mark.parametrize(
    ("stage", "mistake"),
    [
        ({"steps": 0}, "stages.one: give either steps or epochs above 0, not neither"),
        ({"epochs": 1}, "stages.one: give either steps or epochs above 0, not both"),
        ({"source": "teacher"}, "stages.one.teacher: missing"),
        ({"window": [9, 3]}, "stages.one.window: starts at rank 9"),
        ({"window": [0, 3]}, "stages.one.window[0]: expected 'int' >= 1"),
        ({"positives": 8}, "stages.one.positives: 8 leave no negative"),
        ({"max_length": 64}, "stages.one.max_query_length: 64 leaves no document"),
        ({"patience": 2}, "stages.one.patience: needs validate_every"),
        ({"group_size": 1}, "stages.one.group_size: expected 'int' >= 2"),
        ({"optimizer": "lion", "betas": [0.9, 0.9]}, "stages.one.betas: does nothing with optimizer"),
        ({"lion_betas": [0.9, 0.9]}, "stages.one.lion_betas: does nothing with optimizer"),
        ({"layer_decay": 1.1}, "stages.one.layer_decay: expected 'float' <= 1.0"),
        ({"ema": 1.0}, "stages.one.ema: expected 'float' < 1.0"),
        ({"ema_for": "result"}, "stages.one.ema_for: there is no average"),
        ({"keep_best": ["RR@10"]}, "stages.one.keep_best: needs validate_every"),
        ({"keep_best": ["RR@10"] * 2, "validate_every": 1}, "stages.one.keep_best: 'RR@10' appears twice"),
        ({"keep_best": ["nDCG@10"], "validate_every": 1}, "stages.one.keep_best: 'nDCG@10' decides"),
        ({"warmup": 1.0}, "stages.one.warmup: expected 'float' < 1.0"),
        ({"learning_rate": 0}, "stages.one.learning_rate: expected 'float' > 0.0"),
        ({"learning_rate": math.inf}, "stages.one.learning_rate: expected 'float' <= 1000.0"),
        ({"learning_rate": math.nan}, "stages.one.learning_rate: expected 'float'"),
        ({"epochs": math.inf}, "stages.one.epochs: expected 'float' <= 1000000.0"),
        ({"steps": 10**30}, "stages.one.steps: expected 'int' <= 1000000000"),
        ({"steps": True}, "stages.one.steps: expected 'int', got 'bool'"),
        ({"on_nonfinite": "skip:0"}, "stages.one.on_nonfinite: expected 'str' matching"),
        ({"on_nonfinite": "stop\n"}, "stages.one.on_nonfinite: expected 'str' matching"),
        ({"precision": "fp16"}, "stages.one.precision: must be one of fp32, bf16, tf32, auto"),
        ({"los": "lce"}, "stages.one.los: unknown key; did you mean 'loss'?"),
    ],
)
def test_a_stage_that_cannot_run_is_refused(stage: dict[str, Any], mistake: str) -> None:
    (found,) = mistakes_in(table(**stage))
    assert found.startswith(mistake)


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"chain": []}, "chain: empty"),
        ({"chain": ["on"]}, "chain: no stage is called 'on'; did you mean 'one'?"),
        ({"chain": ["one", "one"]}, "chain: a stage appears twice"),
        ({"seed": -1}, "seed: expected 'int' >= 0"),
        ({"seed": 2**63}, "seed: expected 'int' <= 9223372036854775807"),
        ({"name": " "}, "name: empty"),
        ({"data": {"test": []}}, "data.test: empty"),
        ({"data": {"first_stages": []}}, "data.first_stages: empty"),
        ({"evaluate": {"measures": []}}, "evaluate.measures: empty"),
        ({"stages": {"one": {"steps": 1}, "../up": {}}}, "stages.../up: a stage's name holds letters"),
        ({"stages": {"one": {"steps": 1}, "": {}}}, "stages.: a stage's name holds letters"),
        ({"data": {"test": ["a", "a"]}}, "data.test: 'a' appears twice"),
        ({"data": {"first_stages": ["bm25", "bm25"]}}, "data.first_stages: 'bm25' appears twice"),
        ({"evaluate": {"measures": ["RR", "RR"]}}, "evaluate.measures: 'RR' appears twice"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(change: dict[str, Any], mistake: str) -> None:
    (found,) = mistakes_in(table() | change)
    assert found.startswith(mistake)


def test_all_mistakes_come_at_once() -> None:
    values = table(steps=0, patience=1) | {"chain": ["one", "two"]}
    assert len(mistakes_in(values)) == 3


def test_a_stage_outside_the_chain_may_be_unfinished_for_others_extend_the_recipe() -> None:
    values = table()
    values["stages"]["later"] = {"source": "teacher"}
    assert recipe_from(values, "r").stages["later"].steps == 0


def test_the_fingerprint_of_a_plan_is_what_decides_its_numbers() -> None:
    recipe = recipe_from(table(), "r")
    inputs = (Input(role="base", name="minilm", sha256="ab"), Input(role="dataset", name="d", sha256="cd"))
    first = Plan(recipe=recipe, inputs=inputs, device="cuda:0", threads=2, cache="/c")
    same = [
        {"inputs": inputs[::-1]},
        {"device": "cuda:1"},
        {"cache": "/elsewhere"},
        {"label": "mine"},
        {"created": "2026-01-01T00:00:00Z"},
        {"recipe": msgspec.structs.replace(recipe, name="other", description="words")},
        {"inputs": (msgspec.structs.replace(inputs[0], location="/x"), inputs[1])},
    ]
    other = [
        {"device": "cpu"},
        {"threads": 3},
        {"inputs": inputs[:1]},
        {"inputs": (msgspec.structs.replace(inputs[0], sha256="ac"), inputs[1])},
        {"recipe": msgspec.structs.replace(recipe, seed=1)},
    ]
    assert {msgspec.structs.replace(first, **change).fingerprint for change in same} == {first.fingerprint}
    assert len({msgspec.structs.replace(first, **change).fingerprint for change in other} | {first.fingerprint}) == 6


def test_a_plan_survives_json_and_names_its_inputs() -> None:
    inputs = (Input(role="base", name="minilm", sha256="ab"),)
    first = Plan(recipe=recipe_from(table(), "r"), inputs=inputs, device="cpu", threads=2, cache="/c")
    again = msgspec.json.decode(msgspec.json.encode(first), type=Plan)
    assert again == first
    assert again.fingerprint == first.fingerprint
    assert again.input("base", "minilm") == inputs[0]
    with pytest.raises(KeyError):
        again.input("base", "other")


def test_malformed_lists_are_dropped_from_the_permutations_of_a_stage_that_learns_from_labels_too() -> None:
    losses = [{"name": "lce"}, {"name": "ranknet", "teacher": "p.json"}]
    stage = {"steps": 1, "malformed_lists": "drop"}
    assert recipe_from(table() | {"stages": {"one": {**stage, "losses": losses}}}, "test").stages["one"].losses
    with refused(RecipeError, "recipe", "stages.one.malformed_lists"):
        recipe_from(table() | {"stages": {"one": {**stage, "losses": losses[:1]}}}, "test")


def test_a_temperature_of_sets_is_part_of_the_keys_of_stages_that_train_on_a_mixture_alone() -> None:
    def keys(temperature: float) -> tuple[str, str]:
        data = {"train": "./a * 2 + ./b", "train_temperature": temperature}
        stages = {"one": {"steps": 1, "dataset": "./c"}, "two": {"steps": 1}}
        recipe = recipe_from(table() | {"chain": ["one", "two"], "data": data, "stages": stages}, "test")
        return stage_key_by_names(recipe, 0), stage_key_by_names(recipe, 1)

    (alone, mixed), (same, other) = keys(2.0), keys(4.0)
    assert alone == same
    assert mixed != other
