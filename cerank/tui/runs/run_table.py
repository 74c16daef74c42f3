"""The list of runs: a row for each entry, of which only what changed is written again.

Invariant: columns are shown whole or not at all; no figure, id or word in them is ever cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.message import Message
from textual.widgets import DataTable

from cerank.app.run_views import display
from cerank.app.run_views.display import GLYPHS, at_words, clock, count, short
from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.run_views.seed_groups import RunSettings, mean_and_sd
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, fitting
from cerank.tui.cells import cell
from cerank.tui.comparison.comparison_table import VERDICTS
from cerank.tui.theme import state_color

_LONGEST_TEXT = 36  # cells of a label or a reason; what is longer ends with a whole word and "…"
_SHORT_TEXT = 20  # the same below 100 columns
_WORTH_SIGNS = {"worth it": "▲", "not worth it": "=", "not worse": "=", "harmful": "▼"}
_AT_ONCE = 80  # rows added in one frame; some 15 ms
_SAME_THROUGHOUT = 20  # added to the priority of a column whose rows all say the same: it goes first


class RunColumn(NamedTuple):
    """A column of the list. The column with the highest priority goes first where there is no room; 0 always stays."""

    key: str  # by which `run_list.ordered` sorts
    priority: int
    text_of: Callable[[RunEntry], str]
    is_right: bool = False


def _label(entry: RunEntry) -> str:
    return " ".join(part for part in (entry.label, *(f"#{tag}" for tag in entry.notes.tags)) if part)


def _seed(entry: RunEntry) -> str:
    if entry.seeds:
        return counted(len(entry.seeds), "seed")
    return "" if entry.seed is None else str(entry.seed)


def _now(entry: RunEntry) -> str:
    if entry.seeds:
        done = sum(run.state == "finished" for run in entry.seeds)
        return f"{done} of {len(entry.seeds)} finished" if done < len(entry.seeds) else ""
    return entry.at or entry.why


def _verdict(entry: RunEntry) -> str:
    """Return the verdict on the last stage, with its sign."""
    if entry.verdict is None:
        return ""
    text = entry.verdict.verdict
    sign = _WORTH_SIGNS.get(text) or VERDICTS.get(text, ("", ""))[0]
    return f"{sign} {text}".strip()


def _left(entry: RunEntry) -> str:
    """Return the time left of a run, after the share of it that is done: "61% 4:07"."""
    share = "" if entry.run_share is None else f"{100 * entry.run_share:.0f}%"
    return f"{share} {clock(entry.seconds_left)}".strip()


def _outcome(entry: RunEntry) -> str:
    """Return where a run is, or its result, in a few characters."""
    share = entry.share if entry.run_share is None else entry.run_share
    if share is not None:
        return f"{100 * share:.0f}% {clock(entry.seconds_left)}".strip()
    return short(entry.final[1]) if entry.final else entry.at or entry.state


COLUMNS = (
    RunColumn("state", 0, lambda entry: entry.state),
    RunColumn("run", 0, lambda entry: entry.short_name or entry.name),
    RunColumn("verdict", 4, _verdict),
    RunColumn("label", 5, _label),
    RunColumn("recipe", 8, lambda entry: entry.recipe),
    RunColumn("base", 9, lambda entry: entry.base),
    RunColumn("seed", 6, _seed, is_right=True),
    RunColumn("age", 7, lambda entry: display.age(entry.created, display.now()), is_right=True),
    RunColumn("now", 1, _now),
    RunColumn("left", 2, _left, is_right=True),
    RunColumn(
        "pairs/s", 10, lambda entry: count(entry.pairs_per_second) if entry.pairs_per_second else "", is_right=True
    ),
    RunColumn("valid", 3, lambda entry: short(entry.validated[1]) if entry.validated else "", is_right=True),
    RunColumn("test", 2, lambda entry: mean_and_sd(entry.runs), is_right=True),
)


def _setting_column(key: str, place: int, settings: RunSettings) -> RunColumn:
    return RunColumn(key, 11 + place, lambda entry: settings.of(entry).get(key, ""), is_right=True)


_NARROW = (
    RunColumn("state", 0, lambda _: ""),
    RunColumn("run", 0, lambda entry: entry.short_name or entry.name),
    RunColumn("now", 1, _outcome),
)


class _MadeRow(NamedTuple):
    """The cells of a run in one state, and how wide each is."""

    entry: RunEntry
    is_marked: bool
    cells: list[Text]
    widths: list[int]


class RunTable(DataTable[Text]):
    """Runs, one highlighted, any number marked.

    Attributes:
        is_narrow: state as its sign alone, for a list beside something else.
        hidden: headings of the columns for which there is no room.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "down", show=False, id="list.down"),
        Binding("k", "cursor_up", "up", show=False, id="list.up"),
        Binding("g", "scroll_top", "first", show=False, id="list.first"),
        Binding("G", "scroll_bottom", "last", show=False, id="list.last"),
    ]

    class ColumnsChanged(Message):
        """Other columns have room now."""

        def __init__(self, hidden: tuple[str, ...]) -> None:
            super().__init__()
            self.hidden = hidden

    def __init__(self, *, is_narrow: bool = False, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(cursor_type="row", id=id, cell_padding=1, cursor_foreground_priority="renderable")
        self.is_narrow = is_narrow
        self.hidden: tuple[str, ...] = ()
        self.sorted_by = self._headed_by = ("age", True)
        self._all_columns: tuple[RunColumn, ...] = _NARROW if is_narrow else COLUMNS
        self._unwanted: frozenset[str] = frozenset()  # columns that the user hid
        self._places: list[int] = []  # indexes of the columns that are shown
        self._widths: list[int] = []  # widths of all columns, in cells
        self._rows: list[tuple[RunEntry, bool]] = []
        self._width = 0
        self._to_highlight = ""  # the run that the cursor goes to once it is listed
        self._place: int | None = None  # where the cursor goes once that row is added
        self._cells: dict[str, _MadeRow] = {}  # making a cell takes time: each is made once

    def on_mount(self) -> None:
        """Draw rows anew when the theme changes, for states have colors of their own."""
        self.watch(self.app, "theme", self._theme_changed, init=False)

    def _theme_changed(self) -> None:
        self._cells.clear()
        self._lay_out()

    def on_resize(self, _: Resize) -> None:
        """Lay the columns out for a new width."""
        if self.size.width != self._width:
            self._width = self.size.width
            self._cells.clear()
            self._lay_out()

    @property
    def listed(self) -> tuple[RunEntry, ...]:
        """The entries in the order of the rows."""
        return tuple(entry for entry, _ in self._rows)

    @property
    def offered(self) -> list[str]:
        """The columns among which the user may choose."""
        return [column.key for column in self._all_columns if column.priority]

    @property
    def highlighted(self) -> RunEntry | None:
        """The entry under the cursor."""
        if self._place is not None and self._place < len(self._rows):
            return self._rows[self._place][0]
        return self._rows[self.cursor_row][0] if 0 <= self.cursor_row < min(len(self._rows), self.row_count) else None

    def highlight(self, name: str) -> None:
        """Put the cursor on a run, at once or as soon as it is listed."""
        self._to_highlight = name
        for place, (entry, _) in enumerate(self._rows):
            if entry.name == name:
                self._place, self._to_highlight = place, ""
                self._add_rows(self.row_count)

    def hide_columns(self, keys: Sequence[str]) -> None:
        """Leave out the columns that the user does not want."""
        if self._unwanted != frozenset(keys):
            self._unwanted = frozenset(keys)
            self._lay_out()

    def show_settings(self, keys: Sequence[str], settings: RunSettings) -> None:
        """Show these settings of the recipes, each in a column after the others; they go first where room is short."""
        if list(keys) == [column.key for column in self._all_columns[len(COLUMNS) :]]:
            return
        self._all_columns = (*COLUMNS, *(_setting_column(key, place, settings) for place, key in enumerate(keys)))
        self._cells.clear()
        self._lay_out()

    def sort_by(self, key: str, *, is_falling: bool) -> None:
        """Show in the headings by which column the rows are sorted, once they are shown in that order."""
        self.sorted_by = (key, is_falling)

    def show(self, entries: Sequence[RunEntry], marked: frozenset[str]) -> None:
        """Show these rows in this order; the cursor stays on its run."""
        rows = [(entry, entry.name in marked) for entry in entries]
        before = self._rows
        is_same_order = [entry.name for entry, _ in rows] == [entry.name for entry, _ in before]
        are_same = is_same_order and all(new[0] is old[0] for new, old in zip(rows, before, strict=True))
        if self.sorted_by != self._headed_by or (not are_same and self._measured(rows) != self._widths):
            self._lay_out(rows)
        elif is_same_order:
            self._update(rows)
        else:
            self._fill(rows)

    # columns

    def _headings(self, rows: Sequence[tuple[RunEntry, bool]]) -> list[str]:
        """Return a heading for each column; a measure's is its name where all runs have the same."""
        by, is_falling = self.sorted_by
        names = {
            "test": _only([entry.final[0] for entry, _ in rows if entry.final]),
            "valid": _only([entry.validated[0] for entry, _ in rows if entry.validated]),
        }
        if names["valid"]:
            names["valid"] = "valid." if names["valid"] == names["test"] else f"valid. {names['valid']}"
        names["test"] = names["test"] or "test"
        names["valid"] = names["valid"] or "valid."
        headings = []
        for column in self._all_columns:
            own = column.key.removeprefix("stages.")
            heading = "" if self.is_narrow and column.key == "state" else names.get(column.key, own)
            headings.append(f"{heading}{'▼' if is_falling else '▲'}" if column.key == by and heading else heading)
        return headings

    def _measured(self, rows: Sequence[tuple[RunEntry, bool]]) -> list[int]:
        """Return the cells that each column needs; 0 where no row has anything to say."""
        sizes = [self._made(entry, is_marked).widths for entry, is_marked in rows]
        widths = []
        for place, heading in enumerate(self._headings(rows)):
            longest = max((row[place] for row in sizes), default=0)
            is_always = self._all_columns[place].priority == 0 or not sizes
            widths.append(max(longest, len(heading)) if longest or is_always else 0)
        return widths

    def _lay_out(self, rows: list[tuple[RunEntry, bool]] | None = None) -> None:
        """Choose the columns that fit and write everything anew."""
        if not self._width:
            self._rows = self._rows if rows is None else rows
            return
        highlighted = self.highlighted
        self._rows = rows = self._rows if rows is None else rows
        self._widths = self._measured(rows)
        self._headed_by = self.sorted_by
        headings = self._headings(rows)
        used = [
            place
            for place, width in enumerate(self._widths)
            if width and self._all_columns[place].key not in self._unwanted
        ]
        columns = [
            Column(self._all_columns[place].key, headings[place], priority=self._priority(place)) for place in used
        ]
        gap = 2 * self.cell_padding
        room = self._width - gap - 1  # one for the scrollbar
        fitting_places = fitting(columns, [self._widths[place] for place in used], room, gap)
        self._places = [used[place] for place in fitting_places]
        hidden = tuple(headings[place].rstrip("▼▲") for place in used if place not in self._places)
        self.clear(columns=True)
        for place in self._places:
            column = self._all_columns[place]
            self.add_column(cell(headings[place], is_right=column.is_right), width=self._widths[place], key=column.key)
        self._rows = []
        self._fill(rows)
        if highlighted is not None and not self._to_highlight:
            self.highlight(highlighted.name)
        if hidden != self.hidden:
            self.hidden = hidden
            self.post_message(self.ColumnsChanged(hidden))

    def _priority(self, place: int) -> int:
        """Return a column's priority; one that does not tell the runs apart goes before all that do."""
        column = self._all_columns[place]
        if column.key in {"recipe", "base", "seed"} and len(self._rows) > 1:
            texts = {self._made(entry, is_marked).cells[place].plain for entry, is_marked in self._rows}
            return column.priority + (_SAME_THROUGHOUT if len(texts) == 1 else 0)
        return column.priority

    # rows

    def _fill(self, rows: list[tuple[RunEntry, bool]]) -> None:
        if not self._places:
            self._rows = rows
            return
        highlighted = self.highlighted.name if self.highlighted else ""
        name, line = self._to_highlight or highlighted, self.cursor_row
        names = [entry.name for entry, _ in rows]
        place = max(0, names.index(name) if name in names else min(line, len(names) - 1))
        self._to_highlight = "" if name in names else self._to_highlight
        self._rows = rows
        with self.app.batch_update():
            self.clear()
            self._place = place
            self._add_rows(_AT_ONCE)

    def _add_rows(self, up_to: int) -> None:
        """Add rows up to a place now and the rest piece by piece, so that no frame waits for hundreds of them."""
        for entry, is_marked in self._rows[self.row_count : up_to]:
            self.add_row(*self._shown_cells(entry, is_marked))
        if self._place is not None and self._place < self.row_count:
            self.move_cursor(row=self._place, animate=False)
            self._place = None
        if self.row_count < len(self._rows):
            rows = self._rows
            self.set_timer(0.01, lambda: self._add_rows(self.row_count + _AT_ONCE) if rows is self._rows else None)

    def _update(self, rows: list[tuple[RunEntry, bool]]) -> None:
        for place, (new, old) in enumerate(zip(rows, self._rows, strict=True)):
            if (new[0] is old[0] and new[1] == old[1]) or place >= self.row_count:
                continue
            shown: list[Text] = self.get_row_at(place)
            for column, (now, before) in enumerate(zip(self._shown_cells(*new), shown, strict=True)):
                if now != before or now.style != before.style:
                    self.update_cell_at((place, column), now)  # type: ignore[arg-type]  # it takes any pair of ints
        self._rows[:] = rows  # the same list, for rows that are still to be added

    def _shown_cells(self, entry: RunEntry, is_marked: bool) -> list[Text]:
        cells = self._made(entry, is_marked).cells
        return [cells[place] for place in self._places]

    def _made(self, entry: RunEntry, is_marked: bool) -> _MadeRow:
        """Return a cell for each column, made once for each state of a run."""
        cached = self._cells.get(entry.name)
        if cached is None or cached.entry is not entry or cached.is_marked != is_marked:
            color = state_color(entry.state, is_dark=self.app.current_theme.dark)
            sign = ("●" if is_marked else " ") + GLYPHS[entry.state]
            longest = _LONGEST_TEXT if self._width >= 100 else _SHORT_TEXT
            texts = []
            for column in self._all_columns:
                words = column.text_of(entry)
                words = at_words(words, longest) if column.key in {"label", "now"} else words
                texts.append(cell(words, is_right=column.is_right))
            texts[0] = cell(sign if self.is_narrow else f"{sign} {entry.state}", color)
            if entry.state == "damaged":
                for made in texts:
                    made.style = color
            cached = self._cells[entry.name] = _MadeRow(entry, is_marked, texts, [text.cell_len for text in texts])
        return cached


def _only(names: Sequence[str]) -> str:
    """Return the name that all are; "" where they differ or are none."""
    return names[0] if names and len(set(names)) == 1 else ""
