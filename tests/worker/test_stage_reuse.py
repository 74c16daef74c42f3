"""A stage that another run of the lab has trained is taken over: the same bits, its curve, and where it came from."""

from __future__ import annotations

import shutil

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from cerank.core.metrics import Event
from cerank.files import journal, json_records, manifests
from cerank.files.hashing import sha256_file
from cerank.planning.stage_keys import stage_key_by_names, stage_keys
from cerank.runs.records import Attempt, Precisions, ReusedStage
from tests.worker.test_whole_runs import forked, rows_of

from .small import bits_of, small_plan, small_run


def replaced(plan, **recipe):
    return msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, **recipe))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A lab with a finished run of two stages, and the plan of one that shares its first."""
    plan, settings = small_plan(tmp_path_factory.mktemp("lab"))
    donor = small_run(settings.lab, plan, settings)
    assert forked(donor) == (1, 0), donor.log.read_text()
    alone = msgspec.structs.replace(replaced(plan, chain=("contrastive",)), shares=True)
    return donor, alone, settings


def events_of(run):
    return journal.read_valid_rows(run.events, Event)[0]


def test_stages_are_one_training_where_what_came_before_is_the_same(lab):
    _, alone, _ = lab
    whole = replaced(alone, chain=("contrastive", "distill"))
    turned = replaced(alone, chain=("distill", "contrastive"))
    assert stage_keys(alone)[0] == stage_keys(whole)[0]
    assert len({*stage_keys(whole), *stage_keys(turned)}) == 4
    assert stage_keys(replaced(alone, seed=1))[0] != stage_keys(alone)[0]
    other = msgspec.structs.replace(alone.recipe.stages["contrastive"], learning_rate=2e-3)
    assert stage_keys(replaced(alone, stages={"contrastive": other}))[0] != stage_keys(alone)[0]
    assert (
        stage_key_by_names(alone.recipe, 0)
        == stage_key_by_names(whole.recipe, 0)
        != stage_key_by_names(whole.recipe, 1)
    )


def test_tests_and_measures_do_not_tell_trainings_apart_and_inputs_do(lab):
    _, alone, _ = lab
    data = msgspec.structs.replace(alone.recipe.data, depth=3)
    assert stage_keys(replaced(alone, data=data)) == stage_keys(alone)
    changed = tuple(
        msgspec.structs.replace(one, sha256="0" * 64) if one.role == "base" else one for one in alone.inputs
    )
    assert stage_keys(msgspec.structs.replace(alone, inputs=changed)) != stage_keys(alone)


def test_a_shared_stage_is_taken_over_with_the_bits_that_training_would_have_given(lab):
    donor, alone, settings = lab
    taken = small_run(settings.lab, alone, settings, second=10)
    assert forked(taken) == (1, 0), taken.log.read_text()
    apart = small_run(settings.lab, msgspec.structs.replace(alone, shares=False), settings, second=11)
    assert forked(apart) == (1, 0), apart.log.read_text()

    def wanted(run):
        return {
            path: data for path, data in bits_of(run).items() if "checkpoints" not in path and "adopted" not in path
        }

    assert wanted(taken) == wanted(apart)
    assert rows_of(taken) == rows_of(apart)
    adoption = json_records.load(taken.reused_stage(0, "contrastive"), ReusedStage)
    assert adoption.run == donor.name
    assert adoption.identity == stage_keys(alone)[0]
    assert adoption.sha256 == sha256_file(taken.final(0, "contrastive") / manifests.MANIFEST)
    manifests.verify_folder(taken.final(0, "contrastive"))
    assert not apart.reused_stage(0, "contrastive").exists()
    kinds = [event.kind for event in events_of(taken)]
    assert {"stage adopted", "rankings adopted", "groups counted", "stage finished"} <= set(kinds)
    assert not taken.checkpoint_steps(0, "contrastive")
    assert kinds.count("rankings adopted") == 1
    assert "rankings adopted" not in kinds[kinds.index("estimated") :]  # the estimate counts what is left
    estimate = next(event.text for event in events_of(taken) if event.kind == "estimated")
    assert estimate.startswith("about 0 s"), estimate


def test_a_run_that_does_not_share_trains_for_itself_and_a_damaged_model_is_no_donor(lab, tmp_path):
    donor, alone, settings = lab
    elsewhere = msgspec.structs.replace(settings, lab=tmp_path / "lab")
    copy = elsewhere.lab / "runs" / donor.name
    shutil.copytree(donor.path, copy)
    weights = copy / "stages" / "1-contrastive" / "final" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    run = small_run(elsewhere.lab, alone, elsewhere)
    assert forked(run) == (1, 0), run.log.read_text()
    assert not run.reused_stage(0, "contrastive").exists()
    assert [event.text for event in events_of(run) if event.kind == "stage not adopted"]
    assert run.checkpoint_steps(0, "contrastive")


def test_a_model_of_another_torch_is_no_donor(lab, tmp_path):
    donor, alone, settings = lab
    elsewhere = msgspec.structs.replace(settings, lab=tmp_path / "lab")
    copy = type(donor)(elsewhere.lab / "runs" / donor.name)
    shutil.copytree(donor.path, copy.path)
    attempt = json_records.load(copy.attempt(1), Attempt)
    json_records.save(copy.attempt(1), msgspec.structs.replace(attempt, versions={**attempt.versions, "torch": "1.0"}))
    run = small_run(elsewhere.lab, alone, elsewhere)
    assert forked(run) == (1, 0), run.log.read_text()
    assert not run.reused_stage(0, "contrastive").exists()
    assert any("torch 1.0, here" in event.text for event in events_of(run))


def test_a_run_that_was_resumed_with_another_torch_is_no_donor_of_what_it_trained_before(lab, tmp_path):
    donor, alone, settings = lab
    elsewhere = msgspec.structs.replace(settings, lab=tmp_path / "lab")
    copy = type(donor)(elsewhere.lab / "runs" / donor.name)
    shutil.copytree(donor.path, copy.path)
    attempt = json_records.load(copy.attempt(1), Attempt)
    json_records.save(copy.attempt(2), msgspec.structs.replace(attempt, number=2))
    json_records.save(copy.attempt(1), msgspec.structs.replace(attempt, versions={**attempt.versions, "torch": "1.0"}))
    run = small_run(elsewhere.lab, alone, elsewhere)
    assert forked(run) == (1, 0), run.log.read_text()
    assert not run.reused_stage(0, "contrastive").exists()


@pytest.mark.slow
def test_a_second_stage_is_no_donor_where_it_began_from_other_weights(lab, tmp_path):
    donor, alone, settings = lab
    elsewhere = msgspec.structs.replace(settings, lab=tmp_path / "lab")
    copy = type(donor)(elsewhere.lab / "runs" / donor.name)
    shutil.copytree(donor.path, copy.path)
    run = small_run(elsewhere.lab, replaced(alone, chain=("contrastive", "distill")), elsewhere)
    shutil.copytree(copy.final(0, "contrastive"), run.final(0, "contrastive"))
    for name in ("model.safetensors", manifests.MANIFEST):  # what an earlier attempt with other versions left here
        (run.final(0, "contrastive") / name).unlink()
    other = load_file(copy.final(0, "contrastive") / "model.safetensors")
    save_file({key: value * 1.01 for key, value in other.items()}, run.final(0, "contrastive") / "model.safetensors")
    kept = tmp_path / "kept"
    shutil.move(run.final(0, "contrastive"), kept)
    with manifests.checksummed_folder(run.final(0, "contrastive")) as inside:
        shutil.copytree(kept, inside, dirs_exist_ok=True)
    assert forked(run) == (1, 0), run.log.read_text()
    assert not run.reused_stage(1, "distill").exists()
    assert any(event.kind == "stage not adopted" and "distill" in event.text for event in events_of(run))


def test_a_kill_during_the_taking_over_changes_nothing(lab):
    _, alone, settings = lab
    run = small_run(settings.lab, alone, settings, second=20)
    attempts, code = forked(run, seed=3, kills=6, longest=0.6)
    assert code == 0, run.log.read_text()
    assert json_records.load(run.reused_stage(0, "contrastive"), ReusedStage).identity == stage_keys(alone)[0]
    calm = small_run(settings.lab, alone, settings, second=21)
    assert forked(calm) == (1, 0)
    assert rows_of(run) == rows_of(calm)
    kinds = [(event.kind, event.text) for event in events_of(run) if event.kind == "groups counted"]
    assert len(kinds) == 1, attempts


def test_a_model_that_auto_computed_in_another_precision_is_no_donor(lab, tmp_path):
    _, alone, settings = lab
    elsewhere = msgspec.structs.replace(settings, lab=tmp_path / "lab")
    auto = msgspec.structs.replace(alone.recipe.stages["contrastive"], precision="auto")
    plan = replaced(alone, stages={"contrastive": auto})
    first = small_run(elsewhere.lab, plan, elsewhere)
    assert forked(first) == (1, 0), first.log.read_text()
    kept = json_records.load(first.precisions, Precisions).chosen["contrastive"]
    again = small_run(elsewhere.lab, plan, elsewhere, second=10)
    assert forked(again) == (1, 0), again.log.read_text()
    assert json_records.load(again.reused_stage(0, "contrastive"), ReusedStage).run == first.name
    shutil.rmtree(again.path)
    json_records.save(first.precisions, Precisions({"contrastive": "bf16" if kept == "fp32" else "fp32"}))
    other = small_run(elsewhere.lab, plan, elsewhere, second=20)
    assert forked(other) == (1, 0), other.log.read_text()
    assert not other.reused_stage(0, "contrastive").exists()
    assert any("precision of contrastive" in event.text for event in events_of(other))
