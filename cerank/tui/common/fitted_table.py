"""Tables: as high as their rows, with whole columns, each cell safe to show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.widgets import DataTable

from cerank.text.table_data import TEXTS, Column, Table, fitting, rounded
from cerank.tui.cells import cell


def fill(table: DataTable[Text], headings: Sequence[Text], rows: Iterable[Sequence[Text]]) -> None:
    """Replace everything in a table, each column as wide as its widest cell.

    Textual (8.2) measures columns without a width when it is idle. Headings that were drawn before that keep the
    narrow width they had then, until the table changes again.
    """
    rows = list(rows)

    def add(heading: Text, width: int) -> None:
        table.add_column(heading, width=width)

    table.clear(columns=True)
    for place, heading in enumerate(headings):
        add(heading, max(text.cell_len for text in (heading, *(row[place] for row in rows))))
    table.add_rows(rows)


class FittedTable(DataTable[Text]):
    """For tables whose CSS says `height: auto`; DEFAULT_CSS and type selectors of DataTable hold for it."""

    def watch_virtual_size(self) -> None:
        """Forget the size that was computed for the lines of before.

        Textual (8.2) keeps a widget's box under a count of its layouts asked for, and does not count one that is asked
        for while another is pending. A table measures its lines when it is idle: where the screen was laid out between
        its being cleared and its being measured, the box of the empty table, no line high, was taken for its own, two
        times in a hundred.
        """
        self._layout_updates += 1


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
