"""Any table of the library in a widget: rounded for people, each cell safe."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from cerank.text.table_data import TEXTS, Column, Table, fitting, rounded
from cerank.tui.cells import cell
from cerank.tui.common.fitted_table import FittedTable


class TableView(FittedTable):
    """A table by rows."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(cursor_type="row", id=id, classes=classes)

    def show(self, table: Table, width: int) -> tuple[str, ...]:
        """Show all rows, and of the columns as many as fit `width` cells; return the headings of those left out.

        Columns go as their priorities say, and always whole. A column of dashes is left to those who read files.
        """
        rows = [
            [
                self.made("" if value is None else rounded(value, column), column)
                for value, column in zip(row, table.columns, strict=True)
            ]
            for row in table.rows
        ]
        widths = [
            max([cell_len(column.heading), *(row[place].cell_len for row in rows)])
            for place, column in enumerate(table.columns)
        ]
        fitting_places = fitting(table.columns, widths, width - 2 * self.cell_padding, 2 * self.cell_padding)
        self.clear(columns=True)
        for place in fitting_places:
            column = table.columns[place]
            # a width of its own: one that Textual measures later may come after the headings were drawn, and kept
            self.add_column(cell(column.heading, is_right=column.kind not in TEXTS), width=widths[place])
        for row in rows:
            self.add_row(*(row[place] for place in fitting_places))
        return tuple(column.heading for place, column in enumerate(table.columns) if place not in fitting_places)

    def made(self, text: str, column: Column) -> Text:
        """Return a cell of a column."""
        return cell(text, is_right=column.kind not in TEXTS)
