"""The list of runs: a row for each entry, of which only what changed is written again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import DataTable

from cerank.app.run_views.display import GLYPHS, clock, count, short
from cerank.app.run_views.run_monitor import RunEntry
from cerank.tui.cells import cell
from cerank.tui.theme import state_color


class RunColumn:
    """A column: `width` in cells; 0 shares what is left."""

    def __init__(self, key: str, width: int, show: Callable[[RunEntry], Text]) -> None:
        self.key = key
        self.width = width
        self.show = show


def _measure(pair: tuple[str, float] | None) -> Text:
    return cell(short(pair[1]) if pair else "", is_right=True)


def _title(entry: RunEntry) -> Text:
    if entry.status.state == "damaged":
        return cell(entry.title)
    tags = "".join(f" #{tag}" for tag in entry.notes.tags)
    return cell(entry.title + tags)


_RUN = RunColumn("run", 0, _title)
_RECIPE = RunColumn("recipe", 0, lambda entry: cell(entry.recipe if entry.plan else entry.why))
_BASE = RunColumn("base", 9, lambda entry: cell(entry.base))
_AT = RunColumn("at", 18, lambda entry: cell(entry.at or (entry.why if entry.plan else "")))
_AT_WITH_WHY = RunColumn("at", 18, lambda entry: cell(entry.at or entry.why))
_LEFT = RunColumn("left", 7, lambda entry: cell(clock(entry.seconds_left), is_right=True))
_RUN_LEFT = RunColumn("left", 10, lambda entry: cell(_left(entry), is_right=True))
_SPEED = RunColumn(
    "pairs/s", 7, lambda entry: cell(count(entry.pairs_per_second) if entry.is_live else "", is_right=True)
)
_DEV = RunColumn("dev", 5, lambda entry: _measure(entry.validated))
_TEST = RunColumn("test", 5, lambda entry: _measure(entry.final))

_WIDTH_STATE = 12
_AT_ONCE = 80  # rows added in one frame; some 15 ms


def columns_for(width: int) -> tuple[RunColumn, ...]:
    """Return which columns fit; the state comes first, always."""
    if width < 50:
        return (_RUN, RunColumn("at", 11, lambda entry: cell(_outcome(entry))))
    if width < 100:
        return (_RUN, _AT_WITH_WHY, _LEFT, _DEV, _TEST)
    return (_RUN, _RECIPE, _BASE, _AT, _LEFT if width < 140 else _RUN_LEFT, _SPEED, _DEV, _TEST)


def _left(entry: RunEntry) -> str:
    """Return the time left of a run, after the share of it that is done: "61% 4:07"."""
    share = "" if entry.run_share is None else f"{100 * entry.run_share:.0f}%"
    return f"{share} {clock(entry.seconds_left)}".strip()


def _outcome(entry: RunEntry) -> str:
    """Return where a run is, or its result, in 11 characters."""
    share = entry.share if entry.run_share is None else entry.run_share
    if share is not None:
        return f"{100 * share:.0f}% {clock(entry.seconds_left)}".strip()
    return f"test {short(entry.final[1])}" if entry.final else entry.at or entry.state


class RunTable(DataTable[Text]):
    """Runs, one highlighted, any number marked.

    Attributes:
        is_narrow: state as its sign alone, for a list beside something else.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "down", show=False, id="list.down"),
        Binding("k", "cursor_up", "up", show=False, id="list.up"),
        Binding("g", "scroll_top", "first", show=False, id="list.first"),
        Binding("G", "scroll_bottom", "last", show=False, id="list.last"),
    ]

    def __init__(self, *, is_narrow: bool = False, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(cursor_type="row", id=id, cell_padding=1, cursor_foreground_priority="renderable")
        self.is_narrow = is_narrow
        self._columns: tuple[RunColumn, ...] = ()
        self._shown: list[tuple[RunEntry, bool]] = []
        self._width = 0
        self._wish = ""  # the run that the cursor goes to once it is listed
        self._place: int | None = None  # where the cursor goes once that row is added
        self._kept: dict[str, tuple[RunEntry, bool, list[Text]]] = {}  # cells are dear: each is made once
        self._wanted: tuple[Sequence[RunEntry], frozenset[str]] = ((), frozenset())
        self.sorted_by = ("created", True)

    def on_resize(self, _: Resize) -> None:
        """Lay the columns out for a new width."""
        if self.size.width != self._width:
            self._width = self.size.width
            self._lay_out()
            self._fill(*self._wanted)

    @property
    def highlighted(self) -> RunEntry | None:
        """The entry under the cursor."""
        if self._place is not None and self._place < len(self._shown):
            return self._shown[self._place][0]
        return self._shown[self.cursor_row][0] if 0 <= self.cursor_row < min(len(self._shown), self.row_count) else None

    def show(self, entries: Sequence[RunEntry], marked: frozenset[str]) -> None:
        """Show these rows in this order; the cursor stays on its run."""
        self._wanted = (entries, marked)
        if self._columns:
            self._fill(entries, marked)

    def highlight(self, name: str) -> None:
        """Put the cursor on a run, at once or as soon as it is listed."""
        self._wish = name
        for place, (entry, _) in enumerate(self._shown):
            if entry.name == name:
                self._place, self._wish = place, ""
                self._add(self.row_count)

    def head(self, key: str, is_falling: bool) -> None:
        """Show by which column the rows are sorted."""
        if self.sorted_by != (key, is_falling):
            self.sorted_by = (key, is_falling)
            self._lay_out()
            self._fill(*self._wanted)

    def _lay_out(self) -> None:
        width = self.size.width
        if not width:
            return
        highlighted_name = self.highlighted.name if self.highlighted else ""
        self._columns = columns_for(width)
        first = 3 if self.is_narrow else _WIDTH_STATE
        free = width - 2 * (len(self._columns) + 1) - first - sum(column.width for column in self._columns) - 1
        flexible = [column for column in self._columns if not column.width]
        self.clear(columns=True)
        self._shown = []
        self._kept.clear()
        self.add_column(cell("" if self.is_narrow else self._headed("state")), width=first, key="state")
        for column in self._columns:
            share = max(8, free // len(flexible) + (free % len(flexible) if column is flexible[0] else 0))
            is_right = column.key in {"left", "pairs/s", "dev", "test"}
            self.add_column(
                cell(self._headed(column.key), is_right=is_right), width=column.width or share, key=column.key
            )
        self._fill(*self._wanted)
        self.highlight(highlighted_name)

    def _headed(self, key: str) -> str:
        by, is_falling = self.sorted_by
        return f"{key}{'▼' if is_falling else '▲'}" if by == key else key

    def _fill(self, entries: Sequence[RunEntry], marked: frozenset[str]) -> None:
        rows = [(entry, entry.name in marked) for entry in entries]
        if not self._columns:
            return
        if [entry.name for entry, _ in rows] == [entry.name for entry, _ in self._shown]:
            self._update(rows)
            return
        highlighted_name, line = self._wish or (self.highlighted.name if self.highlighted else ""), self.cursor_row
        names = [entry.name for entry, _ in rows]
        place = max(0, names.index(highlighted_name) if highlighted_name in names else min(line, len(names) - 1))
        self._wish = "" if highlighted_name in names else self._wish
        self._shown = rows
        with self.app.batch_update():
            self.clear()
            self._place = place
            self._add(_AT_ONCE)

    def _add(self, up_to: int) -> None:
        """Add rows up to a place now and the rest piece by piece, so that no frame waits for hundreds of them."""
        for entry, is_marked in self._shown[self.row_count : up_to]:
            self.add_row(*self._cells(entry, is_marked))
        if self._place is not None and self._place < self.row_count:
            self.move_cursor(row=self._place, animate=False)
            self._place = None
        if self.row_count < len(self._shown):
            shown = self._shown
            self.set_timer(0.01, lambda: self._add(self.row_count + _AT_ONCE) if shown is self._shown else None)

    def _update(self, rows: list[tuple[RunEntry, bool]]) -> None:
        for place, (new, old) in enumerate(zip(rows, self._shown, strict=True)):
            if (new[0] is old[0] and new[1] == old[1]) or place >= self.row_count:
                continue
            before_all = self._cells(*old)
            for column, (now, before) in enumerate(zip(self._cells(*new), before_all, strict=True)):
                if now != before or now.style != before.style:
                    self.update_cell_at((place, column), now)  # type: ignore[arg-type]  # it takes any pair of ints
        self._shown[:] = rows  # the same list, for rows that are still to be added

    def _cells(self, entry: RunEntry, is_marked: bool) -> list[Text]:
        cached = self._kept.get(entry.name)
        if cached is None or cached[0] is not entry or cached[1] != is_marked:
            cached = self._kept[entry.name] = (entry, is_marked, self._made(entry, is_marked))
        return cached[2]

    def _made(self, entry: RunEntry, is_marked: bool) -> list[Text]:
        color = state_color(entry.state, is_dark=self.app.current_theme.dark)
        sign = ("●" if is_marked else " ") + GLYPHS[entry.state]
        state = cell(sign if self.is_narrow else f"{sign} {entry.state}", color)
        cells = [state, *(column.show(entry) for column in self._columns)]
        if entry.state == "damaged":
            for text in cells:
                text.style = color
        return cells
