"""Any table of the library in a widget: rounded for people, each cell safe."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from cerank.tabular import Column, Table, rounded
from cerank.tui.cells import cell
from cerank.tui.widgets.fitted_table import FittedTable

_LEFT = {"text"}


class ShownTable(FittedTable):
    """A table by rows."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(cursor_type="row", id=id, classes=classes)

    def show(self, table: Table, width: int) -> tuple[str, ...]:
        """Shows all rows, and of the columns as many as fit `width` cells; returns the headings of those left out.

        The first two always stand; a column of dashes is left to those who read files.
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
        fitting, room = 0, width
        for place, needed in enumerate(widths):
            room -= needed + 2 * self.cell_padding
            if room < 0 and place > 1:
                break
            fitting += 1
        self.clear(columns=True)
        for column, needed in zip(table.columns[:fitting], widths, strict=False):
            # a width of its own: one that Textual measures later may come after the headings were drawn, and kept
            self.add_column(cell(column.heading, is_right=column.kind not in _LEFT), width=needed)
        for row in rows:
            self.add_row(*row[:fitting])
        return tuple(column.heading for column in table.columns[fitting:])

    def made(self, text: str, column: Column) -> Text:
        """A cell of a column."""
        return cell(text, is_right=column.kind not in _LEFT)
