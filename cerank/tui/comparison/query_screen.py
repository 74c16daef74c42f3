"""One query in two rankings, side by side, with grades, movement and texts.

Invariant: rankings and texts are read in a thread; until they are there, the screen says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import DataTable, Static

from cerank.app.comparison.comparison_session import ComparisonSession, Placed, QueryDifference, RankingPair, View
from cerank.app.run_views.display import at_words
from cerank.errors import CerankError
from cerank.tui.cells import cell, content, joined
from cerank.tui.common.fitted_table import fill
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar

if TYPE_CHECKING:
    from cerank.evaluation.compare import Row


_LEAST_TEXT = 24  # cells of a document's text in its row


class QueryScreen(LabScreen):
    """Both rankings of a query."""

    HELP_TITLE = "a query in two rankings"
    HELP_TEXT = (
        "grade: relevance grade, – not judged. ↑3: three ranks above its place in the other ranking; new: not there. "
        "part: what the document gives to the measure's value; the parts of the right side less those of the left sum "
        "to the difference. `cerank explain` prints them."
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
        Binding("y", "copy", "copy id", id="query.copy", show=False, tooltip="Copy the id of the query"),
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
        yield KeyFooter()

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
        pair, query, measure = self.pair, self.listed[self.at].query, self._row.measure
        if pair is None:
            return

        def look() -> View | CerankError:
            try:
                return pair.view(query, measure=measure)
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
        """Show a ranking: ids whole, and texts where there is room for some words.

        An id that is itself wider than the table loses its beginning; it stands whole below, above the text.
        """
        figures = [(str(doc.rank), _grade(doc), _moved(doc), _part(doc)) for doc in docs]
        gap = 2 * table.cell_padding
        used = sum(max((len(row[at]) for row in figures), default=0) + gap for at in range(4)) + gap + 6
        room = max(12, (table.size.width or self.app.size.width // 2) - used)
        longest = max((cell_len(doc.document) for doc in docs), default=8)
        room_for_text = room - longest - gap
        rows = []
        for doc, (rank, grade, moved, part) in zip(docs, figures, strict=True):
            style = "bold" if doc.grade and doc.grade > 0 else "dim" if doc.grade is None else ""
            name = doc.document if longest <= room else f"…{doc.document[-(room - 1) :]}"
            row = [
                cell(rank, is_right=True),
                cell(grade, style),
                cell(moved),
                cell(part, is_right=True),
                cell(name, style),
            ]
            rows.append([*row, cell(at_words(doc.text, room_for_text), "dim")] if room_for_text >= _LEAST_TEXT else row)
        names = ["#", "grade", "moved", "part", "document", *(["text"] if room_for_text >= _LEAST_TEXT else [])]
        fill(table, [cell(name, "bold") for name in names], rows)

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
            text = content(doc.text or "(no text)", limit=20_000, lines=True)
            document.update(joined((f"{doc.document}  ", "bold")) + _highlighted(text, self.seen.text))
        else:
            document.update(content("this ranking has no document for the query", "dim"))

    def action_copy(self) -> None:
        """Copy the id of the query."""
        self.lab_app.copy_text(self.listed[self.at].query, "the query's id")

    def action_turn(self, step: int) -> None:
        """Go to the next query, or the one before."""
        at = max(0, min(self.at + step, len(self.listed) - 1))
        if at != self.at:
            self.at = at
            self._show_about("")
            self._look()


def _grade(doc: Placed) -> str:
    return "–" if doc.grade is None else f"{'●' if doc.grade > 0 else '○'} {doc.grade}"


def _part(doc: Placed) -> str:
    """Return what a document gives to the measure's value, without the leading zero; "" for nothing."""
    return f"{doc.part:.3f}".removeprefix("0") if doc.part else ""


def _highlighted(text: Content, query: str) -> Content:
    """Return a text in which the words of a query are set off."""
    words = {re.escape(word) for word in re.findall(r"\w{3,}", query.casefold())}
    if not words:
        return text
    pattern = re.compile(rf"\b({'|'.join(sorted(words))})", re.IGNORECASE)
    for match in pattern.finditer(text.plain):
        text = text.stylize("bold underline", match.start(), match.end())
    return text


def _moved(doc: Placed) -> str:
    if doc.other is None:
        return "new"
    gone = doc.other - doc.rank
    return f"↑{gone}" if gone > 0 else f"↓{-gone}" if gone < 0 else "="
