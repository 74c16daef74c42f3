"""Rows of (table, query, document, number, rank) in any order and any number, handed back query by query.

Invariant: at most `ROOM` bytes of rows wait in memory; beyond that they lie in `BUCKETS` files by a hash of the query,
of which one at a time is read back. The order that comes out is a function of the rows alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from cerank.store import disk

ROOM = 24 << 20  # bytes of text; the same rows take some 5 times as much as Python objects
BUCKETS = 256  # files open at once, well under the 1,024 that systems allow


class Row(msgspec.Struct, frozen=True, gc=False):
    """A document of one query in one table; `rank` 0 stands for none."""

    doc_id: str
    value: float
    rank: int = 0


class Spill:
    """Gathers rows; add all of them, then take `groups` once.

    Args:
        folder: an existing folder for the buckets, made and removed in it.
        room: bytes of rows that may wait in memory.
    """

    def __init__(self, folder: Path, room: int = ROOM) -> None:
        self._folder, self._room = folder, room
        self._waiting: list[tuple[str, str]] = []
        self._bytes = 0
        self._files: dict[int, disk.Handle] = {}

    def add(self, table: int, query_id: str, doc_id: str, value: float, rank: int = 0) -> None:
        """One row; ids hold no white space."""
        line = f"{table}\t{query_id}\t{doc_id}\t{value!r}\t{rank}\n"
        self._waiting.append((query_id, line))
        self._bytes += len(line)
        if self._bytes > self._room:
            self._flush()

    def groups(self) -> Iterator[tuple[int, str, list[Row]]]:
        """(table, query, its rows in the order they came), each table and query once; the buckets are gone after it.

        Rows that fitted in memory come in the order of their queries' first rows, others bucket by bucket.
        """
        if not self._files:
            yield from _gathered(line for _, line in self._waiting)
            self._waiting.clear()
            return
        self._flush()
        for number in sorted(self._files):
            handle = self._files.pop(number)
            disk.close(handle)
            with handle.path.open(encoding="utf-8", newline="\n") as file:
                yield from _gathered(file)
            disk.remove(handle.path)

    def close(self) -> None:
        """Lets the bucket files go, where `groups` was not taken to its end."""
        while self._files:
            disk.close(self._files.popitem()[1])

    def _flush(self) -> None:
        parts: dict[int, list[str]] = {}
        for query_id, line in self._waiting:
            parts.setdefault(zlib.crc32(query_id.encode()) % BUCKETS, []).append(line)
        for number, lines in parts.items():
            if number not in self._files:
                self._files[number] = disk.open_append(self._folder / f"bucket-{number:03}.tsv")
            disk.append(self._files[number], "".join(lines).encode())
        self._waiting.clear()
        self._bytes = 0


def _gathered(lines: Iterable[str]) -> Iterator[tuple[int, str, list[Row]]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for line in lines:
        table, query_id, doc_id, value, rank = line.rstrip("\n").split("\t")
        groups.setdefault((table, query_id), []).append(Row(doc_id, float(value), int(rank)))
    for table, query_id in list(groups):
        yield int(table), query_id, groups.pop((table, query_id))
