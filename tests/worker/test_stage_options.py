"""What a stage may do otherwise: fewer lists, shorter ones, a validation set of its own, one token type."""

from __future__ import annotations

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from cerank.app.comparison import named_systems
from cerank.app.publishing.quantized_verdict import calibration_pairs
from cerank.app.rankings import fuse_runs
from cerank.cli.tables.stage_tables import validation_table
from cerank.core.metrics import Event
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import RecipeError, UsageError
from cerank.files import journal
from cerank.planning.stage_keys import stage_keys
from cerank.recipes.plan import without_defaults
from cerank.recipes.recipe_checks import recipe_from
from cerank.training import stage_summary
from cerank.trec.open_run import open_run_file
from tests.refusals import refused
from tests.worker.test_whole_runs import forked

from . import large_files
from .small import STAGE, bits_of, small_plan, small_run

SHORT = STAGE | {"steps": 2, "validate_every": 2}
DISTILL = {**SHORT, "loss": "ranknet", "source": "teacher", "teacher": "oracle"}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    own = {"list_depth": 5, "list_queries": 10, "first_stage": "oracle", "token_types": "zero"}
    own["validation"] = str(folder / "apart") + "[70%:]"
    return folder, *small_plan(folder, stages={"distill": {**DISTILL, **own}}, chain=["distill"])


@pytest.fixture(scope="module")
def run(planned):
    folder, plan, settings = planned
    made = small_run(folder, plan, settings)
    assert forked(made) == (1, 0), made.log.read_text()
    return made, plan


@pytest.mark.slow
def test_a_stage_learns_from_fewer_and_shorter_lists_and_says_so(run):
    made, _ = run
    lists = open_run_file(made.teacher("distill"), made.path).ranking
    assert len(lists) == 10
    assert {len(lists[query]) for query in lists} == {5}
    (event,) = [row for row in journal.read_valid_rows(made.events, Event)[0] if row.kind == "teacher lists cut"]
    assert "50 of their 100 documents" in event.text


@pytest.mark.slow
def test_a_stage_validates_on_its_own_queries(run):
    made, plan = run
    (name,) = [entry.name for entry in plan.inputs if entry.role == "dataset" and entry.name.endswith("apart[70%:]")]
    assert made.candidates(name, "bm25").exists()
    assert validation_table(made, plan).title == f"Validation on {name}"


@pytest.mark.slow
def test_what_is_chosen_for_a_model_later_is_chosen_on_its_stages_own_validation_queries(run, planned):
    made, _ = run
    folder, plan, settings = planned
    own, other = (open_dataset(name, settings.cache).queries for name in (
        plan.recipe.stages["distill"].validation, plan.recipe.data.validation,
    ))  # fmt: skip
    pairs = calibration_pairs(settings, named_systems.target(made.lab, made.name))
    assert {query for query, _ in pairs} <= set(own.values())
    assert not {query for query, _ in pairs} & set(other.values())
    first, stage = (f"{made.name}:{system}" for system in ("first-stage", "distill"))
    request = fuse_runs.FusionRequest(
        targets=(first, stage), method="interpolate", output=folder / "fused.run", first_stage="bm25"
    )
    fuse_runs.fuse(msgspec.structs.replace(settings, lab=made.lab), request)
    assert plan.recipe.stages["distill"].validation in (folder / "fused.run").read_text()


@pytest.mark.slow
def test_all_token_types_are_one_in_the_checkpoint(run):
    made, _ = run
    weights = load_file(made.final(0, "distill") / "model.safetensors")
    (types,) = [value for name, value in weights.items() if name.endswith("token_type_embeddings.weight")]
    assert len(types) > 1
    assert all(torch.equal(types[0], row) for row in types)


def test_each_option_tells_trainings_apart_and_its_absence_leaves_no_trace(planned):
    _, plan, _ = planned
    recipe = plan.recipe

    def key(**changes: object) -> str:
        stage = msgspec.structs.replace(recipe.stages["distill"], **changes)
        whole = msgspec.structs.replace(recipe, stages={"distill": stage})
        return stage_keys(msgspec.structs.replace(plan, recipe=whole))[0]

    assert len({key(), key(list_depth=4), key(list_queries=9), key(token_types="kept")}) == 4
    plain = msgspec.structs.replace(
        recipe.stages["distill"], list_depth=0, list_queries=0, token_types="kept", validation=""
    )
    assert not {"list_depth", "list_queries", "token_types", "validation"} & without_defaults(plain).keys()


def test_more_lists_than_there_are_is_an_error_before_anything_is_trained(tmp_path):
    with refused(UsageError, "teacher-without-queries", "stages.distill.list_queries", "20", "21"):
        small_plan(tmp_path, stages={"distill": {**DISTILL, "list_queries": 21}}, chain=["distill"])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"list_depth": 5, "teacher": "embedding"}, "list_depth"),
        ({"list_queries": 5, "source": "labels"}, "list_queries"),
        ({"list_depth": 1}, "list_depth"),
        ({"token_types": "none"}, "token_types"),
        ({"validation": "a * 2 + b"}, "validation"),
    ],
)
def test_an_option_where_it_means_nothing_is_an_error(changes, key):
    values = {"name": "x", "chain": ["distill"], "stages": {"distill": {**DISTILL, **changes}}}
    with pytest.raises(RecipeError) as caught:
        recipe_from(values, "test")
    assert f"stages.distill.{key}" in caught.value.what


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one set", "mixture"])
def test_a_stage_with_a_computed_order_over_stored_queries_goes_on_with_the_same_bits(tmp_path, kind):
    stage = {**STAGE, "query_order": "computed", "first_stage": "oracle"}
    if kind == "mixture":
        stage["dataset"] = f"{tmp_path}/data[:50%] * 2 + {tmp_path}/apart[:50%]"
    plan, settings = small_plan(tmp_path, stages={"contrastive": stage}, chain=["contrastive"])
    first = plan.recipe.stages["contrastive"]
    assert without_defaults(first)["query_order"] == "computed"
    in_memory = small_run(tmp_path, plan, settings, second=2)
    assert forked(in_memory) == (1, 0), in_memory.log.read_text()
    assert not list(settings.cache.glob("usable-queries/*.bin"))
    whole, again = small_run(tmp_path, plan, settings), small_run(tmp_path, plan, settings, second=1)
    assert large_files.attempt(whole) == 0, whole.log.read_text()
    assert len(list(settings.cache.glob("usable-queries/*.bin"))) == 1
    for seconds in (6.0, 7.5, 9.0):
        large_files.attempt(again, seconds)
    assert large_files.attempt(again) == 0, again.log.read_text()
    assert bits_of(again) == bits_of(whole)
    made = {path: data for path, data in bits_of(whole).items() if not path.startswith("candidates")}
    assert made == {path: data for path, data in bits_of(in_memory).items() if path in made}


def test_a_validation_loss_is_on_the_whole_lists_of_a_teacher_whose_lists_are_cut_in_training(tmp_path):
    cut = {"list_depth": 5, "list_queries": 10, "first_stage": "oracle"}
    own = {"validation": f"{tmp_path / 'data'}[50%:70%]", "validation_loss": "yes"}
    plan, settings = small_plan(tmp_path, stages={"distill": {**DISTILL, **cut, **own}}, chain=["distill"])
    made = small_run(tmp_path, plan, settings)
    assert forked(made) == (1, 0), made.log.read_text()
    assert len(open_run_file(made.teacher("distill"), made.path).ranking) == 10
    whole = open_run_file(made.teacher("distill in validation"), made.path).ranking
    assert {len(whole[query]) for query in whole} == {10}
    summary = stage_summary.read(made.final(0, "distill"))
    assert summary.validation is not None
    assert summary.validation.usable == 8


def test_a_loss_that_cannot_be_validated_is_said_of_the_key_that_asks_for_it(tmp_path):
    with refused(UsageError, "teacher-of-other-documents", "stages.distill.keep_best"):
        stage = {**DISTILL, "steps": 4, "keep_best": ["loss"]}
        small_plan(tmp_path, stages={"distill": stage}, chain=["distill"])
