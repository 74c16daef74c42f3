"""Curves as SVG: lines of several runs on common axes, stage boundaries marked, in colors that color-blind eyes part.

Invariant: pure text from numbers; outside text is escaped, and nothing in a picture runs, loads or links.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from cerank.text import escapes

if TYPE_CHECKING:
    from cerank.app.run_views.curves import Floats

_Scale: TypeAlias = Callable[[float], float]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")  # Okabe and Ito 2008
_DASHES = ("", "7 3", "2 2", "8 3 2 3", "12 4", "4 4", "1 3")  # so that a line is known without its color, too
_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 42, 44
_STYLE = (
    "<style>.cr-ink{fill:#222}.cr-soft{fill:#666}.cr-axis{stroke:#999}.cr-grid{stroke:#e4e4e4}.cr-stage{stroke:#888}"
    "@media(prefers-color-scheme:dark){.cr-ink{fill:#eee}.cr-soft{fill:#aaa}.cr-axis{stroke:#777}"
    ".cr-grid{stroke:#383838}.cr-stage{stroke:#999}}</style>"
)


class PlottedLine(msgspec.Struct, frozen=True):
    """A line of a plot: its label and points, and what is drawn faintly behind it."""

    label: str
    steps: Floats
    values: Floats
    raw: tuple[Floats, Floats] | None = None  # steps and values before smoothing, drawn faintly
    has_dots: bool = False  # few points, each worth seeing


class Panel(msgspec.Struct, frozen=True):
    """A pair of axes with its title, lines and boundaries of stages."""

    title: str
    quantity: str  # on the y axis
    series: tuple[PlottedLine, ...]
    boundaries: tuple[tuple[float, str], ...]  # step at which a stage starts, and its name
    across: str = "steps over all stages"  # what the x axis counts


def svg(panels: Sequence[Panel]) -> str:
    """Return the panels below each other, then the legend, as one SVG document."""
    labels = list(dict.fromkeys(series.label for panel in panels for series in panel.series))
    height = len(panels) * _HEIGHT + 20 * len(labels) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escapes.html(panels[0].title)}" font-family="sans-serif" font-size="12">',
        _STYLE,
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate(0 {number * _HEIGHT})">{_panel(panel, labels)}</g>')
    for number, label in enumerate(labels):
        y = len(panels) * _HEIGHT + 20 * number + 8
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + 34}" y2="{y}" {_pen(number)}/>')
        parts.append(_text(_LEFT + 42, y + 4, label[:110]))
    return "".join([*parts, "</svg>\n"])


def _panel(panel: Panel, labels: Sequence[str]) -> str:
    low_x, high_x = _range([series.steps for series in panel.series], is_steps=True)
    low, high = _range([part for series in panel.series for part in _drawn(series)])
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def across(step: float) -> float:
        return _LEFT + (step - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)

    def down(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(_LEFT, 18, panel.title, weight="bold")]
    for value in ticks:
        y = down(value)
        parts.append(
            f'<line class="cr-grid" stroke="#e4e4e4" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(_text(_LEFT - 6, y + 4, _number(value), anchor="end", tone="soft"))
    for step in _ticks(low_x, high_x, least=1):
        if low_x <= step <= high_x and step == round(step):
            parts.append(_text(across(step), _HEIGHT - _BOTTOM + 16, f"{step:,.0f}", anchor="middle", tone="soft"))
    parts += [_stage(across(step), name) for step, name in panel.boundaries if low_x <= step < high_x]
    for series in panel.series:
        pen = _pen(labels.index(series.label))
        if series.raw is not None:
            parts.append(_line(*series.raw, across, down, pen + ' stroke-opacity="0.28"'))
        parts.append(_line(series.steps, series.values, across, down, pen))
        if series.has_dots:
            parts += _dots(series, across, down, COLORS[labels.index(series.label) % len(COLORS)])
    axis = _HEIGHT - _BOTTOM
    parts.append(f'<line class="cr-axis" stroke="#999" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{axis}" y2="{axis}"/>')
    parts.append(_text(_WIDTH - _RIGHT, axis + 32, panel.across, anchor="end", tone="soft"))
    parts.append(_text(_LEFT, axis + 32, panel.quantity, tone="soft"))
    return "".join(parts)


def _drawn(series: PlottedLine) -> list[Floats]:
    return [series.values] if series.raw is None else [series.values, series.raw[1]]


def _range(arrays: Sequence[Floats], *, is_steps: bool = False) -> tuple[float, float]:
    """Return the least and largest finite value, never the same."""
    finite = [float(value) for array in arrays for value in array if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if is_steps:
        low = 0.0
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _ticks(low: float, high: float, *, count: int = 5, least: float = 0.0) -> list[float]:
    """Return round numbers from at or below `low` to at or above `high`."""
    rough = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:.4g}" if value else "0"


def _pen(number: int) -> str:
    color, dash = COLORS[number % len(COLORS)], _DASHES[number % len(_DASHES)]
    pattern = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{color}" stroke-width="1.8" stroke-linejoin="round"{pattern}'


def _line(steps: Floats, values: Floats, across: _Scale, down: _Scale, pen: str) -> str:
    """Return a line, with a gap where a value is not finite."""
    parts, is_down = [], False
    for step, value in zip(steps.tolist(), values.tolist(), strict=True):
        if not math.isfinite(value):
            is_down = False
            continue
        parts.append(f"{'L' if is_down else 'M'}{across(step):.1f} {down(value):.1f}")
        is_down = True
    return f'<path d="{"".join(parts)}" {pen}/>' if parts else ""


def _dots(series: PlottedLine, across: _Scale, down: _Scale, color: str) -> list[str]:
    points = zip(series.steps.tolist(), series.values.tolist(), strict=True)
    return [
        f'<circle cx="{across(step):.1f}" cy="{down(value):.1f}" r="2.6" fill="{color}"/>'
        for step, value in points
        if math.isfinite(value)
    ]


def _stage(x: float, name: str) -> str:
    """Return a stage's beginning: a dashed line and its name."""
    line = f'<line class="cr-stage" stroke="#888" stroke-dasharray="3 3" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 14}" '
    return line + f'y2="{_HEIGHT - _BOTTOM}"/>' + _text(x + 4, _TOP - 5, name[:40], tone="soft")


def _text(x: float, y: float, text: str, *, anchor: str = "start", tone: str = "ink", weight: str = "") -> str:
    fill = "#222" if tone == "ink" else "#666"
    bold = f' font-weight="{weight}"' if weight else ""
    inner = escapes.html(text)
    return f'<text class="cr-{tone}" fill="{fill}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{bold}>{inner}</text>'
