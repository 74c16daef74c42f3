"""Curves in braille dots: eight to a cell, thinned to what the cells can hold, lines drawn over each other.

Drawn here rather than by textual-plot, which takes 20 ms a line in Python loops: here two lines of a million points
take a few milliseconds, so that ten overlaid lines stay within a frame. It has the logarithmic axis, too.
Invariant: what is drawn is a function of the frame and the size; nothing is kept between two drawings.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style
from textual.events import MouseMove, MouseScrollDown, MouseScrollUp
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from cerank.app.run_views.curves import Floats, thinned
from cerank.app.run_views.display import at_words
from cerank.app.run_views.display import count as counted
from cerank.text.safe_text import shown

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_CLIPPED = 500  # raw readings from which on single spikes may leave the frame
_FLAT = 1e-9  # relative; rounding errors of a constant must not look like a curve
_HAIR = 1e-6  # dots; between two dots, last digits must not decide: processors differ in them
_HALF = 0.5 + _HAIR
_GUTTER = 8  # cells for the labels of the upright axis


class PlotLine(NamedTuple):
    """A curve of a plot."""

    steps: Floats
    values: Floats
    color: str
    is_faint: bool = False  # behind the others: the raw readings
    has_points: bool = False  # few points, each with a mark
    key: str = ""  # a letter at its end, for eyes and terminals without color


class Frame(NamedTuple):
    """Everything a plot shows. `window` is the part of the axis from 0 to 1."""

    title: str = ""
    lines: tuple[PlotLine, ...] = ()
    boundaries: tuple[tuple[float, str], ...] = ()  # where a stage begins, and its name
    window: tuple[float, float] = (0.0, 1.0)
    is_log: bool = False
    bounds: tuple[float, float] | None = None  # range of the vertical axis; None fits it to the lines
    empty: str = "nothing to draw yet"
    cursor: float | None = None  # a step whose values are read off: an upright line


class _Canvas:
    """Characters and styles of a plot's inside."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.codes: NDArray[np.int64] = np.zeros((height, width), dtype=np.int64)
        self.owner: NDArray[np.int64] = np.full((height, width), -1, dtype=np.int64)
        self.styles: list[Style] = []

    def put(self, row: int, column: int, char: str, style: int) -> None:
        """Put a character at a place, if it lies inside the plot."""
        if 0 <= row < self.height and 0 <= column < self.width:
            self.codes[row, column] = ord(char)
            self.owner[row, column] = style

    def style(self, style: Style) -> int:
        self.styles.append(style)
        return len(self.styles) - 1

    def row(self, index: int) -> list[Segment]:
        """Return the segments of a row."""
        codes, owner = self.codes[index], self.owner[index]
        edges = [0, *(np.flatnonzero(owner[1:] != owner[:-1]) + 1).tolist(), self.width]
        out = []
        for start, stop in itertools.pairwise(edges):
            text = "".join(chr(code) if code else " " for code in codes[start:stop].tolist())
            out.append(Segment(text, self.styles[owner[start]] if owner[start] >= 0 else Style.null()))
        return out


def _dots(lows: Floats, highs: Floats, bottom: float, top: float, rows: int) -> NDArray[np.bool_]:
    """Return dots (rows, columns) of a line that spans [lows, highs] in each column, joined to its neighbors."""
    with np.errstate(invalid="ignore"):
        scale = (rows - 1) / (top - bottom)
        upper, lower = _nearest((top - highs) * scale), _nearest((top - lows) * scale)  # row 0 is at the top
        upper[1:] = np.fmin(upper[1:], np.where(np.isnan(lower[:-1]), upper[1:], lower[:-1] + 1))
        lower[1:] = np.fmax(
            lower[1:], np.where(np.isnan(upper[:-1]), lower[1:], _nearest((top - highs) * scale)[:-1] - 1)
        )
        places = np.arange(rows)[:, None]
        return np.asarray((places >= upper[None, :]) & (places <= lower[None, :]))


def _nearest(dots: Floats) -> Floats:
    """Return whole dots; halves go up, and so does what lies a hair below a half."""
    return np.asarray(np.floor(dots + _HALF))


def ticks(low: float, high: float, most: int, *, is_whole: bool = False) -> list[float]:
    """Return round values within [low, high], at most `most` + 1 of them; whole numbers where only those make sense."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low or most < 1:
        return []
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    steps = (1.0, 2.0, 5.0, 10.0) if is_whole else (1.0, 2.0, 2.5, 5.0, 10.0)
    size = next(step * power for step in steps if step * power >= rough * 0.999)
    size = max(1.0, size) if is_whole else size
    first = math.ceil(low / size - 1e-9)
    return [index * size for index in range(first, math.floor(high / size + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """Return a tick's label in at most seven characters."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return counted(value)
    if abs(value) < 1e-3:
        return (f"{value:.1e}" if abs(value) >= 1e-99 else f"{value:.0e}").replace("e-0", "e-")
    return f"{value:.4g}" if abs(value) >= 1 else f"{value:.3g}"


class _Scale(NamedTuple):
    """The part of both axes that is drawn; upright in log10 where the frame says so."""

    left: float
    right: float
    bottom: float
    top: float


def _reach(frame: Frame) -> tuple[float, float]:
    """Return the first and last step over all lines, cut to the window."""
    ends = [(float(line.steps[0]), float(line.steps[-1])) for line in frame.lines if len(line.steps)]
    low, high = min(0.0, *(end[0] for end in ends)), max(end[1] for end in ends)
    high = high if high > low else low + 1
    span = high - low
    return low + frame.window[0] * span, low + frame.window[1] * span


def step_at(frame: Frame, column: int, width: int) -> float | None:
    """Return the step at a column of a plot that is `width` cells wide; None beside the axis."""
    inside = width - _GUTTER
    if not any(len(line.steps) for line in frame.lines) or not 0 <= column - _GUTTER < inside:
        return None
    left, right = _reach(frame)
    return left + (column - _GUTTER + 0.5) / inside * (right - left)


def draw(frame: Frame, width: int, height: int) -> list[Strip]:
    """Return the plot as `height` strips of `width` cells."""
    blank = [Strip([Segment(" " * width)]) for _ in range(max(0, height))]
    inside, rows = width - _GUTTER, height - 2
    if inside < 8 or rows < 2:
        return blank
    heading = _heading(frame, width)
    if not any(len(line.steps) for line in frame.lines):
        return [heading, *_note(frame.empty, width, height - 1)]
    left, right = _reach(frame)
    spans = [_span(line, frame, left, right, 2 * inside) for line in frame.lines]
    scale = _scaled(frame, spans, (left, right), rows)
    if scale is None:
        return [heading, *_note("nothing in this part of the axis", width, height - 1)]
    canvas = _Canvas(inside, rows)
    _bound(canvas, frame, scale)
    for line, span in zip(frame.lines, spans, strict=True):
        _trace(canvas, line, span, scale)
    if frame.cursor is not None and left <= frame.cursor <= right:
        style = canvas.style(Style(bold=True))
        column = min(int((frame.cursor - left) / (right - left) * inside), inside - 1)
        for row in range(canvas.height):
            canvas.put(row, column, "│", style)
    _name(canvas, frame, scale)
    labels = _labels(frame, scale, rows)
    body = [Strip([_edge(labels.get(row)), *canvas.row(row)]) for row in range(rows)]
    return [heading, *body, _axis(scale, width)]


def _edge(label: str | None) -> Segment:
    """Return the upright axis in one row, with its label where there is one."""
    text = " " * (_GUTTER - 1) + "│" if label is None else f"{label:>{_GUTTER - 1}}┤"
    return Segment(text, Style(dim=True))


def _span(line: PlotLine, frame: Frame, left: float, right: float, columns: int) -> tuple[Floats, Floats]:
    lows, highs = thinned(line.steps, line.values, left, right, columns)
    if frame.is_log:
        with np.errstate(divide="ignore", invalid="ignore"):
            lows, highs = np.log10(lows), np.log10(highs)
        lows[~np.isfinite(lows)] = np.nan
        highs[~np.isfinite(highs)] = np.nan
    return lows, highs


def _scaled(frame: Frame, spans: list[tuple[Floats, Floats]], ends: tuple[float, float], rows: int) -> _Scale | None:
    """Return the range of values to draw; faint lines may lose their extremes, so a spike flattens no other line."""
    bottoms, tops = [], []
    for line, (lows, highs) in zip(frame.lines, spans, strict=True):
        low, high = lows[np.isfinite(lows)], highs[np.isfinite(highs)]
        if not (len(low) and len(high)):
            continue
        is_clipped = line.is_faint and len(line.steps) > _CLIPPED
        bottoms.append(float(np.quantile(low, 0.02) if is_clipped else low.min()))
        tops.append(float(np.quantile(high, 0.98) if is_clipped else high.max()))
    if not bottoms:
        return None
    if frame.bounds is not None:
        return _Scale(*ends, *frame.bounds)
    bottom, top = min(bottoms), max(tops)
    if top - bottom <= _FLAT * max(abs(top), abs(bottom)):
        bottom = top = (bottom + top) / 2
    room = 0.05 * (top - bottom) or 0.1 * abs(top) or 1.0
    names = 1.3 * (top - bottom + room) / max(rows - 1.3, 1) if any(name for _, name in frame.boundaries) else room
    return _Scale(*ends, bottom - room, top + names)


def _bound(canvas: _Canvas, frame: Frame, scale: _Scale) -> None:
    """Upright lines where stages begin."""
    style = canvas.style(Style(dim=True))
    for at, _ in frame.boundaries:
        column = int((at - scale.left) / (scale.right - scale.left) * canvas.width)
        for row in range(canvas.height if at > 0 else 0):
            canvas.put(row, column, "┊", style)


def _name(canvas: _Canvas, frame: Frame, scale: _Scale) -> None:
    """Draw each stage's name in the first row where the stage begins or enters the window, if the name fits."""
    style = canvas.style(Style(italic=True))
    starts = [int((at - scale.left) / (scale.right - scale.left) * canvas.width) for at, _ in frame.boundaries]
    for (at, name), start, stop in zip(frame.boundaries, starts, [*starts[1:], canvas.width], strict=False):
        first = max(0, start + (1 if at > 0 else 0))
        for place, char in enumerate(shown(name, 24)[: max(0, min(stop, canvas.width) - first)]):
            canvas.put(0, first + place, char, style)


def _trace(canvas: _Canvas, line: PlotLine, span: tuple[Floats, Floats], scale: _Scale) -> None:
    style = canvas.style(Style(color=line.color, dim=line.is_faint))
    mask = _dots(span[0], span[1], scale.bottom, scale.top, 4 * canvas.height)
    cells = mask.reshape(canvas.height, 4, canvas.width, 2)
    codes = (cells * _DOTS[None, :, None, :]).sum(axis=(1, 3))
    is_drawn = codes > 0
    canvas.codes[is_drawn] = codes[is_drawn] + 0x2800
    canvas.owner[is_drawn] = style
    if line.has_points:
        _points(canvas, line, span, scale, style)
    finite = np.flatnonzero(np.isfinite(span[1]))
    if line.key and len(finite):
        row = int((scale.top - span[1][finite[-1]]) / (scale.top - scale.bottom) * (canvas.height - 1) + _HAIR)
        canvas.put(row, min(int(finite[-1]) // 2 + 1, canvas.width - 1), line.key, style)


def _points(canvas: _Canvas, line: PlotLine, span: tuple[Floats, Floats], scale: _Scale, style: int) -> None:
    width = scale.right - scale.left
    for step in line.steps.tolist()[: 4 * canvas.width]:
        column = min(int((step - scale.left) / width * 2 * canvas.width), 2 * canvas.width - 1)
        if column >= 0 and scale.left <= step <= scale.right and math.isfinite(span[1][column]):
            place = (scale.top - float(span[1][column])) / (scale.top - scale.bottom)
            row = math.floor(place * (4 * canvas.height - 1) + _HALF) // 4
            canvas.put(row, column // 2, "●", style)


def _labels(frame: Frame, scale: _Scale, rows: int) -> dict[int, str]:
    """Row -> label of the upright axis."""
    marks = ticks(scale.bottom, scale.top, max(2, rows // 3))
    if frame.is_log and scale.top - scale.bottom >= 1:
        marks = [mark for mark in marks if abs(mark - round(mark)) < 1e-9] or marks
    labels = {}
    for mark in marks:
        row = math.floor((scale.top - mark) / (scale.top - scale.bottom) * (4 * rows - 1) + _HALF) // 4
        if 0 <= row < rows:
            labels[row] = tick_text(10**mark if frame.is_log else mark)
    return labels


def _axis(scale: _Scale, width: int) -> Strip:
    inside = width - _GUTTER
    line = [" "] * width
    for mark in ticks(scale.left, scale.right, max(2, inside // 12), is_whole=True):
        text = counted(mark)
        column = _GUTTER + int((mark - scale.left) / (scale.right - scale.left) * (inside - 1))
        start = min(max(column - len(text) // 2, 0), width - len(text))
        if all(char == " " for char in line[max(0, start - 1) : start + len(text) + 1]):
            line[start : start + len(text)] = text
    return Strip([Segment("".join(line), Style(dim=True))])


def _heading(frame: Frame, width: int) -> Strip:
    title = at_words(shown(frame.title, 4 * width), width - 1)  # a cell stays free before a plot beside this one
    return Strip([Segment(f"{title:<{width}}", Style(bold=True))])


def _note(text: str, width: int, height: int) -> list[Strip]:
    rows = [Strip([Segment(" " * width)]) for _ in range(height)]
    note = shown(text, width)[:width].center(width)
    if rows:
        rows[height // 2] = Strip([Segment(note, Style(dim=True))])
    return rows


class CurvePlot(Widget):
    """Shows a frame; drawn anew only when it is given another or changes size."""

    DEFAULT_CSS = "CurvePlot { height: 1fr; width: 1fr; }"

    class Pointed(Message):
        """The pointer is over a step; None where it left the plot."""

        def __init__(self, plot: CurvePlot, step: float | None) -> None:
            super().__init__()
            self.plot = plot
            self.step = step

    class Scrolled(Message):
        """The wheel was turned over a step: by 1 towards the user, by -1 away."""

        def __init__(self, plot: CurvePlot, by: int, share: float) -> None:
            super().__init__()
            self.plot = plot
            self.by = by
            self.share = share  # horizontal position of the pointer as a fraction of the plot's width

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.frame = Frame()
        self._drawn: tuple[Frame, Size, list[Strip]] | None = None

    def show(self, frame: Frame) -> None:
        """Show another frame."""
        self.frame = frame
        self.refresh()

    def on_mouse_move(self, event: MouseMove) -> None:
        """Report the step under the pointer."""
        self.post_message(self.Pointed(self, step_at(self.frame, event.x, self.size.width)))

    def on_leave(self) -> None:
        """Report that the pointer is elsewhere."""
        self.post_message(self.Pointed(self, None))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Report a turn of the wheel away from the user."""
        event.stop()
        self._report_scroll(-1, event.x)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Report a turn of the wheel towards the user."""
        event.stop()
        self._report_scroll(1, event.x)

    def _report_scroll(self, by: int, column: int) -> None:
        share = (column - _GUTTER) / max(1, self.size.width - _GUTTER)
        self.post_message(self.Scrolled(self, by, min(max(share, 0.0), 1.0)))

    def render_line(self, y: int) -> Strip:
        """Return one line of the drawing."""
        if self._drawn is None or self._drawn[0] is not self.frame or self._drawn[1] != self.size:
            self._drawn = (self.frame, self.size, draw(self.frame, self.size.width, self.size.height))
        strips = self._drawn[2]
        ground = self.rich_style
        return (
            strips[y].apply_style(Style(bgcolor=ground.bgcolor, color=ground.color)) if y < len(strips) else Strip([])
        )
