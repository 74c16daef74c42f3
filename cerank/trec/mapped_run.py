"""A ranking on disk that is read through a memory map: only its query ids are in memory, and of many not even these.

Invariant: it is a `Ranking` with the same documents and scores as `text_io.read_run` gives for the file it was made of.

A folder `CACHE/rankings/SHA256 of the run file` holds, numbers little-endian:

    queries.txt    query ids in order of appearance, a line each
    starts.bin     uint64, (queries + 1,): the first row of each query
    scores.bin     float32, (rows,): strictly decreasing within a query
    documents.bin  uint32, (rows,), where every id is a plain number below 2**32; else the ids of all queries as UTF-8,
                   one space between two ids of a query and none between queries, and
    bytes.bin      uint64, (queries + 1,): where in documents.bin each query starts
    COMPLETE.json  counts, and size and SHA-256 of the other files; written last
    query-index/   of many queries: where their ids are found, as `query_places` makes it
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from cerank.core.rankings import LazyRanking
from cerank.files import json_records, manifests
from cerank.files.hashing import sha256_file
from cerank.trec import query_places

FORMAT = 1  # version of the files; another one invalidates all older ones


class MappedRunContents(msgspec.Struct, frozen=True, kw_only=True):
    """COMPLETE.json of an ingested run."""

    format: int
    source: str  # the source file, for display
    sha256: str  # hash of that file's bytes
    queries: int
    rows: int
    tag: str  # tag in the first row
    ties: int  # rows whose float32 score equals a neighbor's
    misranked: int  # queries whose rank column orders documents against their scores
    is_scattered: bool  # whether the rows of some query were not adjacent
    is_numbered: bool  # whether documents are kept as numbers
    files: tuple[manifests.ManifestEntry, ...]
    rising: int = 0  # queries whose scores never fall with the rank; of a run ingested by an early version 0


class MappedRun:
    """The files of an ingested run, mapped."""

    def __init__(self, folder: Path, contents: MappedRunContents) -> None:
        self.folder, self.contents = folder, contents
        self.starts = self._mapped("starts.bin", "<u8")
        self._scores = self._mapped("scores.bin", "<f4")
        self._documents = self._mapped("documents.bin", "<u4" if contents.is_numbered else "u1")
        self._bytes = self._mapped("bytes.bin", "<u8") if not contents.is_numbered else self.starts
        self.places: Mapping[str, int]
        if contents.queries >= query_places.MANY_QUERIES:
            self.places = query_places.open_places(folder, contents.queries)
        else:
            names = (folder / "queries.txt").read_text(encoding="utf-8").split("\n")[:-1]
            self.places = {name: place for place, name in enumerate(names)}

    def _mapped(self, name: str, kind: str) -> NDArray[Any]:
        path = self.folder / name
        return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, dtype=kind)

    def documents(self, place: int, depth: int | None) -> tuple[str, ...]:
        """Return the first `depth` document ids of the query number `place`."""
        if self.contents.is_numbered:
            return tuple(map(str, self._documents[self._span(place, depth)].tolist()))
        packed = self._documents[int(self._bytes[place]) : int(self._bytes[place + 1])].tobytes()
        return tuple(packed.decode("utf-8").split(" ")[:depth])

    def scores(self, place: int, depth: int | None) -> tuple[float, ...]:
        """Return the first `depth` scores of the query number `place`."""
        return tuple(self._scores[self._span(place, depth)].tolist())

    def _span(self, place: int, depth: int | None) -> slice:
        start, end = int(self.starts[place]), int(self.starts[place + 1])
        return slice(start, end if depth is None else min(end, start + depth))


class MappedRanking(LazyRanking):
    """A ranking that is read from the files of an ingested run.

    Args:
        store: memory-mapped files of the run.
        places: query id -> the query's number in the files, in the order of iteration; None takes all queries.
        depth: the number of documents to read for each query; None reads all.
    """

    def __init__(self, store: MappedRun, places: Mapping[str, int] | None = None, depth: int | None = None) -> None:
        super().__init__(store.places if places is None else places, depth)
        self.store = store
        self._last: tuple[str, tuple[str, ...]] = ("", ())  # a sampler asks for one query several times in a row

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the run file that was ingested."""
        return self.store.contents.sha256

    @property
    def source(self) -> str:
        """Return the run file that was ingested, for display."""
        return self.store.contents.source

    def __getitem__(self, query_id: str) -> tuple[str, ...]:
        place = self._places[query_id]
        if self._last[0] != query_id or not self._last[1]:
            self._last = (query_id, self.store.documents(place, self.depth))
        return self._last[1]

    def scores(self, query_id: str) -> tuple[float, ...]:
        """Return the scores of `self[query_id]`, strictly decreasing."""
        return self.store.scores(self._places[query_id], self.depth)

    def _view(self, places: Mapping[str, int], depth: int | None) -> Self:
        return type(self)(self.store, places, depth)


def contents_of(folder: Path) -> MappedRunContents | None:
    """Return the contents record of a folder; None if it is no ingested run or a file has another size."""
    try:
        contents = json_records.decode((folder / manifests.MANIFEST).read_bytes(), MappedRunContents)
        is_whole = all((folder / entry.path).stat().st_size == entry.size for entry in contents.files)
    except (OSError, ValueError):
        return None
    return contents if is_whole and contents.format == FORMAT else None


@functools.lru_cache(maxsize=8)
def _mapped(folder: Path, contents: MappedRunContents, _stamps: tuple[tuple[int, int], ...]) -> MappedRun:
    return MappedRun(folder, contents)


def open_mapped(folder: Path) -> MappedRanking | None:
    """Return the ranking in `folder`; None if there is none or it is incomplete.

    Only sizes are checked, because checking hashes would read every file; `verify` checks hashes.
    """
    contents = contents_of(folder)
    if contents is None:
        return None
    states = [(folder / entry.path).stat() for entry in contents.files]  # equal files made anew are other files
    return MappedRanking(_mapped(folder, contents, tuple((state.st_ino, state.st_mtime_ns) for state in states)))


def verify(folder: Path) -> bool:
    """Return whether every file still has the SHA-256 with which it was written; reads all of them."""
    contents = contents_of(folder)
    return contents is not None and all(sha256_file(folder / entry.path) == entry.sha256 for entry in contents.files)
