"""A run's log: followed as it grows, searched with `/`, selected and copied with the mouse or `y`."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Log, Static

from cerank.lab import logs
from cerank.lab.watching import Entry
from cerank.text import shown
from cerank.tui.cells import content
from cerank.tui.widgets.line import LineInput
from cerank.tui.widgets.pane import Pane

_MOST = 20_000  # lines kept; the file has all


class LogPane(Pane):
    """The newest lines, or those that hold what is searched for."""

    DEFAULT_CSS = """
    LogPane #search { display: none; background: $surface; }
    LogPane #search.-open { display: block; }
    LogPane #found { height: 1; padding: 0 1; color: $text-muted; }
    LogPane Log { height: 1fr; background: $background; padding: 0 1; scrollbar-size-horizontal: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "search", key_display="/", id="log.search", tooltip="Shows the lines that hold it"),
        Binding("escape", "all", "all lines", id="log.all", show=False),
        Binding("g", "first", "first line", id="log.first", show=False),
        Binding("G", "last", "last line, and follow", id="log.last", show=False),
        Binding("j", "line(1)", "down", id="log.down", show=False),
        Binding("k", "line(-1)", "up", id="log.up", show=False),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._log: logs.Log | None = None
        self._lines: deque[str] = deque(maxlen=_MOST)
        self._wanted = ""
        self._is_read = False
        self._generation = 0

    def compose(self) -> ComposeResult:
        """The search line, what it found, the lines."""
        yield LineInput(placeholder="text to look for", id="search")
        yield Static(id="found")
        yield Log(max_lines=_MOST, classes="front")

    def begin(self) -> None:
        """Another run: its log from the start."""
        self._log = logs.Log(self.entry.folder) if self.entry else None
        self._lines.clear()
        self._is_read = False
        self._generation += 1
        self.query_one(Log).clear()

    def go_on(self, entry: Entry) -> None:
        """Adds what is new."""
        log, mine = self._log, self._generation
        if log is None or (self._is_read and not self.is_changed and not entry.is_live):
            return

        def have(lines: list[str]) -> None:
            if mine == self._generation:
                self._add([shown(line, logs.LONGEST + 1) for line in lines])

        self.house.do(log.look, have, node=self, group="log")

    def _add(self, lines: list[str]) -> None:
        self._is_read = True
        self._lines.extend(lines)
        fitting = [line for line in lines if self._fits(line)]
        if fitting:
            self.query_one(Log).write_lines(fitting)
        self._tell()

    def _fits(self, line: str) -> bool:
        return self._wanted in line.casefold()

    def _tell(self) -> None:
        found = self.query_one("#found", Static)
        if not self._lines:
            found.update(content("its worker has not written anything yet", "dim"))
        elif self._wanted:
            count = sum(self._fits(line) for line in self._lines)
            found.update(content(f"{count} of {len(self._lines)} lines hold '{self._wanted}'; esc shows all"))
        else:
            found.update(content(f"{len(self._lines)} lines; / searches, y copies, e writes a file", "dim"))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Shows only the lines that hold what was typed."""
        event.stop()
        self._wanted = event.value.casefold()
        log = self.query_one(Log)
        log.clear()
        log.write_lines([line for line in self._lines if self._fits(line)])
        self._tell()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Goes to the lines."""
        event.stop()
        self.query_one(Log).focus()

    def action_search(self) -> None:
        """Opens the search."""
        line = self.query_one("#search", Input)
        line.add_class("-open")
        line.focus()

    def action_all(self) -> None:
        """Shows all lines again; when it does already, leaves the run."""
        line = self.query_one("#search", Input)
        if not line.has_class("-open"):
            self.app.pop_screen()
            return
        line.value = ""
        line.remove_class("-open")
        self.query_one(Log).focus()

    def action_first(self) -> None:
        """Goes to the first line."""
        log = self.query_one(Log)
        log.auto_scroll = False
        log.scroll_home(animate=False)

    def action_last(self) -> None:
        """Goes to the last line and follows the log."""
        log = self.query_one(Log)
        log.auto_scroll = True
        log.scroll_end(animate=False)

    def action_line(self, by: int) -> None:
        """Moves by a line."""
        log = self.query_one(Log)
        log.auto_scroll = False
        log.scroll_relative(y=by, animate=False)

    def copied(self) -> tuple[str, str] | None:
        """The lines that are shown."""
        lines = [line for line in self._lines if self._fits(line)]
        return ("\n".join(lines), f"{len(lines)} lines") if lines else None

    def exported(self) -> tuple[str, str] | None:
        """The lines that are shown, as a file."""
        lines = [line for line in self._lines if self._fits(line)]
        return ("\n".join(lines) + "\n", f"{self.shown_run}-log.txt") if lines else None
