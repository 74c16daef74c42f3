"""Runs whose weights are divided among their processes: the files of a run in one process, for any number of them."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

import msgspec
import pytest

from cerank.app.plans import plan_of
from cerank.core.metrics import Event
from cerank.errors import ExitCode, UsageError
from cerank.files import journal
from cerank.planning import several_devices, stage_keys
from cerank.planning.base_fit import memory_of
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Compute
from tests.refusals import refused
from tests.worker.small import STAGE, bits_of, small_plan, small_run
from tests.worker.test_several_devices import by_forks


def divided_plan(folder, stages, **changes):
    made, settings = small_plan(folder, stages=stages, compute={"shard_parameters": True}, **changes)
    settings = msgspec.structs.replace(settings, devices="2")
    return plan_of(made.recipe, settings, now=datetime(2026, 1, 2, tzinfo=UTC)), settings


@pytest.fixture
def plan(tmp_path):
    stage = {**STAGE, "steps": 8, "groups_per_step": 5, "in_batch": 2, "validate_every": 4}
    distill = {**STAGE, "steps": 6, "groups_per_step": 4, "loss": "ranknet", "source": "teacher", "teacher": "oracle"}
    # of which the best by each measure are kept, with Lion and rates by layer
    distill |= {
        "optimizer": "lion",
        "layer_decay": 0.9,
        "validate_every": 3,
        "keep_best": ["RR@10", "AP"],
    }
    return divided_plan(tmp_path, {"contrastive": {**stage, "microbatch": 40}, "distill": distill})


def test_divided_weights_give_a_plan_of_its_own_that_any_number_of_devices_may_carry_out(plan):
    divided, _ = plan
    whole = msgspec.structs.replace(divided, recipe=msgspec.structs.replace(divided.recipe, compute=Compute()))
    alone = msgspec.structs.replace(divided, devices=())
    assert divided.step_shards == 8
    assert divided.fingerprint == alone.fingerprint != whole.fingerprint
    assert stage_keys.stage_keys(divided) == stage_keys.stage_keys(alone)
    assert all(a != b for a, b in zip(stage_keys.stage_keys(divided), stage_keys.stage_keys(whole), strict=True))
    assert stage_keys.stage_key_by_names(divided.recipe, 0) != stage_keys.stage_key_by_names(whole.recipe, 0)
    assert "1/2" in " ".join(several_devices.in_words(divided))
    assert "1/1" not in " ".join(several_devices.in_words(alone))


def test_the_memory_of_weights_gradients_and_moments_is_that_of_a_share(plan):
    divided, _ = plan
    half, whole = (
        memory_of(divided)["contrastive"],
        memory_of(msgspec.structs.replace(divided, devices=()))["contrastive"],
    )
    assert [2 * part for part in (half.weights, half.gradients, half.moments)] == pytest.approx(
        [whole.weights, whole.gradients, whole.moments], abs=2
    )
    assert half.activations == whole.activations


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"adapter": {"kind": "lora", "quantize": "4bit"}}, "adapter.quantize"),
        ({"losses": [{"name": "lce"}, {"name": "hinge"}], "gradient_cosine_every": 2}, "gradient_cosine_every"),
        ({"ema": 0.9}, "ema"),
        ({"token_types": "zero"}, "token_types"),
    ],
)
def test_what_needs_whole_weights_on_each_device_is_refused(changes, key):
    values = {
        "name": "r", "base": "minilm", "chain": ["s"], "compute": {"shard_parameters": True},
        "stages": {"s": {"steps": 2, **changes}},
    }  # fmt: skip
    with refused(UsageError, "sharding-not-supported", f"stages.s.{key}"):
        several_devices.check_sharding(recipe_from(values, "test"))


@pytest.mark.slow
def test_one_two_and_four_processes_leave_the_same_files(plan, tmp_path):
    run = small_run(tmp_path, *plan, 1)
    assert by_forks(run, 1) == [ExitCode.OK], run.log.read_text()
    expected = bits_of(run)
    for number, count in enumerate((2, 4), 2):
        other = small_run(tmp_path, *plan, number)
        assert by_forks(other, count) == [ExitCode.OK] * count, other.log.read_text()
        found = bits_of(other)
        assert found.keys() == expected.keys()
        assert [path for path in found if found[path] != expected[path]] == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_what_two_processes_left_another_number_goes_on_with_to_the_same_bits(plan, tmp_path, count):
    run, whole = small_run(tmp_path, *plan, 1), small_run(tmp_path, *plan, 2)
    assert by_forks(run, 2, fault=(0, signal.SIGTERM)) == [ExitCode.PAUSED, ExitCode.OK], run.log.read_text()
    assert by_forks(run, count) == [ExitCode.OK] * count, run.log.read_text()
    assert by_forks(whole, 1) == [ExitCode.OK]
    assert bits_of(run) == bits_of(whole)
    assert "replay mismatch" not in {event.kind for event in journal.read_valid_rows(run.events, Event)[0]}


@pytest.mark.slow
def test_adapters_are_trained_over_a_divided_base(tmp_path):
    pytest.importorskip("peft")
    stage = {**STAGE, "steps": 4, "groups_per_step": 4, "validate_every": 2, "learning_rate": 1e-2, "dropout": 0.1}
    stage |= {"adapter": {"kind": "lora", "rank": 4, "dropout": 0.1, "save": "both"}, "gradient_checkpointing": True}
    plan = divided_plan(tmp_path, {"contrastive": stage, "distill": {**stage, "loss": "hinge"}})
    files = []
    for number, count in enumerate((1, 2, 4), 1):
        run = small_run(tmp_path, *plan, number)
        assert by_forks(run, count) == [ExitCode.OK] * count, run.log.read_text()
        files.append(bits_of(run))
    assert files[0] == files[1] == files[2]
    assert any(name.endswith("adapter/adapter_model.safetensors") for name in files[0])
