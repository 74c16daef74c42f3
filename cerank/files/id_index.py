"""An on-disk index from the ids of millions of rows to their row numbers.

Invariant: the same keys give the same files on every machine.

    hashes.bin  uint64, ascending: BLAKE2b-64 of the keys; absent where the keys are 0, 1, 2 ... in this order
    rows.bin    uint32, the row of each hash
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
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


_MOST_WAITING = 1 << 17  # hashes in memory; then they go to the files of their buckets
_BITS = 7  # the highest of a hash, which say its bucket, so that buckets follow each other in order
_BUCKETS = 1 << _BITS
_SPILLED = np.dtype([("hash", "<u8"), ("row", "<u4")])


class IdIndexBuilder:
    """Collects the ids of rows 0, 1, 2 ...; a hundred thousand hashes or so are in memory at a time.

    Args:
        spill: folder for temporary files, made when it is needed and removed by `write` or `discard`; None keeps all
            in memory.
    """

    def __init__(self, spill: Path | None = None, most_waiting: int = _MOST_WAITING) -> None:
        self._spill, self._most_waiting = spill, most_waiting
        self._hashes = array("Q")  # of the newest rows
        self._spilled = 0  # number of rows before those
        self._is_numbered = True
        if spill is not None:
            disk.remove_tree(spill)  # of a build that was killed

    def __len__(self) -> int:
        return self._spilled + len(self._hashes)

    def add(self, keys: Sequence[str]) -> None:
        """Add the ids of the next rows."""
        if self._is_numbered:
            self._is_numbered = all(key == str(row) for row, key in enumerate(keys, len(self)))
        self._hashes.frombytes(hash_ids(keys).astype(np.uint64).tobytes())
        if self._spill is not None and len(self._hashes) >= self._most_waiting:
            self._flush(self._spill)

    def _flush(self, folder: Path) -> None:
        """Append the waiting hashes, with their rows, to the files of their buckets."""
        entries = np.empty(len(self._hashes), dtype=_SPILLED)
        entries["hash"] = np.frombuffer(self._hashes, dtype=np.uint64)
        entries["row"] = np.arange(self._spilled, self._spilled + len(entries))
        numbers = entries["hash"] >> np.uint64(64 - _BITS)
        entries = entries[np.argsort(numbers, kind="stable")]
        ends = np.searchsorted(entries["hash"] >> np.uint64(64 - _BITS), np.arange(_BUCKETS + 1, dtype=np.uint64))
        disk.make_folder(folder)
        for bucket in range(_BUCKETS):
            handle = disk.open_append(folder / f"{bucket:02}.bin")
            disk.append(handle, entries[int(ends[bucket]) : int(ends[bucket + 1])].tobytes())
            disk.close(handle)
        self._spilled += len(entries)
        self._hashes = array("Q")

    def _sorted_parts(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
        """Yield hashes in ascending order with their rows, part by part; rows of equal hashes ascend, too."""
        if self._spill is None or not self._spilled:
            values = np.frombuffer(self._hashes, dtype=np.uint64)
            order = np.argsort(values, kind="stable")
            yield values[order], order
            return
        if self._hashes:
            self._flush(self._spill)
        for bucket in range(_BUCKETS):
            entries = np.fromfile(self._spill / f"{bucket:02}.bin", dtype=_SPILLED)
            entries = entries[np.argsort(entries["hash"], kind="stable")]
            yield entries["hash"], entries["row"].astype(np.int64)

    def find_duplicate(self) -> tuple[int, int] | None:
        """Return two rows whose ids have the same hash, so almost certainly the same id; None if all differ."""
        for hashes, rows in self._sorted_parts():
            same = np.flatnonzero(hashes[1:] == hashes[:-1])
            if len(same):
                return int(rows[same[0]]), int(rows[same[0] + 1])
        return None

    def write(self, folder: Path) -> bool:
        """Write the two files into `folder` and return False; if the ids are 0, 1, 2 ..., return True instead."""
        if not self._is_numbered:
            paths = [folder / name for name in ("hashes.bin", "rows.bin")]
            for path in paths:
                disk.remove(path)  # what a build that was killed here wrote
            files = [disk.open_append(path) for path in paths]
            for hashes, rows in self._sorted_parts():
                disk.append(files[0], hashes.astype("<u8").tobytes())
                disk.append(files[1], rows.astype("<u4").tobytes())
            for file in files:
                disk.sync(file)
                disk.close(file)
        self.discard()
        return self._is_numbered

    def discard(self) -> None:
        """Remove the temporary files, after which no id may be added or looked for."""
        if self._spill is not None:
            disk.remove_tree(self._spill)


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

    @cached_property
    def _ascending(self) -> memoryview:
        return self._hashes.astype(np.uint64, copy=False).data  # a copy on big-endian machines alone

    def row(self, key: str) -> int:
        """Return the row of one id, as `rows` does; faster than that for a single one."""
        if self._is_numbered:
            return _parse_number(key, self._count)
        if not self._count:
            return -1
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
        place = bisect_left(self._ascending, number)
        return int(self._rows[place]) if place < self._count and self._ascending[place] == number else -1

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
