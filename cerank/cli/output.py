"""The one sink for what a command shows: tables and data on stdout, narration and errors on stderr.

Invariant: outside text reaches a terminal only through `text.shown` (or as JSON escapes), never as markup; and rich is
imported only when a table for people is drawn.

Numbers are rounded for people (table, markdown, latex) and whole for machines (tsv, json, jsonl). A value that is
absent is an empty field or null; a number that is not finite is `nan` or `inf` in tsv and null in JSON, which has none.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Literal, TextIO, TypeAlias

import msgspec

from cerank.cli import escapes
from cerank.errors import CerankError, ExitCode
from cerank.settings import FORMATS
from cerank.text import shown

Value: TypeAlias = str | int | float | bool | None
Kind = Literal["text", "number", "signed", "p", "percent", "bytes", "seconds"]

PIECE = 1 << 15  # characters written at once
LONGEST_ERROR = 20_000  # characters; a recipe may have many mistakes


class Column(msgspec.Struct, frozen=True):
    """One column: its key for machines, its heading for people, and how its values are shown to them."""

    key: str
    heading: str
    kind: Kind = "text"  # signed: a difference; percent: of a share in 0..1; seconds: as 1:02:03
    digits: int = 4  # decimals of number and signed


class Table(msgspec.Struct, frozen=True):
    """Rows to show; each row holds one value a column, in the columns' order."""

    name: str  # for machines, where a command shows several tables
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()  # sentences below the table, for people
    empty: str = ""  # said on stderr in place of a table without rows, for people


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
    if form == "json":
        put(_json(several), stream, raw=True)
    elif form == "jsonl":
        put(_jsonl(several), stream, raw=True)
    elif form == "table":
        _emit_drawn(several, stream)
    else:
        write = {"tsv": _tsv, "latex": _latex, "markdown": _markdown}[form]
        put("\n".join(write(table) for table in several), stream, raw=True)


def form_of(form: str, stream: TextIO | None = None) -> str:
    """The format that `emit` will write: the one asked for, else table on a terminal and tsv elsewhere."""
    return form or ("table" if (stream or sys.stdout).isatty() else "tsv")


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


# --- for machines


def _exact(value: Value) -> Value:
    """A value as JSON can hold it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(table: Table) -> list[dict[str, Value]]:
    keys = [column.key for column in table.columns]
    return [{key: _exact(value) for key, value in zip(keys, row, strict=True)} for row in table.rows]


def _json(tables: Sequence[Table]) -> str:
    document = _records(tables[0]) if len(tables) == 1 else {table.name: _records(table) for table in tables}
    return escapes.json_text(document, indent=2) + "\n"


def _jsonl(tables: Sequence[Table]) -> str:
    head: list[dict[str, Value]] = [{"table": table.name} if len(tables) > 1 else {} for table in tables]
    rows = [first | record for first, table in zip(head, tables, strict=True) for record in _records(table)]
    return "".join(escapes.json_text(row) + "\n" for row in rows)


def _tsv(table: Table) -> str:
    """Tab-separated, without any quoting: a spreadsheet should be told to take every column as text."""
    lines = [[column.key for column in table.columns]]
    lines += [[escapes.tsv("" if value is None else str(value)) for value in row] for row in table.rows]
    return "".join("\t".join(line) + "\n" for line in lines)


# --- for people


def rounded(value: Value, column: Column) -> str:
    """`value` as a person reads it; "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or column.kind == "text":
        return str(value)
    return _SHOWN[column.kind](float(value), column) if not isinstance(value, int) else _whole(value, column)


def _whole(value: int, column: Column) -> str:
    if column.kind in {"number", "signed"}:
        return f"{value:+d}" if column.kind == "signed" and value else str(value)
    return _SHOWN[column.kind](float(value), column)


def _number(value: float, column: Column) -> str:
    """Fixed decimals, or two digits and a power where those would show a small number as nothing."""
    sign = "+" if column.kind == "signed" else ""
    if value and abs(value) < 0.5 * 10.0**-column.digits:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.{column.digits}f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


_SHOWN: dict[Kind, Callable[[float, Column], str]] = {
    "number": _number,
    "signed": _number,
    "p": lambda value, _: _p(value),
    "percent": lambda value, _: _percent(value),
    "bytes": lambda value, _: _bytes(value),
    "seconds": lambda value, _: _seconds(value),
}


def _latex(table: Table) -> str:
    """A booktabs tabular, for `\\usepackage{booktabs}`."""
    layout = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    head = [escapes.latex(column.heading) for column in table.columns]
    body = [[_latex_cell(value, column) for value, column in _cells(table, row)] for row in table.rows]
    lines = [f"\\begin{{tabular}}{{{layout}}}", "\\toprule", " & ".join(head) + r" \\", "\\midrule"]
    lines += [" & ".join(row) + r" \\" for row in body]
    title = [f"% {escapes.latex(table.title)}"] if table.title else []
    return "\n".join([*title, *lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_cell(value: Value, column: Column) -> str:
    text = escapes.latex(rounded(value, column))
    return f"$-${text[1:]}" if column.kind != "text" and text.startswith("-") else text


def _markdown(table: Table) -> str:
    head = [escapes.markdown(column.heading) for column in table.columns]
    rule = ["---" if column.kind == "text" else "---:" for column in table.columns]
    body = [[escapes.markdown(rounded(value, column)) for value, column in _cells(table, row)] for row in table.rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *body])


def _cells(table: Table, row: tuple[Value, ...]) -> list[tuple[Value, Column]]:
    return list(zip(row, table.columns, strict=True))


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
        is_text = column.kind == "text"
        drawing.add_column(
            Text(shown(column.heading)), justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold"
        )
    for row in table.rows:
        drawing.add_row(*(Text(shown(rounded(value, column))) for value, column in _cells(table, row)))
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
