"""What a dataset is: judged queries, their qrels, documents by id, and the runs that come with it.

Invariant: whatever it came from, a dataset's ids are valid in a TREC file, and its fingerprint changes whenever a
number that is measured on it could.
"""

from __future__ import annotations

import abc
import bisect
import hashlib
import itertools
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cerank.core.rankings import Ranking
from cerank.core.row_sets import KnownItems, RowSet
from cerank.datasets.document_templates import DocumentTemplate
from cerank.errors import MissingError, UsageError
from cerank.files.hashing import sha256_text
from cerank.registry import nearest
from cerank.text.safe_text import counted, shown
from cerank.trec.rows import RunFile

IGNORES_IDENTICAL_IDS = "ignore_identical_ids"  # as BEIR's and mteb's option is called
CATALOG = "ir_datasets"  # the location of datasets that are not in a local folder
_BOUND = re.compile(r"(\d{1,9})(%?)")
_PART_HINT = "parts are written [:60%], [60%:80%], [80%:] or [:100]"


class Documents(Protocol):
    """The documents of a dataset: title and text joined by one space, found by id, iterated in a stable order."""

    def text(self, doc_id: str) -> str:
        """Return the text of one document.

        Raises:
            MissingError: there is none of that id.
        """

    def texts(self, doc_ids: Sequence[str]) -> list[str]:
        """Return the texts of `doc_ids`, in their order; raises as `text`."""

    def __contains__(self, doc_id: object) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, str]]: ...

    def fingerprint(self) -> str:
        """Return the SHA-256, 64 hex digits, that changes when a document does."""


class FieldReader(Protocol):
    """The documents of a dataset, read field by field."""

    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that hold text, in their order."""

    def documents(self, template: DocumentTemplate) -> Documents:
        """Return the documents with the texts that the template makes, and a fingerprint of their own."""


class StoredQueries(Mapping[str, str]):
    """Queries of a large file, which are not kept in memory."""

    @property
    @abc.abstractmethod
    def ids(self) -> KnownItems:
        """Return the ids in order, looked up when they are asked for."""

    @abc.abstractmethod
    def at_places(self, places: RowSet) -> StoredQueries:
        """Return the queries at some places of `ids`."""


class StoredQrels(Mapping[str, Mapping[str, int]]):
    """Judgments of a large file, which are not kept in memory."""

    @abc.abstractmethod
    def within(self, queries: StoredQueries) -> StoredQrels:
        """Return the judgments of some queries, each of which has some."""


def no_document(doc_id: str, dataset: str) -> MissingError:
    """Return the error for a document id, in a run or a group, for which the dataset has no text."""
    return MissingError(
        f"no document '{shown(doc_id, 80)}' in dataset {dataset}",
        hint="is the run from this dataset?",
        code="document-not-found",
    )


@dataclass(frozen=True)
class Dataset:
    """Queries with their qrels, and the documents they are searched in.

    Where there are qrels, `queries` are the judged ones only, in the dataset's order; grades are kept as given,
    negative ones too. Documents named in qrels may be absent, as a pool is larger than a sample: see
    `judged_without_text`.
    """

    name: str
    location: str  # a folder, or CATALOG
    description: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    documents: Documents
    runs: tuple[str, ...]  # names of the first stages that come with it
    identity: str  # SHA-256 of the whole dataset's content, whatever part of it is used
    reader: Callable[[str], RunFile]
    part: str = ""  # "[:60%]"
    cache: Path | None = None  # folder for memory-mapped copies of large files; None reads them into memory
    place: str = ""  # folder in which the user may place further runs; "" if there is none
    notes: tuple[str, ...] = ()  # sentences on what was left out when it was opened
    field_reader: FieldReader | None = None  # None where documents have no fields
    query_fields: Callable[[], Mapping[str, Mapping[str, str]]] | None = None  # query -> what else is known of it
    ignores_identical_ids: bool = False  # whether the document with a query's own id is no result of that query
    members: Mapping[str, Dataset] = field(default_factory=dict)  # of a mixture: number of each set, from 1 -> it
    weights: Mapping[str, float] = field(default_factory=dict)  # number of each set -> its weight in the mixture

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything that a measure here depends on: documents, queries, qrels, the part.

        64 hex digits.
        """
        return sha256_text(f"{self.identity}\n{self.part}")

    @property
    def query_ids(self) -> Sequence[str]:
        """Return the ids of the queries, in order; those of a large file are looked up when they are asked for."""
        return self.queries.ids if isinstance(self.queries, StoredQueries) else tuple(self.queries)

    @property
    def reads_catalog(self) -> bool:
        """Return whether reading a document may fetch a collection: of the catalog, or of one of a mixture's sets."""
        return any(each.location == CATALOG for each in (self, *self.members.values()))

    def decisions(self) -> tuple[str, ...]:
        """Return what was left out when the dataset was opened, and what is left out of its results, in sentences."""
        if not self.ignores_identical_ids:
            return self.notes
        return (*self.notes, f"{self.name}: a query's own document is no result of it ({IGNORES_IDENTICAL_IDS})")

    def run(self, name: str) -> RunFile:
        """Return a run that comes with the dataset.

        Raises:
            UsageError: it brings none of that name; the hint names the nearest.
            FormatError: the run's file is malformed.
        """
        if name not in self.runs:
            hint = nearest(name, self.runs) if self.runs else "it has no runs"
            raise UsageError(
                f"dataset {self.name} has no run '{shown(name, 80)}'", hint=hint, code="run-file-not-found"
            )
        return self.reader(name)

    def judged_without_text(self) -> int:
        """Count the different documents in the qrels that have no text; looks up each of them."""
        judged = {document for row in self.qrels.values() for document in row}
        return sum(document not in self.documents for document in judged)


def _bound(text: str, count: int, missing: int, where: str) -> int:
    if not text:
        return missing
    match = _BOUND.fullmatch(text)
    if not match:
        raise UsageError(
            f"'{shown(text, 40)}' is not a number of queries or a percentage",
            where=where,
            hint=_PART_HINT,
            code="query-range-syntax",
        )
    number = int(match[1])
    if match[2] and number > 100:
        raise UsageError(
            f"{number}% is more than the whole dataset", where=where, hint=_PART_HINT, code="query-range-too-large"
        )
    return count * number // 100 if match[2] else number


def part_size(part: str, count: int) -> int:
    """Return the number of queries that a part ("[60%:80%]", or "" for all) takes from `count` queries."""
    if not part:
        return count
    low, high = bounds_of(part, count, part)
    return max(0, min(count, high) - low)


def bounds_of(part: str, count: int, where: str) -> tuple[int, int]:
    """Return the places of the first query of a part ("[60%:80%]") and of the first behind it, of `count` in a line.

    Raises:
        UsageError: bounds that are not numbers or percentages.
    """
    low, _, high = part[1:-1].partition(":")
    return _bound(low, count, 0, where), _bound(high, count, count, where)


class KeptRows(Protocol):
    """Where a set of rows is kept that takes long to find."""

    def load(self) -> tuple[RowSet, Mapping[str, int]] | None:
        """Return the rows, with numbers about them; None where they are not there, or not whole."""

    def save(self, rows: RowSet) -> None:
        """Keep the rows."""


# (number of all rows, what decides which of them are in the set) -> where the set is kept
KeepRows = Callable[[int, Sequence[str]], KeptRows]


def part_of(dataset: Dataset, part: str, keep: KeepRows | None = None) -> Dataset:
    """Return the part of `dataset` that `part` ("[60%:80%]") selects: fewer queries, all documents and runs.

    Queries are lined up by the SHA-256 of their id, so that parts are the same on every machine, do not follow any
    order in the file, and are disjoint where their bounds are. The queries keep the dataset's order.

    Args:
        dataset: the whole dataset.
        part: as it is written.
        keep: where the places of queries that are not in memory are kept; None looks for them each time.

    Raises:
        UsageError: bounds that are not numbers or percentages, or that hold no query.
    """
    where = f"{dataset.name}{part}"
    count = len(dataset.queries)
    first, last = bounds_of(part, count, where)
    if isinstance(dataset.queries, StoredQueries) and first < min(last, count):
        record = keep(count, [dataset.identity, part]) if keep is not None else None
        known = record.load() if record is not None else None
        places = known[0] if known is not None else _places_by_hash(dataset.queries.ids, first, min(last, count))
        if record is not None and known is None:
            record.save(places)
        stored = dataset.queries.at_places(places)
        qrels = dataset.qrels.within(stored) if isinstance(dataset.qrels, StoredQrels) else dataset.qrels
        return replace(dataset, name=where, part=part, queries=stored, qrels=qrels)
    ordered = sorted(dataset.queries, key=lambda query: hashlib.sha256(query.encode()).digest())
    picked = set(ordered[first:last])
    if not picked:
        raise UsageError(
            f"the part holds none of the {counted(count, 'query')}",
            where=where,
            hint=_PART_HINT,
            code="query-range-empty",
        )
    return replace(
        dataset,
        name=where,
        part=part,
        queries={query: text for query, text in dataset.queries.items() if query in picked},
        qrels={query: row for query, row in dataset.qrels.items() if query in picked},
    )


def _places_by_hash(ids: Sequence[str], first: int, last: int) -> RowSet:
    """Return the places of the ids that come from place `first` to before `last` when lined up by SHA-256.

    Only the hashes that share their first 16 bits with one of the two bounds are in memory at a time.
    """
    sizes = array("Q", bytes(8 << 16))
    for query in ids:
        sizes[_first_bits(query)] += 1
    ends = list(itertools.accumulate(sizes))
    low, high = _hash_at(ids, ends, first), _hash_at(ids, ends, last)
    places = RowSet(len(ids))
    for place, query in enumerate(ids):
        if low <= hashlib.sha256(query.encode()).digest() < high:
            places.add(place)
    return places


def _first_bits(query: str) -> int:
    return int.from_bytes(hashlib.sha256(query.encode()).digest()[:2], "big")


def _hash_at(ids: Sequence[str], ends: Sequence[int], place: int) -> bytes:
    """Return the hash at a place of all hashes in order; beyond the last one that is larger than any."""
    if place >= ends[-1]:
        return b"\xff" * 33
    bits = bisect.bisect_right(ends, place)
    inside = sorted(hashlib.sha256(query.encode()).digest() for query in ids if _first_bits(query) == bits)
    return inside[place - (ends[bits - 1] if bits else 0)]


def without_identical_ids(ranking: Ranking, depth: int | None = None) -> Ranking:
    """Return the ranking without the document that has its query's own id; queries left with none are absent.

    Args:
        depth: how many documents of a query are returned at most; None returns all others.
    """
    documents: dict[str, tuple[str, ...]] = {}
    scores: dict[str, tuple[float, ...]] = {}
    for query in ranking:
        rows = [row for row in zip(ranking[query], ranking.scores(query), strict=True) if row[0] != query][:depth]
        if rows:
            documents[query], scores[query] = zip(*rows, strict=True)
    return Ranking(documents, scores)


def judged_only(queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """Return the queries that have relevance judgments, or all queries if there are no judgments at all."""
    return {query: text for query, text in queries.items() if query in qrels or not qrels}
