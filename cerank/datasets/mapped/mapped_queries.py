"""The queries and qrels of large files as memory-mapped copies in the cache: no id and no text is kept in memory.

Invariant: ids, texts, grades and their order equal those that `local_folders` reads from the same files; the files are
checked as strictly, once. The copies are those of `mapped_documents`: queries in `CACHE/queries`, and in `CACHE/qrels`
a record for each query, "document grade document grade".
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cerank.core.row_sets import ItemsByPlace, KnownItems, RowSet
from cerank.datasets.dataset import StoredQrels, StoredQueries
from cerank.datasets.mapped.grouped_qrels import grouped_qrels
from cerank.datasets.mapped.rows_record import RowsRecord
from cerank.datasets.mapped_documents import MappedDocuments, open_mapped_documents
from cerank.datasets.text_files import TextRow, TopicField, are_topics, query_rows
from cerank.errors import FormatError
from cerank.files.hashing import sha256_json
from cerank.files.line_reader import Opener, at
from cerank.text.safe_text import shown

_AT_ONCE = 1 << 14  # ids that are looked up together
_COUNTED_BY = (__name__, "cerank.datasets.mapped_documents")


class _AllIds(ItemsByPlace):
    """The ids of all rows, in their order."""

    def __init__(self, texts: MappedDocuments) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def item(self, place: int) -> str:
        """Return the id of a row."""
        return self._texts.id_of(place)

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


class QueryReading(NamedTuple):
    """How a file of queries is read."""

    topic: tuple[TopicField, ...] = ("title",)  # parts of TREC topics that make the query
    hint: str = ""  # of the error for a query without text
    keeps_empty: bool = False  # whether queries without text are kept; else they are an error

    def copies(self, path: Path, cache: Path) -> Path:
        """Return the folder of caches for copies of a file that is read in this way."""
        fields = list(self.topic) if are_topics(path) else []
        if not fields and not self.keeps_empty:
            return cache
        return cache / "queries-otherwise-read" / sha256_json([fields, self.keeps_empty])[:16]


def open_mapped_queries(paths: Sequence[Path], cache: Path, name: str, reading: QueryReading) -> MappedQueries:
    """Return the queries of files, with a copy in `cache` that is made if it is missing.

    Args:
        paths: the files, of one format; usually one.
        cache: folder of caches.
        name: name of the dataset.
        reading: how they are read.

    Raises:
        FormatError, MissingError, UsageError: a file is malformed or not there, or a query has no text.
    """

    def rows(file: Path, _opener: Opener) -> Iterator[TextRow]:
        for number, query_id, text in query_rows(file, reading.topic):
            if not reading.keeps_empty and not text.strip():
                what = f"query '{shown(query_id, 80)}' has no text"
                raise FormatError(what, where=at(file, number), hint=reading.hint, code="text-missing")
            yield number, query_id, text

    return MappedQueries(open_mapped_documents(paths, reading.copies(paths[0], cache), name, rows, "query"))


def with_text(queries: MappedQueries, cache: Path, where: str) -> tuple[MappedQueries, int]:
    """Return the queries of a file that have a text, and the number of those without; kept in `cache`.

    Raises:
        FormatError: none has one.
    """
    record = RowsRecord(cache, "queries-with-text", len(queries), queries._texts.fingerprint(), counted_by=_COUNTED_BY)
    known = record.load()
    places = RowSet(len(queries)) if known is None else known[0]
    if known is None:
        for place, (_, text) in enumerate(queries._texts):
            if text.strip():
                places.add(place)
        record.save(places)
    if not len(places):
        hint = "each of its queries is without a text"
        raise FormatError("the file holds no query", where=where, hint=hint, code="no-queries")
    count = len(queries) - len(places)
    return (queries.at_places(places) if count else queries), count


def queries_in(queries: MappedQueries, known: Container[str], cache: Path, decided_by: str) -> MappedQueries:
    """Return the queries that are among the `known` ones, which `decided_by` names; kept in `cache`."""
    key = [queries._texts.fingerprint(), queries._rows is not None, decided_by]
    record = RowsRecord(cache, "queries-in-others", len(queries), key, counted_by=_COUNTED_BY)
    recorded = record.load()
    places = RowSet(len(queries)) if recorded is None else recorded[0]
    if recorded is None:
        for place, query in enumerate(queries.ids):
            if query in known:
                places.add(place)
        record.save(places)
    return queries if len(places) == len(queries) else queries.at_places(places)


def open_mapped_qrels(path: Path, cache: Path, name: str) -> MappedQrels:
    """Return the qrels of a file, with a copy in `cache` that is made if it is missing; raises as `read_qrels`."""

    def rows(file: Path, _opener: Opener) -> Iterator[TextRow]:
        return grouped_qrels(file, cache / "qrels")

    return MappedQrels(open_mapped_documents([path], cache, name, rows, "query judgments"))


class JudgedQueries(NamedTuple):
    """The queries of a file that have judgments."""

    queries: MappedQueries
    absent: str  # a query with judgments and no text; "" where there is none
    unknown: int  # number of queries with judgments that the file of queries does not name


def judged_queries(every: MappedQueries, texts: MappedQueries, qrels: MappedQrels, cache: Path) -> JudgedQueries:
    """Return which queries of a file have judgments.

    What takes a minute for millions of queries is kept in `cache`.

    Args:
        every: all queries of a file.
        texts: those of them that have a text.
        qrels: all judgments of a file.
        cache: folder of caches.
    """
    judged, named = qrels._texts, every._texts
    decided_by = [named.fingerprint(), judged.fingerprint(), texts._rows is not None]
    record = RowsRecord(cache, "judged-queries", len(texts), decided_by, counted_by=_COUNTED_BY)
    known = record.load(["unknown", "without"])
    places = RowSet(len(texts)) if known is None else known[0]
    unknown = without = 0
    absent = ""
    if known is None:
        for start in range(0, len(texts), _AT_ONCE):
            ids = texts.ids[start : start + _AT_ONCE]
            for place, is_judged in enumerate(judged.are_known(ids), start):
                if is_judged:
                    places.add(place)
        all_judged = iter(qrels)
        while ids := list(itertools.islice(all_judged, _AT_ONCE)):
            for query, is_known in zip(ids, named.are_known(ids), strict=True):
                unknown += not is_known
                if not is_known or (texts is not every and query not in texts):
                    without, absent = without + 1, absent or query
        record.save(places, {"unknown": unknown, "without": without})
    else:
        unknown, without = known[1]["unknown"], known[1]["without"]
    if without and not absent:
        absent = next(query for query in qrels if query not in texts)
    return JudgedQueries(texts if len(places) == len(texts) else texts.at_places(places), absent, unknown)
