"""One query in two rankings, side by side, with grades, movement and texts.

Invariant: rankings and texts are read in a thread; until they are there, the screen says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import DataTable, Footer, Static

from cerank.app.comparison.comparison_session import ComparisonSession, Placed, QueryDifference, RankingPair, View
from cerank.errors import CerankError
from cerank.tui.cells import cell, content, joined
from cerank.tui.common.fitted_table import fill
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar

if TYPE_CHECKING:
    from cerank.evaluation.compare import Row


class QueryScreen(LabScreen):
    """Both rankings of a query."""

    HELP_TITLE = "a query in two rankings"
    HELP_TEXT = (
        "grade: relevance grade, – not judged. ↑3: three ranks above its place in the other ranking; new: not there."
    )
    CSS = """
    QueryScreen #about { height: auto; max-height: 4; padding: 0 1; background: $surface; }
    QueryScreen .side { width: 1fr; height: 1fr; }
    QueryScreen .side Static { height: 1; padding: 0 1; text-style: bold; text-wrap: nowrap; text-overflow: ellipsis; }
    QueryScreen .side DataTable { height: 1fr; scrollbar-size-horizontal: 0; }
    QueryScreen #right { border-left: solid $panel; }
    QueryScreen #text { height: 8; padding: 0 1; border-top: solid $panel; }
    QueryScreen.-low #text { height: 6; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "turn(1)", "next query", id="query.next", tooltip="Show the next query, in the order of the bars"),
        Binding("p", "turn(-1)", "previous query", id="query.before"),
        Binding("tab", "app.focus_next", "other side", id="query.side"),
        Binding("escape", "dismiss(None)", "back", id="query.back"),
    ]

    def __init__(self, bench: ComparisonSession, row: Row, listed: Sequence[QueryDifference], at: int) -> None:
        super().__init__()
        self._bench = bench
        self._row = row
        self.listed = tuple(listed)
        self.at = at
        self.pair: RankingPair | None = None
        self.seen: View | None = None

    def compose(self) -> ComposeResult:
        """Lay out the query, both rankings, the text of a document."""
        yield StatusBar("query")
        yield Static(id="about")
        with Horizontal():
            for side, label in (("left", self._row.left), ("right", self._row.right)):
                with Vertical(classes="side", id=side):
                    yield Static(content(label))
                    yield DataTable[Text](
                        id=f"{side}-table", cursor_type="row", cursor_foreground_priority="renderable"
                    )
        with VerticalScroll(id="text", can_focus=False):
            yield Static(id="document")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Read the rankings."""
        self.query_one("#right-table", DataTable).focus()
        self._show_about("reading both rankings …")
        bench, row = self._bench, self._row

        def look() -> RankingPair | CerankError:
            try:
                return bench.pair(row.left, row.right, row.condition)
            except CerankError as error:
                return error

        self.run_in_thread(look, self._see_pair, group="pair")

    def _see_pair(self, pair: RankingPair | CerankError) -> None:
        if isinstance(pair, CerankError):
            self._show_about(f"✖ {pair}")
            return
        self.pair = pair
        self._look()

    def _look(self) -> None:
        pair, query = self.pair, self.listed[self.at].query
        if pair is None:
            return

        def look() -> View | CerankError:
            try:
                return pair.view(query)
            except CerankError as error:
                return error

        self.run_in_thread(look, self._see, group="view")

    def _see(self, view: View | CerankError) -> None:
        if isinstance(view, CerankError):
            self._show_about(f"✖ {view}")
            return
        self.seen = view
        self._show_about(view.note)
        for side, docs in (("left", view.left), ("right", view.right)):
            self._fill(self.query_one(f"#{side}-table", DataTable), docs)
        self._show_document()

    def _show_about(self, note: str) -> None:
        row = self.listed[self.at]
        text = self.seen.text if self.seen and self.seen.query == row.query else ""
        line = joined(
            (f"{self.at + 1}/{len(self.listed)}  query {row.query}  ", "dim"),
            (text, "bold"),
            f"\n{self._row.measure}  {row.left:.4f} → {row.right:.4f}  ",
            (f"{'▲' if row.difference > 0 else '▼' if row.difference < 0 else '='} {row.difference:+.4f}", "bold"),
            (f"   {note}" if note else "", "dim"),
            lines=True,
        )
        self.query_one("#about", Static).update(line)

    def _fill(self, table: DataTable[Text], docs: Sequence[Placed]) -> None:
        rows = []
        for doc in docs:
            is_good = bool(doc.grade and doc.grade > 0)
            grade = "–" if doc.grade is None else f"{'●' if is_good else '○'} {doc.grade}"
            style = "bold" if is_good else "dim" if doc.grade is None else ""
            name, text = cell(doc.document, style, 40), cell(doc.text, "dim", 120)
            rows.append((cell(doc.rank, is_right=True), cell(grade, style), cell(_moved(doc)), name, text))
        fill(table, [cell(heading, "bold") for heading in ("#", "grade", "moved", "document", "text")], rows)

    def on_data_table_row_highlighted(self, _: DataTable.RowHighlighted) -> None:
        """Show the text of the document under the cursor."""
        self._show_document()

    def on_descendant_focus(self) -> None:
        """Show the text of the other side's document."""
        self._show_document()

    def _show_document(self) -> None:
        table = self.focused
        if self.seen is None or not isinstance(table, DataTable):
            return
        docs = self.seen.left if table.id == "left-table" else self.seen.right
        at = table.cursor_row
        document = self.query_one("#document", Static)
        if 0 <= at < len(docs):
            doc = docs[at]
            head = (f"{doc.document}  ", "bold")
            document.update(joined(head, doc.text or "(no text)", limit=20_000, lines=True))
        else:
            document.update(content("this ranking has no document for the query", "dim"))

    def action_turn(self, step: int) -> None:
        """Go to the next query, or the one before."""
        at = max(0, min(self.at + step, len(self.listed) - 1))
        if at != self.at:
            self.at = at
            self._show_about("")
            self._look()


def _moved(doc: Placed) -> str:
    if doc.other is None:
        return "new"
    gone = doc.other - doc.rank
    return f"↑{gone}" if gone > 0 else f"↓{-gone}" if gone < 0 else "="
