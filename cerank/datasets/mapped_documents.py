"""The documents of a large file as a memory-mapped copy in the cache: found by id, none of them kept in memory.

Invariant: ids and texts equal those that `local_folders` reads from the file; the file is checked as strictly, once.

`CACHE/documents/SHA256 of the file` holds `texts.bin`, one record after the other: id, space, text; `offsets.bin`,
uint64, where each starts and the last ends; the files of `id_index`; and COMPLETE.json, written last. The texts are
copied because packed files cannot be read from the middle, and so that editing the file during a run does no harm.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from cerank.datasets.dataset import no_document
from cerank.errors import FormatError, UsageError
from cerank.files import disk, file_cache, json_records, manifests, tables
from cerank.files.hashing import sha256_file
from cerank.files.id_index import IdIndex, IdIndexBuilder, map_array
from cerank.files.line_reader import Opener, at, checked_id, duplicate_error, translate_read_errors
from cerank.files.packed_files import ByteStream, OpenedFile, open_stream

Rows = Callable[[Path, Opener], Iterator[tuple[int, str, str]]]  # (line, id, text) of a file
_FORMAT = 1
_PIECE = 1 << 22  # bytes of texts written at once


class _Contents(msgspec.Struct, frozen=True, kw_only=True):
    """COMPLETE.json of mapped documents."""

    format: int
    source: str
    sha256: str
    rows: int
    is_numbered: bool
    sizes: dict[str, int]  # bytes of each other file


class MappedDocuments:
    """Documents in a memory-mapped copy in the cache; implements `cerank.datasets.dataset.Documents`."""

    def __init__(self, folder: Path, contents: _Contents, dataset: str) -> None:
        self._contents, self._dataset = contents, dataset
        self._texts = map_array(folder / "texts.bin", "u1")
        self._offsets = map_array(folder / "offsets.bin", "<u8")
        self._keys = IdIndex(folder, contents.rows, is_numbered=contents.is_numbered)

    def _record(self, row: int) -> tuple[str, str]:
        record = self._texts[int(self._offsets[row]) : int(self._offsets[row + 1])].tobytes().decode("utf-8")
        doc_id, _, text = record.partition(" ")
        return doc_id, text

    def _text_of_row(self, doc_id: str, row: int) -> str | None:
        if row < 0:
            return None
        stored_id, text = self._record(row)
        return text if stored_id == doc_id else None

    def text(self, doc_id: str) -> str:
        """Return the text of one document; MissingError where there is none."""
        return self.texts([doc_id])[0]

    def texts(self, doc_ids: Sequence[str]) -> list[str]:
        """Return the texts of `doc_ids`, in their order."""
        texts = []
        for doc_id, row in zip(doc_ids, self._keys.rows(doc_ids).tolist(), strict=True):
            text = self._text_of_row(doc_id, row)
            if text is None:
                raise no_document(doc_id, self._dataset)
            texts.append(text)
        return texts

    def __contains__(self, doc_id: object) -> bool:
        return isinstance(doc_id, str) and self._text_of_row(doc_id, int(self._keys.rows([doc_id])[0])) is not None

    def __len__(self) -> int:
        return self._contents.rows

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (self._record(row) for row in range(len(self)))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the documents' file."""
        return self._contents.sha256


def open_mapped_documents(path: Path, cache: Path, dataset: str, rows: Rows) -> MappedDocuments:
    """Return the documents of the file `path`, building their copy in `cache` if it is missing.

    Args:
        path: file of documents, compressed or not.
        cache: folder of caches, which may be emptied whenever its documents are not in use.
        dataset: name of the dataset, for error messages.
        rows: yields the rows of the file; it opens the file by the function that it is given.

    Raises:
        FormatError, MissingError, UsageError: the file is malformed or not there.
        RunFailedError: the cache cannot be written.
    """
    folder = cache / "documents"
    documents = _open_known(path, folder, dataset)
    if documents is not None:
        return documents
    with file_cache.exclusive_lock(path, folder):
        documents = _open_known(path, folder, dataset)
        return _build_locked(path, folder, dataset, rows) if documents is None else documents


def _open_known(path: Path, folder: Path, dataset: str) -> MappedDocuments | None:
    sha256 = file_cache.known_sha256(path, folder)
    return _read(folder / sha256, dataset) if sha256 else None


def _read(folder: Path, dataset: str) -> MappedDocuments | None:
    try:
        contents = json_records.decode((folder / manifests.MANIFEST).read_bytes(), _Contents)
        is_whole = all((folder / name).stat().st_size == size for name, size in contents.sizes.items())
    except (OSError, ValueError):
        return None
    return MappedDocuments(folder, contents, dataset) if is_whole and contents.format == _FORMAT else None


def _build_locked(path: Path, folder: Path, dataset: str, rows: Rows) -> MappedDocuments:
    before, part = file_cache.stamp_of(path), folder / f"{file_cache.cache_name(path)}.part"
    disk.remove_tree(part)
    disk.make_folder(part)
    try:
        sha256 = _write_copy(path, part, rows)
        if file_cache.stamp_of(path) != before:
            raise UsageError(
                "the file changed while it was read",
                where=str(path),
                hint="repeat the command once the file is complete",
            )
        disk.remove_tree(folder / sha256)  # a damaged one
        disk.rename(part, folder / sha256)
    finally:
        disk.remove_tree(part)
    file_cache.remember(path, folder, msgspec.structs.replace(before, sha256=sha256))
    documents = _read(folder / sha256, dataset)
    if documents is None:
        raise UsageError("checksum mismatch after writing the documents", where=str(folder), hint="check the disk")
    return documents


def _write_copy(path: Path, part: Path, rows: Rows) -> str:
    """Write all files of the copy into `part`, and return the SHA-256 of the source file."""
    is_parquet = tables.is_parquet(path)  # a file that its reader opens by itself
    with translate_read_errors(path):
        source = None if is_parquet else OpenedFile(path)

    def open_source(_path: Path) -> ByteStream:
        return source.stream if source is not None else open_stream(path)

    keys, offsets, offset = IdIndexBuilder(), array("Q", [0]), 0
    texts = disk.open_append(part / "texts.bin")
    with contextlib.closing(_BufferedAppender(texts)) as piece:
        for number, doc_id, text in rows(path, open_source):
            keys.add([checked_id(doc_id, "document", at(path, number))])
            offset += piece.add(f"{doc_id} {text}".encode())
            offsets.append(offset)
    if not len(keys):
        raise FormatError("the file holds no document", where=str(path))
    _check_unique_ids(path, keys, rows)
    disk.write(part / "offsets.bin", np.frombuffer(offsets, dtype=np.uint64).astype("<u8").tobytes())
    sha256 = source.sha256() if source is not None else sha256_file(path)
    is_numbered = keys.write(part)
    sizes = {file.name: file.stat().st_size for file in sorted(part.iterdir())}
    contents = _Contents(
        format=_FORMAT, source=str(path), sha256=sha256, rows=len(keys), is_numbered=is_numbered, sizes=sizes
    )
    disk.write(part / manifests.MANIFEST, msgspec.json.encode(contents))
    return sha256


class _BufferedAppender:
    """Collects records and appends them to a file some megabytes at a time."""

    def __init__(self, handle: disk.Handle) -> None:
        self._handle, self._records, self._size = handle, list[bytes](), 0

    def add(self, record: bytes) -> int:
        self._records.append(record)
        self._size += len(record)
        if self._size > _PIECE:
            self._flush()
        return len(record)

    def _flush(self) -> None:
        disk.append(self._handle, b"".join(self._records))
        self._records, self._size = [], 0

    def close(self) -> None:
        try:
            self._flush()
            disk.sync(self._handle)
        finally:
            disk.close(self._handle)


def _check_unique_ids(path: Path, keys: IdIndexBuilder, rows: Rows) -> None:
    if keys.find_duplicate() is None:
        return
    seen: set[str] = set()
    for number, doc_id, _ in rows(path, open_stream):
        if doc_id in seen:
            raise duplicate_error("document", doc_id, at(path, number))
        seen.add(doc_id)
    raise FormatError("two document ids have the same 64-bit hash", where=str(path))
