"""Triples of query, positive and negative: MS MARCO's by id and by text, OpenMatch's, Hofstätter's with scores.

MS MARCO's by id (qidpidtriples.train.full.2.tsv.gz): qid TAB positive pid TAB negative pid. By text
(triples.train.small.tar.gz): query TAB positive TAB negative. OpenMatch's are the same texts as JSONL: {"query",
"doc_pos", "doc_neg"}. Hofstätter's ensemble scores (Hofstätter et al. 2020, arXiv 2010.02666) by id: positive score TAB
negative score TAB qid TAB positive pid TAB negative pid; with texts in place of the ids, as the `teacher_id_to_text`
script of their repository writes them, another format reads them.
Gives: judgments (grade 1 for positives); the run `negatives` in the order of the file, or, with scores, the run
`ensemble` of positives and negatives together. Texts have no ids: theirs are hashes, so equal texts are one document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cerank.errors import FormatError
from cerank.files.line_reader import at, json_lines, line_blocks, tab_lines
from cerank.files.record_reader import read_records
from cerank.importing.column_blocks import columns_of
from cerank.importing.dataset_writer import DatasetWriter, text_id
from cerank.importing.formats.ranked_runs import number_of

if TYPE_CHECKING:
    import polars

NEGATIVES = "negatives"
_HEADER = "header lines, passed over"
_SAME = "triples whose negative is their positive, dropped"


class _Texts(msgspec.Struct):
    query: str
    doc_pos: str
    doc_neg: str


class Triple(msgspec.Struct, frozen=True):
    """A row: query, positive and negative, as ids or as texts, and their scores where there are some."""

    query: str
    positive: str
    negative: str
    scores: tuple[float, float] | None = None


Rows = Iterator[tuple[str, Triple]]  # with file:line
RowReader = Callable[[Path, DatasetWriter], Rows]


def _triple(parts: Sequence[str], where: str) -> Triple:
    """Return three columns, or two scores before them."""
    query, positive, negative = parts[-3:]
    if len(parts) == 3:
        return Triple(query, positive, negative)
    scores = (number_of(parts[0].encode(), where), number_of(parts[1].encode(), where))
    return Triple(query, positive, negative, scores)


def _lines(columns: int) -> RowReader:
    def rows(path: Path, writer: DatasetWriter) -> Rows:
        for place, (number, parts) in enumerate(tab_lines(path, (columns,))):
            if place == 0 and _is_header(parts):
                writer.count(_HEADER)
            else:
                yield at(path, number), _triple(parts, at(path, number))

    return rows


def _json(path: Path, _writer: DatasetWriter) -> Rows:
    for where, row in read_records(path, _Texts):
        yield where, Triple(row.query, row.doc_pos, row.doc_neg)


def _by_text(triple: Triple, writer: DatasetWriter, where: str) -> Triple | None:
    """Return the triple with ids for its texts, which are added to the writer; None if one of them is empty."""
    by_id = Triple(text_id(triple.query), text_id(triple.positive), text_id(triple.negative), triple.scores)
    has_all = (
        writer.query(by_id.query, triple.query, where)
        and writer.document(by_id.positive, triple.positive, where)
        and writer.document(by_id.negative, triple.negative, where)
    )
    return by_id if has_all else None


def _write_triple(triple: Triple, writer: DatasetWriter, name: str, where: str) -> None:
    if triple.positive == triple.negative:
        writer.count(_SAME)
        return
    writer.judged(triple.query, triple.positive, 1, where)
    if triple.scores is None:
        writer.listed(name, triple.query, triple.negative, where)
    else:
        writer.scored(name, triple.query, triple.positive, triple.scores[0], where)
        writer.scored(name, triple.query, triple.negative, triple.scores[1], where)


def _read_texts(rows: RowReader, files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    for path in files:
        for where, text_triple in rows(path, writer):
            writer.records += 1
            triple = _by_text(text_triple, writer, where)
            if triple is not None:
                _write_triple(triple, writer, name, where)


def _read_ids(columns: int, files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read a block of lines at once if nothing in it needs the strict parser, else line by line."""
    scores = ("left", "right") if columns == 5 else ()
    for path in files:
        for first, lines in line_blocks(path):
            if first == 1 and _is_header(lines[0].decode().split("\t")):
                writer.count(_HEADER)
                del lines[0]
                first += 1  # noqa: PLW2901 - the line that is the first now
            frame = columns_of(lines, scores, ("query", "positive", "negative"))
            if frame is not None:
                _put_all(frame, writer, name)
                continue
            for number, line in enumerate(lines, first):
                if line.strip():
                    _put_line(line, columns, writer, name, at(path, number))


def _put_line(line: bytes, columns: int, writer: DatasetWriter, name: str, where: str) -> None:
    parts = line.decode().removesuffix("\r").split("\t")
    if len(parts) != columns:
        raise FormatError(f"{len(parts)} tab-separated columns, not {columns}", where=where, code="column-count")
    writer.records += 1
    _write_triple(_triple(parts, where), writer, name, where)


def _put_all(rows: polars.DataFrame, writer: DatasetWriter, name: str) -> None:
    """Add many triples as `_write_triple` does row by row; a row's positive comes before its negative."""
    import polars

    usable = rows.filter(polars.col("positive") != polars.col("negative")).with_row_index("row")
    writer.records += rows.height
    writer.count(_SAME, rows.height - usable.height)
    if not usable.height:
        return

    def side(which: str, value: polars.Expr) -> polars.DataFrame:
        return usable.select(
            "row", "query", polars.col(which).alias("document"), value.alias("value"), rank=polars.lit(0)
        )

    writer.graded(side("positive", polars.lit(1.0)))
    if "left" not in rows.columns:
        writer.ranked(name, side("negative", polars.lit(0.0)), is_listed=True)
        return
    both = (side("positive", polars.col("left")), side("negative", polars.col("right")))
    writer.ranked(name, polars.concat(both).sort("row", maintain_order=True))


def read_ids(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read MS MARCO's id triples into the run `name`."""
    _read_ids(3, files, writer, name)


def read_scores(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read Hofstätter's scores by id into the run `name`."""
    _read_ids(5, files, writer, name)


def read_colbert(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read ColBERT's tuples by id: the first document is the positive; `name` is the run of scores that come along."""
    for path in files:
        for number, row in json_lines(path, list[Any]):
            where = at(path, number)
            writer.records += 1
            if len(row) < 2 or not all(isinstance(item, int | str | list) for item in row):
                raise FormatError("the line is not an array [query, positive, negative, ...]", where=where)
            query_id, documents = str(row[0]), [item if isinstance(item, list) else [item] for item in row[1:]]
            ids = [str(document[0]) if document else "" for document in documents]
            writer.judged(query_id, ids[0], 1, where)
            for doc_id in dict.fromkeys(ids[1:]):
                if doc_id == ids[0]:
                    writer.count(_SAME)
                else:
                    writer.listed(NEGATIVES, query_id, doc_id, where)
            for doc_id, document in zip(ids, documents, strict=True):
                if len(document) > 1:
                    writer.scored(name, query_id, doc_id, number_of(str(document[1]).encode(), where), where)


_HEADER_WORDS = {
    *("query", "question", "anchor", "qid", "query_id", "queryid", "positive", "pos", "negative", "neg"),
    *("passage", "doc", "document", "docid", "pid", "text", "pos_score", "neg_score", "score", "label"),
    *("positive_passage", "negative_passage", "pos_id", "neg_id", "positive_id", "negative_id", "doc_pos", "doc_neg"),
}


def _is_header(parts: Sequence[str]) -> bool:
    """Return whether the first line of a file names its columns."""
    return len(parts) > 1 and all(part.strip().strip('"').lower() in _HEADER_WORDS for part in parts)


def read_texts(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read MS MARCO's text triples into the run `name`."""
    _read_texts(_lines(3), files, writer, name)


def read_scored_texts(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read Hofstätter's scores by text into the run `name`."""
    _read_texts(_lines(5), files, writer, name)


def read_openmatch(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read OpenMatch's JSONL triples into the run `name`."""
    _read_texts(_json, files, writer, name)
