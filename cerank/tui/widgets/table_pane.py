"""Any table of the library in a widget: rounded for people, each cell safe."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import DataTable

from cerank.tabular import Table, rounded
from cerank.tui.cells import cell

_LEFT = {"text"}


class ShownTable(DataTable[Text]):
    """A table by rows."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(cursor_type="row", id=id, classes=classes)

    def show(self, table: Table) -> None:
        """Shows all rows; a column of dashes is left to those who read files."""
        self.clear(columns=True)
        for column in table.columns:
            self.add_column(cell(column.heading, is_right=column.kind not in _LEFT))
        for row in table.rows:
            pairs = zip(row, table.columns, strict=True)
            cells = ((("" if value is None else rounded(value, column)), column) for value, column in pairs)
            self.add_row(*(cell(text, is_right=column.kind not in _LEFT) for text, column in cells))
