"""Tells how a file of a run or of qrels is laid out, and reads the layouts that are not TREC's own.

TREC's columns have readers of their own in `text_io`. Here: JSON of ranx, BEIR and mteb, parquet, tables with a header
or with commas, runs of three or five columns, qrels of three. Invariant: a layout is decided by the start of the file
and then holds for all of it; what could be two things is read as one of them with a note that says so.
"""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from cerank.errors import FormatError
from cerank.files import json_records, tables
from cerank.files.line_reader import at, line_blocks, translate_read_errors
from cerank.files.packed_files import first_bytes, open_stream
from cerank.text.safe_text import counted, shown
from cerank.trec.rank_order import count_rising, note_on_rising
from cerank.trec.rows import is_comment

QUERY_COLUMNS = ("query_id", "qid", "q_id", "query-id", "queryid", "topic_id")
DOCUMENT_COLUMNS = ("doc_id", "docno", "docid", "corpus-id", "corpus_id", "document_id", "did", "pid")
GRADE_COLUMNS = ("relevance", "rel", "label", "grade", "judgment", "judgement")
_KNOWN = {*QUERY_COLUMNS, *DOCUMENT_COLUMNS}
_SIX, _FIVE = ("query", "q0", "document", "rank", "score", "tag"), ("query", "q0", "document", "rank", "score")
_FIVE_WITHOUT_Q0 = ("query", "document", "rank", "score", "tag")
_FOUR = ("query", "q0", "document", "grade")


class Layout(msgspec.Struct, frozen=True):
    """How the rows of a file are written.

    `kind` is "trec" for the columns that TREC's tools read, else one of the others.
    """

    kind: Literal["trec", "text", "json", "parquet"]
    separator: str = ""  # "," or a tab; "" for any white space
    columns: tuple[str, ...] = ()  # names of the columns of a text file
    has_header: bool = False  # whether the first row names the columns


class ForeignRows(msgspec.Struct):
    """The rows of a file in another layout: query, document, and score or grade."""

    rows: list[tuple[str, str, float]]
    notes: list[str]


def comment_lines(path: Path) -> list[str]:
    """Return the lines that start with # at the beginning of a file, such as those of ir_metadata."""
    with translate_read_errors(path):
        if not first_bytes(path).startswith((b"#", b"\xef\xbb\xbf#")):
            return []
    lines: list[str] = []
    for _, block in line_blocks(path):
        for line in block:
            if not is_comment(line):
                return lines
            lines.append(line.decode().rstrip("\r"))
    return lines


def _first_row(path: Path) -> bytes:
    for _, lines in line_blocks(path):
        for line in lines:
            if line.strip() and not is_comment(line):
                return line
    return b""


def layout_of(path: Path, kind: Literal["run", "qrels"]) -> Layout:
    """Return how the file is laid out; "trec" also for what cannot be told, so that the strict reader names the error.

    Raises:
        FormatError, MissingError, UsageError: as `line_reader.line_blocks`.
    """
    with translate_read_errors(path):
        head = first_bytes(path).removeprefix(b"\xef\xbb\xbf")
    if head.startswith(b"PAR1"):
        return Layout("parquet")
    if head.lstrip().startswith(b"{"):
        return Layout("json")
    in_head = b"\n" in head and not head.startswith(b"#")
    row = (head.lstrip().partition(b"\n")[0] if in_head else _first_row(path)).strip()
    if b"\0" in row:
        return Layout("trec")
    separator = "," if b"," in row and len(row.split()) < 3 else ""
    parts = [part.strip().strip('"') for part in row.decode("utf-8", "replace").split(separator or None)]
    lower = [part.lower() for part in parts]
    if len(_KNOWN.intersection(lower)) >= 2:
        return Layout("text", separator or ("\t" if b"\t" in row else ""), tuple(lower), has_header=True)
    columns = _run_columns(parts) if kind == "run" else _qrels_columns(parts)
    standard = _SIX if kind == "run" else _FOUR
    if columns is None or (columns == standard and not separator):
        return Layout("trec")
    return Layout("text", separator, columns)


def _run_columns(parts: Sequence[str]) -> tuple[str, ...] | None:
    if len(parts) == 6:
        return _SIX
    if len(parts) == 5:
        return _FIVE if parts[1].upper() in {"Q0", "0"} else _FIVE_WITHOUT_Q0
    return ("query", "document", "score") if len(parts) == 3 else None


def _qrels_columns(parts: Sequence[str]) -> tuple[str, ...] | None:
    if len(parts) == 4:
        return _FOUR
    is_grade = len(parts) == 3 and parts[2].lstrip("+-").replace(".0", "").isdecimal()
    return ("query", "document", "grade") if is_grade else None


def read_foreign(path: Path, layout: Layout, kind: Literal["run", "qrels"]) -> ForeignRows:
    """Return the rows of a file whose layout is not "trec".

    Raises:
        FormatError: a row that does not fit the layout, a value that is no number; `where` names the place.
    """
    read = {"json": _json_rows, "parquet": _parquet_rows, "text": _text_rows}[layout.kind]
    return read(path, layout, kind)


def value_columns(names: Sequence[str], kind: str, where: str) -> tuple[str, str, str, str]:
    """Return the columns for query, document, value and rank ("" without) among the names of a table."""
    documents = [name for name in DOCUMENT_COLUMNS if name != "docid" or "docno" not in names]  # PyTerrier's own number
    query, document = tables.find_column(names, QUERY_COLUMNS, where), tables.find_column(names, documents, where)
    if kind == "qrels":
        value = tables.find_column(names, GRADE_COLUMNS if "score" not in names else ("score",), where)
        return query, document, value, ""
    value, rank = ("score" if "score" in names else ""), ("rank" if "rank" in names else "")
    if not (value or rank):
        hint = "its columns: " + shown(", ".join(names), 300)
        raise FormatError("the file has neither scores nor ranks", where=where, hint=hint, code="scores-missing")
    return query, document, value, rank


def _parquet_rows(path: Path, _layout: Layout, kind: str) -> ForeignRows:
    kinds = tables.column_kinds(path)
    query, document, value, rank = value_columns(list(kinds), kind, str(path))
    rows: list[tuple[str, str, float]] = []
    ranked: list[str] = []
    for number, (query_id, doc_id, *cells) in tables.rows(path, [query, document, *filter(None, (value, rank))]):
        if query_id is None or doc_id is None or cells[0] is None:
            raise FormatError("a row without query, document or value", where=at(path, number))
        rows.append((str(query_id), str(doc_id), _number(cells[0], path, number)))
        ranked += map(_written_rank, cells[1:])
    if not value:
        return _by_rank(rows, "no scores: rows are ordered by their rank")
    return ForeignRows(rows, _notes_on_ranks(rows, ranked))


def _written_rank(cell: object) -> str:
    """Return a rank as a run has it: a column of integers in which some row has none was written as one of floats."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _json_rows(path: Path, _layout: Layout, _kind: str) -> ForeignRows:
    values = _innermost(_json_object(path), path)
    rows = [
        (query, document, _number(value, path, 1)) for query, row in values.items() for document, value in row.items()
    ]
    return ForeignRows(rows, [])


def _json_object(path: Path) -> dict[str, Any]:
    parts = []
    with translate_read_errors(path), contextlib.closing(open_stream(path)) as file:
        while data := file.read(1 << 20):
            parts.append(data)
    try:
        return json_records.decode(b"".join(parts).removeprefix(b"\xef\xbb\xbf"), dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        hint = "a JSON file holds {query: {document: number}}"
        raise FormatError(f"the file is not readable JSON: {shown(error, 200)}", where=str(path), hint=hint) from error


def _innermost(values: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Return {query: {document: number}}, which mteb wraps in the names of a subset and a split."""
    while True:
        inner = {key: value for key, value in values.items() if isinstance(value, dict)}
        is_ranking = len(inner) == len(values) and not any(
            isinstance(value, dict) for row in inner.values() for value in row.values()
        )
        if is_ranking:
            return inner
        nested = {key: value for key, value in inner.items() if any(isinstance(item, dict) for item in value.values())}
        if len(nested) != 1:
            hint = f"it has {', '.join(shown(key, 40) for key in list(values)[:6])}; a file holds one split"
            raise FormatError(
                "the file is not JSON of the form {query: {document: number}}",
                where=str(path),
                hint=hint,
                code="wrong-json-form",
            )
        values = next(iter(nested.values()))


def _text_rows(path: Path, layout: Layout, kind: str) -> ForeignRows:
    columns, where = layout.columns, str(path)
    rank, note = "", ""
    if layout.has_header:
        query, document, value, rank = value_columns(columns, kind, where)
    else:
        query, document, value = "query", "document", "score" if kind == "run" else "grade"
    places = [columns.index(name) for name in (query, document, value or rank)]
    has_both = kind == "run" and bool(value) and "rank" in columns
    rows, ranked = list[tuple[str, str, float]](), list[str]()
    for number, parts in _cells(path, layout):
        if len(parts) != len(columns):
            what = f"{counted(len(parts), 'column')}, and {len(columns)} in the first row"
            raise FormatError(what, where=at(path, number))
        query_id, doc_id, text = (parts[place].strip() for place in places)
        rows.append((query_id, doc_id, _number(text, path, number)))
        if has_both:
            ranked.append(parts[columns.index("rank")])
    if layout.has_header and not value:
        return _by_rank(rows, "no scores: rows are ordered by their rank")
    if kind == "run" and columns == ("query", "document", "score"):
        if _are_ranks(rows):
            return _by_rank(rows, "three columns: the third counts 1, 2, 3 for each query, so it is read as the rank")
        note = "three columns, read as query, document and score"
    elif kind == "run" and len(columns) == 5:
        note = f"five columns, read as {', '.join(columns)}"
    return ForeignRows(rows, [*([note] if note else []), *_notes_on_ranks(rows, ranked)])


def _notes_on_ranks(rows: Sequence[tuple[str, str, float]], ranks: Sequence[str]) -> list[str]:
    """Return the note on scores that rise with the ranks, each as it is written; none without ranks."""
    if not ranks:
        return []
    read = ((query, rank, score) for (query, _, score), rank in zip(rows, ranks, strict=True))
    return list(note_on_rising(*count_rising(read)))


def _cells(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each row below the header."""
    is_header, is_start = layout.has_header, True
    for first, lines in line_blocks(path, columns=not layout.separator):
        for number, line in enumerate(lines, first):
            text = line.decode().rstrip("\r")
            if not text.strip() or (is_start and is_comment(line)):
                continue
            is_start = False
            if is_header:
                is_header = False
                continue
            if layout.separator == ",":
                yield number, next(csv.reader([text]))
            else:
                yield number, text.split(layout.separator or None)


def _number(value: object, path: Path, line: int) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and "_" not in str(value) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise FormatError(f"'{shown(value, 40)}' is not a finite number", where=at(path, line), code="score-not-finite")
    return number


def _are_ranks(rows: Sequence[tuple[str, str, float]]) -> bool:
    """Return whether the values of every query count 1, 2, 3 in the order of the file."""
    counts: dict[str, int] = {}
    for query, _, value in rows:
        counts[query] = counts.get(query, 0) + 1
        if value != counts[query]:
            return False
    return any(count > 1 for count in counts.values())


def _by_rank(rows: Sequence[tuple[str, str, float]], note: str) -> ForeignRows:
    return ForeignRows([(query, document, -rank) for query, document, rank in rows], [note])
