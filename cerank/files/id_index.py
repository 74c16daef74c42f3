"""An on-disk index from the ids of millions of rows to their row numbers.

Invariant: the same keys give the same files on every machine.

    hashes.bin  uint64, ascending: BLAKE2b-64 of the keys; absent where the keys are 0, 1, 2 ... in this order
    rows.bin    uint32, the row of each hash
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cerank.files import disk


def map_array(path: Path, kind: str) -> NDArray[Any]:
    """Return the numbers in a file as a memory map."""
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, dtype=kind)


def hash_ids(keys: Sequence[str]) -> NDArray[np.uint64]:
    """Return the BLAKE2b-64 hash of each id, shape (ids,); the same on every machine and in every version."""
    packed = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(packed, dtype="<u8")


class IdIndexBuilder:
    """Collects the ids of rows 0, 1, 2 ...; 8 bytes each."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._is_numbered = True

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, keys: Sequence[str]) -> None:
        """Add the ids of the next rows."""
        if self._is_numbered:
            self._is_numbered = all(key == str(row) for row, key in enumerate(keys, len(self)))
        self._hashes.frombytes(hash_ids(keys).astype(np.uint64).tobytes())

    def find_duplicate(self) -> tuple[int, int] | None:
        """Return two rows whose ids have the same hash, so almost certainly the same id; None if all differ."""
        values = np.frombuffer(self._hashes, dtype=np.uint64)
        order = np.argsort(values, kind="stable")
        same = np.flatnonzero(values[order][1:] == values[order][:-1])
        return (int(order[same[0]]), int(order[same[0] + 1])) if len(same) else None

    def write(self, folder: Path) -> bool:
        """Write the two files into `folder` and return False; if the ids are 0, 1, 2 ..., return True instead."""
        if not self._is_numbered:
            values = np.frombuffer(self._hashes, dtype=np.uint64)
            order = np.argsort(values, kind="stable")
            disk.write(folder / "hashes.bin", values[order].astype("<u8").tobytes())
            disk.write(folder / "rows.bin", order.astype("<u4").tobytes())
        return self._is_numbered


class IdIndex:
    """Finds rows by id.

    Args:
        folder: folder in which `IdIndexBuilder.write` wrote the index.
        rows: number of ids in the index.
        is_numbered: whether the ids are the numbers of their rows, as `IdIndexBuilder.write` returned it.
    """

    def __init__(self, folder: Path, rows: int, *, is_numbered: bool) -> None:
        self._folder, self._count, self._is_numbered = folder, rows, is_numbered

    @cached_property
    def _hashes(self) -> NDArray[np.uint64]:
        return map_array(self._folder / "hashes.bin", "<u8")

    @cached_property
    def _rows(self) -> NDArray[np.uint32]:
        return map_array(self._folder / "rows.bin", "<u4")

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each id, shape (ids,); -1 for an unknown id, except for one in about 10**12."""
        if self._is_numbered:
            return np.fromiter((_parse_number(key, self._count) for key in keys), dtype=np.int64, count=len(keys))
        if not keys or not self._count:
            return np.full(len(keys), -1, dtype=np.int64)
        hashes = hash_ids(keys)
        places = np.minimum(np.searchsorted(self._hashes, hashes), self._count - 1)
        return np.where(self._hashes[places] == hashes, self._rows[places].astype(np.int64), -1)


def _parse_number(key: str, rows: int) -> int:
    if key.isascii() and key.isdigit() and len(key) < 11 and (key[0] != "0" or key == "0"):
        number = int(key)
        return number if number < rows else -1
    return -1
