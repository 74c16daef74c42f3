"""Any table of the library in a widget: rounded for people, each cell safe."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text
from textual.widgets import DataTable

from cerank.tabular import Column, Table, rounded
from cerank.tui.cells import cell

_LEFT = {"text"}


class ShownTable(DataTable[Text]):
    """A table by rows."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(cursor_type="row", id=id, classes=classes)

    def show(self, table: Table, width: int) -> tuple[str, ...]:
        """Shows all rows, and of the columns as many as fit `width` cells; returns the headings of those left out.

        The first two always stand; a column of dashes is left to those who read files.
        """
        texts = [
            ["" if value is None else rounded(value, column) for value, column in zip(row, table.columns, strict=True)]
            for row in table.rows
        ]
        fitting, room = 0, width
        for place, column in enumerate(table.columns):
            room -= max([cell_len(column.heading), *(cell_len(row[place]) for row in texts)]) + 2 * self.cell_padding
            if room < 0 and place > 1:
                break
            fitting += 1
        self.clear(columns=True)
        for column in table.columns[:fitting]:
            self.add_column(cell(column.heading, is_right=column.kind not in _LEFT))
        for row in texts:
            pairs = zip(row[:fitting], table.columns, strict=False)
            self.add_row(*(self.made(text, column) for text, column in pairs))
        return tuple(column.heading for column in table.columns[fitting:])

    def made(self, text: str, column: Column) -> Text:
        """A cell of a column."""
        return cell(text, is_right=column.kind not in _LEFT)
