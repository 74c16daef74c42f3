"""The only place where commands write: tables and data to stdout, messages and errors to stderr.

Invariant: outside text reaches a terminal only through `safe_text.shown` (or as JSON escapes), never as markup; and
rich is imported only when a table for people is drawn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from cerank.cli.document_meta import document_meta
from cerank.errors import CerankError, ExitCode, RunFailedError, UsageError, os_reason
from cerank.settings import FORMATS
from cerank.text import table_data
from cerank.text.safe_text import shown
from cerank.text.table_data import Column, Kind, Table, rounded

__all__ = [
    "Column",
    "Kind",
    "Table",
    "emit",
    "format_of",
    "info",
    "is_for_machines",
    "report_error",
    "rounded",
    "width_of",
    "write_output",
]

PIECE = 1 << 15  # characters written at once
_ANY_WIDTH = 10_000  # cells; no table needs as many
LONGEST_ERROR = 20_000  # characters; a recipe may have many mistakes


def emit(
    tables: Table | Sequence[Table],
    form: str = "",
    stream: TextIO | None = None,
    *,
    wide: bool | None = None,
    meta: Mapping[str, object] | None = None,
) -> None:
    """Write `tables` to `stream` (stdout) in one of `FORMATS`; "" takes table on a terminal and tsv elsewhere.

    Several tables in one call: tsv, latex and markdown put a blank line between, json makes one object of a head, the
    rows of each table by its name, and the notes; jsonl adds the key "table" to each row. A table by itself is a plain
    list of rows in json; a command that may show several gives a sequence of one, so that its JSON has one shape.

    Args:
        tables: one table or several.
        form: one of `FORMATS`; "" takes "table" on a terminal and "tsv" elsewhere.
        stream: where to write; None writes to stdout.
        wide: draw every column however narrow the terminal is; None for a command without the option --wide.
        meta: head of the JSON, with the rules of the verdicts in it; a table by itself becomes an object, too. None:
            several tables say with which version and by which command they were made.
    """
    stream = stream or sys.stdout
    form = format_of(form, stream)
    if form not in FORMATS:
        raise ValueError(f"no format {form}")
    several = (tables,) if isinstance(tables, Table) else tuple(tables)
    if form == "table":
        _emit_drawn(several, stream, wide)
    elif form == "json" and (meta is not None or not isinstance(tables, Table)):
        head = document_meta() if meta is None else meta
        write_output(table_data.document(several, head), stream, raw=True)
    else:
        write_output(table_data.written(several, form), stream, raw=True)


def format_of(form: str, stream: TextIO | None = None) -> str:
    """Return the format that `emit` will write: the one asked for, else table on a terminal and tsv elsewhere."""
    return form or ("table" if (stream or sys.stdout).isatty() else "tsv")


def is_for_machines(form: str) -> bool:
    """Return whether the format that `emit` will write is for programs, with ids and every column."""
    return format_of(form) in {"tsv", "json", "jsonl", "csv"}


def width_of(stream: TextIO | None = None) -> int:
    """Return columns that a drawn table may take: the terminal's, or as many as it needs where there is none."""
    return _width(stream or sys.stdout)


def write_output(text: str, stream: TextIO | None = None, *, raw: bool = False) -> None:
    """Write data to `stream` (stdout): text of several lines, made safe to show unless `raw` says that it is.

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
        _discard_stream(stream)
        raise SystemExit(ExitCode.OK) from None
    except OSError as error:
        _discard_stream(stream)
        raise RunFailedError(f"cannot write to {_name_of(stream)}: {os_reason(error)}") from None


def open_missing_streams() -> None:
    """Give the process streams that swallow what is written, where it was started with stdout or stderr closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf8"))  # noqa: PTH123, SIM115 - until the process ends


def check_written() -> None:
    """Check that what libraries wrote to stdout, such as a help text, has arrived.

    Raises:
        RunFailedError: it has not, because the disk behind it is full, for example.
    """
    write_output("")


def _name_of(stream: TextIO) -> str:
    return "standard output" if stream is sys.stdout else "standard error" if stream is sys.stderr else "the file"


def check_new(path: Path, *, replace: bool) -> None:
    """Check that a file may be written: the same rule for every command.

    Raises:
        UsageError: it exists, and `replace` is False.
    """
    if path.exists() and not replace:
        raise UsageError("the file already exists", where=str(path), hint="--replace overwrites it", code="file-exists")


def info(text: str, stream: TextIO | None = None) -> None:
    """Print a message of one or more lines on stderr; never data."""
    _write_message(shown(text, LONGEST_ERROR, lines=True), stream or sys.stderr)


def report_error(error: CerankError) -> None:
    """Write `error` to stderr as one paragraph: what is wrong, where, and a hint."""
    what = shown(error.what, LONGEST_ERROR, lines=True).replace("\n", "\n       ")
    lines = [f"{_in_red('error:', sys.stderr)} {what}"]
    if error.where:
        lines.append(f"  at {shown(error.where)}")
    if error.hint:
        lines.append(f"  hint: {shown(error.hint)}")
    _write_message("\n".join(lines), sys.stderr)


def _write_message(text: str, stream: TextIO) -> None:
    """Write a line to stderr; if its reader is gone, the command continues."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except OSError:  # a closed pipe, or a full disk
        _discard_stream(stream)


def _in_red(word: str, stream: TextIO) -> str:
    """Return `word` in red where the terminal may show color."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return word if plain else f"\x1b[1;31m{word}\x1b[0m"


def _discard_stream(stream: TextIO) -> None:
    """Point a broken stream at nothing, or Python complains about it once more when it flushes at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # a stream without a descriptor has nothing to flush
        return


def _emit_drawn(tables: Sequence[Table], stream: TextIO, wide: bool | None) -> None:
    from cerank.cli import terminal_table

    style = terminal_table.Style(
        width=_ANY_WIDTH if wide else _width(stream),
        is_terminal=stream.isatty() and os.environ.get("TERM") != "dumb",
        is_plain=not _can_draw(stream),
    )
    if wide is not None:
        style = msgspec.structs.replace(style, more="--wide")
    for number, table in enumerate(tables):
        if not table.rows and table.empty:
            info(table.empty)
            continue
        write_output(("\n" if number else "") + terminal_table.table_as_text(table, style), stream, raw=True)


def _can_draw(stream: TextIO) -> bool:
    try:
        "─".encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _width(stream: TextIO) -> int:
    """Return columns of the terminal; COLUMNS wins, and where the stream is none nothing is cut."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and 0 < int(columns) < 10_000:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return _ANY_WIDTH
