"""The forest plot of a pooled comparison: in characters, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cerank.text import escapes

if TYPE_CHECKING:
    from cerank.evaluation.studies.pooling import PooledRow


ForestLine = tuple[str, int | None, float, float, float, float | None]  # name, queries, difference, low, high, weight
_WIDTH = 37  # characters of a forest plot in a terminal
ZERO = "┊"


def forest_lines(row: PooledRow, alpha: float = 0.05) -> list[ForestLine]:
    """Return what a forest plot shows: each collection, their mean, and what is to be expected on a new one."""
    from scipy.special import stdtrit

    from cerank.evaluation.verdicts.verdict import cut

    lines: list[ForestLine] = []
    for each, weight in zip(row.collections, row.pooled.weights, strict=True):
        half = -float(stdtrit(max(each.queries - 1, 1), alpha / 2)) * each.error
        low, high = cut(each.difference - half, each.difference + half, each.limits)
        lines.append((each.collection, each.queries, each.difference, low, high, weight))
    of = row.pooled
    lines.append(("mean", None, of.estimate.difference, row.judgment.low, row.judgment.high, None))
    if of.prediction is not None:
        lines.append(("a new collection", None, of.estimate.difference, *of.prediction, None))
    return lines


def drawings(lines: Sequence[ForestLine]) -> list[str]:
    """Return each line's interval as characters on one scale, 0 marked; what reaches beyond it ends in an arrow."""
    measured = [line for line in lines if line[5] is not None] + [line for line in lines if line[0] == "mean"]
    low, high = min(0.0, *(line[3] for line in measured)), max(0.0, *(line[4] for line in measured))
    span = 1.1 * max(line[4] - line[3] for line in lines if line[5] is not None) * 2
    low, high = max(low, -span), min(high, span)

    def place(value: float) -> int:
        return round((min(max(value, low), high) - low) / (high - low) * (_WIDTH - 1))

    out = []
    for name, _, difference, least, most, weight in lines:
        cells = [" "] * _WIDTH
        cells[place(0.0)] = ZERO
        for at in range(place(least), place(most) + 1):
            cells[at] = "─" if weight is not None or name == "mean" else "┄"
        cells[place(least)] = "◂" if least < low else "├"
        cells[place(most)] = "▸" if most > high else "┤"
        cells[place(difference)] = "■" if weight is not None else "◆"
        out.append("".join(cells).rstrip())
    return out


def forest_svg(row: PooledRow, alpha: float = 0.05) -> str:
    """Return the forest plot of one pooled row as an SVG document: squares by weight, a diamond for the mean."""
    lines = forest_lines(row, alpha)
    inner = [line for line in lines if line[5] is not None or line[0] == "mean"]
    collections = [line for line in lines if line[5] is not None]
    widest = max(line[4] - line[3] for line in collections)
    # 0 is always in sight, and what reaches far beyond all collections is cut.
    low = min(0.0, max(min(line[3] for line in inner), min(line[3] for line in collections) - widest))
    high = max(0.0, min(max(line[4] for line in inner), max(line[4] for line in collections) + widest))
    left, right, top, step = 190, 560, 44, 24
    height = top + step * len(lines) + 40

    def across(value: float) -> float:
        return left + (min(max(value, low), high) - low) / (high - low) * (right - left)

    def text(x: float, y: float, words: str, anchor: str = "start", tone: str = "ink") -> str:
        fill = "#222" if tone == "ink" else "#666"
        return f'<text class="cr-{tone}" fill="{fill}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'

    title = escapes.html(f"{row.right} against {row.left} by {row.measure}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" width="760" height="{height}" role="img" '
        f'aria-label="{title}" font-family="sans-serif" font-size="12">',
        "<style>.cr-ink{fill:#222}.cr-soft{fill:#666}.cr-axis{stroke:#999}@media(prefers-color-scheme:dark)"
        "{.cr-ink{fill:#eee}.cr-soft{fill:#aaa}.cr-axis{stroke:#777}}</style>",
        text(10, 20, title),
        f'<line class="cr-axis" stroke="#999" stroke-dasharray="3 3" x1="{across(0):.1f}" x2="{across(0):.1f}" '
        f'y1="{top - 12}" y2="{top + step * len(lines)}"/>',
    ]
    for number, (name, queries, difference, least, most, weight) in enumerate(lines):
        y = top + step * number + 4
        many = "" if queries is None else f" ({queries:,})"
        parts.append(text(10, y + 4, escapes.html(name[:22]) + many))
        dash = "" if weight is not None or name == "mean" else ' stroke-dasharray="4 3"'
        parts.append(
            f'<line stroke="#0072B2" stroke-width="1.6"{dash} x1="{across(least):.1f}" x2="{across(most):.1f}" '
            f'y1="{y}" y2="{y}"/>'
        )
        x = across(difference)
        if weight is not None:
            half = 2 + 6 * math.sqrt(weight)
            parts.append(
                f'<rect fill="#0072B2" x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" '
                f'height="{2 * half:.1f}"/>'
            )
        elif name == "mean":
            corners = f"{across(least):.1f},{y} {x:.1f},{y - 7} {across(most):.1f},{y} {x:.1f},{y + 7}"
            parts.append(f'<polygon fill="#D55E00" points="{corners}"/>')
        share = "" if weight is None else f"  {100 * weight:.0f} %"
        parts.append(text(right + 16, y + 4, f"{difference:+.4f} [{least:+.4f}, {most:+.4f}]{share}"))
    axis = top + step * len(lines)
    parts.append(f'<line class="cr-axis" stroke="#999" x1="{left}" x2="{right}" y1="{axis}" y2="{axis}"/>')
    for value in dict.fromkeys((low, 0.0, high)):
        parts.append(text(across(value), axis + 16, f"{value:+.3f}" if value else "0", "middle", "soft"))
    caption = f"{100 * (1 - alpha):.3g} % intervals; square: weight; diamond: mean; dashed: prediction"
    parts.append(text(10, axis + 34, caption, tone="soft"))
    return "".join([*parts, "</svg>\n"])
