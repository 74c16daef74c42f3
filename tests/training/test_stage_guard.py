"""What is warned of while a stage trains, by numbers made by hand."""

from __future__ import annotations

import pytest

from cerank.recipes.schema import Stage
from cerank.training.stage_guard import COLLAPSED, STILL, StageGuard

STAGE = Stage(steps=100, warn_after=0.1, least_spread=1e-3, least_loss_change=1e-2)


def looks(guard, losses, spreads):
    """The kinds that are warned of, by step."""
    seen = {step: guard.look(step, *row) for step, row in enumerate(zip(losses, spreads, strict=True), 1)}
    return {step: set(new) for step, new in seen.items() if new}


def test_a_stage_that_learns_is_not_warned_of():
    assert looks(StageGuard(STAGE, 100), [1.0 - 0.01 * step for step in range(50)], [0.5] * 50) == {}


def test_scores_that_collapse_and_a_loss_that_stands_are_each_warned_of_once_after_a_tenth_of_the_steps():
    guard = StageGuard(STAGE, 100)
    assert looks(guard, [0.6931] * 40, [1e-4] * 40) == {10: {COLLAPSED, STILL}}
    assert guard.now().keys() == {COLLAPSED, STILL}


def test_eight_steps_in_a_row_must_show_it():
    alternating = [1e-4] * 7 + [0.1]
    assert looks(StageGuard(STAGE, 20), [1.0, 0.9] * 20, alternating * 5) == {}
    assert looks(StageGuard(STAGE, 20), [1.0, 0.9] * 20, [0.1] * 12 + [1e-4] * 28) == {20: {COLLAPSED}}


def test_a_collapse_that_passes_is_no_longer_seen_at_the_end():
    guard = StageGuard(STAGE, 100)
    looks(guard, [1.0, 0.5] * 15, [1e-4] * 20 + [0.5] * 10)
    assert (guard.warned, guard.now()) == ({COLLAPSED}, {})


@pytest.mark.parametrize("limits", [{"least_spread": 0.0}, {"least_spread": 1e-5}])
def test_limits_are_the_recipes(limits):
    stage = Stage(steps=100, least_loss_change=0.0, **limits)
    assert looks(StageGuard(stage, 100), [0.6931] * 40, [1e-4] * 40) == {}


def test_a_resumed_stage_repeats_no_warning():
    assert looks(StageGuard(STAGE, 100, frozenset({COLLAPSED, STILL})), [0.6931] * 40, [0.0] * 40) == {}
