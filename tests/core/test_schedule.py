"""The learning rate is a pure function of the step: it rises, then stays or falls, and never reaches 0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.core.schedule import ScheduleName, learning_rate

SCHEDULES = st.sampled_from(["constant", "linear", "cosine"])


def rates(schedule: ScheduleName, steps: int, warmup: float) -> list[float]:
    return [learning_rate(schedule, step, steps=steps, peak=1.0, warmup=warmup) for step in range(1, steps + 1)]


def test_the_linear_schedule_by_hand() -> None:
    assert rates("linear", 6, 1 / 3) == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_the_constant_schedule_stays_at_the_peak_after_the_warm_up() -> None:
    assert rates("constant", 4, 0.5) == [0.5, 1.0, 1.0, 1.0]


def test_the_cosine_schedule_by_hand() -> None:
    assert rates("cosine", 3, 0.0) == pytest.approx([0.853553, 0.5, 0.146447], abs=1e-6)


@given(SCHEDULES, st.integers(1, 200), st.floats(0.0, 0.99))
def test_every_step_counts_and_none_exceeds_the_peak(schedule: ScheduleName, steps: int, warmup: float) -> None:
    values = rates(schedule, steps, warmup)
    assert all(0.0 < value <= 1.0 for value in values)


@given(SCHEDULES, st.integers(1, 200), st.floats(0.0, 0.99))
def test_the_rate_rises_once_and_never_rises_again(schedule: ScheduleName, steps: int, warmup: float) -> None:
    values = rates(schedule, steps, warmup)
    top = values.index(max(values))
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)
