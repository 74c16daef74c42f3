"""What re-ranking did, query by query: its documents with where they stood before, their grades and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Static

from cerank.app.comparison.named_systems import last_part, short_name
from cerank.app.run_views import rankings_view
from cerank.app.run_views.display import short
from cerank.app.run_views.rankings_view import Moved, QueryChange, RankingChoice, Rankings
from cerank.app.run_views.run_monitor import RunEntry
from cerank.errors import CerankError
from cerank.text.table_data import Column, Table, written
from cerank.tui.cells import cell, content, joined
from cerank.tui.common.fitted_table import fill
from cerank.tui.runs.run_pane import RunPane
from cerank.tui.theme import palette

_TEXT = 160  # characters of a document in its row; below the table it stands whole


class RankingsPane(RunPane):
    """Queries, the documents of one, the text of one document."""

    DEFAULT_CSS = """
    RankingsPane DataTable { scrollbar-size-horizontal: 0; }
    RankingsPane #which { height: auto; padding: 0 1; }
    RankingsPane #queries { height: 1fr; max-height: 40%; }
    RankingsPane #query { height: auto; max-height: 3; padding: 0 1; background: $surface; }
    RankingsPane #documents { height: 1fr; }
    RankingsPane VerticalScroll { height: 6; padding: 0 1; border-top: solid $panel; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "v", "turn", "other ranking", id="rankings.turn", tooltip="Show the next stage, dataset or first stage"
        ),
        Binding("j", "line(1)", "down", id="rankings.down", show=False),
        Binding("k", "line(-1)", "up", id="rankings.up", show=False),
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._choices: list[RankingChoice] = []
        self._choice: RankingChoice | None = None
        self._rankings: Rankings | None = None
        self._questions: tuple[QueryChange, ...] = ()
        self._documents: tuple[Moved, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out which re-ranking, its queries, the documents of one, a text."""
        yield Static(id="which")
        yield DataTable[Text](cursor_type="row", id="queries", classes="front", cursor_foreground_priority="renderable")
        yield Static(id="query")
        yield DataTable[Text](cursor_type="row", id="documents", cursor_foreground_priority="renderable")
        with VerticalScroll():
            yield Static(id="document")

    def clear_entry(self) -> None:
        """Forget the rankings of the run shown before."""
        self._choices, self._choice = [], None
        self._clear_tables()

    def _clear_tables(self) -> None:
        self._rankings, self._questions, self._documents = None, (), ()
        for table in self.query(DataTable):
            table.clear(columns=True)
        for name in ("#query", "#document"):
            self.query_one(name, Static).update(content(""))

    def update_entry(self, entry: RunEntry) -> None:
        """Open the newest re-ranking once there is one."""
        if entry.plan is None or (self._choices and not self.is_changed):
            return
        self._choices = rankings_view.choices(entry.folder, entry.plan)
        if not self._choices:
            self._clear_tables()
            self._say(
                "The rankings of this run are gone; cerank verify lists what is missing."
                if entry.status.done
                else "Nothing has been re-ranked yet. The rankings will appear here."
            )
        elif self._choice is None:
            self._open(self._choices[0])

    def _say(self, text: str) -> None:
        self.query_one("#which", Static).update(content(text, "dim"))

    def _open(self, choice: RankingChoice) -> None:
        entry = self.entry
        if entry is None or entry.plan is None:
            return
        self._choice, plan = choice, entry.plan
        self._say("reading the rankings …")

        def job() -> tuple[Rankings, tuple[QueryChange, ...]] | CerankError:
            try:
                rankings = Rankings(entry.folder, plan, choice)
                return rankings, rankings.questions()
            except CerankError as error:
                return error

        self.lab_app.run_in_thread(job, self._show_rankings, node=self, group="rankings")

    def _show_rankings(self, outcome: tuple[Rankings, tuple[QueryChange, ...]] | CerankError) -> None:
        if isinstance(outcome, CerankError):
            self._clear_tables()
            self._say(f"✖ These rankings cannot be read: {outcome}")
            return
        self._rankings, self._questions = outcome
        choice = self._rankings.choice
        more = f"  (v: {len(self._choices)} re-rankings)" if len(self._choices) > 1 else ""
        where = f" after {short_name(choice.first_stage)} on {last_part(choice.dataset)}{more}"
        which = joined((choice.system, "bold"), where, (f"  {self._rankings.missing}", "dim"))
        self.query_one("#which", Static).update(content("") + which)
        rows = [
            (
                cell("" if question.after is None else short(question.after), is_right=True),
                cell(f"{question.change:+.3f}", self._color(question.change), is_right=True),
                cell(question.query_id, limit=24),
                cell(question.text, limit=_TEXT),
            )
            for question in self._questions
        ]
        self._fill("#queries", (self._rankings.measure, "change", "query", ""), rows)

    def _fill(self, name: str, headings: tuple[str, ...], rows: Sequence[Sequence[Text]]) -> None:
        fill(cast("DataTable[Text]", self.query_one(name, DataTable)), [cell(heading) for heading in headings], rows)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the documents of the query, or the text of the document, under the cursor."""
        event.stop()
        if event.data_table.id == "documents":
            self._read(event.cursor_row)
        elif self._rankings is not None and 0 <= event.cursor_row < len(self._questions):
            rankings, question = self._rankings, self._questions[event.cursor_row]
            self.lab_app.run_in_thread(
                lambda: (question, rankings.moved(question.query_id)), self._move, node=self, group="documents"
            )

    def _move(self, outcome: tuple[QueryChange, tuple[Moved, ...]]) -> None:
        question, self._documents = outcome
        self.query_one("#query", Static).update(joined((question.query_id, "bold"), "  ", question.text))
        rows = [
            (
                cell("out" if document.after is None else document.after, is_right=True),
                cell("new" if document.before is None else document.before, is_right=True),
                self._arrow(document),
                cell(
                    "-" if document.grade is None else document.grade,
                    "bold" if document.grade else "dim",
                    is_right=True,
                ),
                cell(document.doc_id, limit=24),
                cell(document.text, limit=_TEXT),
            )
            for document in self._documents
        ]
        self._fill("#documents", ("rank", "was", "moved", "grade", "document", "text"), rows)

    def _color(self, change: float) -> str:
        colors = palette(is_dark=self.app.current_theme.dark)
        return colors[2] if change > 0 else colors[5] if change < 0 else ""

    def _arrow(self, moved: Moved) -> Text:
        if not moved.rose:
            return cell("" if moved.rose is None else "=", "dim")
        return cell(f"{'↑' if moved.rose > 0 else '↓'}{abs(moved.rose)}", self._color(moved.rose))

    def _read(self, row: int) -> None:
        if 0 <= row < len(self._documents):
            document = self._documents[row]
            text = document.text or "its text is not on this machine"
            self.query_one("#document", Static).update(joined((document.doc_id, "bold"), "  ", text, limit=8000))

    def action_turn(self) -> None:
        """Show the next re-ranking."""
        if self._choice in self._choices:
            self._open(self._choices[(self._choices.index(self._choice) + 1) % len(self._choices)])

    def action_line(self, by: int) -> None:
        """Move in the table that has the focus."""
        table = next((candidate for candidate in self.query(DataTable) if candidate.has_focus), None)
        if table is not None:
            table.move_cursor(row=max(0, table.cursor_row + by), animate=False)

    def copied(self) -> tuple[str, str] | None:
        """Return the query and its documents, as text."""
        table = self._as_table()
        return (written([table], "tsv"), "the query's documents") if table else None

    def exported(self) -> tuple[str, str] | None:
        """Return the query and its documents, as CSV."""
        table = self._as_table()
        return (written([table], "csv"), f"{self.shown_run}-query.csv") if table else None

    def _as_table(self) -> Table | None:
        if not self._documents:
            return None
        names = ("after", "before", "grade", "document", "text")
        rows = tuple(
            (document.after, document.before, document.grade, document.doc_id, document.text)
            for document in self._documents
        )
        return Table("documents", tuple(Column(name, name) for name in names), rows)
