"""A table as text for a screen of any width: whole columns go, texts wrap at words, and no cell is ever cut.

Invariant: a figure, an id and a word stand whole on one line. A screen too narrow for the columns that always stand
gets a block of lines for each row instead.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence

import msgspec

from cerank.text.safe_text import counted, shown
from cerank.text.table_data import TEXTS, Column, Table, fitting, rounded

GAP = 2  # cells between two columns
PREFERRED_TEXT_WIDTH = 20  # cells to which a text column is narrowed before another column goes


class Style(msgspec.Struct, frozen=True):
    """What the screen can show, and how to see what it has no room for."""

    width: int
    is_terminal: bool = False  # bold titles
    is_plain: bool = False  # ASCII only
    more: str = "a wider terminal or --format tsv"  # shows the columns that are left out


def table_as_text(table: Table, style: Style) -> str:
    """Return the table with its title above and its notes below, each line at most as wide as the screen.

    Only a single word, figure or id that is itself wider than the screen makes a longer line.
    """

    heads = [shown(column.heading) for column in table.columns]
    rows = [
        [shown(rounded(value, column)) for value, column in zip(row, table.columns, strict=True)] for row in table.rows
    ]
    sizes = [_sizes([row[place] for row in rows], heads[place], column) for place, column in enumerate(table.columns)]
    easy = [
        min(full, max(least, PREFERRED_TEXT_WIDTH)) if column.kind == "text" else least
        for (least, full), column in zip(sizes, table.columns, strict=True)
    ]
    shown_places = fitting(table.columns, easy, style.width, GAP)
    widths = _widths([sizes[place] for place in shown_places], style.width)
    lines = []
    if table.title:
        title = "\n".join(wrapped(shown(table.title), style.width))
        lines.append(f"\x1b[1m{title}\x1b[0m" if style.is_terminal else title)
    if widths:
        columns = [table.columns[place] for place in shown_places]
        lines += _drawn_rows(columns, [[row[place] for place in shown_places] for row in [heads, *rows]], widths, style)
    else:
        lines += _blocks(heads, rows, style.width)
    if widths and len(shown_places) < len(heads):
        names = [heads[place] or table.columns[place].key for place in range(len(heads)) if place not in shown_places]
        them = "them" if len(names) > 1 else "it"
        note = f"+{counted(len(names), 'column')}: {', '.join(names)}; {style.more} shows {them}"
        lines += wrapped(note, style.width)
    gone = {heads[place] for place in range(len(heads)) if place not in shown_places} if widths else set()
    for note in table.notes:
        if note := _without_gone(shown(note), gone):
            lines += wrapped(note, style.width)
    return "".join(line.rstrip() + "\n" for line in lines)


def _sizes(cells: Sequence[str], heading: str, column: Column) -> tuple[int, int]:
    """Return the least width at which nothing of a column is cut, and the width at which nothing of it wraps."""
    from rich.cells import cell_len

    full = max((cell_len(cell) for cell in cells), default=0)
    least = max((_longest_word(cell) for cell in cells), default=0) if column.kind == "text" else full
    return max(least, _longest_word(heading)), max(full, cell_len(heading))


def _longest_word(text: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, text.split()), default=0)


def _widths(sizes: Sequence[tuple[int, int]], width: int) -> list[int]:
    """Return a width for each column, the widest narrowed first; none where even the least do not fit."""
    room = width - GAP * (len(sizes) - 1)
    if not sizes or sum(least for least, _ in sizes) > room:
        return []
    low, high = 0, max(full for _, full in sizes)
    while low < high:  # the highest level to which all columns may rise
        level = (low + high + 1) // 2
        if sum(max(least, min(full, level)) for least, full in sizes) <= room:
            low = level
        else:
            high = level - 1
    widths = [max(least, min(full, low)) for least, full in sizes]
    for place, (_, full) in enumerate(sizes):  # a level leaves a few cells over
        widths[place] += max(0, min(full - widths[place], room - sum(widths)))
    return widths


def _without_gone(note: str, gone: Collection[str]) -> str:
    """Return a note without what explains columns that are not shown: parts such as "d_z: what it is"."""
    parts = note.split("; ")
    return "; ".join(part for part in parts if part.partition(": ")[0] not in gone)


def _drawn_rows(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int], style: Style
) -> list[str]:
    """Return the heading (the first row), a rule and the other rows, as rich draws them at these widths."""
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    rule = "----" if style.is_plain else "────"
    box = Box("\n".join(["    ", "    ", rule, "    ", "    ", "    ", "    ", "    "]) + "\n", ascii=style.is_plain)
    page = io.StringIO()
    console = Console(
        file=page,
        width=sum(widths) + GAP * len(widths),
        force_terminal=style.is_terminal,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    drawing = Drawing(box=box, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, heading, width in zip(columns, rows[0], widths, strict=True):
        is_text = column.kind in TEXTS
        drawing.add_column(Text(heading), justify="left" if is_text else "right", width=width, overflow="fold")
    for row in rows[1:]:
        drawing.add_row(*map(Text, row))
    console.print(drawing)
    return page.getvalue().splitlines()


def _blocks(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return a block for each row, "heading: value" on a line of its own; of two columns the first is the heading."""
    if len(heads) == 2:
        return [line for key, value in rows for line in wrapped(f"{key}: {value}", width, "  ")]
    lines: list[str] = []
    for row in rows:
        lines += [""] if lines else []
        for heading, value in zip(heads, row, strict=True):
            lines += wrapped(f"{heading}: {value}" if heading else value, width, "  ") if value else []
    return lines


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return the text in lines of `width` cells, broken between words only; lines after the first are indented."""
    from rich.cells import cell_len

    lines, line, length = [], "", 0
    for word in text.split(" "):
        size = cell_len(word)
        if line.strip() and length + 1 + size > width:
            lines.append(line)
            line, length = indent + word, len(indent) + size
        else:
            line, length = (f"{line} {word}", length + 1 + size) if line else (word, size)
    return [*lines, line]
