"""Per-query differences as a sorted bar chart, with a cursor that goes from query to query.

Invariant: one bar a query where they fit, else one for neighbors in the order, as tall as the largest of them, so that
the axis ends at the largest gain and loss of any query at every width; above the line is better, always.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from cerank.app.comparison.comparison_session import QueryDifference
from cerank.text.safe_text import shown

_UP = " ▁▂▃▄▅▆▇█"
_AXIS = 8  # columns: +0.123 and a line
_WIDEST = 4  # columns of a bar


class DifferencesChart(Widget, can_focus=True):
    """The bars, the cursor, and a line about the query it stands on."""

    DEFAULT_CSS = """
    DifferencesChart { height: 1fr; min-height: 5; padding: 0 1; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"bars--gain", "bars--loss", "bars--axis", "bars--cursor", "bars--line"}
    DEFAULT_CSS += """
    DifferencesChart > .bars--gain { color: $success; }
    DifferencesChart > .bars--loss { color: $error; }
    DifferencesChart > .bars--axis { color: $text-muted; }
    DifferencesChart > .bars--cursor { color: $accent; text-style: bold; }
    DifferencesChart > .bars--line { color: $foreground; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "move(1)", "next query", show=False, id="bars.next"),
        Binding("left", "move(-1)", "previous query", show=False, id="bars.before"),
        Binding("pagedown", "move(10)", "ten forward", show=False, id="bars.ten-on"),
        Binding("pageup", "move(-10)", "ten back", show=False, id="bars.ten-back"),
        Binding("home,g", "move(-1000000)", "largest gain", show=False, id="bars.first"),
        Binding("end,G", "move(1000000)", "largest loss", show=False, id="bars.last"),
        Binding("enter", "open", "show the query", id="bars.open", tooltip="Show both rankings side by side"),
    ]
    at: reactive[int] = reactive(0)

    class Opened(Message):
        """A query is to be looked at."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self._rows: tuple[QueryDifference, ...] = ()
        self._labels = ("", "")
        self._title = ""

    def show(self, rows: Sequence[QueryDifference], left: str, right: str, title: str) -> None:
        """Show the differences, the largest gain first; the cursor stays with its query."""
        query = self._rows[self.at].query if self._rows else ""
        self._rows = tuple(rows)
        self._labels = (shown(left, 40), shown(right, 40))
        self._title = shown(title, 200)
        self.at = next((at for at, row in enumerate(self._rows) if row.query == query), 0)
        self.refresh()

    @property
    def rows(self) -> tuple[QueryDifference, ...]:
        """Return the rows that are shown, one for each query."""
        return self._rows

    def validate_at(self, at: int) -> int:
        """Stay on the chart."""
        return max(0, min(at, len(self._rows) - 1))

    def action_move(self, step: int) -> None:
        """Go to another query."""
        self.at += step

    def action_open(self) -> None:
        """Ask to see the query."""
        if self._rows:
            self.post_message(self.Opened(self.at))

    def on_click(self, event: events.Click) -> None:
        """Go to the query whose bar was clicked."""
        offset = event.get_content_offset(self)
        if offset and self._rows and offset.x >= _AXIS:
            bars, wide = self._shape()
            bar = min((offset.x - _AXIS) // wide, bars - 1)
            self.at = bar * len(self._rows) // bars

    # drawing

    def _shape(self) -> tuple[int, int]:
        """Return how many bars, and how wide each is."""
        room = max(self.content_size.width - _AXIS, 1)
        count = len(self._rows)
        return (count, min(room // count, _WIDEST)) if count <= room else (room, 1)

    def _bars(self, bars: int) -> list[float]:
        """Return, of the queries that each bar stands for, the difference that is farthest from 0."""
        count = len(self._rows)
        edges = [bar * count // bars for bar in range(bars + 1)]
        values = [row.difference for row in self._rows]
        return [max(values[low:high], key=abs) for low, high in itertools.pairwise(edges)]

    def _heights(self, top: float, bottom: float) -> tuple[int, int]:
        """Return rows above and below the line: in proportion, at least one where there is anything."""
        rows = max(self.content_size.height - 3, 2)
        up = round(rows * top / (top + bottom)) if top + bottom > 0 else rows // 2
        up = max(1 if top > 0 else 0, min(up, rows - (1 if bottom > 0 else 0)))
        return up, rows - up

    def render_line(self, y: int) -> Strip:
        """Return title, bars, cursor, and the query under it."""
        ground = self.rich_style
        return Strip(self._line(y)).apply_style(ground).adjust_cell_length(self.content_size.width, ground)

    def _line(self, y: int) -> list[Segment]:
        height = self.content_size.height
        style = self._styles()
        if not self._rows:
            return [Segment("no differences to show" if y == 0 else "", style["axis"])]
        if y == 0:
            return [Segment(self._heading(), style["axis"])]
        if y == height - 1:
            return self._about(style)
        bars, wide = self._shape()
        cursor = min((self.at * bars + bars - 1) // len(self._rows) if bars < len(self._rows) else self.at, bars - 1)
        if y == height - 2:
            return [Segment(" " * (_AXIS + cursor * wide) + "▲" * wide, style["cursor"])]
        return self._row(y - 1, bars, wide, cursor, style)

    def _heading(self) -> str:
        """Return what the bars show: as many whole parts as fit."""
        gains = sum(row.difference > 0 for row in self._rows)
        losses = sum(row.difference < 0 for row in self._rows)
        bars, _ = self._shape()
        parts = [self._title, f"{gains} gain · {len(self._rows) - gains - losses} tie · {losses} lose"]
        if bars < len(self._rows):
            parts += [f"{len(self._rows) / bars:.3g} queries a column", "(the largest is drawn)"]
        return _whole_parts(parts, self.content_size.width, "   ")

    def _styles(self) -> dict[str, Style]:
        return {
            name: self.get_component_rich_style(f"bars--{name}") for name in ("gain", "loss", "axis", "cursor", "line")
        }

    def _row(self, row: int, bars: int, wide: int, cursor: int, style: dict[str, Style]) -> list[Segment]:
        """Return one row of bars: eighths of a cell, from below above the line, by reversed cells below it."""
        values = self._bars(bars)
        top, bottom = max(0.0, *values, 0.0), max(0.0, -min(values))
        up, down = self._heights(top, bottom)
        scale = max(top / up if up else 0.0, bottom / down if down else 0.0) or 1.0
        label = ""
        if row == 0 and up:
            label = f"{top:+.3f}"
        elif row == up + down - 1 and down:
            label = f"{-bottom:+.3f}"
        elif row == up - 1:  # the zero line runs along the foot of this row
            label = "0"
        out = [Segment(f"{label:>{_AXIS - 1}}", style["axis"]), Segment("┤" if label else "│", style["axis"])]
        is_up = row < up
        floor = up - 1 - row if is_up else row - up  # rows between this one and the line
        for bar, value in enumerate(values):
            length = (value if is_up else -value) / scale - floor
            eighths = max(0, min(8, round(length * 8)))
            if eighths == 0 and floor == 0 and (value > 0) == is_up and value != 0:
                eighths = 1  # nothing that differs is shown as nothing
            kind = style["cursor"] if bar == cursor else style["gain" if is_up else "loss"]
            if row == up - 1 and eighths == 0:
                kind = style["axis"] + Style(underline=True)
            if is_up or eighths in {0, 8}:
                out.append(Segment(_UP[eighths] * wide, kind))
            else:
                out.append(Segment(_UP[8 - eighths] * wide, kind + Style(reverse=True)))
        return out

    def _about(self, style: dict[str, Style]) -> list[Segment]:
        row = self._rows[self.at]
        left, right = self._labels
        word = "gains" if row.difference > 0 else "loses" if row.difference < 0 else "ties"
        place = f"{self.at + 1}/{len(self._rows)} "
        parts = [f"query {shown(row.query, 60)}: {row.difference:+.4f} {word}"]
        parts.append(f"{right} {row.right:.4f}, {left} {row.left:.4f}")
        text = _whole_parts(parts, self.content_size.width - len(place), "  ")
        return [Segment(place, style["axis"]), Segment(text, style["line"])]


def _whole_parts(parts: Sequence[str], width: int, gap: str) -> str:
    """Return the first part and as many of the others as fit whole."""
    text = parts[0]
    for part in parts[1:]:
        if len(text) + len(gap) + len(part) <= width:
            text += gap + part
    return text
