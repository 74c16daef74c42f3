"""The time left of a run: it does not jump, and it ends at 0."""

from __future__ import annotations

import itertools

import pytest

from cerank.core.progress import RISE, ProgressEstimator, ProgressPart

PARTS = [
    ProgressPart("train", "a", 10, "train", 40.0),
    ProgressPart("validate", "a", 10, "score", 10.0, times=2),
    ProgressPart("re-rank", "a on test", 21, "score", 50.0),
]

# (phase, detail, units, seconds a unit, done before)
RECORDED = [
    ("train", "a", 80, 0.5, 0, 160),
    ("validate", "a", 4, 1.25, 0, 4),
    ("train", "a", 80, 0.5, 80, 160),
    ("validate", "a", 4, 1.25, 0, 4),
    ("re-rank", "a on test", 23, 2.2, 0, 23),
]


def looks_of(factor: float) -> tuple[list[float], list[float]]:
    """(times left, shares) of looks every 2 seconds at a run that takes `factor` of what was expected."""
    now, due, course = 0.0, 0.0, ProgressEstimator(PARTS, 0.0)
    left, shares = [], []
    for phase, detail, units, seconds, done, total in RECORDED:
        course.enter(phase, detail, total, done, now)
        for _ in range(units):
            now += seconds * factor
            while due <= now:
                share, seconds_left = course.estimate(due)
                left.append(seconds_left)
                shares.append(share)
                due += 2.0
            course.advance(1, now)
    course.complete()
    share, seconds_left = course.estimate(now)
    return [*left, seconds_left], [*shares, share]


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.0, 1.5, 3.0])
def test_the_time_left_never_rises_by_more_than_a_few_percent_and_ends_at_0(factor):
    left, _ = looks_of(factor)
    assert all(after <= before * RISE + 1e-9 for before, after in itertools.pairwise(left))
    assert left[0] == pytest.approx(100.0)
    assert left[-1] == 0.0


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_the_share_that_is_done_only_grows_and_ends_at_all_of_it(factor):
    _, shares = looks_of(factor)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_half_way_the_time_left_is_near_what_is_left_however_wrong_the_expectation_was(factor):
    left, _ = looks_of(factor)
    half = len(left) // 2
    assert left[half] == pytest.approx(2.0 * (len(left) - half), rel=0.35)


def test_a_run_that_goes_on_does_not_count_what_was_done_before():
    course = ProgressEstimator(PARTS, 0.0)
    course.mark_done("train a", "validate a")
    assert course.left == pytest.approx(50.0)
    other = ProgressEstimator(PARTS, 0.0)
    other.enter("train", "a", 160, 80, 0.0)
    assert other.left == pytest.approx(20.0 + 5.0 + 50.0)


# A whole run of two stages on two busy cores without bf16, as it was recorded; and what was expected of it before.
EXPECTED = [
    ProgressPart("train", "contrastive", 0, "train", 9.0),
    ProgressPart("validate", "contrastive", 0, "score", 4.0, times=1),
    ProgressPart("re-rank", "contrastive on test", 2, "score", 25.0),
    ProgressPart("teacher", "distill", 3, "embed", 9.0),
    ProgressPart("train", "distill", 4, "train", 9.0),
    ProgressPart("validate", "distill", 4, "score", 4.0, times=1),
    ProgressPart("re-rank", "distill on test", 6, "score", 25.0),
]
WHOLE = [  # (phase, detail, units, seconds of all of them)
    ("groups", "contrastive", 1, 1.0),
    ("train", "contrastive", 6, 12.0),
    ("validate", "contrastive", 20, 6.0),
    ("train", "contrastive", 0, 1.0),
    ("re-rank", "contrastive on test", 331, 46.1),
    ("measure", "contrastive on test", 1, 1.0),
    ("groups", "distill", 1, 0.5),
    ("teacher", "distill", 450, 12.0),
    ("train", "distill", 6, 14.2),
    ("validate", "distill", 20, 8.1),
    ("train", "distill", 0, 1.0),
    ("re-rank", "distill on test", 331, 40.1),
    ("measure", "distill on test", 1, 1.2),
]


def test_a_recorded_run_of_two_stages_shows_its_parts_in_order_and_its_time_left_without_jumps():
    now, due, course, looks = 0.0, 0.0, ProgressEstimator(EXPECTED, 0.0), []
    for phase, detail, units, seconds in WHOLE:
        done = 6 if phase == "train" and not units else 0
        course.enter(phase, detail, units or 6, done, now)
        for _ in range(max(1, units)):
            now += seconds / max(1, units)
            while due <= now:
                looks.append((due, *course.estimate(due)))
                due += 2.0
            if units:
                course.advance(1, now)
    whole = sum(seconds for *_, seconds in WHOLE)
    course.complete()
    looks.append((now, *course.estimate(now)))
    left = [one for *_, one in looks]
    assert left[0] == pytest.approx(85.0)
    assert all(after <= before * RISE + 1e-9 for before, after in itertools.pairwise(left))
    assert all(before - after < 8.0 for before, after in itertools.pairwise(left[:-1]))
    for when, share, seconds_left in looks[len(looks) // 2 : -1]:
        assert seconds_left == pytest.approx(whole - when, rel=0.3, abs=6.0)
        assert share == pytest.approx(when / whole, abs=0.12)


def test_a_later_stage_s_teacher_is_not_done_before_it_is_at_work():
    course = ProgressEstimator(EXPECTED, 0.0)
    course.enter("re-rank", "contrastive on test", 331, 0, 0.0)
    assert course.left == pytest.approx(25.0 + 9.0 + 9.0 + 4.0 + 25.0)
    course.enter("train", "distill", 6, 0, 0.0)  # its teacher came from the cache, and was never at work
    assert course.left == pytest.approx(9.0 + 4.0 + 25.0)
