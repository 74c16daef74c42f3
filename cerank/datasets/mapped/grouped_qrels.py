"""Bring the judgments of each query together, for files of any size: rows need not be in any order.

Invariant: queries come in the order of their first rows, and a query's documents in that of theirs; a bucket of some
megabytes of the file is in memory at a time.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import zlib
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from cerank.errors import FormatError
from cerank.files import disk, file_cache
from cerank.files.line_reader import at
from cerank.files.packed_files import PACKED_ENDINGS
from cerank.trec.text_io import grade_twice, qrels_rows

BUCKET = 2 << 20  # bytes of the file in one bucket, of which there are at most as many as files may be open
_MOST_BUCKETS = 200
_PACKED = 8  # times as large as it is on the disk is a packed file, about
_WAITING = 1 << 16  # rows in memory before they are written to their buckets


def grouped_qrels(path: Path, folder: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (number of its first row, query, "document grade document grade") of each query.

    Args:
        path: file of qrels.
        folder: existing folder, for temporary files; one process at a time reads this file with this folder.

    Raises:
        FormatError: as `read_qrels`.
    """
    inside = folder / f"grouping-{file_cache.cache_name(path)}"
    disk.remove_tree(inside)  # what a killed process left
    disk.make_folder(inside)
    try:
        size = path.stat().st_size * (_PACKED if path.suffix in PACKED_ENDINGS else 1)
        count = min(_MOST_BUCKETS, 1 + size // BUCKET)
        _distribute(path, inside, count)
        files = [(inside / f"{bucket}.rows", inside / f"{bucket}.queries") for bucket in range(count)]
        conflicts = [conflict for rows, queries in files if (conflict := _group(path, rows, queries)) is not None]
        if conflicts:
            raise min(conflicts, key=itemgetter(0))[1]
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(queries.open(encoding="utf-8")) for _, queries in files]
            merged = heapq.merge(*opened, key=lambda line: int(line.partition("\t")[0]))
            for line in merged:
                number, query, judged = line.rstrip("\n").split("\t")
                yield int(number), query, judged
    finally:
        disk.remove_tree(inside)


def _distribute(path: Path, inside: Path, count: int) -> None:
    """Append every row, with its number and line, to the file of its query's bucket."""
    handles = [disk.open_append(inside / f"{bucket}.rows") for bucket in range(count)]
    waiting: list[list[str]] = [[] for _ in range(count)]
    try:
        for row, (number, query, document, grade) in enumerate(qrels_rows(path), 1):
            waiting[zlib.crc32(query.encode()) % count].append(f"{row}\t{number}\t{query}\t{document}\t{grade}\n")
            if row % _WAITING == 0:
                _flush(handles, waiting)
        _flush(handles, waiting)
    finally:
        for handle in handles:
            disk.close(handle)


def _flush(handles: list[disk.Handle], waiting: list[list[str]]) -> None:
    for handle, rows in zip(handles, waiting, strict=True):
        if rows:
            disk.append(handle, "".join(rows).encode())
            rows.clear()


def _group(path: Path, rows: Path, target: Path) -> tuple[int, FormatError] | None:
    """Write one line for each query of a bucket, in the order of their first rows.

    Return the first row of the bucket that gives a document another grade, with its error; None if there is none.
    """
    with rows.open(encoding="utf-8") as lines:
        waiting = sorted(lines, key=_query_of)  # stable: a query's rows keep their order; far smaller than dictionaries
    disk.remove(rows)
    grouped = list[tuple[int, str]]()
    conflicts = list[tuple[int, FormatError]]()
    for query, of_query in itertools.groupby(waiting, key=_query_of):
        grades: dict[str, str] = {}
        first = 0
        for line in of_query:
            row, number, _, document, grade = line.rstrip("\n").split("\t")
            first = first or int(row)  # rows are counted from 1
            if grades.setdefault(document, grade) != grade:
                where = at(path, int(number)) if number != "0" else str(path)
                conflicts.append((int(row), grade_twice(query, document, where)))
                break
        grouped.append((first, f"{query}\t{' '.join(f'{document} {grade}' for document, grade in grades.items())}\n"))
    waiting.clear()
    grouped.sort()
    with contextlib.closing(_Lines(target)) as out:
        for first, line in grouped:
            out.add(f"{first}\t{line}")
    return min(conflicts, key=itemgetter(0)) if conflicts else None


def _query_of(line: str) -> str:
    return line.split("\t", 3)[2]


class _Lines:
    """Lines that are appended to a file some megabytes at a time."""

    def __init__(self, path: Path) -> None:
        self._handle, self._lines, self._size = disk.open_append(path), list[str](), 0

    def add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size > 1 << 22:
            self._flush()

    def _flush(self) -> None:
        disk.append(self._handle, "".join(self._lines).encode())
        self._lines, self._size = [], 0

    def close(self) -> None:
        try:
            self._flush()
        finally:
            disk.close(self._handle)
