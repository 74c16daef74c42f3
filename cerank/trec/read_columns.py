"""Reads runs of some hundred thousand rows as columns in memory, ten times as fast as line by line.

Invariant: the ranking, ties, tag and hash are those of `text_io.read_run` read line by line, and so are the refusals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import polars as pl

from cerank.core.rankings import LazyRanking
from cerank.files.hashing import input_sha256
from cerank.files.line_reader import blocks, translate_read_errors
from cerank.files.packed_files import UNCHECKED_BYTES, open_stream
from cerank.trec.parse_blocks import parse_block
from cerank.trec.rank_order import note_on_rising
from cerank.trec.row_ordering import (
    DuplicateDocumentError,
    OrderedRows,
    TooManyTiesError,
    check_no_duplicates,
    order_rows,
    starts_of,
)
from cerank.trec.rows import RunFile, raise_duplicate, too_many_ties

_BLOCK = 32 << 20  # bytes parsed at once, by all cores
_DENSE = (
    16  # a packed run that unpacks to more than so many times its size is checked for duplicates; real ones: 3 to 10
)
_KEPT = ("query", "document", pl.col("rank").cast(pl.Int64, strict=False), "score")  # a rank in 8 bytes


class ColumnRanking(LazyRanking):
    """A ranking that is cut out of columns in memory.

    Args:
        rows: the rows of all queries in their final order.
        places: query id -> the query's number in `rows`, in the order of iteration; None takes all queries.
        depth: the number of documents to read for each query; None reads all.
        documents: the document ids of all rows, if another ranking of the same rows has the list already.
    """

    def __init__(
        self,
        rows: OrderedRows,
        places: Mapping[str, int] | None = None,
        depth: int | None = None,
        documents: list[str] | None = None,
    ) -> None:
        super().__init__({query: at for at, query in enumerate(rows.queries)} if places is None else places, depth)
        self._rows = rows
        self._ids: list[str] = rows.documents.to_list() if documents is None else documents
        self._starts: list[int] = rows.starts.tolist()

    def _span(self, query_id: str) -> slice:
        place = self._places[query_id]
        start, end = self._starts[place], self._starts[place + 1]
        return slice(start, end if self.depth is None else min(end, start + self.depth))

    def __getitem__(self, query_id: str) -> tuple[str, ...]:
        return tuple(self._ids[self._span(query_id)])

    def scores(self, query_id: str) -> tuple[float, ...]:
        """Return the scores of `self[query_id]`, strictly decreasing."""
        return tuple(self._rows.scores[self._span(query_id)].tolist())

    def _view(self, places: Mapping[str, int], depth: int | None) -> Self:
        return type(self)(self._rows, places, depth, self._ids)


def read_columns(path: Path) -> RunFile:
    """Read a run as `text_io.read_run` does, which calls this for files large enough to justify importing polars.

    Raises:
        FormatError, MissingError, UsageError: as `text_io.read_run`.
    """
    try:
        frame, tag = _read(path)
        rows = order_rows(frame)
    except TooManyTiesError as error:
        raise too_many_ties(error.query, str(path)) from None
    except DuplicateDocumentError as error:
        raise_duplicate(path, error.query)
    del frame  # before every id becomes a text of Python's
    notes = note_on_rising(rows.rising, len(rows.queries))
    return RunFile(ranking=ColumnRanking(rows), tag=tag, ties=rows.ties, sha256=input_sha256(path), notes=notes)


def _read(path: Path) -> tuple[pl.DataFrame, str]:
    """Return the rows, those of each query together, and the first row's tag.

    Raises:
        DuplicateDocumentError: a packed file repeats rows so often that they would fill memory.
    """
    frames: list[pl.DataFrame] = []
    tag, content, looked_at = "", 0, max(UNCHECKED_BYTES, _DENSE * _size(path))
    with translate_read_errors(path), contextlib.closing(open_stream(path)) as file:
        for first, block in blocks(path, file, _BLOCK):
            frame = parse_block(path, block, first)
            tag = tag or (str(frame["tag"][0]) if len(frame) else "")
            frames.append(frame.select(_KEPT))
            content += len(block)
            if content > looked_at:
                looked_at = 2 * content
                check_no_duplicates(pl.concat(frames))
    return _group_by_query(pl.concat(frames or [parse_block(path, b"", 1).select(_KEPT)])), tag


def _size(path: Path) -> int:
    with translate_read_errors(path):
        return path.stat().st_size


def _group_by_query(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows grouped by query: queries in order of appearance, rows of a query in their order."""
    starts = starts_of(frame["query"])
    if frame["query"].gather(starts[:-1]).is_unique().all():
        return frame
    numbered = frame.with_row_index("row").with_columns(pl.col("row").min().over("query").alias("first"))
    return numbered.sort("first", "row").drop("first", "row")
