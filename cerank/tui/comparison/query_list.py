"""The queries of a comparison as a list: searched, sorted, only those that were lost, each opened by a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Input, Static

from cerank.app.comparison import export_comparison
from cerank.app.comparison.comparison_session import ComparisonSession, QueryDifference
from cerank.app.run_views.display import at_words
from cerank.errors import CerankError
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table, written
from cerank.tui.cells import cell, joined
from cerank.tui.common.fitted_table import fill
from cerank.tui.common.form_fields import LineInput
from cerank.tui.common.key_footer import KeyFooter
from cerank.tui.common.lab_screen import LabScreen
from cerank.tui.common.status_bar import StatusBar
from cerank.tui.theme import palette

if TYPE_CHECKING:
    from cerank.evaluation.compare import Row

_FIGURES = 35  # cells of the change and the two values
_LEAST_TEXT = 24  # cells of a query's text
_ORDERS = ("gain", "loss", "size", "query")
_ORDER_NAMES = {"gain": "largest gain first", "loss": "largest loss first", "size": "largest change first"}


class QueryListScreen(LabScreen):
    """All queries of one line of a comparison."""

    HELP_TITLE = "the queries of a comparison"
    HELP_TEXT = "The search looks in the id and the text of a query."
    CSS = """
    QueryListScreen #about { height: 1; padding: 0 1; background: $surface; text-wrap: nowrap; }
    QueryListScreen #search { display: none; background: $surface; }
    QueryListScreen #search.-open { display: block; }
    QueryListScreen DataTable { height: 1fr; scrollbar-size-horizontal: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "show the query", id="queries.open", tooltip="Show both rankings side by side"),
        Binding("slash", "search", "search", key_display="/", id="queries.search"),
        Binding("o", "sort", "sort", id="queries.sort", tooltip="By gain, loss, size of the change, or id"),
        Binding("f", "lost", "only lost", id="queries.lost", tooltip="Only queries that the second system lost"),
        Binding("y", "copy", "copy id", id="queries.copy", show=False),
        Binding("e", "export", "export", id="queries.export", tooltip="Write the list to a CSV file"),
        Binding("j", "line(1)", "down", id="queries.down", show=False),
        Binding("k", "line(-1)", "up", id="queries.up", show=False),
        Binding("escape", "back", "back", id="queries.back"),
    ]

    def __init__(self, session: ComparisonSession, row: Row, differences: Sequence[QueryDifference]) -> None:
        super().__init__()
        self._session = session
        self._row = row
        self._differences = tuple(differences)
        self._texts: dict[str, str] = {}
        self._order = "gain"
        self._is_lost_only = False
        self._searched = ""
        self.listed: tuple[QueryDifference, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out what is compared, the search, the queries."""
        yield StatusBar("queries")
        yield Static(id="about")
        yield LineInput(placeholder="words of a query, or its id", id="search")
        yield DataTable[Text](id="queries", cursor_type="row", cursor_foreground_priority="renderable")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show the queries, and their texts once they are read."""
        self.query_one(DataTable).focus()
        self._show()
        session, row, queries = self._session, self._row, [entry.query for entry in self._differences]

        def read() -> dict[str, str]:
            try:
                pair = session.pair(row.left, row.right, row.condition)
                return {query: pair.view(query, depth=0).text for query in queries}
            except CerankError:
                return {}  # the list stands without texts

        self.run_in_thread(read, self._show_texts, group="texts")

    def _show_texts(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._show()

    def _show(self) -> None:
        """Fill the table with the queries that are wanted, in order."""
        rows = [
            entry
            for entry in self._differences
            if (entry.difference < 0 or not self._is_lost_only)
            and self._searched in f"{entry.query} {self._texts.get(entry.query, '')}".casefold()
        ]
        keys = {
            "gain": lambda entry: -entry.difference,
            "loss": lambda entry: entry.difference,
            "size": lambda entry: -abs(entry.difference),
            "query": lambda entry: entry.query,
        }
        rows.sort(key=keys[self._order])
        self.listed = tuple(rows)
        colors = palette(is_dark=self.app.current_theme.dark)
        longest_id = max((cell_len(entry.query) for entry in rows), default=5)
        room = self.app.size.width - _FIGURES - longest_id - 4
        has_texts = bool(self._texts)
        has_ids = not has_texts or room >= _LEAST_TEXT  # the text says more than the id
        room = room if has_ids else self.app.size.width - _FIGURES - 4
        cells = []
        for entry in rows:
            color = colors[2] if entry.difference > 0 else colors[5] if entry.difference < 0 else ""
            sign = "▲" if entry.difference > 0 else "▼" if entry.difference < 0 else "="
            change = cell(f"{sign} {entry.difference:+.4f}", color, is_right=True)
            left, right = (cell(f"{value:.4f}", is_right=True) for value in (entry.left, entry.right))
            text = cell(at_words(self._texts.get(entry.query, ""), max(_LEAST_TEXT, room)))
            cells.append([change, left, right, *([text] if has_texts else []), cell(entry.query, "dim")])
            if not has_ids:
                cells[-1].pop()
        names = ["change", "before", "after", *(["query"] if has_texts else []), *(["id"] if has_ids else [])]
        headings = [cell(name, is_right=at < 3) for at, name in enumerate(names)]
        fill(self.query_one(DataTable), headings, cells)
        order = _ORDER_NAMES.get(self._order, "by id")
        only = ", only lost" if self._is_lost_only else ""
        hidden = "" if has_ids else "(+1 column: id) "
        self.query_one("#about", Static).update(
            joined(
                (f"{counted(len(rows), 'query')} ", "bold"),
                f"{hidden}{self._row.measure}, {self._row.right} − {self._row.left}, {order}{only}",
            )
        )

    def on_input_changed(self, event: Input.Changed) -> None:
        """List the queries that hold what is typed."""
        event.stop()
        self._searched = event.value.casefold()
        self._show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to the list."""
        event.stop()
        self.query_one(DataTable).focus()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open the query."""
        event.stop()
        self.action_open()

    def action_open(self) -> None:
        """Show both rankings of the query."""
        from cerank.tui.comparison.query_screen import QueryScreen

        at = self.query_one(DataTable).cursor_row
        if 0 <= at < len(self.listed):
            self.app.push_screen(QueryScreen(self._session, self._row, self.listed, at))

    def action_search(self) -> None:
        """Open the search."""
        line = self.query_one("#search", Input)
        line.add_class("-open")
        line.focus()

    def action_sort(self) -> None:
        """Take the next order."""
        self._order = _ORDERS[(_ORDERS.index(self._order) + 1) % len(_ORDERS)]
        self._show()

    def action_lost(self) -> None:
        """List only the queries that were lost, or all again."""
        self._is_lost_only = not self._is_lost_only
        self._show()

    def action_line(self, by: int) -> None:
        """Move in the list."""
        table = self.query_one(DataTable)
        table.move_cursor(row=max(0, table.cursor_row + by), animate=False)

    def action_copy(self) -> None:
        """Copy the id of the query."""
        at = self.query_one(DataTable).cursor_row
        if 0 <= at < len(self.listed):
            self.lab_app.copy_text(self.listed[at].query, "the query's id")

    def action_export(self) -> None:
        """Write the list as it is searched and sorted."""
        columns = (
            Column("query", "query"),
            Column("before", "before", "number"),
            Column("after", "after", "number"),
            Column("change", "change", "signed"),
            Column("text", "text"),
        )
        rows = tuple(
            (entry.query, entry.left, entry.right, entry.difference, self._texts.get(entry.query, ""))
            for entry in self.listed
        )
        text = written([Table("queries", columns, rows)], "csv")
        path = self.lab_app.files / "cerank-queries.csv"
        self.run_in_thread(
            lambda: export_comparison.save(text, path, replace=True),
            lambda written_path: self.lab_app.show_message(f"wrote {written_path}"),
            group="export",
        )

    def action_back(self) -> None:
        """End the search, then leave."""
        line = self.query_one("#search", Input)
        if line.has_class("-open"):
            line.value = ""
            line.remove_class("-open")
            self.query_one(DataTable).focus()
            return
        self.dismiss(None)
