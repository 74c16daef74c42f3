"""Rows that took minutes to count, kept in the cache under the hash of all that decides them.

Invariant: a record is never trusted but as a whole: one that is cut, damaged, of another version or made from something
else counts as missing, and is made again. Nobody has to raise the version: it is the hash of the code that counts,
writes and reads the rows, so that a change of any of it makes all records anew.

`CACHE/KIND/KEY.bin` holds the SHA-256 of all that follows (32 bytes), a line of JSON, and a bit for each row.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cerank.core.row_sets import RowSet
from cerank.errors import CerankError
from cerank.files import disk, json_records
from cerank.files.hashing import sha256_json
from cerank.files.source_hash import modules_sha256

_FORMAT = (__name__, "cerank.core.row_sets")  # the modules that decide the bytes of a record


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """The line of JSON at the beginning of a record."""

    version: str  # of the files and of how the rows are counted
    key: str
    size: int  # number of rows of the whole
    rows: int  # number of those in the set
    facts: dict[str, int]


class RowsRecord:
    """A set of rows in the cache, with some numbers about it.

    Args:
        cache: folder of caches.
        kind: what the rows are, as the name of a folder.
        size: number of rows of the whole.
        decided_by: all that decides which rows are in the set, as JSON can hold it.
        counted_by: names of the modules whose code counts them.
    """

    def __init__(self, cache: Path, kind: str, size: int, decided_by: object, *, counted_by: Sequence[str]) -> None:
        self._version = modules_sha256((*_FORMAT, *counted_by))
        self._key = sha256_json([self._version, kind, size, decided_by])
        self._cache, self._path, self._size = cache, cache / kind / f"{self._key}.bin", size
        self._counted_by = counted_by

    def beside(self, kind: str, decided_by: object) -> RowsRecord:
        """Return a record of numbers alone, which all that decides these rows and something else decides."""
        return RowsRecord(self._cache, kind, 0, [self._key, decided_by], counted_by=self._counted_by)

    def load(self, names: Collection[str] = ()) -> tuple[RowSet, Mapping[str, int]] | None:
        """Return the rows and the numbers of these names about them; None where there is no whole record of both."""
        try:
            data = memoryview(self._path.read_bytes())
            if bytes(data[:32]) != hashlib.sha256(data[32:]).digest():
                return None
            line, _, bits = bytes(data[32:]).partition(b"\n")
            header = json_records.decode(line, _Header)
            rows = RowSet.of_bits(self._size, bits)
        except (OSError, ValueError):
            return None
        is_this = (header.version, header.key, header.size) == (self._version, self._key, self._size)
        is_whole = header.rows == len(rows) and header.facts.keys() == set(names)
        return (rows, header.facts) if is_this and is_whole else None

    def save(self, rows: RowSet, facts: Mapping[str, int] | None = None) -> None:
        """Write the record; where the cache cannot be written, the rows are counted again the next time."""
        header: Any = _Header(
            version=self._version, key=self._key, size=self._size, rows=len(rows), facts=dict(facts or {})
        )
        data = msgspec.json.encode(header) + b"\n" + rows.bits
        with contextlib.suppress(CerankError):
            disk.make_folder(self._path.parent)
            disk.write(self._path, hashlib.sha256(data).digest() + data)
