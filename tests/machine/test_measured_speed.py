"""Two stages share a measurement exactly where their settings take the same time for a pair."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cerank.app import estimates
from cerank.bench.own_workloads import LIMITS
from cerank.machine import measured_speed
from cerank.machine.measured_speed import STEP_PAIRS, MeasuredSpeed, speed_key
from tests.worker.small import small_plan


@pytest.fixture
def keys(tmp_path):
    plan, _ = small_plan(tmp_path)
    stage = msgspec.structs.replace(plan.recipe.chained()[0][1], group_size=2, in_batch=0, source="labels")

    def key(**changes):
        return speed_key(plan, msgspec.structs.replace(stage, **changes))

    return key


@pytest.mark.parametrize(
    "changes", [{"groups_per_step": 77}, {"group_size": STEP_PAIRS}, {"steps": 3}, {"learning_rate": 1.0}]
)
def test_how_groups_are_put_together_needs_no_measurement_of_its_own(keys, changes):
    assert keys(**changes) == keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"max_length": LIMITS.max_length + 1},
        {"precision": "bf16"},
        {"freeze_layers": 1},
        {"dropout": 0.3},
        {"group_size": STEP_PAIRS + 1},
        {"microbatch": 77},
        {"source": "teacher", "teacher": "embedding"},
    ],
)
def test_what_changes_the_time_of_a_pair_is_measured_anew(keys, changes):
    assert keys(**changes) != keys()


def test_a_speed_measured_beside_other_programs_does_not_replace_a_quiet_one(tmp_path):
    quiet = MeasuredSpeed(train=200.0, score=900.0, load=1.0, busy=0.1)
    loaded = MeasuredSpeed(train=50.0, score=200.0, load=3.0, busy=2.0)
    measured_speed.save_speed(tmp_path, "key", loaded)
    assert measured_speed.load_speed(tmp_path, "key") == loaded
    measured_speed.save_speed(tmp_path, "key", quiet)
    measured_speed.save_speed(tmp_path, "key", loaded)
    assert measured_speed.load_speed(tmp_path, "key") == quiet


@pytest.mark.parametrize(("busy", "count", "words"), [(0.1, 0, "here before"), (2.0, 1, "kept the machine busy")])
def test_an_estimate_measures_anew_what_was_measured_beside_other_programs(tmp_path, monkeypatch, busy, count, words):
    plan, _ = small_plan(tmp_path)
    for _, stage in plan.recipe.chained():
        speed = MeasuredSpeed(train=1.0, score=1.0, load=1.0, embed=1.0, busy=busy)
        measured_speed.save_speed(Path(plan.cache), speed_key(plan, stage), speed)
    started = []
    monkeypatch.setattr("subprocess.run", lambda command, **options: started.append(command))
    speeds, source = estimates.measured(plan)
    assert set(speeds) == set(plan.recipe.chain)
    assert len(started) == count
    assert words in source
