"""A run's log: followed as it grows, searched with `/`, its matches set off, selected and copied with the mouse or `y`.

Invariant: a search changes what is set off and where one looks; lines are left out only where the user asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.console import Console
from rich.highlighter import Highlighter
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.strip import Strip
from textual.widgets import Input, Log, Static

from cerank.app.run_views import run_updates
from cerank.app.run_views.run_monitor import RunEntry
from cerank.text.safe_text import counted, shown
from cerank.tui.cells import content, stacked
from cerank.tui.common.form_fields import LineInput
from cerank.tui.runs.run_pane import RunPane

_MOST = 20_000  # lines kept; the file has all
_AT_ONCE = 1000  # lines that go together when there are more
_MEASURE = Console(width=200, force_terminal=False)  # Rich wraps by it


class _MatchHighlighter(Highlighter):
    """Sets off what is searched for; in the line that one stands on, more so."""

    wanted = ""
    is_here = False

    def highlight(self, text: Text) -> None:
        """Style each match in a line; signs that color alone would not tell apart are reversed."""
        low = text.plain.casefold()
        if not self.wanted or len(low) != len(text.plain):  # some letters fold into two: then places do not hold
            return
        at = low.find(self.wanted)
        while at >= 0:
            text.stylize("bold reverse" if self.is_here else "bold underline", at, at + len(self.wanted))
            at = low.find(self.wanted, at + len(self.wanted))


class _LogView(Log):
    """The lines, wrapped or as long as they are, with the matches in them set off.

    A wrapped line takes several rows; places are those of lines, whatever rows they take.
    """

    def __init__(self) -> None:
        super().__init__(highlight=True, classes="front")
        self.matches = self.highlighter = _MatchHighlighter()
        self.at = -1  # the line that one stands on; -1 for none
        self.is_wrapped = True
        self._shown: list[str] = []  # the lines
        self._line_of: list[int] = []  # of each row, the line that it belongs to
        self._first_row: list[int] = []  # of each line
        self._wrapped_at = 0

    def add(self, lines: Sequence[str]) -> None:
        """Add lines at the end."""
        self._wrapped_at = self._room
        fitting: list[str] = []
        for line in lines:
            self._first_row.append(len(self._line_of))
            pieces = _wrapped(line, self._wrapped_at) if self.is_wrapped and self._wrapped_at else [line or " "]
            self._line_of += [len(self._shown)] * len(pieces)
            self._shown.append(line)
            fitting += pieces
        if fitting:
            self.write_lines(fitting, scroll_end=None if self.auto_scroll else False)

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines in place of the others; one stays where one was looking."""
        top = self.top_line
        self.clear()
        self._shown, self._line_of, self._first_row = [], [], []
        self.add(lines)
        if not self.auto_scroll and self._first_row:
            self.scroll_to(y=self._first_row[min(top, len(self._first_row) - 1)], animate=False)

    @property
    def lines_shown(self) -> int:
        """Return the number of lines shown."""
        return len(self._shown)

    @property
    def top_line(self) -> int:
        """The line at the top of the screen."""
        row = int(self.scroll_offset.y)
        return self._line_of[row] if row < len(self._line_of) else max(0, len(self._shown) - 1)

    @property
    def _room(self) -> int:
        return max(0, self.scrollable_content_region.width)

    def on_resize(self) -> None:
        """Wrap anew for another width."""
        if self.is_wrapped and self._shown and self._room != self._wrapped_at:
            self.show(list(self._shown))

    def turn_wrap(self) -> None:
        """Wrap long lines, or stop wrapping them."""
        self.is_wrapped = not self.is_wrapped
        self.show(list(self._shown))

    def render_line(self, y: int) -> Strip:
        """Return a line of the screen."""
        row = int(self.scroll_offset.y) + y
        self.matches.is_here = row < len(self._line_of) and self._line_of[row] == self.at >= 0
        return super().render_line(y)

    def go(self, at: int) -> None:
        """Stand on a line, in the middle of the screen where there is room."""
        self.at = at
        if 0 <= at < len(self._first_row):
            self.auto_scroll = False
            self.scroll_to(y=max(0, self._first_row[at] - self.size.height // 2), animate=False)
        self._render_line_cache.clear()
        self.refresh()


def _wrapped(line: str, width: int) -> list[str]:
    """Return a line as rows of at most `width` cells, broken between words where there are any."""
    if cell_len(line) <= width:
        return [line or " "]  # an empty row would not be written
    rows = [text.plain for text in Text(line).wrap(_MEASURE, width, tab_size=8)]
    return [row or " " for row in rows] or [" "]


class LogPane(RunPane):
    """The newest lines, what is searched for set off in them, or left alone."""

    DEFAULT_CSS = """
    LogPane #search { display: none; background: $surface; }
    LogPane #search.-open { display: block; }
    LogPane #found { height: auto; max-height: 2; padding: 0 1; color: $text-muted; text-wrap: nowrap;
                     text-overflow: ellipsis; }
    LogPane Log { height: 1fr; background: $background; padding: 0 1; scrollbar-size-horizontal: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "search", key_display="/", id="log.search", tooltip="Highlight what you type"),
        Binding("n", "match(1)", "next match", id="log.next"),
        Binding("N", "match(-1)", "previous match", id="log.before", show=False),
        Binding("f", "only", "only matches", id="log.only", tooltip="Hide the other lines, or show them again"),
        Binding("escape", "all", "back", id="log.all", tooltip="End the search, then leave the run"),
        Binding(
            "W", "wrap", "wrap lines", id="log.wrap", show=False, tooltip="Wrap long lines, or show them in one row"
        ),
        Binding("g", "first", "first line", id="log.first", show=False),
        Binding("G", "last", "last line, and follow", id="log.last", show=False),
        Binding("j", "line(1)", "down", id="log.down", show=False),
        Binding("k", "line(-1)", "up", id="log.up", show=False),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._log: run_updates.LogFollower | None = None
        self._lines: list[str] = []
        self._wanted = ""
        self._is_only = False  # whether lines without a match are left out
        self._is_read = False
        self._generation = 0

    def compose(self) -> ComposeResult:
        """Lay out the search line, what it found, the lines."""
        yield LineInput(placeholder="text to find", id="search")
        yield Static(id="found")
        yield _LogView()

    def clear_entry(self) -> None:
        """Empty the log, so that the next run's is shown from its start."""
        self._log = run_updates.LogFollower(self.entry.folder) if self.entry else None
        self._lines.clear()
        self._is_read = False
        self._generation += 1
        self.query_one(_LogView).show(())

    def update_entry(self, entry: RunEntry) -> None:
        """Add what is new."""
        log, mine = self._log, self._generation
        if log is None or (self._is_read and not self.is_changed and not entry.is_live):
            return

        def have(lines: list[str]) -> None:
            if mine == self._generation:
                self._add([shown(line, run_updates.LONGEST + 1) for line in lines])

        self.lab_app.run_in_thread(log.poll, have, node=self, group="log")

    def _add(self, lines: list[str]) -> None:
        self._is_read = True
        table = self.query_one(_LogView)
        self._lines.extend(lines)
        if len(self._lines) > _MOST + _AT_ONCE:
            gone = len(self._lines) - _MOST
            del self._lines[:gone]
            table.at = max(-1, table.at - gone) if not self._is_only else -1
            table.show(self._standing())
        else:
            table.add([line for line in lines if self._is_shown(line)])
        self._tell()

    def _fits(self, line: str) -> bool:
        return self._wanted in line.casefold()

    def _is_shown(self, line: str) -> bool:
        return not (self._is_only and self._wanted) or self._fits(line)

    def _standing(self) -> list[str]:
        """Return the lines that stand there."""
        return [line for line in self._lines if self._is_shown(line)]

    def _hits(self) -> list[int]:
        """Return which of the lines that stand there hold what is searched for."""
        return [place for place, line in enumerate(self._standing()) if self._fits(line)] if self._wanted else []

    def _tell(self) -> None:
        status = self.query_one("#found", Static)
        if not self._lines:
            status.update(content(_why_silent(self.entry)))
        elif self._wanted:
            hits, at = self._hits(), self.query_one(_LogView).at
            place = f"{hits.index(at) + 1} of " if at in hits else ""
            result = f"{place}{counted(len(hits), 'matching line')}" if hits else "no line matches"
            rest = counted(len(self._lines), "line") if not self._is_only else f"{len(self._lines) - len(hits)} hidden"
            status.update(content(f"{result}, {rest}; enter, then n next, N before, f only these; esc ends"))
        else:
            keys = f"{counted(len(self._lines), 'line')}; / searches, W wraps, y copies, e exports"
            is_lost = self.entry is not None and self.entry.state == "lost"
            died = "Its worker died: killed, or out of memory. r resumes the run."
            status.update(stacked(content(died, "bold"), content(keys)) if is_lost else content(keys))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Set off what was typed, and go to the first line on screen that holds it, or to the next one."""
        event.stop()
        self._wanted = event.value.casefold()
        self._write_again()
        table = self.query_one(_LogView)
        hits = self._hits()
        table.go(next((place for place in hits if place >= table.top_line), hits[0] if hits else -1))
        self._tell()
        self.refresh_bindings()

    def _write_again(self) -> None:
        table = self.query_one(_LogView)
        table.matches.wanted = self._wanted
        fitting = self._standing()
        if len(fitting) != table.lines_shown:
            table.show(fitting)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's
        """Return keys of a search do something while there is one; else they are the screen's."""
        return bool(self._wanted) if action in {"match", "only"} else True

    def action_match(self, by: int) -> None:
        """Go to the next line that holds it, or the one before; from an end to the other."""
        table, hits = self.query_one(_LogView), self._hits()
        if hits:
            later = [place for place in hits if place > table.at] or hits
            earlier = [place for place in hits if place < table.at] or hits
            table.go(later[0] if by > 0 else earlier[-1])
            self._tell()

    def action_only(self) -> None:
        """Leave the lines without a match out, or brings them back."""
        table = self.query_one(_LogView)
        hits = self._hits()
        nth = hits.index(table.at) if table.at in hits else 0
        self._is_only = not self._is_only
        self._write_again()
        hits = self._hits()
        table.go(hits[nth] if nth < len(hits) else -1)
        self._tell()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to the lines."""
        event.stop()
        self.query_one(Log).focus()

    def action_search(self) -> None:
        """Open the search."""
        line = self.query_one("#search", Input)
        line.add_class("-open")
        line.focus()

    def action_all(self) -> None:
        """Show all lines again; when it does already, leave the run."""
        line = self.query_one("#search", Input)
        if not line.has_class("-open"):
            self.app.pop_screen()
            return
        self._is_only = False
        line.value = ""
        line.remove_class("-open")
        table = self.query_one(_LogView)
        table.auto_scroll = True
        table.focus()

    def action_wrap(self) -> None:
        """Wrap long lines, or stop wrapping them."""
        self.query_one(_LogView).turn_wrap()

    def action_first(self) -> None:
        """Go to the first line."""
        log = self.query_one(Log)
        log.auto_scroll = False
        log.scroll_home(animate=False)

    def action_last(self) -> None:
        """Go to the last line and follow the log."""
        log = self.query_one(Log)
        log.auto_scroll = True
        log.scroll_end(animate=False)

    def action_line(self, by: int) -> None:
        """Move by a line."""
        log = self.query_one(Log)
        log.auto_scroll = False
        log.scroll_relative(y=by, animate=False)

    def copied(self) -> tuple[str, str] | None:
        """Return the lines that are shown."""
        lines = self._standing()
        return ("\n".join(lines), counted(len(lines), "line")) if lines else None

    def exported(self) -> tuple[str, str] | None:
        """Return the lines that are shown, as a file."""
        lines = self._standing()
        return ("\n".join(lines) + "\n", f"{self.shown_run}-log.txt") if lines else None


def _why_silent(entry: RunEntry | None) -> str:
    """Return why a run has no log yet."""
    if entry is not None and entry.state == "queued":
        return f"It has not started yet: {entry.at}."
    if entry is not None and entry.state == "waiting":
        return "It was never started; r starts it."
    return "The worker has not written anything yet."
