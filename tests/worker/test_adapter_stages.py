"""Stages that train adapters: what they hand on, how stages follow on one another, and what a plan refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from cerank.errors import CerankError, MissingError, RecipeError, UsageError
from cerank.inference.rerank import Scorer
from cerank.models.adapters import read_adapter
from cerank.models.bases import locate
from cerank.models.lora import adapter_targets
from cerank.planning.training_memory import trained_parameters, training_memory
from cerank.recipes.plan import without_defaults
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Stage
from cerank.recipes.sections.adapter_specs import AdapterSpec
from cerank.training import stage_summary
from tests.model_fixtures import WORDS, write_tiny
from tests.models.family_fixtures import edit_json
from tests.refusals import refused
from tests.worker.test_whole_runs import forked

from .small import STAGE, small_plan, small_run

pytest.importorskip("peft")

LORA = {"kind": "lora", "rank": 4}
SHORT = {**STAGE, "steps": 4, "validate_every": 2, "keep": "last", "learning_rate": 1e-2}
PAIRS = [(WORDS[number], f"{WORDS[number + 1]} {WORDS[number]}") for number in range(8)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three stages: an adapter alone, the same trained on and saved in both forms, and a new one over the whole."""
    folder = tmp_path_factory.mktemp("adapters")
    kinds = {
        "first": {**LORA, "save": "adapter"},
        "second": {**LORA, "start": "continue"},
        "third": {**LORA, "rank": 2},
    }
    stages = {name: {**SHORT, "adapter": kind} for name, kind in kinds.items()}
    stages["third"]["gradient_checkpointing"] = True
    plan, settings = small_plan(folder, chain=list(stages), stages=stages)
    run = small_run(folder, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    return run


def test_both_forms_of_a_stage_score_the_same(finished):
    for index, name in ((1, "second"), (2, "third")):
        whole = Scorer.load(finished.final(index, name)).score(PAIRS)
        over_base = Scorer.load(finished.final(index, name) / "adapter").score(PAIRS)
        assert over_base == pytest.approx(whole, rel=1e-5, abs=1e-5)
        assert len(set(whole)) > 4


def test_a_stage_goes_on_with_an_adapter_over_its_base_or_starts_a_new_one_over_the_whole_model(finished):
    found = [read_adapter(folder) for folder in (
        finished.final(0, "first"), finished.final(1, "second") / "adapter", finished.final(2, "third") / "adapter",
    )]  # fmt: skip
    assert found[0].base == found[1].base
    assert Path(found[0].base).name == "base"
    assert Path(found[2].base) == finished.final(1, "second").resolve()
    assert [adapter.rank for adapter in found] == [4, 4, 2]
    assert not (finished.final(0, "first") / "model.safetensors").exists()


def test_each_adapter_stage_moved_the_weights_and_says_how_far(finished):
    for index, name in enumerate(("first", "second", "third")):
        change = stage_summary.read(finished.final(index, name)).weight_change
        assert not change.is_negligible
        assert 0 < change.changed < 1


def test_an_adapter_is_refused_over_another_base_than_it_was_trained_over(finished, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(finished.final(0, "first"), folder)
    other = write_tiny(tmp_path / "other", positions=32)
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(other.folder))
    with refused(UsageError, "adapter-for-another-base"):
        locate(str(folder))


@pytest.mark.parametrize(
    ("adapter", "code", "told"),
    [
        ({"rank": 0}, "", "stages.contrastive.adapter.rank"),
        ({"kind": "ia3"}, "", "stages.contrastive.adapter.kind"),
        ({"rang": 4}, "", "unknown key"),
        ({"kind": "none", "rank": 4}, "", "stages.contrastive.adapter.kind"),
        ({"start": "continue"}, "adapter-targets", "the base is no adapter"),
        ({"targets": ["q_proj"]}, "adapter-targets", "q_proj"),
        ({"targets": ["query_proj"]}, "adapter-targets", "query_proj"),
        ({"targets": ["word_embeddings"]}, "adapter-targets", "word_embeddings"),
        ({"targets": ["LayerNorm"]}, "adapter-targets", "LayerNorm"),
        ({"modules_to_save": ["lm_head"]}, "adapter-targets", "lm_head"),
        ({"rank": 16}, "adapter-rank", "16"),
    ],
)
def test_a_plan_refuses_an_adapter_that_does_not_fit(adapter, code, told, tmp_path):
    with pytest.raises(CerankError) as caught:
        small_plan(tmp_path, chain=["contrastive"], stages={"contrastive": {**SHORT, "adapter": {**LORA, **adapter}}})
    assert told in f"{caught.value.where} {caught.value.what}"
    assert caught.value.code == code or isinstance(caught.value, RecipeError)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({**LORA, "save": "adapter"}, LORA, "second.adapter.start"),
        ({"kind": "none"}, {**LORA, "start": "continue"}, "second.adapter.start"),
        ({**LORA, "save": "merged"}, {**LORA, "start": "continue"}, "second.adapter.start"),
        (LORA, {**LORA, "start": "continue", "rank": 5}, "second.adapter.rank"),
        (LORA, {**LORA, "start": "continue", "alpha": 5.0}, "second.adapter.alpha"),
    ],
)
def test_a_recipe_refuses_adapters_that_cannot_follow_on_one_another(first, second, told):
    stages = {"first": {**SHORT, "adapter": first}, "second": {**SHORT, "adapter": second}}
    with refused(RecipeError, "recipe", told):
        recipe_from({"name": "x", "chain": list(stages), "stages": stages}, "test")


def test_without_the_library_a_plan_with_an_adapter_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(adapter_targets.importlib.util, "find_spec", lambda _: None)
    with refused(MissingError, "library-missing", "peft") as error:
        small_plan(tmp_path, chain=["contrastive"], stages={"contrastive": {**SHORT, "adapter": LORA}})
    assert "cerank[lora]" in error.value.hint


def test_a_recipe_without_an_adapter_has_the_key_that_it_had_before_there_were_adapters():
    plain = Stage(steps=1)
    assert without_defaults(plain) == {"steps": 1}
    adapted = msgspec.structs.replace(plain, adapter=AdapterSpec(kind="lora", rank=4))
    assert without_defaults(adapted) == {"steps": 1, "adapter": {"kind": "lora", "rank": 4}}


def test_less_memory_is_said_for_gradient_checkpointing_and_for_an_adapter():
    config = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536, "num_attention_heads": 12}
    every = training_memory(Stage(steps=1), config, parameters=22_700_000, trained=22_700_000)
    adapted = training_memory(Stage(steps=1), config, parameters=22_700_000, trained=400_000)
    again = training_memory(Stage(steps=1, gradient_checkpointing=True), config, parameters=22_700_000, trained=400_000)
    assert adapted.moments * 50 < every.moments
    assert again.activations == every.recomputed < every.activations / 4
    assert training_memory(Stage(steps=1), {}, parameters=1, trained=1) is None


def test_weights_that_a_stage_freezes_take_no_moments():
    shapes = {"embeddings.word_embeddings.weight": (100, 8), "embeddings.position_embeddings.weight": (10, 8)}
    shapes |= {f"encoder.layer.{number}.attention.self.query.weight": (8, 8) for number in range(3)}
    frozen = {"embeddings": 192, "positions": 992, "nothing": 1072}
    assert {what: trained_parameters(Stage(steps=1, freeze=what), shapes) for what in frozen} == frozen
    assert trained_parameters(Stage(steps=1, freeze="embeddings", freeze_layers=2), shapes) == 64


def test_an_adapter_over_a_base_whose_token_types_were_made_one_is_refused():
    stage = {**SHORT, "token_types": "zero"}
    for save in ("both", "adapter"):
        with refused(RecipeError, "recipe", "only.adapter.save", "merged"):
            stages = {"only": {**stage, "adapter": {**LORA, "save": save}}}
            recipe_from({"name": "x", "chain": ["only"], "stages": stages}, "test")
    merged = {"only": {**stage, "adapter": {**LORA, "save": "merged"}}}
    assert recipe_from({"name": "x", "chain": ["only"], "stages": merged}, "test").stages["only"].has_one_token_type


@pytest.mark.slow
def test_token_types_that_an_adapter_stage_trains_as_a_whole_stay_one(tmp_path):
    adapter = {**LORA, "save": "merged", "modules_to_save": ["token_type_embeddings"]}
    stages = {"only": {**SHORT, "token_types": "zero", "adapter": adapter}}
    plan, settings = small_plan(tmp_path, chain=["only"], stages=stages)
    run = small_run(tmp_path, plan, settings)
    assert forked(run) == (1, 0), run.log.read_text()
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "base", run.final(0, "only")))
    ((was, types),) = [
        (value, after[name if name in after else f"encoder.{name}"])
        for name, value in before.items()
        if name.endswith("token_type_embeddings.weight")
    ]
    assert not torch.equal(types[0], was[0])
    assert all(torch.equal(types[0], row) for row in types)
