"""Read the texts of documents and queries from the files in which collections come.

JSON lines and parquet with BEIR's, Anserini's or MS MARCO's keys; tab-separated and CSV tables; TREC's SGML documents
and topics in SGML or XML. Invariant: a row gives one id and one text, title and text joined by one space; a row without
an id is an error that names the keys that are there.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from cerank.errors import FormatError
from cerank.files import tables
from cerank.files.line_reader import Opener, at, json_lines, line_blocks, tab_lines
from cerank.files.packed_files import PACKED_ENDINGS
from cerank.text.safe_text import shown

TextRow: TypeAlias = tuple[int, str, str]  # line or row number, id, text
FieldRow: TypeAlias = tuple[int, str, dict[str, str]]  # line or row number, id, field -> text
TopicField = Literal["title", "description", "narrative"]

DOCUMENT_IDS = ("doc_id", "_id", "docid", "docno", "id", "pid", "corpus-id", "corpus_id", "document_id")
QUERY_IDS = ("query_id", "_id", "qid", "id", "query-id", "topic_id")
_DOCUMENT_TEXTS = ("text", "contents", "content", "body", "segment", "passage")
_QUERY_TEXTS = ("text", "query", "query_text", "contents")
_SGML = (".trec", ".trectext", ".sgml", ".xml")
_LARGEST_RECORD = 1 << 26  # characters of a document in SGML


class _DocumentRecord(msgspec.Struct):
    doc_id: str | int | None = None
    beir_id: str | int | None = msgspec.field(name="_id", default=None)
    docid: str | int | None = None
    docno: str | int | None = None
    id: str | int | None = None
    pid: str | int | None = None
    title: str | None = None
    text: str | None = None
    contents: str | None = None
    content: str | None = None
    body: str | None = None
    segment: str | None = None
    passage: str | None = None


class _QueryRecord(msgspec.Struct):
    query_id: str | int | None = None
    beir_id: str | int | None = msgspec.field(name="_id", default=None)
    qid: str | int | None = None
    id: str | int | None = None
    text: str | None = None
    query: str | None = None
    query_text: str | None = None
    contents: str | None = None


def ending_of(path: Path) -> str:
    """Return the ending of a file's name that tells its format, without that of its packing: ".tsv" for a.tsv.gz."""
    return Path(path.stem).suffix if path.suffix in PACKED_ENDINGS else path.suffix


def document_rows(path: Path, opener: Opener | None = None) -> Iterator[TextRow]:
    """Yield (line, id, title and text) of each document in a file.

    Raises:
        FormatError: a malformed row, or one without id or text.
    """
    ending = ending_of(path)
    if tables.is_parquet(path):
        yield from _parquet_texts(path, DOCUMENT_IDS, _DOCUMENT_TEXTS)
    elif ending == ".tsv":
        for number, parts in tab_lines(
            path, (2, 3, 4), opener
        ):  # of four, as MS MARCO's documents, the second is a URL
            yield number, parts[0], " ".join(filter(None, parts[1:][-2:]))
    elif ending == ".csv":
        yield from _csv_texts(path, DOCUMENT_IDS, _DOCUMENT_TEXTS, opener)
    elif ending in _SGML:
        yield from _sgml_documents(path, opener)
    else:
        for number, record in json_lines(path, _DocumentRecord, opener):
            ids = (record.doc_id, record.beir_id, record.docid, record.docno, record.id, record.pid)
            text = _first((record.text, record.contents, record.content, record.body, record.segment, record.passage))
            if text is None and record.title is None:
                raise _missing(path, number, "a document without text", _DOCUMENT_TEXTS)
            yield number, _id(ids, path, number, DOCUMENT_IDS, "document"), " ".join(filter(None, (record.title, text)))


def field_rows(path: Path, opener: Opener | None = None) -> Iterator[FieldRow]:
    """Yield (line, id, field -> text) of each document in a file, without the field that is its id.

    JSON lines have the keys whose values are texts; tables their columns; a TSV file without a header `text`, `title`
    and `text`, or as MS MARCO's documents `url`, `title` and `text`; SGML `title` and `text` as without a template, and
    beside them its other tags in lower case.

    Raises:
        FormatError: a malformed row, or one without id.
    """
    ending = ending_of(path)
    if tables.is_parquet(path):
        names = tables.column_names(path)
        for number, values in tables.rows(path, names, has_texts=True):
            yield _field_row(path, number, dict(zip(names, values, strict=True)))
    elif ending == ".tsv":
        for number, parts in tab_lines(path, (2, 3, 4), opener):
            yield number, parts[0], dict(zip(("url", "title", "text")[4 - len(parts) :], parts[1:], strict=True))
    elif ending == ".csv":
        rows = _csv_rows(path, opener)
        _, names = next(rows)
        for number, row in rows:
            yield _field_row(path, number, dict(zip(names, row, strict=True)))
    elif ending in _SGML:
        yield from _sgml_fields(path, opener)
    else:
        for number, record in json_lines(path, dict, opener):
            yield _field_row(path, number, record)


def _field_row(path: Path, number: int, row: Mapping[str, object]) -> FieldRow:
    key = next((name for name in DOCUMENT_IDS if row.get(name) is not None), None)
    if key is None:
        raise _missing(path, number, "a document without id", DOCUMENT_IDS)
    return (
        number,
        str(row[key]).strip(),
        {name: value for name, value in row.items() if name != key and isinstance(value, str)},
    )


def are_topics(path: Path) -> bool:
    """Return whether a file of queries holds TREC topics, by its name."""
    return ending_of(path) in {*_SGML, ".txt", ""}


def query_rows(
    path: Path, fields: Sequence[TopicField] = ("title",), opener: Opener | None = None
) -> Iterator[TextRow]:
    """Yield (line, id, text) of each query in a file; a text may be empty.

    Args:
        path: file of queries: TSV, JSONL or TREC topics, compressed or not.
        fields: parts of TREC topics that make the query, in this order.
        opener: opens the file, where it is no table and no TREC topics; None opens it by its path.

    Raises:
        FormatError: a malformed row, or one without id.
    """
    ending = ending_of(path)
    if tables.is_parquet(path):
        yield from _parquet_texts(path, QUERY_IDS, _QUERY_TEXTS)
    elif are_topics(path):
        yield from _topics(path, fields)
    elif ending == ".tsv":
        for number, (query_id, text) in tab_lines(path, (2,), opener):
            yield number, query_id, text
    elif ending == ".csv":
        yield from _csv_texts(path, QUERY_IDS, _QUERY_TEXTS, opener)
    else:
        for number, record in json_lines(path, _QueryRecord, opener):
            ids = (record.query_id, record.beir_id, record.qid, record.id)
            query = _first((record.text, record.query, record.query_text, record.contents))
            yield number, _id(ids, path, number, QUERY_IDS, "query"), query or ""


def read_query_fields(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (id, field -> value) of each query in a file: all that it says of a query but id and text.

    Of JSON lines the keys, with those inside BEIR's `metadata`; of CSV and parquet the columns; of others nothing.

    Raises:
        FormatError: a malformed row, or one without id.
    """
    ending, rows = ending_of(path), list[tuple[int, Mapping[str, object]]]()
    if tables.is_parquet(path):
        names = tables.column_names(path)
        rows = [(at_row, dict(zip(names, row, strict=True))) for at_row, row in tables.rows(path, names)]
    elif ending == ".csv":
        lines = _csv_rows(path, None)
        _, names = next(lines)
        rows = [(number, dict(zip(names, row, strict=True))) for number, row in lines]
    elif ending not in (*_SGML, ".txt", "", ".tsv"):
        rows = list(json_lines(path, dict))
    for number, row in rows:
        inside = row.get("metadata")
        everything = {**row, **inside} if isinstance(inside, Mapping) else row
        ids = [value for name in QUERY_IDS if isinstance(value := row.get(name), str | int)]
        yield (
            _id(ids, path, number, QUERY_IDS, "query"),
            {
                str(name): str(value)
                for name, value in everything.items()
                if name not in {*QUERY_IDS, *_QUERY_TEXTS} and isinstance(value, str | int | float | date)
            },
        )


def _first(values: Sequence[str | None]) -> str | None:
    return next((value for value in values if value is not None), None)


def _id(ids: Sequence[str | int | None], path: Path, number: int, accepted: Sequence[str], kind: str) -> str:
    """Return the first id that is there; "" for an empty one, which the caller refuses."""
    first_id = next((value for value in ids if value is not None), None)
    if first_id is None:
        raise _missing(path, number, f"a {kind} without id", accepted)
    return str(first_id)


def _missing(path: Path, number: int, what: str, accepted: Sequence[str]) -> FormatError:
    """Return the error for a JSON record without one of the accepted keys; reads the file again for the keys it has."""
    keys: list[str] = []
    for first, lines in line_blocks(path):
        if first + len(lines) > number:
            try:
                value = msgspec.json.decode(lines[number - first])
                keys = list(value) if isinstance(value, dict) else []
            except (msgspec.DecodeError, UnicodeError):
                keys = []
            break
    has = f"its keys: {shown(', '.join(keys), 200)}; " if keys else ""
    return FormatError(what, where=at(path, number), hint=f"{has}accepted: {', '.join(accepted)}", code="id-missing")


def _parquet_texts(path: Path, ids: Sequence[str], texts: Sequence[str]) -> Iterator[TextRow]:
    names = tables.column_names(path)
    present = [name for name in ids if name in names]
    id_column = present[0] if present else tables.find_column(names, ids, str(path))
    text_columns = [name for name in texts if name in names][:1]
    if not text_columns:
        tables.find_column(names, texts, str(path))
    columns = [id_column, *(["title"] if "title" in names else []), *text_columns]
    for number, (row_id, *parts) in tables.rows(path, columns, has_texts=True):
        if row_id is None:
            raise FormatError("a row without id", where=at(path, number))
        yield number, str(row_id), " ".join(str(part) for part in parts if part)


def _csv_texts(path: Path, ids: Sequence[str], texts: Sequence[str], opener: Opener | None) -> Iterator[TextRow]:
    """Yield the texts of a CSV file with a header; a quoted text may hold line feeds."""
    rows = _csv_rows(path, opener)
    _, names = next(rows)
    present = [name for name in ids if name in names]
    id_place = names.index(present[0] if present else tables.find_column(names, ids, str(path)))
    text_names = [name for name in texts if name in names][:1] or [tables.find_column(names, texts, str(path))]
    places = [names.index(name) for name in ("title", *text_names) if name in names]
    for number, row in rows:
        yield number, row[id_place].strip(), " ".join(filter(None, (row[place] for place in places)))


def _csv_rows(path: Path, opener: Opener | None) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, columns) of a CSV file, the header first, even where there is none; every row has as many."""

    def lines() -> Iterator[str]:
        for _, block in line_blocks(path, opener=opener):
            for line in block:
                yield line.decode() + "\n"

    reader = csv.reader(lines(), strict=True)
    try:
        names = next(reader, [])
        yield reader.line_num, names
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                what = f"{len(row)} columns, and {len(names)} in the header"
                raise FormatError(what, where=at(path, reader.line_num))
            yield reader.line_num, row
    except csv.Error as error:
        raise FormatError(f"the line is not readable CSV: {error}", where=at(path, reader.line_num)) from error


_TAG = re.compile(r"<[^<>]{1,200}>")
_DOCNO = re.compile(r"<DOCNO>\s*(.*?)\s*</DOCNO>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<(TITLE|HEADLINE|TTL|HL)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_BODY = re.compile(r"<(TEXT|BODY|CONTENT)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_ELEMENT = re.compile(r"<([A-Z][A-Z0-9_]{0,40})\b[^<>]{0,200}>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_TOPIC_START = re.compile(r"<top(?:ic)?\b[^<>]*>", re.IGNORECASE)
_TOPIC_NUMBER = re.compile(r"<num(?:ber)?>\s*(?:Number:)?\s*([^\s<]+)", re.IGNORECASE)
_TOPIC_NUMBER_ATTRIBUTE = re.compile(r"<topic\b[^<>]*\b(?:number|id)\s*=\s*[\"']?([^\"'\s>]+)", re.IGNORECASE)
_TOPIC_TEXT = re.compile(r"(?is)<topic\b[^<>]*>([^<]*)</topic>")
_TOPIC_FIELDS: dict[TopicField, re.Pattern[str]] = {
    "title": re.compile(r"(?is)<(?:title|query)>\s*(?:Topic:)?(.*?)(?=<|\Z)"),
    "description": re.compile(r"(?is)<(?:desc|description|question)>\s*(?:Description:)?(.*?)(?=<|\Z)"),
    "narrative": re.compile(r"(?is)<(?:narr|narrative)>\s*(?:Narrative:)?(.*?)(?=<|\Z)"),
}


def _plain(markup: str) -> str:
    """Return marked-up text without tags, entities resolved, words separated by one space."""
    return " ".join(html.unescape(_TAG.sub(" ", markup)).split())


def _records(path: Path, end: re.Pattern[str], opener: Opener | None = None) -> Iterator[tuple[int, str]]:
    """Yield (number of the line where it ends, text) of each record that a line with `end` closes."""
    lines: list[str] = []
    size = 0
    for first, block in line_blocks(path, opener=opener):
        for number, raw in enumerate(block, first):
            line = raw.decode()
            lines.append(line)
            size += len(line)
            if size > _LARGEST_RECORD:
                raise FormatError("a record of more than 64 MiB", where=at(path, number))
            if end.search(line):
                yield number, "\n".join(lines)
                lines, size = [], 0
    if any(line.strip() for line in lines):
        yield number, "\n".join(lines)


_DOCUMENT_END = re.compile(r"</DOC>", re.IGNORECASE)
_TOPIC_END = re.compile(r"</top(ic)?>", re.IGNORECASE)


def _sgml_records(path: Path, opener: Opener | None) -> Iterator[tuple[int, str, str]]:
    """Yield (line, id, whole record) of each document."""
    for number, record in _records(path, _DOCUMENT_END, opener):
        doc_id = _DOCNO.search(record)
        if doc_id is None:
            if not _DOCUMENT_END.search(record):
                continue  # what follows the last document
            raise FormatError("a document without <DOCNO>", where=at(path, number))
        yield number, doc_id[1], record


def _sgml_documents(path: Path, opener: Opener | None) -> Iterator[TextRow]:
    for number, doc_id, record in _sgml_records(path, opener):
        titles, bodies = _sgml_parts(record)
        yield number, doc_id, " ".join(filter(None, map(_plain, titles + bodies)))


def _sgml_parts(record: str) -> tuple[list[str], list[str]]:
    """Return the marked-up titles and bodies of a document; the bodies without the titles in them."""
    titles = [match[2] for match in _TITLE.finditer(record)]
    bodies = [match[2] for match in _BODY.finditer(record)] or [_DOCNO.sub(" ", record)]
    return titles, [_TITLE.sub(" ", body) for body in bodies]


def _sgml_fields(path: Path, opener: Opener | None) -> Iterator[FieldRow]:
    for number, doc_id, record in _sgml_records(path, opener):
        titles, bodies = _sgml_parts(record)
        values = {"title": " ".join(map(_plain, titles)), "text": " ".join(map(_plain, bodies))}
        for match in _ELEMENT.finditer(record, record.upper().find("<DOC>") + len("<DOC>")):
            name = match[1].lower()
            if name not in {"title", "text", "docno", "p"}:
                values[name] = " ".join(filter(None, (values.get(name, ""), _plain(match[2]))))
        yield number, doc_id, values


def _topics(path: Path, fields: Sequence[TopicField]) -> Iterator[TextRow]:
    has_topics = False
    for number, record in _records(path, _TOPIC_END):
        if not _TOPIC_START.search(record):
            continue
        has_topics = True
        query_id = _TOPIC_NUMBER_ATTRIBUTE.search(record) or _TOPIC_NUMBER.search(record)
        if query_id is None:
            raise FormatError("a topic without a number", where=at(path, number))
        matches = [match for field in fields if (match := _TOPIC_FIELDS[field].search(record))]
        if not matches:  # clinical trials 2021: the topic's own text is the query
            matches = [match for match in [_TOPIC_TEXT.search(record)] if match]
        yield number, query_id[1], " ".join(filter(None, (_plain(match[1]) for match in matches)))
    if not has_topics:
        raise FormatError(
            "the file holds no TREC topic", where=str(path), hint="queries are queries.tsv (id, tab, text) or JSONL"
        )
