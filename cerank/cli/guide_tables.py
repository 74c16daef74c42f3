"""Draw the tables of a guide so that no word is cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table
from rich.text import Text


class _GuideTable(TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [row.cells for row in self.body.rows] if self.body else []
        heading = self.header.row.cells if self.header and self.header.row else []
        cells = [[cell.content for cell in row] for row in [heading, *rows]]
        gaps = 2 * (len(heading) - 1) + 2  # two between columns, one at either side
        for drawn in super().__rich_console__(console, options):
            if isinstance(drawn, Table):
                for column, width in zip(drawn.columns, column_widths(cells, options.max_width - gaps), strict=True):
                    column.width = width
            yield drawn


class GuideMarkdown(Markdown):
    """Markdown whose tables give each column at least its longest word, where the terminal has the room."""

    elements: ClassVar = {**Markdown.elements, "table_open": _GuideTable}


def column_widths(rows: Sequence[Sequence[Text]], room: int) -> list[int]:
    """Return how wide each column is drawn, in cells.

    A column has at least its longest word; what room is left goes one by one to the column that then has the most text
    for its width. Where even the words need more than the room, the widest columns give way.

    Args:
        rows: the cells' texts, row by row, all rows of the same length.
        room: cells for all columns together.
    """
    columns = list(zip(*rows, strict=True))
    longest = [
        max((Text(word).cell_len for text in column for word in text.plain.split()), default=1) for column in columns
    ]
    full = [max((text.cell_len for text in column), default=1) for column in columns]
    widths = [max(width, 1) for width in longest]
    while sum(widths) < room and any(width < want for width, want in zip(widths, full, strict=True)):
        neediest = max(range(len(widths)), key=lambda at: full[at] / widths[at])
        widths[neediest] += 1
    while sum(widths) > max(room, len(widths)):
        widths[widths.index(max(widths))] -= 1
    return widths
