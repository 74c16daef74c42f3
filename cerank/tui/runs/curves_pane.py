"""The curves of a run, all stages on one axis, with those of the marked runs over them.

Invariant: no line joins two stages, for their losses are different quantities; every series has its name in the legend.
"""

from __future__ import annotations

import itertools
from typing import ClassVar, NamedTuple

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from cerank.app.run_views import curves, run_list
from cerank.app.run_views.curves import QUANTITIES, SMOOTHINGS, Columns, Curves, Floats
from cerank.app.run_views.display import count, short
from cerank.app.run_views.run_monitor import RunEntry
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table, written
from cerank.tui.cells import content, joined, stacked
from cerank.tui.common.form_fields import LineInput
from cerank.tui.runs.plot import CurvePlot, Frame, PlotLine, tick_text
from cerank.tui.runs.run_pane import RunPane
from cerank.tui.theme import palette

_VALIDATION = "validation"
_PLOTS = ("loss", _VALIDATION, "learning rate", "gradient norm", "pairs/s")
_LOSSES, _COSINES = "losses", "gradient cosines"  # of stages that train several losses
_SMOOTHED = ("loss", "gradient norm", "pairs/s")
_LETTERS = "abcdefgh"
MOST_RUNS = 8  # over each other
MOST_EXPORTED = 200_000  # readings; of more, one in so many is written


class CurvesView(NamedTuple):
    """A run's curves, ready to draw."""

    entry: RunEntry
    columns: Columns
    smooth: dict[str, Floats]


class Series(NamedTuple):
    """What one color stands for: a measure or a quantity of a run, piece by piece of its stages."""

    name: str
    place: int  # index of its color and letter
    pieces: tuple[tuple[Floats, Floats], ...]  # steps and values, a piece for each stage
    starts: tuple[bool, ...] = ()  # of validations: whether a piece begins with the model that its stage started from
    has_fresh_head: bool = False  # the newest stage started with one, so its first value is noise

    def at(self, step: float) -> float | None:
        """Return the value at the last point up to a step; None before the first."""
        value = None
        for steps, values in self.pieces:
            index = int(np.searchsorted(steps, step, "right")) - 1
            value = float(values[index]) if index >= 0 else value
        return value

    @property
    def last(self) -> float | None:
        """The newest value."""
        return next((float(values[-1]) for _, values in reversed(self.pieces) if len(values)), None)

    @property
    def start(self) -> float | None:
        """The value that the newest stage started from; None where it was not measured."""
        return float(self.pieces[-1][1][0]) if self.starts and self.starts[-1] else None

    @property
    def best(self) -> tuple[float, float] | None:
        """The largest value after a step of training, with its step; a stage never hands on what it started from."""
        firsts = [int(is_start) for is_start in self.starts] or [0] * len(self.pieces)
        trained = [(at[first:], values[first:]) for first, (at, values) in zip(firsts, self.pieces, strict=True)]
        points = [(float(values.max()), float(at[values.argmax()])) for at, values in trained if len(values)]
        return max(points, key=lambda point: (point[0], -point[1])) if points else None


class CurvesPane(RunPane):
    """One large plot and, where there is room, the other four in small."""

    DEFAULT_CSS = """
    CurvesPane #legend { height: auto; max-height: 3; padding: 0 1; }
    CurvesPane #main { height: 2fr; }
    CurvesPane Grid { grid-size: 2 2; height: 16; display: none; }
    CurvesPane #filter-row { height: auto; display: none; background: $surface; }
    CurvesPane #filter-row.-open { display: block; }
    CurvesPane #filtered { height: 1; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter charts", key_display="/", id="curves.filter", show=False,
                tooltip="Show only the charts whose name contains one of the words that you type"),
        Binding("escape", "clear", "clear the filter", id="curves.clear", show=False,
                tooltip="Show all charts again"),
        Binding("p", "turn(1)", "next curve", id="curves.next", tooltip="loss, validation, rate, gradient, speed"),
        Binding("i", "inspect", "read values", id="curves.inspect", tooltip="Move a line over the curves with ← and →"),
        Binding("right_square_bracket", "smooth(1)", "more smoothing", key_display="]", id="curves.smoother",
                show=False),
        Binding("left_square_bracket", "smooth(-1)", "less smoothing", key_display="[", id="curves.rawer", show=False),
        Binding("L", "log", "log axis", id="curves.log", show=False),
        Binding("plus,equals_sign", "zoom(0.5)", "zoom in", key_display="+", id="curves.in", show=False,
                tooltip="The mouse's wheel does so, too"),
        Binding("minus", "zoom(2)", "zoom out", key_display="-", id="curves.out", show=False),
        Binding("0", "show_all", "the whole axis", id="curves.all", show=False),
        Binding("left", "left", "earlier", id="curves.left", show=False),
        Binding("right", "right", "later", id="curves.right", show=False),
    ]  # fmt: skip
    can_focus = True

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._curves: dict[str, Curves] = {}
        self._shown: list[CurvesView] = []
        self._drawn_state: object = None
        self._places: dict[str, int] = {}  # run -> its color and letter, kept as long as it is shown
        self._plot = 0
        self._smoothing = SMOOTHINGS.index(0.9)
        self._is_log = False
        self._window = (0.0, 1.0)
        self._cursor: float | None = None  # the step whose values are read off
        self._is_inspecting = False
        self._is_reading = False
        self._is_unread = True
        self._filter = ""

    def compose(self) -> ComposeResult:
        """Lay out the filter, legend, the large plot, the small ones."""
        with Vertical(id="filter-row"):
            yield LineInput(placeholder="part of a chart's name, such as: loss grad", id="filter")
            yield Static(id="filtered")
        yield Static(id="legend")
        yield CurvePlot(id="main")
        with Grid():
            for place in range(4):
                yield CurvePlot(id=f"small-{place}")

    # reading

    def clear_entry(self) -> None:
        """Forget what belongs to the run shown before; curves that were read already are kept."""
        self._drawn_state, self._shown, self._window, self._cursor = None, [], (0.0, 1.0), None
        self._is_unread = True
        self._draw()

    def update_entry(self, entry: RunEntry) -> None:
        """Read on where there may be something new."""
        names = self._names(entry)
        if set(names) - {shown.entry.name for shown in self._shown} or len(names) != len(self._shown):
            self._is_unread = True
        if self._is_unread or self.is_changed or any(known.is_live for known in self._entries(names)):
            self._read()

    def _names(self, entry: RunEntry) -> list[str]:
        marked = [name for name in self.lab_app.marked if name != entry.name]
        return [entry.name, *marked][:MOST_RUNS]

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

        def job() -> tuple[list[CurvesView], bool]:
            is_more = False
            for entry in reversed(entries):
                is_more = sources[entry.name].read(0.25) or is_more
            return [_ready(entry, sources[entry.name].columns, weight) for entry in entries], is_more

        self.lab_app.run_in_thread(job, self._receive, node=self, group="curves", last=self._after_reading)

    def _after_reading(self) -> None:
        self._is_reading = False
        if self._is_unread and self.is_attached and self.entry is not None:
            self._read()

    def _receive(self, outcome: tuple[list[CurvesView], bool]) -> None:
        views, self._is_unread = outcome
        if self.entry is None or not views or views[0].entry.name != self.entry.name:
            self._is_unread = True
            return
        names = [view.entry.name for view in views]
        self._places = {name: place for name, place in self._places.items() if name in names}
        for name in names:
            free = (place for place in range(MOST_RUNS) if place not in self._places.values())
            self._places.setdefault(name, next(free))
        state = [
            (view.entry.name, view.entry.title, len(view.columns.steps), len(view.columns.validations))
            for view in views
        ]
        if state != self._drawn_state:
            self._drawn_state, self._shown = state, views
            self._draw()

    # drawing

    def _draw(self) -> None:
        order = self._order()
        self.set_class(len(order) < 2, "-single")
        if not order:
            self.query_one("#main", CurvePlot).show(
                Frame(empty=f"no chart matches; there are {', '.join(self._plots())}")
            )
            self.query_one("#legend", Static).update(content(""))
            return
        series = self._series(order[0])
        self.query_one("#main", CurvePlot).show(self._frame(order[0], series, is_main=True))
        if self.screen.has_class("-tall") and self.screen.has_class("-wide"):
            for place in range(len(_PLOTS) - 1):
                small = self.query_one(f"#small-{place}", CurvePlot)
                small.display = place + 1 < len(order)
                if small.display:
                    name = order[place + 1]
                    small.show(self._frame(name, self._series(name), is_main=False))
        self.query_one("#legend", Static).update(self._legend(order[0], series))

    def _plots(self) -> tuple[str, ...]:
        """Return the charts that there are: two more where a run that is shown trains several losses."""
        has_losses = any(view.columns.losses for view in self._shown)
        has_cosines = any(view.columns.cosines for view in self._shown)
        return (*_PLOTS, *([_LOSSES] if has_losses else []), *([_COSINES] if has_cosines else []))

    def _order(self) -> list[str]:
        """Return the charts that the filter lets through, that of the large plot first."""
        plots = self._plots()
        order = [*plots[self._plot :], *plots[: self._plot]]
        filter_words = self._filter.casefold().split()
        return [name for name in order if not filter_words or any(word in name.casefold() for word in filter_words)]

    def on_resize(self) -> None:
        """Draw the small plots, which may have become visible."""
        self._draw()

    def _series(self, name: str) -> list[Series]:
        """Return the series of a plot: the measures of one run's validations, or a quantity of each run."""
        if name == _VALIDATION:
            if len(self._shown) == 1:
                return _validated(self._shown[0], most=3)
            return [
                measure._replace(name=view.entry.short_name or view.entry.name, place=self._places[view.entry.name])
                for view in self._shown
                for measure in _validated(view, most=1)
            ]
        if name in {_LOSSES, _COSINES}:
            many = len(self._shown) > 1
            drawn = [
                (f"{view.entry.short_name or view.entry.name}: {part}" if many else part, view, values)
                for view in self._shown
                for part, values in (view.columns.losses if name == _LOSSES else view.columns.cosines).items()
            ]
            return [
                Series(title, place, _read_pieces(view, values))
                for place, (title, view, values) in enumerate(drawn[:MOST_RUNS])
            ]
        return [
            Series(
                name if len(self._shown) == 1 else view.entry.short_name or view.entry.name,
                self._places[view.entry.name],
                _pieces(view, view.smooth.get(name, view.columns.values[_quantity(name)])),
            )
            for view in self._shown
        ]

    def _legend(self, name: str, series: list[Series]) -> Content:
        """Return the name of every series in its color, with its values at the cursor, or its newest and best."""
        colors = palette(is_dark=self.app.current_theme.dark)
        items: list[Content] = []
        if self._cursor is not None and series:
            items.append(content(f"step {self._cursor:,.0f}", "bold"))
        differs = run_list.distinctions([view.entry for view in self._shown]) if len(self._shown) > 1 else {}
        by_name = {view.entry.short_name or view.entry.name: differs.get(view.entry.name, "") for view in self._shown}
        for line in series:
            letter = f"{_LETTERS[line.place]} " if len(series) > 1 else ""
            value = line.last if self._cursor is None else line.at(self._cursor)
            text = _value_text(name, value)
            if name == _VALIDATION and self._cursor is None:
                fresh = ", a fresh head" if line.has_fresh_head else ""
                parts = [f"start {short(line.start)}{fresh}"] if line.start is not None else []
                parts += [f"best {short(line.best[0])} at {line.best[1]:,.0f}"] if line.best is not None else []
                text += f" ({'; '.join(parts)})" if parts else ""
            what = f" ({by_name[line.name]})" if by_name.get(line.name) else ""
            items.append(joined((f"{letter}{line.name}{what} ", f"bold {colors[line.place]}"), text))
        if len(self._shown) < 2 and self._cursor is None:
            items.append(content("space on another run overlays it", "dim"))
        return _in_lines(items, (self.size.width or self.app.size.width) - 2)

    def _frame(self, name: str, series: list[Series], *, is_main: bool) -> Frame:
        colors = palette(is_dark=self.app.current_theme.dark)
        lines: list[PlotLine] = []
        if name in _SMOOTHED and len(self._shown) == 1 and name in self._shown[0].smooth:
            view = self._shown[0]
            raw = _pieces(view, view.columns.values[_quantity(name)])
            lines += [PlotLine(steps, values, colors[series[0].place], is_faint=True) for steps, values in raw]
        for line in reversed(series if is_main or name != _VALIDATION or len(self._shown) > 1 else series[:1]):
            letter = _LETTERS[line.place] if (len(series) > 1 and is_main) or len(self._shown) > 1 else ""
            for at, (steps, values) in enumerate(line.pieces):
                key = letter if at == len(line.pieces) - 1 else ""
                lines.append(
                    PlotLine(steps, values, colors[line.place], has_points=name in {_VALIDATION, _COSINES}, key=key)
                )
        return Frame(
            title=self._title(name, is_main=is_main),
            lines=tuple(lines),
            boundaries=self._boundaries(is_main=is_main),
            window=self._window,
            is_log=self._is_log and name in {"loss", "gradient norm", _LOSSES},
            empty="no validation yet" if name == _VALIDATION else "no training step yet",
            cursor=self._cursor,
        )

    def _title(self, name: str, *, is_main: bool) -> str:
        if name == _VALIDATION:
            entry = self._shown[0].entry if self._shown else None
            is_one = not is_main or len(self._shown) > 1
            return f"validation {entry.validated[0]}" if entry and entry.validated and is_one else name
        weight = SMOOTHINGS[self._smoothing]
        notes = [f"smoothed {weight:g}" if weight else "raw"] if name in _SMOOTHED else []
        notes += ["log"] if self._is_log and name in {"loss", "gradient norm"} else []
        if is_main and self._window != (0.0, 1.0):
            notes.append(f"{100 * self._window[0]:.0f}-{100 * self._window[1]:.0f} % of the steps")
        return f"{name}  {'  '.join(notes)}".rstrip()

    def _boundaries(self, *, is_main: bool) -> tuple[tuple[float, str], ...]:
        if not self._shown or self._shown[0].entry.plan is None:
            return ()
        chain = self._shown[0].entry.plan.recipe.chain
        return tuple(
            (float(edge.at), chain[edge.stage] if is_main and edge.stage < len(chain) else "")
            for edge in self._shown[0].columns.boundaries
        )

    # keys and mouse

    def action_turn(self, by: int) -> None:
        """Put another curve into the large plot."""
        order = self._order()
        if order:
            self._plot = self._plots().index(order[by % len(order)])
            self._draw()

    def action_filter(self) -> None:
        """Open the filter of charts."""
        self.query_one("#filter-row").add_class("-open")
        self.query_one("#filter", Input).focus()
        self._tell_filtered()
        self.refresh_bindings()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the charts whose name matches, while one types."""
        event.stop()
        self._filter = event.value
        order = self._order()
        if order:
            self._plot = self._plots().index(order[0])
        self._draw()
        self._tell_filtered()

    def _tell_filtered(self) -> None:
        text = f"{len(self._order())} of {counted(len(self._plots()), 'chart')}; esc shows all"
        self.query_one("#filtered", Static).update(content(text))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the curves; an empty filter closes."""
        event.stop()
        if self._filter.strip():
            self.focus()
        else:
            self._close_filter()

    def action_clear(self) -> None:
        """Close the filter and show all charts again."""
        self.query_one("#filter", Input).value = ""
        self._close_filter()

    def _close_filter(self) -> None:
        self.query_one("#filter-row").remove_class("-open")
        self.focus()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's
        """Leave esc to the screen while the filter is closed."""
        return action != "clear" or self.query_one("#filter-row").has_class("-open")

    def action_smooth(self, by: int) -> None:
        """Smooth more or less."""
        self._smoothing = min(max(self._smoothing + by, 0), len(SMOOTHINGS) - 1)
        self._drawn_state, self._is_unread = None, True
        self._read()

    def action_log(self) -> None:
        """Turn the upright axis logarithmic, or back."""
        self._is_log = not self._is_log
        self._draw()

    def action_inspect(self) -> None:
        """Put a line at the newest step whose values the legend shows, or remove it."""
        self._is_inspecting = not self._is_inspecting
        steps = self._steps()
        self._cursor = float(steps[-1]) if self._is_inspecting and len(steps) else None
        self._draw()

    def _steps(self) -> Floats:
        """Return the steps at which the main plot has points."""
        if not self._shown:
            return np.empty(0)
        if self._plots()[self._plot % len(self._plots())] == _VALIDATION:
            # where a stage ends and the next one starts, two validations have one place
            return np.array(sorted({step for step, _ in self._shown[0].columns.validations}))
        return self._shown[0].columns.steps

    def _move_cursor(self, by: int) -> None:
        steps = self._steps()
        if self._cursor is None or not len(steps):
            return
        at = int(np.searchsorted(steps, self._cursor, "right")) - 1
        self._cursor = float(steps[min(max(at + by, 0), len(steps) - 1)])
        self._draw()

    def action_left(self) -> None:
        """Move the line to the point before, or the window a quarter back."""
        self._move_cursor(-1) if self._is_inspecting else self._pan(-0.25)

    def action_right(self) -> None:
        """Move the line to the next point, or the window a quarter on."""
        self._move_cursor(1) if self._is_inspecting else self._pan(0.25)

    def on_curve_plot_pointed(self, event: CurvePlot.Pointed) -> None:
        """Show the values under the pointer."""
        event.stop()
        if not self._is_inspecting and event.step != self._cursor:
            self._cursor = event.step
            self._draw()

    def on_curve_plot_scrolled(self, event: CurvePlot.Scrolled) -> None:
        """Zoom about the pointer; at the right end, the newest steps stay in sight."""
        event.stop()
        low, high = self._window
        size = min(1.0, max(1e-5, (high - low) * (0.8 if event.by < 0 else 1.25)))
        share = 1.0 if high >= 1.0 and event.share > 0.9 else event.share
        self._look_at(low + share * (high - low - size), size)

    def action_zoom(self, by: float) -> None:
        """Show half or twice as much of the axis; zooming in keeps the newest steps where they are shown."""
        low, high = self._window
        size = min(1.0, max(1e-5, (high - low) * by))
        middle = high - size / 2 if high >= 1.0 else (low + high) / 2
        self._look_at(middle - size / 2, size)

    def _pan(self, by: float) -> None:
        low, high = self._window
        self._look_at(low + by * (high - low), high - low)

    def action_show_all(self) -> None:
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
        view = self._shown[0]
        values: dict[str, Floats] = {name: view.columns.values[name] for name in QUANTITIES}
        values |= {f"loss: {name}": each for name, each in view.columns.losses.items()}
        values |= {f"cosine: {name}": each for name, each in view.columns.cosines.items()}
        columns = (Column("step", "step"), *(Column(name, name) for name in values))
        stride = max(1, len(view.columns.steps) // MOST_EXPORTED)
        body = zip(view.columns.steps[::stride], *(each[::stride] for each in values.values()), strict=True)
        rows = tuple((int(step), *(float(value) for value in values)) for step, *values in body)
        return written([Table("readings", columns, rows)], "csv"), f"{view.entry.name}-readings.csv"


def _in_lines(items: list[Content], width: int) -> Content:
    """Return items side by side, each whole, in as many lines as they need."""
    lines: list[Content] = []
    for item in items:
        if lines and lines[-1].cell_length + 3 + item.cell_length <= width:
            lines[-1] = lines[-1] + content("   ") + item
        else:
            lines.append(item)
    return stacked(*lines)


def _quantity(name: str) -> curves.Quantity:
    return next(quantity for quantity in QUANTITIES if quantity == name)


def _value_text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return short(value) if name == _VALIDATION else count(value) if name == "pairs/s" else tick_text(value)


def _ready(entry: RunEntry, columns: Columns, weight: float) -> CurvesView:
    """Return columns with their smoothed forms; a stage begins anew."""
    smooth: dict[str, Floats] = {}
    if weight:
        starts = np.searchsorted(columns.steps, [edge.at + 1 for edge in columns.boundaries]).tolist()
        for name in _SMOOTHED:
            values = columns.values[_quantity(name)]
            smooth[name] = curves.smoothed(np.nan_to_num(values), weight, starts)
    return CurvesView(entry, columns, smooth)


def _pieces(view: CurvesView, values: Floats) -> tuple[tuple[Floats, Floats], ...]:
    """Return steps and values cut where stages begin."""
    steps = view.columns.steps
    starts = np.searchsorted(steps, [edge.at + 1 for edge in view.columns.boundaries]).tolist()
    edges = sorted({0, len(steps), *starts})
    return tuple((steps[low:high], values[low:high]) for low, high in itertools.pairwise(edges))


def _read_pieces(view: CurvesView, values: Floats) -> tuple[tuple[Floats, Floats], ...]:
    """Return steps and values cut where stages begin, without steps at which there is no value."""
    pieces = ((steps[np.isfinite(part)], part[np.isfinite(part)]) for steps, part in _pieces(view, values))
    return tuple((steps, part) for steps, part in pieces if len(steps))


def _validated(view: CurvesView, most: int) -> list[Series]:
    """Return the measures of a run's validations, the deciding one first, a piece for each stage."""
    rows = view.columns.validations
    names = list(dict.fromkeys(name for _, row in rows for name in row.measures))
    if view.entry.validated and view.entry.validated[0] in names:
        names.remove(view.entry.validated[0])
        names.insert(0, view.entry.validated[0])
    series = []
    for place, name in enumerate(names[:most]):
        pieces, starts, is_fresh = [], [], False
        for stage in dict.fromkeys(row.stage for _, row in rows):
            known = [(step, row) for step, row in rows if row.stage == stage and name in row.measures]
            if known:
                pieces.append((np.array([at for at, _ in known]), np.array([row.measures[name] for _, row in known])))
                starts.append(known[0][1].step == 0)
                is_fresh = known[0][1].fresh_head
        series.append(Series(name, place, tuple(pieces), tuple(starts), is_fresh))
    return series
