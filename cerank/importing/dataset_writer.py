"""Collects what a reader finds (queries, documents, judgments, candidates, scores), and writes a dataset folder.

Invariant: what `finish` leaves is a dataset folder that `open_dataset` reads: ids once, judgments once, runs strictly
ordered. Everything that is dropped, repaired or merged is counted by kind.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import FormatError, UsageError
from cerank.files import disk
from cerank.files.line_reader import checked_id
from cerank.importing.deduplicate import candidates, judgments
from cerank.importing.external_sort import SpillBuffer
from cerank.importing.seen_ids import SeenIds
from cerank.text.safe_text import shown

if TYPE_CHECKING:
    import polars

QRELS = 0  # the table of judgments among the collected rows; runs are numbered from 1
_BUFFER = 1 << 20  # bytes written at once
LARGEST = 3.4e38  # just within float32: such a score written in nine digits still reads back
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class ImportCounts(msgspec.Struct, frozen=True):
    """The numbers of rows that an import wrote, dropped or changed."""

    records: int  # rows or objects of the files
    queries: int
    documents: int  # with a text of their own; 0 where the collection has the texts
    judgments: int
    runs: tuple[tuple[str, int], ...]  # (name, rows)
    counts: tuple[tuple[str, int], ...]  # (what was dropped, repaired or merged, how often)


class _BufferedFile:
    """A file that grows at its end, written a block at a time."""

    def __init__(self, path: Path) -> None:
        self._handle = disk.open_append(path)
        self._is_closed = False
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, text: bytes) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size >= _BUFFER:
            self._flush()

    def close(self) -> None:
        self._flush()
        self.close_without_flush()

    def close_without_flush(self) -> None:
        """Close the file and drop what waits; does nothing if it is closed."""
        if not self._is_closed:
            disk.close(self._handle)
        self._is_closed = True

    def _flush(self) -> None:
        if self._parts:
            disk.append(self._handle, b"".join(self._parts))
        self._parts.clear()
        self._size = 0


def run_name(text: str) -> str:
    """Return `text` as the name of a run: only letters, digits, '.', '_' and '-', so that no name leaves its folder.

    Letters, digits, '.', '_' and '-', so that no name from a file leaves its folder.

    Raises:
        UsageError: nothing is left of it.
    """
    name = _NAME.sub("-", text).strip("-.")[:120]
    if not name:
        raise UsageError(f"'{shown(text, 80)}' cannot be the name of a run", hint="letters, digits, '.', '_' and '-'")
    return name


def text_id(text: str) -> str:
    """Return an id for a text without one: the first 80 bits of its SHA-256, so equal texts are one document.

    The first 80 bits of its SHA-256, so equal texts are one document.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


class DatasetWriter:
    """A dataset folder that is being written.

    Args:
        folder: empty folder that becomes the dataset.
        keeps_texts: whether to write the texts of queries and documents; False where a collection has them.
        depth: how many candidates of a query each run keeps, best first; 0 keeps all.
        only: the runs to keep, by name; empty keeps all.
        rows_in_memory: the largest number of rows that wait in memory; None takes the default.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keeps_texts: bool,
        depth: int = 0,
        only: frozenset[str] = frozenset(),
        rows_in_memory: int | None = None,
    ) -> None:
        self._folder, self.keeps_texts, self._depth, self._only = folder, keeps_texts, depth, only
        self._rows_folder = folder / ".rows"
        disk.make_folder(self._rows_folder)
        self._rows = (
            SpillBuffer(self._rows_folder) if rows_in_memory is None else SpillBuffer(self._rows_folder, rows_in_memory)
        )
        self._documents = SeenIds(self._rows_folder / "documents.sqlite")
        self._queries = SeenIds(self._rows_folder / "queries.sqlite")
        self._runs: dict[str, int] = {}
        self._listed: set[int] = set()
        self._last = ""
        self._query: str | None = None
        self.counts: Counter[str] = Counter()
        self.offered: set[str] = set()  # runs that came, kept or not
        self.records = 0
        self._document_file = _BufferedFile(folder / "docs.jsonl") if keeps_texts else None
        self._query_file = _BufferedFile(folder / ("queries.jsonl" if keeps_texts else "query-ids.txt"))

    def count(self, kind: str, number: int = 1) -> None:
        """Count something that was dropped, repaired or merged, in words for the report."""
        if number:
            self.counts[kind] += number

    def keep_comments(self, run: str, comments: Sequence[str]) -> None:
        """Keep the comments at the beginning of a run's file, such as ir_metadata, in a file beside the run."""
        if self.wants(run):
            disk.make_folder(self._folder / "runs")
            disk.write(self._folder / "runs" / f"{run_name(run)}.metadata.txt", "\n".join([*comments, ""]).encode())

    def wants(self, run: str) -> bool:
        """Return whether the run should be kept."""
        self.offered.add(run)
        return not self._only or run_name(run) in self._only

    def query(self, query_id: str, text: str, where: str) -> bool:
        """Add a query, which may come repeatedly; return False if its text is empty and it is dropped.

        False where its text is empty and it is dropped with all that hangs on it.

        Raises:
            FormatError: an id with white space, or another text under an id that has one.
        """
        if not self.keeps_texts:
            return True
        if not text.strip():
            self.count("queries without text, dropped")
            return False
        known_hash = self._queries.get(query_id)
        if known_hash is None:
            checked_id(query_id, "query", where)
            self._query_file.write(_line({"query_id": query_id, "text": text}, where))
            self._queries.add(query_id, hash(text))
        elif known_hash != hash(text):
            raise FormatError(
                f"query '{shown(query_id, 80)}' has another text than before", where=where, code="query-text-differs"
            )
        return True

    def document(self, doc_id: str, text: str, where: str) -> bool:
        """Add a document, which may come repeatedly; return False if its text is empty and it is dropped.

        The first of several texts under one id is kept, and the others are counted.

        Raises:
            FormatError: an id with white space.
        """
        if self._document_file is None:
            return True
        if not text.strip():
            self.count("documents without text, dropped")
            return False
        known_hash = self._documents.get(doc_id)
        if known_hash is None:
            checked_id(doc_id, "document", where)
            self._document_file.write(_line({"doc_id": doc_id, "text": text}, where))
            self._documents.add(doc_id, hash(text))
        elif known_hash != hash(text):
            self.count("documents that come again with another text; the first is kept")
        return True

    def judged(self, query_id: str, doc_id: str, grade: int, where: str) -> None:
        """Add a relevance judgment; the highest grade counts if a pair comes with several."""
        self._rows.add(QRELS, self._checked_query(query_id, where), checked_id(doc_id, "document", where), float(grade))

    def scored(self, run: str, query_id: str, doc_id: str, score: float, where: str, *, rank: int = 0) -> None:
        """Add a candidate of a query to a run; the first score counts if a pair comes with several.

        Args:
            run: name of the run, which becomes a file of the dataset.
            query_id: of a query that was given before, or of the collection.
            doc_id: id of the candidate document.
            score: the larger, the better; a finite number within float32.
            where: origin of the row as file:line, for error messages.
            rank: decides between equal scores, small ranks first; 0 where there is none.

        Raises:
            FormatError: a score beyond float32, or an id with white space.
        """
        if not self.wants(run):
            return
        if not -LARGEST <= score <= LARGEST:
            raise FormatError(
                f"score {score} is not a finite number within float32", where=where, code="score-not-finite"
            )
        self._rows.add(
            self._table(run), self._checked_query(query_id, where), self._checked_document(doc_id, where), score, rank
        )

    def listed(self, run: str, query_id: str, doc_id: str, where: str, *, rank: int = 0) -> None:
        """Add a candidate of a query to a run without scores: the last of n gets 1, the first n.

        Small ranks come first, and among equal ones what came first; a pair that comes again keeps its first place.

        Raises:
            FormatError: an id with white space.
        """
        if not self.wants(run):
            return
        table = self._table(run)
        self._listed.add(table)
        self._rows.add(table, self._checked_query(query_id, where), self._checked_document(doc_id, where), 0.0, rank)

    def _table(self, run: str) -> int:
        number = self._runs.get(run)
        if number is None:
            names = {run_name(run_text): number for run_text, number in self._runs.items()}
            number = names.get(run_name(run), len(set(names.values())) + 1)
            self._runs[run] = number
        return number

    def _checked_document(self, doc_id: str, where: str) -> str:
        """Return the id after checking it, only once if several runs add it one after the other."""
        if doc_id != self._last:
            self._last = checked_id(doc_id, "document", where)
        return doc_id

    def ranked(self, run: str, rows: polars.DataFrame, *, is_listed: bool = False) -> None:
        """Add many candidates at once, as `scored` or `listed` does.

        Args:
            run: name of the run, which becomes a file of the dataset.
            rows: columns query, document, value (within float32), rank; ids without white space, as `are_ids` says.
            is_listed: whether the rows have ranks and no scores.
        """
        if self.wants(run):
            table = self._table(run)
            if is_listed:
                self._listed.add(table)
            self._extend(table, rows)

    def graded(self, rows: polars.DataFrame) -> None:
        """Add many judgments at once: columns query, document, value (the grade), rank."""
        self._extend(QRELS, rows)

    def _extend(self, table: int, rows: polars.DataFrame) -> None:
        import polars

        self._rows.extend(rows.with_columns(polars.lit(table).alias("table")))

    def finish(self) -> ImportCounts:
        """Write everything that waits, and close all files.

        Raises:
            FormatError: nothing came at all; `where` is for the caller to fill.
        """
        if self._document_file is not None:
            self._document_file.close()
        rows, named = self._write_tables()
        self._query_file.close()
        self._documents.close()
        self._queries.close()
        disk.remove_tree(self._rows_folder)
        return ImportCounts(
            records=self.records,
            queries=len(self._queries) if self.keeps_texts else named,
            documents=len(self._documents),
            judgments=rows[""],
            runs=tuple((name, rows[name]) for name in dict.fromkeys(map(run_name, self._runs))),
            counts=tuple(sorted((kind, number) for kind, number in self.counts.items() if number)),
        )

    def close(self) -> None:
        """Close the files if the work ended before `finish`; the caller removes the folder."""
        self._rows.close()
        self._documents.close()
        self._queries.close()
        for file in (self._query_file, self._document_file):
            if file is not None:
                file.close_without_flush()

    def _checked_query(self, query_id: str, where: str) -> str:
        """Return the id; checked once if it comes several times in a row."""
        if query_id != self._query:
            if self.keeps_texts and query_id not in self._queries:
                raise FormatError(f"query '{shown(query_id, 80)}' has no text", where=where)
            self._query = checked_id(query_id, "query", where)
        return query_id

    def _write_tables(self) -> tuple[Counter[str], int]:
        """Write qrels, runs and query ids; return rows by name (qrels under "") and the number of ids."""
        rows: Counter[str] = Counter()
        named = 0
        names = {number: run_name(name) for name, number in self._runs.items()}
        files: dict[int, _BufferedFile] = {}
        if names:
            disk.make_folder(self._folder / "runs")
        served: Counter[str] = Counter()
        for bucket in self._rows.buckets():
            self._count_served(bucket, served)
            if not self.keeps_texts:
                ids = bucket["query"].unique(maintain_order=True)
                self._query_file.write("".join(f"{query_id}\n" for query_id in ids).encode())
                named += len(ids)
            for (table,), part in bucket.partition_by("table", as_dict=True, maintain_order=True).items():
                name = names.get(int(table), "")
                if table not in files:
                    files[table] = _BufferedFile(self._folder / (f"runs/{name}.run" if name else "qrels"))
                if name:
                    is_listed = table in self._listed
                    text, row_count = candidates(part, name, self.counts, is_listed=is_listed, depth=self._depth)
                else:
                    text, row_count = judgments(part, self.counts)
                files[table].write(text)
                rows[name] += row_count
        for file in files.values():
            file.close()
        if rows[""]:  # training data with judgments, and not a ranking alone
            self._count_unserved(len(self._queries) if self.keeps_texts else named, served)
        return rows, named

    def _count_served(self, bucket: polars.DataFrame, served: Counter[str]) -> None:
        """Count the queries of a bucket that have a positive, negatives, or a teacher's scores."""
        is_run, in_list = bucket["table"] != QRELS, bucket["table"].is_in(sorted(self._listed))
        served["positive"] += bucket.filter(~is_run & (bucket["value"] >= 1))["query"].n_unique()
        served["negatives"] += bucket.filter(in_list)["query"].n_unique()
        served["scores"] += bucket.filter(is_run & ~in_list)["query"].n_unique()

    def _count_unserved(self, queries: int, served: Counter[str]) -> None:
        self.count("queries without a positive", queries - served["positive"])
        if self._listed or not self._runs:
            self.count("queries without negatives", queries - served["negatives"])
        if set(self._runs.values()) - self._listed:
            self.count("queries without teacher scores", queries - served["scores"])


def _line(row: dict[str, str], where: str) -> bytes:
    try:
        return msgspec.json.encode(row) + b"\n"
    except UnicodeEncodeError:
        raise FormatError("text with half a character (an unpaired surrogate)", where=where) from None
