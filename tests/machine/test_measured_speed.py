"""Two stages share a measurement exactly where their settings take the same time for a pair."""

from __future__ import annotations

import msgspec
import pytest

from cerank.bench.own_workloads import LIMITS
from cerank.machine.measured_speed import STEP_PAIRS, speed_key
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
