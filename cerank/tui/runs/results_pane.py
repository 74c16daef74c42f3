"""A run's own table: each stage against the one before it and the first stage, with the answer in words above."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from cerank.app.comparison import export_comparison
from cerank.app.run_views import rankings_view
from cerank.app.run_views.run_monitor import RunEntry
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table
from cerank.tui.cells import content, stacked
from cerank.tui.common.tables import TableView
from cerank.tui.comparison.comparison_table import verdict
from cerank.tui.runs.run_pane import RunPane

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison


class _Verdicts(TableView):
    """The table, with a sign beside each verdict."""

    def made(self, text: str, column: Column) -> Text:
        """Return a cell; a verdict has its sign and colour."""
        return verdict(text) if column.key == "verdict" and text else super().made(text, column)


class ResultsPane(RunPane):
    """The comparison of a run's stages; measured again from the files in a thread."""

    DEFAULT_CSS = """
    ResultsPane #title { height: auto; padding: 0 1; }
    ResultsPane #answer { height: auto; max-height: 40%; padding: 0 1; }
    ResultsPane ShownTable { height: auto; max-height: 70%; }
    ResultsPane #hidden { height: auto; padding: 0 1; color: $text-muted; }
    ResultsPane VerticalScroll { padding: 1; height: 1fr; }
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._found: Comparison | None = None
        self._key: tuple[str, str, str] | None = None
        self._table: Table | None = None

    def compose(self) -> ComposeResult:
        """Lay out title, table, what it rests on."""
        yield Static(id="title")
        yield Static(id="answer")
        yield _Verdicts(id="results", classes="front")
        yield Static(id="hidden")
        with VerticalScroll():
            yield Static(id="notes")

    def clear_entry(self) -> None:
        """Another run: an empty table."""
        self._key, self._found, self._table = None, None, None
        self.query_one("#hidden", Static).update(content(""))
        self.query_one(TableView).clear(columns=True)
        self.query_one("#notes", Static).update(content(""))
        self.query_one("#answer", Static).update(content(""))

    def update_entry(self, entry: RunEntry) -> None:
        """Compare when the run came a stage further."""
        key = (entry.name, entry.state, entry.stage)
        if key == self._key:
            return
        self._key = key
        if entry.plan is None or not rankings_view.choices(entry.folder, entry.plan):
            self._say("Nothing has been re-ranked and measured yet. The table will appear here.")
            return
        if self._found is None:
            self._say("comparing …")
        self.lab_app.run_in_thread(lambda: _compared(entry), self._have, node=self, group="results")

    def _say(self, text: str) -> None:
        self.query_one("#title", Static).update(content(text, "dim"))

    def _have(self, results: tuple[Comparison, Table, tuple[str, ...], tuple[str, ...]]) -> None:
        self._found, table, reasons, answers = results
        self.query_one("#answer", Static).update(stacked(*map(content, answers)))
        self.query_one("#title", Static).update(content(table.title, "bold"))
        self._table = _told_first(table)
        self._lay_out()
        rows = [content(line) for line in reasons] + [content("")] + [content(line, "dim") for line in table.notes]
        self.query_one("#notes", Static).update(stacked(*rows))

    def _lay_out(self) -> None:
        """Whole columns, what fits; what does not is named, never cut."""
        if self._table is None:
            return
        hidden = self.query_one(TableView).show(self._table, self.size.width or self.app.size.width)
        note = f"+{counted(len(hidden), 'column')}: {', '.join(hidden)}; e writes the whole table" if hidden else ""
        self.query_one("#hidden", Static).update(content(note))

    def on_resize(self) -> None:
        """Take columns away, or brings them back."""
        self._lay_out()

    def copied(self) -> tuple[str, str] | None:
        """Return the table as Markdown."""
        return (export_comparison.as_text(self._found, "markdown"), "the table as Markdown") if self._found else None

    def exported(self) -> tuple[str, str] | None:
        """Return the table as LaTeX; the comparison screen writes the other forms."""
        return (export_comparison.as_text(self._found, "latex"), f"{self.shown_run}.tex") if self._found else None


def _compared(entry: RunEntry) -> tuple[Comparison, Table, tuple[str, ...], tuple[str, ...]]:
    from cerank.app.comparison import run_answer
    from cerank.evaluation.comparison_rows import reasons

    answer = run_answer.of_run(entry.folder)
    comparison = answer.comparison
    return comparison, export_comparison.short_table(comparison), reasons(comparison), answer.paragraphs


_FIRST = (
    "first_stage",
    "system",
    "against",
    "measure",
    "mean",
    "difference",
    "interval",
    "verdict",
    "wtl",
    "p_corrected",
)


def _told_first(table: Table) -> Table:
    """Return the same table, what a reader asks for first on the left.

    A dataset that is the same throughout is left out.
    """
    keys = [column.key for column in table.columns]
    order = [keys.index(key) for key in _FIRST if key in keys]
    rest = [place for place in range(len(keys)) if place not in order]
    order += [place for place in rest if keys[place] != "dataset" or len({row[place] for row in table.rows}) > 1]
    rows = tuple(tuple(row[place] for place in order) for row in table.rows)
    columns = [
        msgspec.structs.replace(column, priority=1) if column.key == "interval" else column  # before a verdict is cut
        for column in (table.columns[place] for place in order)
    ]
    return msgspec.structs.replace(table, columns=tuple(columns), rows=rows)
