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
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import FormatError
from cerank.files.line_reader import at, line_blocks, tab_lines
from cerank.files.record_reader import read_records
from cerank.importing.column_blocks import columns_of
from cerank.importing.dataset_writer import DatasetWriter, text_id
from cerank.importing.formats.ranked_runs import number_of

if TYPE_CHECKING:
    import polars

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


def _triple(parts: Sequence[str], where: str) -> Triple:
    """Return three columns, or two scores before them."""
    query, positive, negative = parts[-3:]
    if len(parts) == 3:
        return Triple(query, positive, negative)
    scores = (number_of(parts[0].encode(), where), number_of(parts[1].encode(), where))
    return Triple(query, positive, negative, scores)


def _lines(columns: int) -> Callable[[Path], Rows]:
    def rows(path: Path) -> Rows:
        for number, parts in tab_lines(path, (columns,)):
            yield at(path, number), _triple(parts, at(path, number))

    return rows


def _json(path: Path) -> Rows:
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


def _put(triple: Triple, writer: DatasetWriter, name: str, where: str) -> None:
    if triple.positive == triple.negative:
        writer.count(_SAME)
        return
    writer.judged(triple.query, triple.positive, 1, where)
    if triple.scores is None:
        writer.listed(name, triple.query, triple.negative, where)
    else:
        writer.scored(name, triple.query, triple.positive, triple.scores[0], where)
        writer.scored(name, triple.query, triple.negative, triple.scores[1], where)


def _read_texts(rows: Callable[[Path], Rows], files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    for path in files:
        for where, text_triple in rows(path):
            writer.records += 1
            triple = _by_text(text_triple, writer, where)
            if triple is not None:
                _put(triple, writer, name, where)


def _read_ids(columns: int, files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read a block of lines at once if nothing in it needs the strict parser, else line by line."""
    scores = ("left", "right") if columns == 5 else ()
    for path in files:
        for first, lines in line_blocks(path):
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
        raise FormatError(f"{len(parts)} tab-separated columns, not {columns}", where=where)
    writer.records += 1
    _put(_triple(parts, where), writer, name, where)


def _put_all(rows: polars.DataFrame, writer: DatasetWriter, name: str) -> None:
    """Add many triples as `_put` does row by row; a row's positive comes before its negative."""
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


def read_texts(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read MS MARCO's text triples into the run `name`."""
    _read_texts(_lines(3), files, writer, name)


def read_scored_texts(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read Hofstätter's scores by text into the run `name`."""
    _read_texts(_lines(5), files, writer, name)


def read_openmatch(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read OpenMatch's JSONL triples into the run `name`."""
    _read_texts(_json, files, writer, name)
