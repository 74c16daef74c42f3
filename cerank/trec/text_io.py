"""TREC runs and qrels: strict, streaming readers and byte-exact writers. Runs of many millions: see `open_run`.

Invariant: a file that is read here gives the same measures as trec_eval gives on it; a file that evaluators
read differently from one another, or only in part, is rejected with file:line. Nothing here writes to disk.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking, strictly_decreasing
from cerank.errors import FormatError
from cerank.files.hashing import input_sha256
from cerank.files.line_reader import Opener, at, checked_id, duplicate_error, line_blocks
from cerank.files.packed_files import PACKED_ENDINGS
from cerank.text.safe_text import counted, shown
from cerank.trec import layouts
from cerank.trec.rank_order import note_on_rising, rises
from cerank.trec.rows import LARGEST, RUN_HINT, RunFile, is_comment, raise_duplicate, score_of, too_many_ties

COLUMNS = 8 << 20  # bytes from which a run is read by columns: some 200,000 rows, 0.2 s line by line
COLUMNS_PACKED = 1 << 20  # likewise, where it is packed
_GRADE = re.compile(rb"([+-]?[0-9]{1,9})(?:\.0+)?")  # pandas writes 1 as 1.0
_QRELS_HINT = "qrels have 4: query 0 document grade; or 3 under the header query-id corpus-id score"


class _QueryRows:
    """The documents and float32 scores of one query, in file order; 12 bytes a row beside the ids themselves."""

    __slots__ = ("ids", "next_check", "ranks", "scores")

    def __init__(self) -> None:
        self.next_check = 1 << 16  # rows after which duplicates are looked for
        self.ids: list[str] = []
        self.ranks: list[bytes] = []  # as they are written
        self.scores = array("f")


def _gather_rows(path: Path) -> tuple[dict[bytes, _QueryRows], str]:
    """Return the rows of each query, queries in order of appearance, and the first row's tag."""
    queries: dict[bytes, _QueryRows] = {}
    tag, query, rows = "", b"", _QueryRows()
    for first, lines in line_blocks(path, columns=True):
        for number, line in enumerate(lines, first):
            parts = line.split()
            if len(parts) != 6 or (not queries and is_comment(line)):
                if not parts or (not queries and is_comment(line)):
                    continue
                raise FormatError(
                    f"the line has {counted(len(parts), 'column')}",
                    where=at(path, number),
                    hint=RUN_HINT,
                    code="column-count",
                )
            if parts[0] != query:
                query = parts[0]
                rows = queries.setdefault(query, _QueryRows())
                tag = tag or parts[5].decode()
            rows.ids.append(parts[2].decode())
            rows.ranks.append(parts[3])
            if len(rows.ids) == rows.next_check:  # else a file of repeated rows would fill the memory first
                rows.next_check *= 2
                if len(set(rows.ids)) != len(rows.ids):
                    raise_duplicate(path, query.decode())
            rows.scores.append(score_of(parts[4], path, number))
    return queries, tag


def _order_rows(rows: _QueryRows) -> tuple[Sequence[str], list[float], int]:
    """Return ids and strictly decreasing scores in trec_eval's order, and the number of tied entries."""
    ids, scores = rows.ids, rows.scores.tolist()
    if all(left > right for left, right in itertools.pairwise(scores)):
        return ids, scores, 0
    # trec_eval: score descending, then document id descending by strcmp; code points sort as UTF-8 bytes do.
    pairs = sorted(zip(scores, ids, strict=True), reverse=True)
    scores = [score for score, _ in pairs]
    same = [False, *(left == right for left, right in itertools.pairwise(scores)), False]
    ties = sum(left or right for left, right in itertools.pairwise(same))
    return [document for _, document in pairs], strictly_decreasing(scores) if ties else scores, ties


def _rank_queries(queries: dict[bytes, _QueryRows], source: Path | str) -> tuple[Ranking, int]:
    """Return the ranking and its number of ties; empties `queries` on the way, to hold a big run in memory once."""
    documents: dict[str, Sequence[str]] = {}
    scores: dict[str, Sequence[float]] = {}
    ties = 0
    for key in list(queries):
        rows = queries.pop(key)
        if len(set(rows.ids)) != len(rows.ids):
            if isinstance(source, Path):
                raise_duplicate(source, key.decode())
            raise duplicate_error("document", "", str(source), query=key.decode())
        ids, values, tied = _order_rows(rows)
        if not math.isfinite(values[-1]):
            raise too_many_ties(key.decode(), str(source))
        documents[key.decode()], scores[key.decode()] = tuple(ids), tuple(values)
        ties += tied
    return Ranking(documents, scores), ties


def _is_worth_columns(path: Path) -> bool:
    """Return whether reading by columns saves more time than importing polars costs.

    A missing file is not large.
    """
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return False
    return size >= (COLUMNS_PACKED if path.suffix in PACKED_ENDINGS else COLUMNS)


def read_trec_run(path: Path) -> RunFile:
    """Return the TREC run in `path`: six columns at any white space, plain or packed; blank lines are skipped.

    Queries keep the order of their first rows, which need not be adjacent. Documents are ordered as trec_eval orders
    them, which ignores the rank column: score descending as float32, then document id *descending*. So measures of a
    run from elsewhere equal trec_eval's. Tied scores are then moved apart, each just below the one before. Lines that
    start with # at the beginning are comments.

    Raises:
        FormatError: a row without six columns; a score that is not a decimal number within float32; a document twice
            for a query; NUL, bad UTF-8, UTF-16, or a damaged archive.
        MissingError, UsageError: the file is not there, or cannot be read.
    """
    if _is_worth_columns(path):
        from cerank.trec.read_columns import read_columns

        return read_columns(path)
    queries, tag = _gather_rows(path)
    notes = note_on_rising(sum(rises(rows.ranks, rows.scores) for rows in queries.values()), len(queries))
    ranking, ties = _rank_queries(queries, path)
    return RunFile(ranking=ranking, tag=tag, ties=ties, sha256=input_sha256(path), notes=notes)


def read_run(path: Path) -> RunFile:
    """Return the run in `path`: a TREC run, or one in another layout that `layouts` knows, with notes.

    JSON of the form {query: {document: score}}, parquet, a table with a header, commas, three or five columns.

    Raises:
        FormatError, MissingError, UsageError: as `read_trec_run`, which the rows of other layouts must satisfy, too.

    Example:
        >>> run = read_run(Path("bm25.run"))
        >>> run.tag, run.ranking["q1"], run.ranking.scores("q1")
        ('bm25', ('d1', 'd2', 'd3'), (3.0, 2.0, 1.0))
    """
    layout = layouts.layout_of(path, "run")
    comments = tuple(layouts.comment_lines(path)) if layout.kind in {"trec", "text"} else ()
    if layout.kind == "trec":
        run = read_trec_run(path)
        return msgspec.structs.replace(run, comments=comments) if comments else run
    foreign = layouts.read_foreign(path, layout, "run")
    run = run_of(foreign.rows, "run", str(path))
    return msgspec.structs.replace(run, sha256=input_sha256(path), notes=tuple(foreign.notes), comments=comments)


def run_of(rows: Iterable[tuple[str, str, float]], tag: str, where: str) -> RunFile:
    """Return the run of (query, document, score) rows, ordered and checked as a file's.

    Raises:
        FormatError: a score beyond float32, an id with white space, or a document twice for a query; `where` names it.

    Example:
        >>> run_of([("q1", "d1", 0.5), ("q1", "d2", 2.0)], tag="mine", where="my rows").ranking["q1"]
        ('d2', 'd1')
    """
    queries: dict[bytes, _QueryRows] = {}
    for query, document, score in rows:
        if not -LARGEST <= score <= LARGEST:
            raise FormatError(
                f"score {score} is not a finite number within float32", where=where, code="score-not-finite"
            )
        key = checked_id(query, "query", where).encode()
        if key not in queries:
            queries[key] = _QueryRows()
        queries[key].ids.append(checked_id(document, "document", where))
        queries[key].scores.append(score)
    ranking, ties = _rank_queries(queries, where)
    return RunFile(ranking=ranking, tag=tag, ties=ties)


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Return query id -> document id -> grade, from TREC qrels (four columns) or another layout that `layouts` knows.

    BEIR's three columns, tables with a header or with commas, JSON, parquet; plain or packed; blank lines are skipped.
    A pair that appears twice with the same grade counts once, because published qrels hold such rows; with two grades
    it is rejected, because tools disagree on which of them counts.

    Raises:
        FormatError: wrong number of columns; a grade that is not a whole number below a thousand million; a pair with
            two grades; NUL, bad UTF-8, UTF-16, or a damaged archive.
        MissingError, UsageError: the file is not there, or cannot be read.

    Example:
        >>> read_qrels(Path("test.qrels"))["q1"]
        {'d1': 1, 'd3': 0}
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, query, document, grade in qrels_rows(path):
        where = at(path, number) if number else str(path)
        if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
            raise grade_twice(query, document, where)
    return qrels


def qrels_rows(
    path: Path, opener: Opener | None = None, *, is_rest: bool = False
) -> Iterator[tuple[int, str, str, int]]:
    """Yield (line, query, document, grade) of each row of qrels, as `read_qrels` reads them; raises as it does.

    The line is 0 where the layout has none to tell. Qrels with four columns are not kept in memory; they are opened by
    `opener`, if there is one.

    Args:
        path: the file.
        opener: opens it, where it has four columns; None opens it by its path.
        is_rest: whether what `opener` gives comes after rows of four columns: then no comment may begin it.
    """
    layout = None if is_rest else layouts.layout_of(path, "qrels")
    if layout is not None and layout.kind != "trec":
        for query, document, value in layouts.read_foreign(path, layout, "qrels").rows:
            if value != int(value) or abs(value) >= 1e9:
                what = f"grade '{value:g}' is not a whole number below a thousand million"
                raise FormatError(what, where=str(path), code="grade-not-integer")
            where = str(path)
            yield 0, checked_id(query, "query", where), checked_id(document, "document", where), int(value)
        return
    is_first = not is_rest
    for first, lines in line_blocks(path, columns=True, opener=opener):
        for number, line in enumerate(lines, first):
            parts = line.split()
            if len(parts) != 4 or (is_first and is_comment(line)):
                if not parts or (is_first and is_comment(line)):
                    continue
                raise FormatError(
                    f"the line has {counted(len(parts), 'column')}",
                    where=at(path, number),
                    hint=_QRELS_HINT,
                    code="column-count",
                )
            grade = _GRADE.fullmatch(parts[3])
            if grade is None:
                what = f"grade '{shown(parts[3].decode(), 40)}' is not a whole number below a thousand million"
                raise FormatError(what, where=at(path, number), code="grade-not-integer")
            is_first, where = False, at(path, number)
            query, document = checked_id(parts[0].decode(), "query", where), parts[2].decode()
            yield number, query, checked_id(document, "document", where), int(grade[1])


def grade_twice(query: str, document: str, where: str) -> FormatError:
    """Return the error for a document that has two grades for a query."""
    what = f"document '{shown(document, 80)}' has two grades for query '{shown(query, 80)}'"
    return FormatError(what, where=where, code="grade-twice")


class _GzipWriter:
    """Gzip without a timestamp, so that equal content gives equal bytes."""

    def __init__(self) -> None:
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, 31)  # 31: the widest window, and gzip's header with no time
        self._parts: list[bytes] = []

    def add(self, lines: Iterable[str]) -> None:
        """Compress the next lines, each with its line feed."""
        self._parts.append(self._gzip.compress("".join(lines).encode("utf-8")))

    def packed(self) -> bytes:
        """Return all compressed bytes."""
        return b"".join([*self._parts, self._gzip.flush()])


def write_run(ranking: Ranking, tag: str, comments: Sequence[str] = ()) -> bytes:
    """Return the ranking as gzip bytes of a TREC run; a function of its arguments alone.

    Scores have nine significant digits, with which every float32 reads back as itself.

    Args:
        ranking: what to write.
        tag: last column of every row.
        comments: lines for the beginning of the file, such as those of ir_metadata, each with its #.

    Raises:
        FormatError: a query, document or tag that is empty or holds white space; scores that tie as float32.

    Example:
        >>> ranking = run_of([("q1", "d1", 0.5), ("q1", "d2", 2.0)], tag="mine", where="my rows").ranking
        >>> path = Path("written.run.gz")
        >>> path.write_bytes(write_run(ranking, "mine")) > 0
        True
        >>> read_run(path).ranking == ranking
        True
    """
    checked_id(tag, "tag", "the run to write")
    packer = _GzipWriter()
    packer.add(f"{line}\n" for line in comments)
    for query, documents in ranking.items():
        checked_id(query, "query", "the run to write")
        rows = enumerate(zip(documents, ranking.scores(query), strict=True), 1)
        packer.add(
            f"{query} Q0 {checked_id(document, 'document', 'the run to write')} {rank} {score:.9g} {tag}\n"
            for rank, (document, score) in rows
        )
    return packer.packed()


def write_qrels(qrels: Mapping[str, Mapping[str, int]]) -> bytes:
    """Return TREC qrels as gzip bytes; a function of the argument alone.

    Raises:
        FormatError: a query or document id that is empty or holds white space.

    Example:
        >>> import gzip
        >>> gzip.decompress(write_qrels({"q1": {"d1": 2, "d3": 0}})).decode().splitlines()
        ['q1 0 d1 2', 'q1 0 d3 0']
    """
    packer = _GzipWriter()
    for query, row in qrels.items():
        checked_id(query, "query", "the qrels to write")
        packer.add(
            f"{query} 0 {checked_id(document, 'document', 'the qrels to write')} {grade}\n"
            for document, grade in row.items()
        )
    return packer.packed()
