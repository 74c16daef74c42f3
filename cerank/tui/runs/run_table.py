"""The list of runs: a row for each entry, of which only what is seen is drawn.

Invariant: columns are shown whole or not at all; no figure, id or word in them is ever cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.text import Text
from textual.events import Resize
from textual.message import Message

from cerank.app.run_views import display, run_list
from cerank.app.run_views.display import GLYPHS, at_words, clock, count, short
from cerank.app.run_views.run_monitor import RunEntry
from cerank.app.run_views.seed_groups import RunSettings, mean_and_sd, size_in_words
from cerank.text.safe_text import shown
from cerank.text.table_data import Column, fitting
from cerank.tui.cells import CELL, cell
from cerank.tui.common.row_list import RowColumn, RowList, text_width
from cerank.tui.comparison.comparison_table import VERDICTS
from cerank.tui.theme import state_color

_LONGEST_TEXT = 36  # cells of a label or a reason; what is longer ends with a whole word and "…"
_MIDDLE_TEXT = 26  # the same below 140 columns
_SHORT_TEXT = 20  # the same below 100 columns
_WORTH_SIGNS = {"worth it": "▲", "not worth it": "=", "not worse": "=", "harmful": "▼"}
_ROOMY, _WIDE = 100, 140  # cells from which texts may be longer
_DIFFERING_RECIPE = 3  # priority of recipes that differ: after what runs came to, before what else tells them apart
_AGE_WIDTH = 6  # cells of the longest age, "59 min"
_AGES_PASS = 30.0  # seconds after which ages are drawn anew
# priorities where sweeps are listed: what tells trials apart, and the values that they and other runs came to
_OF_SWEEPS = {"label": 0, "valid": 1, "test": 1, "now": 2}
# priorities below 100 columns: what came of a run, and what tells it from others, before figures on the way there
_SLIM = {"verdict": 1, "test": 1, "recipe": 2, "label": 3, "left": 4, "base": 5, "seed": 6, "valid": 7, "age": 8}
_REPEATED_LABEL = 9  # priority there of labels that begin with the name of the recipe, as those of a matrix do
_WORTH_A_WORD = {"verdict", "recipe"}  # columns for which the states go without their words, if that makes room
_SIGN_WIDTH = 2  # cells of a mark and the state's sign
_SPARE = 5000  # texts that are kept in any case
_SAME_THROUGHOUT = 20  # added to the priority of a column whose rows all say the same: it goes first


class ListedColumn(NamedTuple):
    """A column of the list. The column with the highest priority goes first where there is no room; 0 always stays."""

    key: str  # by which `run_list.ordered` sorts
    priority: int
    text_of: Callable[[RunEntry], str]
    is_right: bool = False


def _label(entry: RunEntry, longest: int = 1000) -> str:
    """Return the label with tags; of a sweep its best trial, of a trial its settings, as far as they have room."""
    if entry.sweep is not None:
        best = entry.sweep.best()
        if longest <= _SHORT_TEXT:  # where the column of what runs do now may have no room
            done = f"{entry.sweep.over}/{entry.sweep.planned}"
            return f"{done}, best {best.trial.title}" if best else f"{done} trials"
        return f"best {best.trial.text(longest - len('best '))}" if best else ""
    if entry.trial is not None and not entry.notes.label:
        return entry.trial.text(longest)
    return " ".join(part for part in (entry.label, *(f"#{tag}" for tag in entry.notes.tags)) if part)


def _seed(entry: RunEntry) -> str:
    if entry.members and entry.sweep is None:
        return size_in_words(entry.members)
    if entry.fold:
        return f"{entry.seed} fold {entry.fold}"
    return "" if entry.seed is None else str(entry.seed)


def _now(entry: RunEntry) -> str:
    if entry.members and entry.sweep is None:
        done = sum(run.state == "finished" for run in entry.members)
        return f"{done} of {len(entry.members)} finished" if done < len(entry.members) else ""
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
    ListedColumn("state", 0, lambda entry: entry.state),
    ListedColumn("run", 0, lambda entry: entry.short_name or entry.name),
    ListedColumn("verdict", 4, _verdict),
    ListedColumn("label", 5, _label),
    ListedColumn("recipe", _DIFFERING_RECIPE, lambda entry: entry.sweep.title if entry.sweep else entry.recipe),
    ListedColumn("base", 9, lambda entry: entry.base),
    ListedColumn("seed", 6, _seed, is_right=True),
    ListedColumn("age", 7, lambda entry: display.age(entry.created, display.now()), is_right=True),
    ListedColumn("now", 1, _now),
    ListedColumn("left", 2, _left, is_right=True),
    ListedColumn(
        "pairs/s", 10, lambda entry: count(entry.pairs_per_second) if entry.pairs_per_second else "", is_right=True
    ),
    ListedColumn("valid", 3, lambda entry: short(entry.validated[1]) if entry.validated else "", is_right=True),
    ListedColumn("test", 2, lambda entry: mean_and_sd(entry.runs), is_right=True),
    ListedColumn("on", 2, run_list.named_test),  # where a run has several test sets
)


def _setting_column(key: str, place: int, settings: RunSettings) -> ListedColumn:
    return ListedColumn(key, 11 + place, lambda entry: settings.of(entry).get(key, ""), is_right=True)


_NARROW = (
    ListedColumn("state", 0, lambda _: ""),
    ListedColumn("run", 0, lambda entry: entry.short_name or entry.name),
    ListedColumn("now", 1, _outcome),
)


class _RowTexts(NamedTuple):
    """What a row says in each column, and how wide that is; the age is told when the row is drawn."""

    entry: RunEntry
    texts: tuple[str, ...]
    widths: tuple[int, ...]


class RunTable(RowList):
    """Runs, one highlighted, any number marked.

    Attributes:
        is_narrow: state as its sign alone, for a list beside something else.
        hidden: headings of the columns for which there is no room.
    """

    class ColumnsChanged(Message):
        """Other columns have room now."""

        def __init__(self, hidden: tuple[str, ...]) -> None:
            super().__init__()
            self.hidden = hidden

    def __init__(self, *, is_narrow: bool = False, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.is_narrow = is_narrow
        self.hidden: tuple[str, ...] = ()
        self.sorted_by = self._headed_by = ("age", True)
        self._all_columns: tuple[ListedColumn, ...] = _NARROW if is_narrow else COLUMNS
        self._unwanted: frozenset[str] = frozenset()  # columns that the user hid
        self._places: list[int] = []  # indexes of the columns that are shown
        self._is_state_short = is_narrow  # the state as its sign alone
        self._widths: list[int] = []  # widths of all columns, in cells
        self._entries: list[RunEntry] = []
        self._marked: frozenset[str] = frozenset()
        self._width = 0
        self._to_highlight = ""  # the run that the cursor goes to once it is listed
        self._known: dict[str, _RowTexts] = {}  # what each run says, told once for each state of it
        self._safe: dict[str, tuple[str, int]] = {}  # text -> as it may be shown, and its width

    def on_mount(self) -> None:
        """Draw ages anew as time passes."""
        self.set_interval(_AGES_PASS, self.refresh)

    def on_resize(self, _: Resize) -> None:
        """Lay the columns out for a new width."""
        if self.size.width != self._width:
            before, self._width = self._longest, self.size.width
            if self._longest != before:
                self._known.clear()  # texts have another length, and other columns
            self._lay_out()

    @property
    def listed(self) -> tuple[RunEntry, ...]:
        """The entries in the order of the rows."""
        return tuple(self._entries)

    @property
    def offered(self) -> list[str]:
        """The columns among which the user may choose."""
        return [column.key for column in self._all_columns if column.priority]

    @property
    def highlighted(self) -> RunEntry | None:
        """The entry under the cursor."""
        return self._entries[self.cursor_row] if self.cursor_row < len(self._entries) else None

    def highlight(self, name: str) -> None:
        """Put the cursor on a run, at once or as soon as it is listed."""
        self._to_highlight = name
        for place, entry in enumerate(self._entries):
            if entry.name == name:
                self._to_highlight = ""
                self.move_cursor(place)

    def hide_columns(self, keys: Sequence[str]) -> None:
        """Leave out the columns that the user does not want."""
        if self._unwanted != frozenset(keys):
            self._unwanted = frozenset(keys)
            self._known.clear()
            self._lay_out()

    def show_settings(self, keys: Sequence[str], settings: RunSettings) -> None:
        """Show these settings of the recipes, each in a column after the others; they go first where room is short."""
        if list(keys) == [column.key for column in self._all_columns[len(COLUMNS) :]]:
            return
        self._all_columns = (*COLUMNS, *(_setting_column(key, place, settings) for place, key in enumerate(keys)))
        self._known.clear()
        self._lay_out()

    def sort_by(self, key: str, *, is_falling: bool) -> None:
        """Show in the headings by which column the rows are sorted, once they are shown in that order."""
        self.sorted_by = (key, is_falling)

    def show(self, entries: Sequence[RunEntry], marked: frozenset[str]) -> None:
        """Show these rows in this order; the cursor stays on its run."""
        before, marked_before = self._entries, self._marked
        name = self._to_highlight or (self.highlighted.name if self.highlighted else "")
        screen_line = self.cursor_row - self.scroll_offset.y
        is_at_top = self.scroll_offset.y == 0
        self._entries, self._marked = list(entries), marked
        if len(self._known) > 2 * len(entries) + _SPARE or len(self._safe) > 20 * len(entries) + _SPARE:
            self._known.clear()  # of runs that are gone, and of how far others were once
            self._safe.clear()
        is_same_order = len(before) == len(entries) and all(
            new is old or new.name == old.name for new, old in zip(entries, before, strict=True)
        )
        changed = [
            place
            for place, (new, old) in enumerate(zip(entries, before, strict=False))
            if new is not old or (new.name in marked) != (old.name in marked_before)
        ]
        if self.sorted_by != self._headed_by or (
            not (is_same_order and all(entries[place] is before[place] for place in changed))
            and self._measured() != self._widths
        ):
            self._lay_out()
        if is_same_order:
            for place in changed:
                self.refresh_row(place)
        else:
            self.set_row_count(len(self._entries))
            place = next((place for place, entry in enumerate(entries) if entry.name == name), self.cursor_row)
            self._place_cursor(place, screen_line, is_at_top=is_at_top)
        if entries and self._to_highlight and self._to_highlight == (self.highlighted.name if self.highlighted else ""):
            self._to_highlight = ""

    def _place_cursor(self, place: int, screen_line: int, *, is_at_top: bool) -> None:
        """Put the cursor on a row after the rows changed, at the line of the screen where it was, if that can be."""
        self.cursor_row = place
        if not (is_at_top and place < self.visible_rows):
            last_top = max(0, self.row_count - self.visible_rows)
            self.scroll_to(y=max(0, min(place - screen_line, last_top)), animate=False, immediate=True)
        self.move_cursor(place)

    # columns

    def _headings(self) -> list[str]:
        """Return a heading for each column; a measure's is its name where all runs have the same."""
        by, is_falling = self.sorted_by
        names = {
            "test": _only({entry.final[0] for entry in self._entries if entry.final}),
            "valid": _only({entry.validated[0] for entry in self._entries if entry.validated}),
        }
        if names["valid"] and self._has_sweeps() and self._width < _ROOMY:
            names["valid"] = "valid."  # the details name the measure
        elif names["valid"]:
            names["valid"] = "valid." if names["valid"] == names["test"] else f"valid. {names['valid']}"
        if self._are_joined:  # one column for what a run does and for what came of it
            is_judged = any(entry.verdict is not None for entry in self._entries)
            is_doing = any(entry.verdict is None and _now(entry) for entry in self._entries)
            names["verdict"] = "now or verdict" if is_judged and is_doing else "now" if is_doing else "verdict"
            by = "verdict" if by == "now" else by
        names["test"] = names["test"] or "test"
        names["valid"] = names["valid"] or "valid."
        headings = []
        for column in self._all_columns:
            own = column.key.removeprefix("stages.")
            heading = "" if self.is_narrow and column.key == "state" else names.get(column.key, own)
            headings.append(f"{heading}{'▼' if is_falling else '▲'}" if column.key == by and heading else heading)
        return headings

    def _measured(self) -> list[int]:
        """Return the cells that each column needs; 0 where no row has anything to say."""
        rows = [self._texts(entry).widths for entry in self._entries]
        longest = [max(column) for column in zip(*rows, strict=True)] if rows else [0] * len(self._all_columns)
        widths = []
        for place, heading in enumerate(self._headings()):
            is_always = self._all_columns[place].priority == 0 or not rows
            widths.append(max(longest[place], text_width(heading)) if longest[place] or is_always else 0)
        return widths

    def _lay_out(self) -> None:
        """Choose the columns that fit, and draw everything anew."""
        if not self._width:
            return
        self._widths = self._measured()
        self._headed_by = self.sorted_by
        headings = self._headings()
        used = [
            place
            for place, width in enumerate(self._widths)
            if width and self._all_columns[place].key not in self._unwanted
        ]
        columns = [
            Column(self._all_columns[place].key, headings[place], priority=self._priority(place)) for place in used
        ]
        sizes = [self._widths[place] for place in used]
        chosen = self._chosen(columns, sizes)
        left_out = {
            column.key for at, column in enumerate(columns) if at not in chosen and column.priority < _SAME_THROUGHOUT
        }
        self._is_state_short = self.is_narrow
        if self._is_slim and left_out & _WORTH_A_WORD:
            shorter = [
                _SIGN_WIDTH if column.key == "state" else size for column, size in zip(columns, sizes, strict=True)
            ]
            others = self._chosen(columns, shorter)
            if any(columns[at].key in left_out & _WORTH_A_WORD for at in others):
                chosen, sizes, self._is_state_short = others, shorter, True
        self._places = [used[at] for at in chosen]
        self.set_columns(
            [
                RowColumn(
                    columns[at].key,
                    "" if self._is_state_short and columns[at].key == "state" else shown(headings[used[at]]),
                    sizes[at],
                    self._all_columns[used[at]].is_right,
                )
                for at in chosen
            ]
        )
        self.set_row_count(len(self._entries))
        hidden = tuple(headings[place].rstrip("▼▲") for place in used if place not in self._places)
        if hidden != self.hidden:
            self.hidden = hidden
            self.post_message(self.ColumnsChanged(hidden))

    @property
    def _longest(self) -> int:
        """Return the cells that a label or a reason may take."""
        return _SHORT_TEXT if self._width < _ROOMY else _MIDDLE_TEXT if self._width < _WIDE else _LONGEST_TEXT

    @property
    def _is_slim(self) -> bool:
        """Whether there is too little room for most columns."""
        return self._width < _ROOMY and not self.is_narrow

    @property
    def _are_joined(self) -> bool:
        """Whether what a run does stands in the column of its verdict, which it does not have yet."""
        return self._is_slim and not {"now", "verdict"} & self._unwanted

    def _chosen(self, columns: list[Column], sizes: list[int]) -> list[int]:
        """Return the places of the columns that fit, with those for which there is room after a wider one went."""
        room = self._width - 2 * self.gap - 1  # one for the scrollbar
        chosen = fitting(columns, sizes, room, 2 * self.gap)
        others = sorted(set(range(len(columns))) - set(chosen), key=lambda at: (columns[at].priority, at))
        for at in others:
            if sum(sizes[place] + 2 * self.gap for place in chosen) + sizes[at] <= room:
                chosen = sorted([*chosen, at])
        return chosen

    def _priority(self, place: int) -> int:
        """Return a column's priority; one that does not tell the runs apart goes before all that do."""
        column = self._all_columns[place]
        if self._has_sweeps() and (column.key in _OF_SWEEPS or (self._are_joined and column.key == "verdict")):
            return _OF_SWEEPS["now" if column.key == "verdict" else column.key]
        priority = _SLIM.get(column.key, column.priority) if self._is_slim else column.priority
        if column.key == "label" and self._is_slim:
            repeats = all(entry.label.startswith(entry.recipe) for entry in self._entries if entry.label)
            return _REPEATED_LABEL if repeats else priority
        if column.key in {"recipe", "base", "seed"} and len(self._entries) > 1:
            texts = {self._texts(entry).texts[place] for entry in self._entries}
            return priority + (_SAME_THROUGHOUT if len(texts - {""}) < 2 else 0)  # a damaged run says nothing
        return priority

    def _has_sweeps(self) -> bool:
        """Return whether a row stands for a sweep or for one of its trials."""
        return any(entry.trial or entry.sweep for entry in self._entries)

    # rows

    def _texts(self, entry: RunEntry) -> _RowTexts:
        """Return what a run says in each column, told once for each state of it."""
        known = self._known.get(entry.name)
        if known is not None and known.entry is entry:
            return known
        longest = self._longest
        texts, widths = [], []
        for column in self._all_columns:
            if column.key == "age":
                texts.append("")
                widths.append(_AGE_WIDTH if entry.created else 0)
                continue
            words = self._words(column, entry, longest)
            safe = self._safe.get(words)
            if safe is None:
                plain = shown(words, CELL)
                safe = self._safe[words] = (plain, text_width(plain))
            # the mark and the state's sign, and a blank before its word
            sign = 0 if column.key != "state" else _SIGN_WIDTH if self.is_narrow else _SIGN_WIDTH + 1
            texts.append(safe[0])
            widths.append(safe[1] + sign)
        known = self._known[entry.name] = _RowTexts(entry, tuple(texts), tuple(widths))
        return known

    def _words(self, column: ListedColumn, entry: RunEntry, longest: int) -> str:
        """Return what a run says in a column, in as many cells as texts may take."""
        if column.key == "label":
            return at_words(_label(entry, longest), longest)
        if column.key not in {"now", "verdict"}:
            return column.text_of(entry)
        # of a sweep the label says it where room is short
        doing = "" if entry.sweep is not None and longest <= _SHORT_TEXT else at_words(_now(entry), longest)
        if column.key == "now":
            return "" if self._are_joined else doing
        return _verdict(entry) or (doing if self._are_joined else "")

    def cells(self, place: int) -> list[Text]:
        """Return the cells of a row, in the columns that are shown."""
        entry = self._entries[place]
        color = state_color(entry.state, is_dark=self.app.current_theme.dark)
        sign = ("●" if entry.name in self._marked else " ") + GLYPHS[entry.state]
        texts = self._texts(entry).texts
        made = []
        for at in self._places:
            column = self._all_columns[at]
            is_state = column.key == "state"
            words = texts[at]
            if is_state:
                words = sign if self._is_state_short else f"{sign} {words}"
            elif column.key == "age":
                words = column.text_of(entry)
            made.append(cell(words, color if is_state or entry.state == "damaged" else ""))
        return made


def _only(names: set[str]) -> str:
    """Return the name that all are; "" where they differ or are none."""
    return next(iter(names)) if len(names) == 1 else ""
