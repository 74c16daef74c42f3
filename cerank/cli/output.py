"""The one sink for what a command shows: tables and data on stdout, narration and errors on stderr.

Invariant: outside text reaches a terminal only through `text.shown` (or as JSON escapes), never as markup; and rich is
imported only when a table for people is drawn.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from cerank import tabular
from cerank.errors import CerankError, ExitCode
from cerank.settings import FORMATS
from cerank.tabular import TEXTS, Column, Kind, Table, rounded
from cerank.text import shown

__all__ = ["Column", "Kind", "Table", "emit", "form_of", "put", "report_error", "rounded", "say", "width_of"]

PIECE = 1 << 15  # characters written at once
LONGEST_ERROR = 20_000  # characters; a recipe may have many mistakes


def emit(tables: Table | Sequence[Table], form: str = "", stream: TextIO | None = None) -> None:
    """Writes `tables` to `stream` (stdout) in one of `FORMATS`; "" takes table on a terminal and tsv elsewhere.

    Several tables in one call: tsv, latex and markdown put a blank line between, json makes one object of row lists by
    table name (one table is a plain list of rows), jsonl adds the key "table" to each row.
    """
    stream = stream or sys.stdout
    form = form_of(form, stream)
    if form not in FORMATS:
        raise ValueError(f"no format {form}")
    several = (tables,) if isinstance(tables, Table) else tuple(tables)
    if form == "table":
        _emit_drawn(several, stream)
    else:
        put(tabular.written(several, form), stream, raw=True)


def form_of(form: str, stream: TextIO | None = None) -> str:
    """The format that `emit` will write: the one asked for, else table on a terminal and tsv elsewhere."""
    return form or ("table" if (stream or sys.stdout).isatty() else "tsv")


def width_of(stream: TextIO | None = None) -> int:
    """Columns that a drawn table may take: the terminal's, or as many as it needs where there is none."""
    return _width(stream or sys.stdout)


def put(text: str, stream: TextIO | None = None, *, raw: bool = False) -> None:
    """Writes data to `stream` (stdout): text of several lines, made safe to show unless `raw` says that it is.

    A reader that has gone away (`| head`) ends the process quietly; a character that the stream's encoding lacks is
    written as an escape.
    """
    stream = stream or sys.stdout
    safe = text if raw else shown(text, sys.maxsize, lines=True)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    known = safe.encode(encoding, "backslashreplace").decode(encoding)
    try:
        # In pieces: with PYTHONUNBUFFERED, Python takes one large write cut short by the reader's end for a whole one.
        for start in range(0, len(known), PIECE):
            stream.write(known[start : start + PIECE])
        stream.flush()
    except BrokenPipeError:
        _let_go(stream)
        raise SystemExit(ExitCode.OK) from None


def say(text: str, stream: TextIO | None = None) -> None:
    """Narrates one line (or several) on stderr: what was done, where things are; never data."""
    _narrate(shown(text, LONGEST_ERROR, lines=True), stream or sys.stderr)


def report_error(error: CerankError, stream: TextIO | None = None) -> None:
    """Writes `error` to stderr as one paragraph: what is wrong, where, and how to go on."""
    stream = stream or sys.stderr
    what = shown(error.what, LONGEST_ERROR, lines=True).replace("\n", "\n       ")
    lines = [f"{_marked('error:', stream)} {what}"]
    if error.where:
        lines.append(f"  at {shown(error.where)}")
    if error.hint:
        lines.append(f"  hint: {shown(error.hint)}")
    _narrate("\n".join(lines), stream)


def _narrate(text: str, stream: TextIO) -> None:
    """A line on stderr; where nobody reads it any more, the work goes on all the same."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        _let_go(stream)


def _marked(word: str, stream: TextIO) -> str:
    """`word` in red where the terminal may show colour."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return word if plain else f"\x1b[1;31m{word}\x1b[0m"


def _let_go(stream: TextIO) -> None:
    """Points a broken stream at nothing, or Python complains about it once more when it flushes at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # a stream without a descriptor has nothing to flush
        return


def _emit_drawn(tables: Sequence[Table], stream: TextIO) -> None:
    for number, table in enumerate(tables):
        if not table.rows and table.empty:
            say(table.empty)
            continue
        put(("\n" if number else "") + _drawn(table, stream), stream, raw=True)


def _drawn(table: Table, stream: TextIO) -> str:
    """The table as rich draws it, as wide as the terminal; where there is none, as wide as it needs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    page = io.StringIO()
    console = Console(
        file=page,
        width=_width(stream),
        force_terminal=stream.isatty(),
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    if table.title:
        console.print(Text(shown(table.title), style="bold"))
    drawing = Drawing(box=box.SIMPLE_HEAD if _can_draw(stream) else box.ASCII)
    for column in table.columns:
        is_text = column.kind in TEXTS
        drawing.add_column(
            Text(shown(column.heading)),
            justify="left" if is_text else "right",
            no_wrap=column.kind != "text",
            overflow="fold",
        )
    for row in table.rows:
        drawing.add_row(
            *(Text(shown(rounded(value, column))) for value, column in zip(row, table.columns, strict=True))
        )
    console.print(drawing)
    for note in table.notes:
        console.print(Text(shown(note)))
    return "".join(line.rstrip() + "\n" for line in page.getvalue().splitlines())


def _can_draw(stream: TextIO) -> bool:
    try:
        "─".encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _width(stream: TextIO) -> int:
    """Columns of the terminal; COLUMNS wins, and where the stream is none nothing is cut."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and 0 < int(asked) < 10_000:
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 10_000
