"""The queries and qrels of large files as memory-mapped copies in the cache: no id and no text is kept in memory.

Invariant: ids, texts, grades and their order equal those that `local_folders` reads from the same files; the files are
checked as strictly, once. The copies are those of `mapped_documents`: queries in `CACHE/queries`, and in `CACHE/qrels`
a record for each query, "document grade document grade".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

from cerank.core.row_sets import KnownItems, RowSet
from cerank.datasets.dataset import StoredQrels, StoredQueries
from cerank.datasets.mapped.grouped_qrels import grouped_qrels
from cerank.datasets.mapped.rows_record import RowsRecord
from cerank.datasets.mapped_documents import MappedDocuments, open_mapped_documents
from cerank.datasets.text_files import TextRow, query_rows
from cerank.errors import FormatError
from cerank.files.line_reader import Opener, at
from cerank.text.safe_text import shown

_AT_ONCE = 1 << 14  # ids that are looked up together


class _AllIds(Sequence[str]):
    """The ids of all rows, in their order."""

    def __init__(self, texts: MappedDocuments) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self._texts.id_of(at_row) for at_row in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._texts.id_of(row)

    def __iter__(self) -> Iterator[str]:
        return map(self._texts.id_of, range(len(self)))


class MappedQueries(StoredQueries):
    """Query id -> text, read from the disk.

    Args:
        texts: the file's queries.
        rows: rows of the file that are taken; None takes all.
    """

    def __init__(self, texts: MappedDocuments, rows: RowSet | None = None) -> None:
        self._texts, self._rows = texts, rows
        self._newest: tuple[object, tuple[int, str] | None] = (None, None)

    def _find(self, query_id: object) -> tuple[int, str] | None:
        newest = self._newest
        if newest[0] != query_id:
            row = self._texts.find(query_id) if isinstance(query_id, str) else None
            is_taken = row is not None and (self._rows is None or row[0] in self._rows)
            newest = self._newest = query_id, row if is_taken else None
        return newest[1]

    def __getitem__(self, query_id: str) -> str:
        row = self._find(query_id)
        if row is None:
            raise KeyError(query_id)
        return row[1]

    def __contains__(self, query_id: object) -> bool:
        return self._find(query_id) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self._texts) if self._rows is None else len(self._rows)

    @cached_property
    def ids(self) -> KnownItems:
        """Return the ids, looked up when they are asked for."""
        return KnownItems(_AllIds(self._texts), self._rows, self.__contains__)

    def at_places(self, places: RowSet) -> MappedQueries:
        """Return the queries at some places of `ids`."""
        return MappedQueries(self._texts, places if self._rows is None else self._rows.at_places(places))


class MappedQrels(StoredQrels):
    """Query id -> document id -> grade, read from the disk.

    Args:
        texts: records of the file's queries.
        within: queries that are taken, each of which has a record; None takes all.
    """

    def __init__(self, texts: MappedDocuments, within: StoredQueries | None = None) -> None:
        self._texts, self._within = texts, within
        self._newest: tuple[str, dict[str, int]] | None = None  # a sampler asks for one query several times in a row

    def __getitem__(self, query_id: str) -> dict[str, int]:
        newest = self._newest
        if newest is None or newest[0] != query_id:
            row = self._texts.find(query_id)
            if row is None or (self._within is not None and query_id not in self._within):
                raise KeyError(query_id)
            words = row[1].split(" ")
            newest = self._newest = query_id, dict(zip(words[::2], map(int, words[1::2]), strict=True))
        return newest[1]

    def __iter__(self) -> Iterator[str]:
        ids = iter(_AllIds(self._texts))
        return ids if self._within is None else (query for query in ids if query in self._within)

    def __len__(self) -> int:
        return len(self._texts if self._within is None else self._within)

    def within(self, queries: StoredQueries) -> MappedQrels:
        """Return the judgments of some queries, each of which has some."""
        return MappedQrels(self._texts, queries)


def open_mapped_queries(path: Path, cache: Path, name: str, without_text: str) -> MappedQueries:
    """Return the queries of a file that is no TREC topics, with a copy in `cache` that is made if it is missing.

    Args:
        path: the file.
        cache: folder of caches.
        name: name of the dataset.
        without_text: hint of the error for a query without text.

    Raises:
        FormatError, MissingError, UsageError: the file is malformed or not there, or a query has no text.
    """

    def rows(file: Path, _opener: Opener) -> Iterator[TextRow]:
        for number, query_id, text in query_rows(file):
            if not text.strip():
                what = f"query '{shown(query_id, 80)}' has no text"
                raise FormatError(what, where=at(file, number), hint=without_text, code="text-missing")
            yield number, query_id, text

    return MappedQueries(open_mapped_documents(path, cache, name, rows, "query"))


def open_mapped_qrels(path: Path, cache: Path, name: str) -> MappedQrels:
    """Return the qrels of a file, with a copy in `cache` that is made if it is missing; raises as `read_qrels`."""

    def rows(file: Path, _opener: Opener) -> Iterator[TextRow]:
        return grouped_qrels(file, cache / "qrels")

    return MappedQrels(open_mapped_documents(path, cache, name, rows, "query judgments"))


def judged_queries(queries: MappedQueries, qrels: MappedQrels, cache: Path) -> tuple[MappedQueries, str]:
    """Return the queries that have judgments, and a query with judgments and no text, "" where there is none.

    What takes a minute for millions of queries is kept in `cache`, but for files that are refused.

    Args:
        queries: all queries of a file.
        qrels: all judgments of a file.
        cache: folder of caches.
    """
    judged, texts = qrels._texts, queries._texts
    record = RowsRecord(cache, "judged-queries", len(queries), [texts.fingerprint(), judged.fingerprint()])
    known = record.load()
    places = RowSet(len(queries)) if known is None else known[0]
    if known is None:
        for start in range(0, len(queries), _AT_ONCE):
            ids = queries.ids[start : start + _AT_ONCE]
            for place, is_judged in enumerate(judged.are_known(ids), start):
                if is_judged:
                    places.add(place)
        all_judged = iter(qrels)
        while ids := list(itertools.islice(all_judged, _AT_ONCE)):
            absent = next(
                (query for query, is_known in zip(ids, texts.are_known(ids), strict=True) if not is_known), ""
            )
            if absent:
                return queries, absent
        record.save(places)
    return (queries if len(places) == len(queries) else queries.at_places(places)), ""
