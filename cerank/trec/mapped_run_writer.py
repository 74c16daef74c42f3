"""Writes the files of an ingested run query by query, in one pass over its rows.

Invariant: nothing is read back; sizes and hashes are those of the bytes as they were written.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from cerank.files import disk, manifests
from cerank.trec.mapped_run import FORMAT, MappedRunContents
from cerank.trec.row_ordering import OrderedRows, plain_numbers


class UngroupedQueriesError(Exception):
    """A query appears again after another one: its rows are not adjacent."""


class NonNumericIdError(Exception):
    """A document id that is not a plain number, in a run whose ids were plain numbers so far."""


class _HashedFile:
    """A file that grows, and the entry for its manifest."""

    def __init__(self, path: Path) -> None:
        self._handle = disk.open_append(path)
        self._size, self._digest = 0, hashlib.sha256()

    def add(self, data: bytes) -> None:
        disk.append(self._handle, data)
        self._digest.update(data)
        self._size += len(data)

    def closed(self) -> manifests.ManifestEntry:
        disk.sync(self._handle)
        disk.close(self._handle)
        return manifests.ManifestEntry(self._handle.path.name, self._size, self._digest.hexdigest())


class MappedRunWriter:
    """Writes whole queries in order; `finish` completes the folder.

    Args:
        folder: empty folder that becomes the mapped run.
        is_numbered: whether document ids are written as numbers, which needs ids such as "1234".
    """

    def __init__(self, folder: Path, *, is_numbered: bool) -> None:
        self._folder, self._is_numbered = folder, is_numbered
        names = ("queries.txt", "starts.bin", "scores.bin", "documents.bin", *(() if is_numbered else ("bytes.bin",)))
        self._files = {name: _HashedFile(folder / name) for name in names}
        self._seen: set[str] = set()
        self._rows = self._bytes = self._ties = self._misranked = 0

    def add(self, rows: OrderedRows) -> None:
        """Write some queries.

        Raises:
            UngroupedQueriesError: one of them was written before.
            NonNumericIdError: documents are kept as numbers, and one of these ids is not a number.
        """
        if len(self._seen) + len(rows.queries) != len(self._seen | set(rows.queries)):
            raise UngroupedQueriesError
        self._seen.update(rows.queries)
        self._write_documents(rows)
        self._files["queries.txt"].add("".join(f"{query}\n" for query in rows.queries).encode())
        self._files["starts.bin"].add((rows.starts[:-1] + self._rows).astype("<u8").tobytes())
        self._files["scores.bin"].add(rows.scores.astype("<f4").tobytes())
        self._rows += len(rows.scores)
        self._ties += rows.ties
        self._misranked += rows.misranked

    def _write_documents(self, rows: OrderedRows) -> None:
        if self._is_numbered:
            numbers = plain_numbers(rows.documents)
            if numbers is None:
                raise NonNumericIdError
            self._files["documents.bin"].add(numbers.astype("<u4").tobytes())
            return
        ids = rows.documents.to_list()
        bounds = rows.starts.tolist()
        packed = [" ".join(ids[start:end]).encode() for start, end in itertools.pairwise(bounds)]
        sizes = np.fromiter(map(len, packed), dtype=np.uint64, count=len(packed))
        self._files["bytes.bin"].add((np.cumsum(sizes) - sizes + np.uint64(self._bytes)).astype("<u8").tobytes())
        self._files["documents.bin"].add(b"".join(packed))
        self._bytes += int(sizes.sum())

    def finish(self, source: Path, sha256: str, tag: str, *, is_scattered: bool) -> None:
        """Write what is left, COMPLETE.json last."""
        self._files["starts.bin"].add(np.array([self._rows], dtype="<u8").tobytes())
        if not self._is_numbered:
            self._files["bytes.bin"].add(np.array([self._bytes], dtype="<u8").tobytes())
        contents = MappedRunContents(
            format=FORMAT,
            source=str(source),
            sha256=sha256,
            queries=len(self._seen),
            rows=self._rows,
            tag=tag,
            ties=self._ties,
            misranked=self._misranked,
            is_scattered=is_scattered,
            is_numbered=self._is_numbered,
            files=tuple(file.closed() for file in self._files.values()),
        )
        self._files = {}
        disk.write(self._folder / manifests.MANIFEST, msgspec.json.encode(contents))

    def close(self) -> None:
        """Close the files, whether or not the folder is complete."""
        for file in self._files.values():
            file.closed()
        self._files = {}


@contextlib.contextmanager
def open_writer(folder: Path, *, is_numbered: bool) -> Iterator[MappedRunWriter]:
    """Open a writer for `folder`, emptied first, and close its files at the end of the `with` block."""
    disk.remove_tree(folder)
    disk.make_folder(folder)
    writer = MappedRunWriter(folder, is_numbered=is_numbered)
    try:
        yield writer
    finally:
        writer.close()
