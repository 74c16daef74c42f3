"""The documents of large files as a memory-mapped copy in the cache: found by id, none of them kept in memory.

Invariant: ids and texts equal those that `local_folders` reads from the files; they are checked as strictly, once.

`CACHE/documents/SHA256 of the file` (of several, of the list of their hashes) holds `texts.bin`, one record after the
other: id, space, text; `offsets.bin`, uint64, where each starts and the last ends; the files of `id_index`; and
COMPLETE.json, written last. The texts are copied because packed files cannot be read from the middle, and so that
editing a file during a run does no harm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from cerank.datasets.dataset import no_document
from cerank.errors import FormatError, UsageError
from cerank.files import disk, file_cache, json_records, manifests, tables
from cerank.files.hashing import combined_sha256, sha256_file
from cerank.files.id_index import IdIndex, IdIndexBuilder, map_array
from cerank.files.line_reader import Opener, at, checked_id, duplicate_error, translate_read_errors
from cerank.files.packed_files import ByteStream, OpenedFile, open_stream

Rows = Callable[[Path, Opener], Iterator[tuple[int, str, str]]]  # (line, id, text) of a file
_FORMAT = 1
_PIECE = 1 << 22  # bytes of texts written at once
_RECORDS = 1 << 14  # records written at once where they are short, for each has some 50 bytes around it in memory
_IDS_AT_ONCE = 4096  # that are hashed together
_FOLDERS = {"document": "documents", "query": "queries", "query judgments": "qrels"}  # in the cache


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

    def id_of(self, row: int) -> str:
        """Return the id in a row, from 0."""
        return self._record(row)[0]

    def find(self, doc_id: str) -> tuple[int, str] | None:
        """Return row and text of an id; None where there is none."""
        row = self._keys.row(doc_id)
        text = self._text_of_row(doc_id, row)
        return None if text is None else (row, text)

    def are_known(self, ids: Sequence[str]) -> list[bool]:
        """Return of each id whether there is a text, by its hash alone: wrong for one id in about 10**12."""
        return [row >= 0 for row in self._keys.rows(ids).tolist()]

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
        return isinstance(doc_id, str) and self.find(doc_id) is not None

    def __len__(self) -> int:
        return self._contents.rows

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (self._record(row) for row in range(len(self)))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the documents' file; of several, as `combined_sha256`."""
        return self._contents.sha256


def open_mapped_documents(
    paths: Sequence[Path], cache: Path, dataset: str, rows: Rows, kind: str = "document"
) -> MappedDocuments:
    """Return the documents of the files `paths`, building their copy in `cache` if it is missing.

    Args:
        paths: files of documents, compressed or not, in the order in which they are read; usually one.
        cache: folder of caches, which may be emptied whenever its documents are not in use.
        dataset: name of the dataset, for error messages.
        rows: yields the rows of a file; it opens the file by the function that it is given, or not at all where
            `kind` says that the rows are no documents.
        kind: what has the ids, "document" or "query"; a word after it, as in "query judgments", names the folder.

    Raises:
        FormatError, MissingError, UsageError: a file is malformed or not there.
        RunFailedError: the cache cannot be written.
    """
    folder = cache / _FOLDERS[kind]
    documents = _open_known(paths, folder, dataset)
    if documents is not None:
        return documents
    with file_cache.exclusive_lock(paths[0], folder):
        documents = _open_known(paths, folder, dataset)
        if documents is None:
            build = _TextsFiles(tuple(paths), rows, kind)
            return _build_locked(build, folder, dataset)
        return documents


def _open_known(paths: Sequence[Path], folder: Path, dataset: str) -> MappedDocuments | None:
    hashes = [file_cache.known_sha256(path, folder) for path in paths]
    return _read(folder / combined_sha256(hashes), dataset) if all(hashes) else None


def _read(folder: Path, dataset: str) -> MappedDocuments | None:
    try:
        contents = json_records.decode((folder / manifests.MANIFEST).read_bytes(), _Contents)
        is_whole = all((folder / name).stat().st_size == size for name, size in contents.sizes.items())
    except (OSError, ValueError):
        return None
    return MappedDocuments(folder, contents, dataset) if is_whole and contents.format == _FORMAT else None


class _TextsFiles(NamedTuple):
    """Files of texts, and how they are read."""

    paths: tuple[Path, ...]
    rows: Rows
    kind: str

    @property
    def ids_of(self) -> str:
        """Return what has the ids."""
        return self.kind.partition(" ")[0]


def _build_locked(files: _TextsFiles, folder: Path, dataset: str) -> MappedDocuments:
    stamps = [file_cache.stamp_of(path) for path in files.paths]
    part = folder / f"{file_cache.cache_name(files.paths[0])}.part"
    disk.remove_tree(part)
    disk.make_folder(part)
    try:
        hashes = _write_copy(files, part)
        for path, before in zip(files.paths, stamps, strict=True):
            if file_cache.stamp_of(path) != before:
                raise UsageError(
                    "the file changed while it was read",
                    where=str(path),
                    hint="repeat the command once the file is complete",
                )
        sha256 = combined_sha256(hashes)
        disk.discard(folder / sha256)  # a damaged one, or of another path: who opened it opens the rest by its name
        disk.rename(part, folder / sha256)
    finally:
        disk.remove_tree(part)
    for path, before, own in zip(files.paths, stamps, hashes, strict=True):
        file_cache.remember(path, folder, msgspec.structs.replace(before, sha256=own))
    documents = _read(folder / sha256, dataset)
    if documents is None:
        raise UsageError("checksum mismatch after writing the texts", where=str(folder), hint="check the disk")
    return documents


def _write_copy(files: _TextsFiles, part: Path) -> list[str]:
    """Write all files of the copy into `part`, and return the SHA-256 of each source file."""
    kind, hashes = files.ids_of, list[str]()
    keys, offset, waiting = IdIndexBuilder(part / "spilled"), 0, list[str]()
    texts, starts = disk.open_append(part / "texts.bin"), disk.open_append(part / "offsets.bin")
    with contextlib.closing(_BufferedAppender(texts)) as piece, contextlib.closing(_BufferedAppender(starts)) as places:
        places.add(offset.to_bytes(8, "little"))
        for path in files.paths:
            source = _Source(path, is_opened_by_reader=files.kind != "document")
            for number, row_id, text in files.rows(path, source.open):
                waiting.append(checked_id(row_id, kind, at(path, number)))
                offset += piece.add(f"{row_id} {text}".encode())
                places.add(offset.to_bytes(8, "little"))
                if len(waiting) == _IDS_AT_ONCE:
                    keys.add(waiting)
                    waiting.clear()
            hashes.append(source.sha256())
    keys.add(waiting)
    if not len(keys):
        raise FormatError(f"the file holds no {kind}", where=str(files.paths[0]))
    _check_unique_ids(files, keys)
    is_numbered = keys.write(part)
    sizes = {file.name: file.stat().st_size for file in sorted(part.iterdir())}
    contents = _Contents(
        format=_FORMAT,
        source=", ".join(map(str, files.paths)),
        sha256=combined_sha256(hashes),
        rows=len(keys),
        is_numbered=is_numbered,
        sizes=sizes,
    )
    disk.write(part / manifests.MANIFEST, msgspec.json.encode(contents))
    return hashes


class _Source:
    """A source file, which is hashed as it is read where that can be; parquet is read out of order.

    Args:
        path: the file.
        is_opened_by_reader: whether what reads its rows opens it by its path.
    """

    def __init__(self, path: Path, *, is_opened_by_reader: bool) -> None:
        self._path = path
        with translate_read_errors(path):
            self._opened = None if is_opened_by_reader or tables.is_parquet(path) else OpenedFile(path)

    def open(self, _path: Path) -> ByteStream:
        """Return the stream of the file's unpacked bytes."""
        return self._opened.stream if self._opened is not None else open_stream(self._path)

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes, after its rows were read."""
        return self._opened.sha256() if self._opened is not None else sha256_file(self._path)


class _BufferedAppender:
    """Collects records and appends them to a file some megabytes at a time."""

    def __init__(self, handle: disk.Handle) -> None:
        self._handle, self._records, self._size = handle, list[bytes](), 0

    def add(self, record: bytes) -> int:
        self._records.append(record)
        self._size += len(record)
        if self._size > _PIECE or len(self._records) >= _RECORDS:
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


def _check_unique_ids(files: _TextsFiles, keys: IdIndexBuilder) -> None:
    twice = keys.find_duplicate()
    if twice is None:
        return
    earlier, later = "", twice[1]
    every = ((path, number, row_id) for path in files.paths for number, row_id, _ in files.rows(path, open_stream))
    for row, (path, number, row_id) in enumerate(every):
        if row == twice[0]:
            earlier = row_id
        if row == later and row_id == earlier:
            raise duplicate_error(files.ids_of, row_id, at(path, number))
    raise FormatError(f"two {files.ids_of} ids have the same 64-bit hash", where=str(files.paths[0]))
