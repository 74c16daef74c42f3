"""A table as data, and as text for machines (csv, tsv, json, jsonl) and for papers (latex, markdown).

Invariant: nothing here writes to a stream, and no cell can end its field, start a command or act upon a terminal.

Numbers are rounded for people (markdown, latex) and whole for machines (csv, tsv, json, jsonl). A value that is
absent is an empty field or null; a number that is not finite is `nan` or `inf` in csv and tsv, and null in JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from cerank.text import escapes

Value: TypeAlias = str | int | float | bool | None
Kind = Literal["text", "name", "number", "signed", "p", "percent", "bytes", "seconds", "duration"]


TEXTS = ("text", "name")  # kinds that are not figures


class Column(msgspec.Struct, frozen=True):
    """One column: its key for machines, its heading for people, and how its values are shown to them.

    A column with priority 0 always stands. Where a screen is too narrow, the others go whole, the one with the highest
    number first and of equals the rightmost. Formats for machines have every column.
    """

    key: str
    heading: str
    # name: never wrapped; signed: a difference; percent: of a share in 0..1; seconds: as 1:02:03; duration: estimated
    # seconds, as "12 min", or "unknown"
    kind: Kind = "text"
    digits: int = 4  # decimals of number and signed
    priority: int = 0


class Table(msgspec.Struct, frozen=True):
    """Rows to show; each row holds one value a column, in the columns' order."""

    name: str  # for machines, where a command shows several tables
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()  # sentences below the table, for people
    empty: str = ""  # said on stderr in place of a table without rows, for people


def key_value_table(name: str, rows: Sequence[tuple[str, str]], title: str = "") -> Table:
    """Return a table of one thing, a key and its value in each row."""
    return Table(name, (Column("key", "key"), Column("value", "value")), tuple(rows), title)


def written(tables: Sequence[Table], form: str) -> str:
    """Return the tables as text in "csv", "tsv", "json", "jsonl", "latex" or "markdown".

    csv, tsv, latex and markdown put a blank line between tables, json makes one object of row lists by table name (one
    table is a plain list of rows), jsonl adds the key "table" to each row of several. Tables of one name have their
    rows in one list.

    Raises:
        ValueError: no such format; a fault of the program.
    """
    if form == "json":
        return _json(tables)
    if form == "jsonl":
        return _jsonl(tables)
    write = {"csv": _csv, "tsv": _tsv, "latex": _latex, "markdown": _markdown}.get(form)
    if write is None:
        raise ValueError(f"no format {form}")
    return "\n".join(write(table) for table in tables)


# --- for machines


def _exact(value: Value) -> Value:
    """Return a value as JSON can hold it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records(table: Table) -> list[dict[str, Value]]:
    """Return the rows of a table as dictionaries of values that JSON can hold."""
    keys = [column.key for column in table.columns]
    return [{key: _exact(value) for key, value in zip(keys, row, strict=True)} for row in table.rows]


def document(tables: Sequence[Table], meta: Mapping[str, object]) -> str:
    """Return tables, or one alone, as a JSON object: `meta`, the rows of each table by its name, and all `notes`."""
    notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    return escapes.json_text({"meta": meta, **_by_name(tables), "notes": notes}, indent=2) + "\n"


def _json(tables: Sequence[Table]) -> str:
    rows = records(tables[0]) if len(tables) == 1 else _by_name(tables)
    return escapes.json_text(rows, indent=2) + "\n"


def _by_name(tables: Sequence[Table]) -> dict[str, list[dict[str, Value]]]:
    rows: dict[str, list[dict[str, Value]]] = {}
    for table in tables:
        rows.setdefault(table.name, []).extend(records(table))
    return rows


def _jsonl(tables: Sequence[Table]) -> str:
    head: list[dict[str, Value]] = [{"table": table.name} if len(tables) > 1 else {} for table in tables]
    rows = [first | record for first, table in zip(head, tables, strict=True) for record in records(table)]
    return "".join(escapes.json_text(row) + "\n" for row in rows)


def _tsv(table: Table) -> str:
    """Return tab-separated, without any quoting: a spreadsheet should be told to take every column as text."""
    lines = [[column.key for column in table.columns]]
    lines += [[escapes.tsv("" if value is None else str(value)) for value in row] for row in table.rows]
    return "".join("\t".join(line) + "\n" for line in lines)


def _csv(table: Table) -> str:
    """Return CSV by RFC 4180, with \\n line ends; no spreadsheet takes a text cell for a formula."""
    lines = [[escapes.csv(column.key) for column in table.columns]]
    lines += [[_csv_cell(value) for value in row] for row in table.rows]
    return "".join(",".join(line) + "\n" for line in lines)


def _csv_cell(value: Value) -> str:
    if value is None:
        return ""
    return escapes.csv(value) if isinstance(value, str) else str(value)


# --- for people


def fitting(columns: Sequence[Column], sizes: Sequence[int], width: int, gap: int) -> list[int]:
    """Return the places of the columns to show in `width` cells, in their order.

    Args:
        columns: columns of the table, in their order.
        sizes: width of each column, in terminal cells.
        width: available width, in terminal cells; columns of priority 0 are returned even if they need more.
        gap: number of empty cells between two columns.
    """
    places = list(range(len(columns)))
    going = sorted((place for place in places if columns[place].priority), key=lambda at: (columns[at].priority, at))
    while going and sum(sizes[place] for place in places) + gap * (len(places) - 1) > width:
        places.remove(going.pop())
    return places


def rounded(value: Value, column: Column) -> str:
    """Return `value` as the user reads it; "" for None, but that of a duration is unknown."""
    if value is None:
        return "unknown" if column.kind == "duration" else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or column.kind in TEXTS:
        return str(value)
    return _SHOWN[column.kind](float(value), column) if not isinstance(value, int) else _integer(value, column)


def _integer(value: int, column: Column) -> str:
    if column.kind in {"number", "signed"}:
        return f"{value:+d}" if column.kind == "signed" and value else str(value)
    return _SHOWN[column.kind](float(value), column)


def _number(value: float, column: Column) -> str:
    """Return fixed decimals, or two digits and a power where those would show a small number as nothing."""
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


def duration(seconds: float) -> str:
    """Return an estimated duration as the user reads it: "40 s", "12 min", "3 h 20 min" or "2 d 4 h"."""
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


_SHOWN: dict[Kind, Callable[[float, Column], str]] = {
    "number": _number,
    "signed": _number,
    "p": lambda value, _: _p(value),
    "percent": lambda value, _: _percent(value),
    "bytes": lambda value, _: _bytes(value),
    "seconds": lambda value, _: _seconds(value),
    "duration": lambda value, _: duration(value),
}


def _latex(table: Table) -> str:
    """Return a booktabs tabular; one with notes is a whole float, so that no paper loses them.

    The document needs `\\usepackage{booktabs}`, with notes `\\usepackage{threeparttable}`, too.
    """
    layout = "".join("l" if column.kind in TEXTS else "r" for column in table.columns)
    head = ["$d_z$" if column.heading == "d_z" else escapes.latex(column.heading) for column in table.columns]
    body = [[_latex_cell(value, column) for value, column in _cells(table, row)] for row in table.rows]
    lines = [f"\\begin{{tabular}}{{{layout}}}", "\\toprule", " & ".join(head) + r" \\", "\\midrule"]
    lines += [" & ".join(row) + r" \\" for row in body]
    lines += ["\\bottomrule", "\\end{tabular}"]
    if not table.notes:
        return "\n".join([*([f"% {escapes.latex(table.title)}"] if table.title else []), *lines]) + "\n"
    caption = [f"\\caption{{{escapes.latex(table.title)}}}"] if table.title else []
    notes = [f"\\item {escapes.latex(note)}" for note in table.notes]
    return (
        "\n".join(
            [
                *("% \\usepackage{booktabs,threeparttable}", "\\begin{table}", "\\centering"),
                *("\\begin{threeparttable}", *caption, *lines),
                *("\\begin{tablenotes}\\footnotesize", *notes, "\\end{tablenotes}", "\\end{threeparttable}"),
                "\\end{table}",
            ]
        )
        + "\n"
    )


def _latex_cell(value: Value, column: Column) -> str:
    """Return a cell in LaTeX; hyphens before numbers become minus signs, in intervals, too."""
    text = escapes.latex(rounded(value, column))
    is_figures = column.kind not in TEXTS or re.fullmatch(r"[-+.,\d\[\]{} in±]+", text) is not None
    return re.sub(r"(?<![\d$])-(?=[\d.])", "$-$", text) if is_figures else text


def _markdown(table: Table) -> str:
    head = [escapes.markdown(column.heading) for column in table.columns]
    rule = ["---" if column.kind in TEXTS else "---:" for column in table.columns]
    body = [[escapes.markdown(rounded(value, column)) for value, column in _cells(table, row)] for row in table.rows]
    notes = [f"- {escapes.markdown(note)}\n" for note in table.notes]
    return "".join([*(f"| {' | '.join(row)} |\n" for row in [head, rule, *body]), *(["\n", *notes] if notes else [])])


def _cells(table: Table, row: tuple[Value, ...]) -> list[tuple[Value, Column]]:
    return list(zip(row, table.columns, strict=True))
