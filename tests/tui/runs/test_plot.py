from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerank.tui.runs.plot import Frame, PlotLine, draw, tick_text, ticks


def _line(values: list[float], **more: object) -> PlotLine:
    return PlotLine(np.arange(1.0, len(values) + 1), np.array(values), "#56B4E9", **more)  # type: ignore[arg-type]


def _text(frame: Frame, width: int = 60, height: int = 12) -> str:
    return "\n".join(strip.text for strip in draw(frame, width, height))


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (15, 3), (16, 4), (40, 10), (200, 60)])
def test_a_plot_fills_its_size_exactly(size: tuple[int, int]) -> None:
    for frame in (Frame(), Frame(lines=(_line([1, 2, 3]),)), Frame(lines=(_line([1, 2, 3]),), window=(0.9, 0.91))):
        strips = draw(frame, *size)
        assert len(strips) == size[1]
        assert {strip.cell_length for strip in strips} <= {size[0]}


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    rows = [line[8:] for line in _text(Frame(lines=(_line(list(range(50))),))).splitlines()[1:-1]]
    drawn = [[place for place, char in enumerate(row) if "\u2800" < char <= "\u28ff"] for row in rows]
    firsts = [min(places) for places in drawn if places]
    assert firsts == sorted(firsts, reverse=True)


def test_a_line_has_no_holes() -> None:
    rng = np.random.default_rng(0)
    rows = _text(Frame(lines=(_line(rng.normal(size=5000).tolist()),)), 80, 20).splitlines()[1:-1]
    columns = [[row[place] for row in rows] for place in range(10, 79)]
    for column in columns:
        drawn = [place for place, char in enumerate(column) if "\u2800" < char <= "\u28ff"]
        assert drawn == list(range(drawn[0], drawn[-1] + 1))


def test_the_later_line_lies_over_the_earlier_one() -> None:
    under, over = _line([1, 1, 1]), PlotLine(np.array([1.0, 2, 3]), np.array([1.0, 1, 1]), "#E69F00")
    segments = [segment for strip in draw(Frame(lines=(under, over)), 60, 12) for segment in strip]
    colors = {segment.style.color.name for segment in segments if segment.style and segment.style.color}
    assert colors == {"#e69f00"}


def test_a_logarithmic_axis_leaves_out_what_has_no_logarithm() -> None:
    frame = Frame(lines=(_line([1000.0, 100.0, 0.0, -5.0, 10.0, 1.0]),), is_log=True)
    text = _text(frame, 60, 20)
    for label in ("1000", "100", "10", "1"):
        assert f"{label}┤" in text


def test_stage_names_stand_where_stages_begin() -> None:
    frame = Frame(lines=(_line([1.0] * 100),), boundaries=((0.0, "contrastive"), (50.0, "distill")))
    first = _text(frame).splitlines()[1]
    assert first[8:].startswith("contrastive")
    assert "┊distill" in first
    assert "distill" not in _text(Frame(lines=frame.lines, boundaries=frame.boundaries, window=(0.0, 0.4)))


def test_a_spike_of_the_raw_readings_does_not_flatten_the_rest() -> None:
    values = [1.0 + (place % 10) / 10 for place in range(2000)]
    values[1000] = 1e6
    assert "1e" not in _text(Frame(lines=(_line(values, is_faint=True),)))


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [math.nan, math.nan], [0.0], [1e-300, 1e300], [-1.0, 1.0]])
def test_odd_values_are_drawn_or_said_to_be_none(values: list[float]) -> None:
    for is_log in (False, True):
        assert len(draw(Frame(lines=(_line(values),), is_log=is_log), 60, 12)) == 12


@settings(max_examples=100)
@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9), st.integers(1, 12))
def test_ticks_are_round_few_and_inside(low: float, size: float, most: int) -> None:
    high = low + size
    found = ticks(low, high, most)
    assert len(found) <= most + 1
    slack = 1e-6 * (abs(low) + abs(high) + size)
    assert all(low - slack <= tick <= high + slack for tick in found)


@given(st.floats(-1e12, 1e12))
def test_a_tick_fits_beside_the_axis(value: float) -> None:
    assert len(tick_text(value)) <= 8


def test_steps_are_marked_by_whole_numbers() -> None:
    assert all(tick == int(tick) for high in (1.0, 3.0, 13.0, 130.0) for tick in ticks(0.0, high, 6, is_whole=True))


def test_a_title_that_is_too_long_ends_with_a_word_before_the_next_plot() -> None:
    frame = Frame(title="cpu  a worker, % over the run, in seconds", lines=(), bounds=(0.0, 1.0))
    heading = draw(frame, 40, 10)[0].text
    assert heading.rstrip().endswith("…")
    assert heading.endswith(" ")
    assert set(heading.rstrip(" …").split()) <= set(frame.title.split())
