"""The curves of a run, all stages on one axis, with those of the marked runs over them."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid
from textual.content import Content
from textual.widgets import Static

from cerank.app.run_views import curves
from cerank.app.run_views.curves import QUANTITIES, SMOOTHINGS, Columns, Curves, Floats
from cerank.app.run_views.run_monitor import RunEntry
from cerank.text.table_data import Column, Table, written
from cerank.tui.cells import joined
from cerank.tui.runs.plot import CurvePlot, Frame, PlotLine
from cerank.tui.runs.run_pane import RunPane
from cerank.tui.theme import palette

_VALIDATION = "validation"
_PLOTS = ("loss", _VALIDATION, "learning rate", "gradient norm", "pairs/s")
_KEYS = "abcdefgh"
_MOST = 8  # runs over each other
_EVERY = 200_000  # readings are exported up to here, one in so many beyond


class _CurvesView(NamedTuple):
    """A run's curves, ready to draw."""

    entry: RunEntry
    columns: Columns
    smooth: dict[str, Floats]


class CurvesPane(RunPane):
    """One large plot and, where there is room, the other four in small."""

    DEFAULT_CSS = """
    CurvesPane #legend { height: auto; max-height: 3; padding: 0 1; }
    CurvesPane #main { height: 2fr; }
    CurvesPane Grid { grid-size: 2 2; height: 16; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "turn(1)", "next curve", id="curves.next", tooltip="loss, validation, rate, gradient, speed"),
        Binding("P", "turn(-1)", "previous curve", show=False, id="curves.before"),
        Binding("right_square_bracket", "smooth(1)", "smoother", key_display="]", id="curves.smoother", show=False),
        Binding("left_square_bracket", "smooth(-1)", "rawer", key_display="[", id="curves.rawer", show=False),
        Binding("L", "log", "log axis", id="curves.log", show=False),
        Binding("plus,equals_sign", "zoom(0.5)", "zoom in", key_display="+", id="curves.in", show=False),
        Binding("minus", "zoom(2)", "zoom out", key_display="-", id="curves.out", show=False),
        Binding("0", "whole", "the whole axis", id="curves.whole", show=False),
        Binding("left", "pan(-0.25)", "earlier", id="curves.left", show=False),
        Binding("right", "pan(0.25)", "later", id="curves.right", show=False),
    ]  # fmt: skip
    can_focus = True

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._curves: dict[str, Curves] = {}
        self._shown: list[_CurvesView] = []
        self._mark: object = None
        self._plot = 0
        self._smoothing = SMOOTHINGS.index(0.9)
        self._is_log = False
        self._window = (0.0, 1.0)
        self._is_reading = False
        self._is_unread = True

    def compose(self) -> ComposeResult:
        """Lay out legend, the large plot, the small ones."""
        yield Static(id="legend")
        yield CurvePlot(id="main")
        with Grid():
            for place in range(4):
                yield CurvePlot(id=f"small-{place}")

    # reading

    def clear_entry(self) -> None:
        """Another run is in focus; curves already read are kept."""
        self._mark, self._shown, self._window = None, [], (0.0, 1.0)
        self._is_unread = True
        self._draw()

    def update_entry(self, entry: RunEntry) -> None:
        """Read on where there may be something new."""
        names = self._names(entry)
        if set(names) - {shown.entry.name for shown in self._shown} or len(names) != len(self._shown):
            self._is_unread = True
        if self._is_unread or self.is_changed or any(one.is_live for one in self._entries(names)):
            self._read()

    def _names(self, entry: RunEntry) -> list[str]:
        marked = [name for name in self.lab_app.marked if name != entry.name]
        return [entry.name, *marked][:_MOST]

    def _entries(self, names: list[str]) -> list[RunEntry]:
        known = {entry.name: entry for entry in self.lab_app.entries}
        return [known[name] for name in names if name in known]

    def _read(self) -> None:
        if self._is_reading or self.entry is None:
            return
        self._is_reading = True
        entries = self._entries(self._names(self.entry))
        self._curves = {entry.name: self._curves.get(entry.name) or Curves(entry.folder) for entry in entries}
        weight, sources = SMOOTHINGS[self._smoothing], dict(self._curves)

        def job() -> tuple[list[_CurvesView], bool]:
            is_more = False
            for entry in reversed(entries):
                is_more = sources[entry.name].read(0.25) or is_more
            return [_ready(entry, sources[entry.name].columns, weight) for entry in entries], is_more

        self.lab_app.run_in_thread(job, self._have, node=self, group="curves", last=self._done)

    def _done(self) -> None:
        self._is_reading = False
        if self._is_unread and self.is_attached and self.entry is not None:
            self._read()

    def _have(self, found: tuple[list[_CurvesView], bool]) -> None:
        shown, self._is_unread = found
        if self.entry is None or not shown or shown[0].entry.name != self.entry.name:
            self._is_unread = True
            return
        mark = [
            (one.entry.name, one.entry.title, len(one.columns.steps), len(one.columns.validations)) for one in shown
        ]
        if mark != self._mark or shown[0].smooth is None:
            self._mark, self._shown = mark, shown
            self._draw()

    # drawing

    def _draw(self) -> None:
        order = [*_PLOTS[self._plot :], *_PLOTS[: self._plot]]
        self.query_one("#main", CurvePlot).show(self._frame(order[0], is_main=True))
        if self.screen.has_class("-tall") and self.screen.has_class("-wide"):
            for place, name in enumerate(order[1:]):
                self.query_one(f"#small-{place}", CurvePlot).show(self._frame(name, is_main=False))
        self.query_one("#legend", Static).update(self._legend())

    def on_resize(self) -> None:
        """The small plots may have come into sight."""
        self._draw()

    def _legend(self) -> Content:
        colors = palette(is_dark=self.app.current_theme.dark)
        if len(self._shown) < 2:
            return joined(("mark other runs with space to overlay their curves", "dim"))
        parts = [
            (f"{_KEYS[place]} {one.entry.title}   ", f"bold {colors[place]}") for place, one in enumerate(self._shown)
        ]
        return joined(*parts)

    def _frame(self, name: str, *, is_main: bool) -> Frame:
        colors = palette(is_dark=self.app.current_theme.dark)
        lines: list[PlotLine] = []
        is_alone = len(self._shown) == 1
        for place, one in reversed(list(enumerate(self._shown))):
            key = "" if is_alone else _KEYS[place]
            color = colors[place]
            if name == _VALIDATION:
                lines += _validated(one, colors if is_alone and is_main else (color,), key)
                continue
            values, smooth = one.columns.values[_quantity(name)], one.smooth.get(name)
            if place == 0 and smooth is not None:
                lines.append(PlotLine(one.columns.steps, values, color, is_faint=True))
            lines.append(PlotLine(one.columns.steps, values if smooth is None else smooth, color, key=key))
        return Frame(
            title=self._title(name, is_main=is_main),
            lines=tuple(lines),
            boundaries=self._boundaries(is_main=is_main),
            window=self._window,
            is_log=self._is_log and name in {"loss", "gradient norm"},
            empty="no validation yet" if name == _VALIDATION else "no training step yet",
        )

    def _title(self, name: str, *, is_main: bool) -> str:
        if name == _VALIDATION:
            entry = self._shown[0].entry if self._shown else None
            return f"validation {entry.validated[0]}" if entry and entry.validated else name
        weight = SMOOTHINGS[self._smoothing]
        notes = [f"smoothed {weight:g}" if weight else "raw"] if name in {"loss", "gradient norm", "pairs/s"} else []
        notes += ["log"] if self._is_log and name in {"loss", "gradient norm"} else []
        if is_main and self._window != (0.0, 1.0):
            notes.append(f"{100 * self._window[0]:.0f}-{100 * self._window[1]:.0f} %")
        return f"{name}  {'  '.join(notes)}".rstrip()

    def _boundaries(self, *, is_main: bool) -> tuple[tuple[float, str], ...]:
        if not self._shown or self._shown[0].entry.plan is None:
            return ()
        chain = self._shown[0].entry.plan.recipe.chain
        return tuple(
            (float(edge.at), chain[edge.stage] if is_main and edge.stage < len(chain) else "")
            for edge in self._shown[0].columns.boundaries
        )

    # keys

    def action_turn(self, by: int) -> None:
        """Put another curve into the large plot."""
        self._plot = (self._plot + by) % len(_PLOTS)
        self._draw()

    def action_smooth(self, by: int) -> None:
        """Smooth more or less."""
        self._smoothing = min(max(self._smoothing + by, 0), len(SMOOTHINGS) - 1)
        self._mark, self._is_unread = None, True
        self._read()

    def action_log(self) -> None:
        """Turn the upright axis logarithmic, or back."""
        self._is_log = not self._is_log
        self._draw()

    def action_zoom(self, by: float) -> None:
        """Show half or twice as much of the axis; zooming in keeps the newest steps where they are shown."""
        low, high = self._window
        size = min(1.0, max(1e-5, (high - low) * by))
        middle = high - size / 2 if high >= 1.0 else (low + high) / 2
        self._look_at(middle - size / 2, size)

    def action_pan(self, by: float) -> None:
        """Move along the axis."""
        low, high = self._window
        self._look_at(low + by * (high - low), high - low)

    def action_whole(self) -> None:
        """Show the whole axis again."""
        self._look_at(0.0, 1.0)

    def _look_at(self, low: float, size: float) -> None:
        low = min(max(low, 0.0), 1.0 - size)
        self._window = (low, low + size)
        self._draw()

    def exported(self) -> tuple[str, str] | None:
        """Return the readings as CSV."""
        if not self._shown:
            return None
        one = self._shown[0]
        columns = (Column("step", "step"), *(Column(name, name) for name in QUANTITIES))
        stride = max(1, len(one.columns.steps) // _EVERY)
        body = zip(
            one.columns.steps[::stride], *(one.columns.values[name][::stride] for name in QUANTITIES), strict=True
        )
        rows = tuple((int(step), *(float(value) for value in values)) for step, *values in body)
        return written([Table("readings", columns, rows)], "csv"), f"{one.entry.name}-readings.csv"


def _quantity(name: str) -> curves.Quantity:
    return next(quantity for quantity in QUANTITIES if quantity == name)


def _ready(entry: RunEntry, columns: Columns, weight: float) -> _CurvesView:
    """Return columns with their smoothed forms; a stage begins anew."""
    smooth: dict[str, Floats] = {}
    if weight:
        starts = np.searchsorted(columns.steps, [edge.at + 1 for edge in columns.boundaries]).tolist()
        for name in ("loss", "gradient norm", "pairs/s"):
            values = columns.values[_quantity(name)]
            smooth[name] = curves.smoothed(np.nan_to_num(values), weight, starts)
    return _CurvesView(entry, columns, smooth)


def _validated(curves_view: _CurvesView, colors: tuple[str, ...], key: str) -> list[PlotLine]:
    """Return the measures of the validations, the deciding one first; as many as there are colours."""
    rows = curves_view.columns.validations
    names = list(dict.fromkeys(name for _, row in rows for name in row.measures))
    if curves_view.entry.validated and curves_view.entry.validated[0] in names:
        names.remove(curves_view.entry.validated[0])
        names.insert(0, curves_view.entry.validated[0])
    out = []
    for place, name in reversed(list(enumerate(names[: min(3, len(colors))]))):
        found = [(step, row.measures[name]) for step, row in rows if name in row.measures]
        steps, values = np.array([step for step, _ in found]), np.array([value for _, value in found])
        letter = key or ("" if len(names) < 2 or len(colors) < 2 else _KEYS[place])
        out.append(PlotLine(steps, values, colors[place], has_points=True, key=letter))
    return out
