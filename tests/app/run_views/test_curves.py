from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.app.run_views.curves import Boundary, Curves, smoothed, thinned
from cerank.core.metrics import Validation
from cerank.files import journal
from cerank.runs.layout import ReadingRow, RunFolder
from tests.tui.labs import reading


def _read(folder: RunFolder) -> Curves:
    curves = Curves(folder)
    while curves.read():
        pass
    return curves


def _write(folder: RunFolder, *rows: ReadingRow) -> None:
    with journal.Journal(folder.readings, ReadingRow) as file:
        for row in rows:
            file.append(row)


def test_stages_follow_each_other_on_one_axis(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first = [reading(0, step, 1.0) for step in (1, 2, 3)]
    _write(folder, *first, Validation(0, 3, {"m": 0.1}), reading(1, 1, 0.5), Validation(1, 1, {"m": 0.2}))
    columns = _read(folder).columns
    assert columns.steps.tolist() == [1, 2, 3, 4]
    assert columns.values["loss"].tolist() == [1, 1, 1, 0.5]
    assert columns.values["pairs/s"].tolist() == [320.0] * 4
    assert columns.boundaries == (Boundary(0, 0), Boundary(3, 1))
    assert [(at, row.measures["m"]) for at, row in columns.validations] == [(3, 0.1), (4, 0.2)]


def test_each_loss_of_a_joint_stage_has_a_curve_and_cosines_only_where_they_were_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    joint = msgspec.structs.replace(reading(1, 1, 0.7), parts={"lce": 0.5, "kl": 0.2})
    read = msgspec.structs.replace(reading(1, 2, 0.7), parts={"lce": 0.4, "kl": 0.3}, cosines={"lce, kl": -0.5})
    _write(folder, reading(0, 1, 1.0), joint, read)
    columns = _read(folder).columns
    assert columns.values["loss"].tolist() == [1.0, 0.7, 0.7]
    np.testing.assert_array_equal(columns.losses["lce"], [np.nan, 0.5, 0.4])
    np.testing.assert_array_equal(columns.losses["kl"], [np.nan, 0.2, 0.3])
    np.testing.assert_array_equal(columns.cosines["lce, kl"], [np.nan, np.nan, -0.5])


def test_steps_done_again_replace_what_came_after_them_in_a_later_stage_too(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _write(folder, reading(0, 1, 1), reading(0, 2, 2), Validation(0, 2, {"m": 9}), reading(1, 1, 3))
    curves = _read(folder)
    before = curves.columns
    _write(folder, reading(0, 2, 7), Validation(0, 2, {"m": 0.5}))
    while curves.read():
        pass
    assert curves.columns.values["loss"].tolist() == [1, 7]
    assert curves.columns.boundaries == (Boundary(0, 0),)
    assert [row.measures["m"] for _, row in curves.columns.validations] == [0.5]
    assert before.values["loss"].tolist() == [1, 2, 3]  # what was handed out stands


def test_a_step_that_a_filter_left_without_an_update_is_no_point_of_a_curve(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    skipped = msgspec.structs.replace(reading(0, 2, 0.0), groups=0, pairs=0, forward_pairs=8)
    _write(folder, reading(0, 1, 1.0), skipped, reading(0, 3, 0.5))
    columns = _read(folder).columns
    assert columns.steps.tolist() == [1, 3]
    assert columns.values["loss"].tolist() == [1.0, 0.5]


def test_a_journal_that_is_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _write(folder, *(reading(0, step, 1.0) for step in range(1, 9)))
    curves = _read(folder)
    folder.readings.unlink()
    curves.read()
    _write(folder, reading(0, 1, 5.0))
    while curves.read():
        pass
    assert curves.columns.values["loss"].tolist() == [5.0]


def test_rows_that_come_in_pieces_are_the_rows_that_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    _write(folder, *(reading(0, step, 1.0 / step) for step in range(1, 500)))
    whole = _read(folder).columns.values["loss"].tolist()
    monkeypatch.setattr("cerank.app.run_views.curves.PIECE", 1000)
    assert _read(folder).columns.values["loss"].tolist() == whole
    assert len(whole) == 499


@settings(max_examples=100)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=600),
    st.sampled_from([0.5, 0.9, 0.99, 0.999]),
    st.lists(st.integers(0, 600), max_size=3),
)
def test_the_exponential_mean_is_the_one_by_hand(values: list[float], weight: float, starts: list[int]) -> None:
    expected, mean, count = [], 0.0, 0
    for place, value in enumerate(values):
        if place in starts:
            mean, count = 0.0, 0
        mean, count = weight * mean + (1 - weight) * value, count + 1
        expected.append(mean / (1 - weight**count))
    np.testing.assert_allclose(smoothed(np.array(values), weight, starts), expected, rtol=1e-7, atol=1e-6)


def test_without_a_weight_values_are_as_they_were() -> None:
    values = np.array([3.0, 1.0])
    assert smoothed(values, 0.0) is values


@settings(max_examples=100)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=400), st.integers(1, 60))
def test_no_extreme_is_lost_when_points_are_thinned(values: list[float], count: int) -> None:
    steps = np.arange(1.0, len(values) + 1)
    lows, highs = thinned(steps, np.array(values), 0.0, float(len(values)), count)
    assert np.nanmax(highs) == pytest.approx(max(values)) or len(values) < 2
    assert np.nanmin(lows) == pytest.approx(min(values)) or len(values) < 2
    there = np.isfinite(lows)
    assert (lows[there] <= highs[there]).all()


def test_between_far_points_lies_their_line_and_beyond_them_nothing() -> None:
    lows, highs = thinned(np.array([2.0, 8.0]), np.array([0.0, 6.0]), 0.0, 10.0, 10)
    assert lows.tolist()[3:7] == [1.5, 2.5, 3.5, 4.5]
    assert np.isnan(lows[[0, 9]]).all()
    assert (lows[3:7] == highs[3:7]).all()


def test_nan_leaves_a_gap_in_nothing_else() -> None:
    lows, _ = thinned(np.array([1.0, 2.0, 3.0]), np.array([1.0, np.nan, 3.0]), 0.0, 3.0, 3)
    assert np.isfinite(lows).any()
    assert np.isnan(thinned(np.array([1.0]), np.array([np.nan]), 0.0, 3.0, 3)[0]).all()
