"""Where the queries of an ingested run are, for runs of so many that their ids are not kept in memory.

Invariant: places equal the numbers of the lines of `queries.txt`; the index is made of that file alone, once.

The folder `query-index` beside it holds the files of `id_index` and `offsets.bin`: uint64, where each id starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cerank.errors import CerankError
from cerank.files import disk, file_cache
from cerank.files.id_index import IdIndex, IdIndexBuilder, map_array

MANY_QUERIES = 200_000  # from which an index is made; a dictionary of so many ids takes some 40 MB
_FOLDER, _AT_ONCE = "query-index", 1 << 16


class QueryPlaces(Mapping[str, int]):
    """Query id -> its number in the run; ids are read from the disk.

    Args:
        folder: folder of the ingested run, with its index.
        count: number of queries.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._ids = map_array(folder / "queries.txt", "u1")
        self._offsets = map_array(folder / _FOLDER / "offsets.bin", "<u8")
        is_numbered = not (folder / _FOLDER / "hashes.bin").exists()
        self._keys, self._count = IdIndex(folder / _FOLDER, count, is_numbered=is_numbered), count
        self._newest: tuple[object, int] = (None, -1)  # a sampler asks for one query several times in a row

    def _id_of(self, place: int) -> str:
        start, end = int(self._offsets[place]), int(self._offsets[place + 1]) - 1
        return self._ids[start:end].tobytes().decode()

    def _find(self, query_id: object) -> int:
        newest = self._newest
        if newest[0] != query_id:
            place = self._keys.row(query_id) if isinstance(query_id, str) else -1
            newest = self._newest = query_id, place if place >= 0 and self._id_of(place) == query_id else -1
        return newest[1]

    def __getitem__(self, query_id: str) -> int:
        place = self._find(query_id)
        if place < 0:
            raise KeyError(query_id)
        return place

    def __contains__(self, query_id: object) -> bool:
        return self._find(query_id) >= 0

    def __iter__(self) -> Iterator[str]:
        return map(self._id_of, range(self._count))

    def __len__(self) -> int:
        return self._count


def open_places(folder: Path, count: int) -> Mapping[str, int]:
    """Return the places of a run's queries, through the index in its folder, made if it is missing.

    Where the folder cannot be written, all ids are read into memory.
    """
    if not (folder / _FOLDER).is_dir():
        with contextlib.suppress(CerankError, OSError):  # it cannot be written
            _make_index(folder)
        if not (folder / _FOLDER).is_dir():
            names = (folder / "queries.txt").read_text(encoding="utf-8").split("\n")[:-1]
            return {name: place for place, name in enumerate(names)}
    return QueryPlaces(folder, count)


def _make_index(folder: Path) -> None:
    """Write the index, unless another process of the run did so while this one waited."""
    with file_cache.exclusive_lock(folder, folder.parent):
        if (folder / _FOLDER).is_dir():
            return
        part = folder / f"{_FOLDER}.part"
        try:
            _write_index(folder / "queries.txt", part)  # after it has removed what a killed process left
            disk.rename(part, folder / _FOLDER)
        finally:
            disk.remove_tree(part)


def _write_index(names: Path, part: Path) -> None:
    disk.remove_tree(part)
    disk.make_folder(part)
    keys, offset = IdIndexBuilder(part / "spilled"), 0
    offsets = disk.open_append(part / "offsets.bin")
    disk.append(offsets, (0).to_bytes(8, "little"))
    with names.open("rb") as lines:
        while block := lines.readlines(_AT_ONCE):
            keys.add([line[:-1].decode() for line in block])
            ends = offset + np.cumsum([len(line) for line in block])
            disk.append(offsets, ends.astype("<u8").tobytes())
            offset = int(ends[-1])
    disk.sync(offsets)
    disk.close(offsets)
    keys.write(part)
