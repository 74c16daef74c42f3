"""Turns a TREC run of any size into a `MappedRanking`, once, in bounded memory.

Invariant: a folder under its final name holds all of the run; the hash it is called by is that of the bytes that were
read for it. A few blocks of lines and the rows of one query are in memory at a time; where the rows of queries are
scattered over the file, one bucket of some million rows, and the ids of all queries.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from cerank.errors import UsageError
from cerank.files import disk, file_cache, manifests
from cerank.files.id_index import IdIndexBuilder
from cerank.files.line_reader import blocks, translate_read_errors
from cerank.files.packed_files import OpenedFile
from cerank.trec import mapped_run
from cerank.trec.mapped_run import FORMAT, MappedRanking, MappedRunContents
from cerank.trec.parse_blocks import parse_block
from cerank.trec.row_ordering import (
    DuplicateCheck,
    DuplicateDocumentError,
    OrderedRows,
    TooManyTiesError,
    order_rows,
    plain_numbers,
    starts_of,
)
from cerank.trec.rows import ingested_folder, raise_duplicate, too_many_ties


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


FIRST_IDS = 1 << 17  # ids of queries that are kept in memory while a run is read, some 15 MB


class MappedRunWriter:
    """Writes whole queries in order, in one pass over the rows; `finish` completes the folder.

    Invariant: nothing is read back; sizes and hashes are those of the bytes as they were written.

    Args:
        folder: empty folder that becomes the mapped run.
        is_numbered: whether document ids are written as numbers, which needs ids such as "1234".
    """

    def __init__(self, folder: Path, *, is_numbered: bool) -> None:
        self._folder, self._is_numbered = folder, is_numbered
        names = ("queries.txt", "starts.bin", "scores.bin", "documents.bin", *(() if is_numbered else ("bytes.bin",)))
        self._files = {name: _HashedFile(folder / name) for name in names}
        self._first: set[str] = set()  # the first ids, so that most runs of scattered queries are known at once
        self._ids = IdIndexBuilder(folder / "spilled")  # of all queries
        self._rows = self._bytes = self._ties = self._misranked = self._rising = 0

    def add(self, rows: OrderedRows) -> None:
        """Write some queries.

        Raises:
            UngroupedQueriesError: one of them was written before, as far as the first of all queries tell.
            NonNumericIdError: documents are kept as numbers, and one of these ids is not a number.
        """
        new = set(rows.queries)
        if len(new) != len(rows.queries) or not new.isdisjoint(self._first):
            raise UngroupedQueriesError
        if len(self._first) < FIRST_IDS:
            self._first |= new
        self._ids.add(rows.queries)
        self._write_documents(rows)
        self._files["queries.txt"].add("".join(f"{query}\n" for query in rows.queries).encode())
        self._files["starts.bin"].add((rows.starts[:-1] + self._rows).astype("<u8").tobytes())
        self._files["scores.bin"].add(rows.scores.astype("<f4").tobytes())
        self._rows += len(rows.scores)
        self._ties += rows.ties
        self._misranked += rows.misranked
        self._rising += rows.rising

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
        """Write what is left, COMPLETE.json last.

        Raises:
            UngroupedQueriesError: two queries have the same hash though none should come twice, `is_scattered` being
                false; almost certainly they are one.
        """
        if not is_scattered and self._ids.find_duplicate() is not None:
            raise UngroupedQueriesError
        self._ids.discard()
        self._files["starts.bin"].add(np.array([self._rows], dtype="<u8").tobytes())
        if not self._is_numbered:
            self._files["bytes.bin"].add(np.array([self._bytes], dtype="<u8").tobytes())
        contents = MappedRunContents(
            format=FORMAT,
            source=str(source),
            sha256=sha256,
            queries=len(self._ids),
            rows=self._rows,
            tag=tag,
            ties=self._ties,
            misranked=self._misranked,
            is_scattered=is_scattered,
            is_numbered=self._is_numbered,
            files=tuple(file.closed() for file in self._files.values()),
            rising=self._rising,
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


BLOCK = 1 << 22  # bytes parsed at once: some 100,000 rows
BUCKET = 1 << 22  # rows sorted at once where queries are scattered
Progress = Callable[[int, int], None]  # bytes of the file read so far, and all of them


def _no_progress(_done: int, _total: int) -> None:
    return


def find_ingested(path: Path, cache: Path) -> MappedRanking | None:
    """Return the ranking that was built from `path` before; None if there is none or the file changed since."""
    sha256 = file_cache.known_sha256(path, ingested_folder(cache))
    return mapped_run.open_mapped(ingested_folder(cache) / sha256) if sha256 else None


def ingest_run(path: Path, cache: Path, progress: Progress = _no_progress) -> MappedRanking:
    """Return the ranking of the TREC run `path`, building it in the cache if needed; equals `read_run(path).ranking`.

    Several processes may ask at once: one makes it, the others wait.

    Raises:
        FormatError, MissingError, UsageError: as `text_io.read_run`.
        RunFailedError: the cache cannot be written.
    """
    ranking = find_ingested(path, cache)
    if ranking is not None:
        return ranking
    file_cache.stamp_of(path)  # a missing file is reported before anything is created
    with file_cache.exclusive_lock(path, ingested_folder(cache)):
        ranking = find_ingested(path, cache)
        return _ingest_locked(path, cache, progress) if ranking is None else ranking


def _ingest_locked(path: Path, cache: Path, progress: Progress) -> MappedRanking:
    folder, before = ingested_folder(cache), file_cache.stamp_of(path)
    part = folder / f"{file_cache.cache_name(path)}.part"
    try:
        sha256 = write_mapped(path, part, progress)
    except DuplicateDocumentError as error:
        if isinstance(error, TooManyTiesError):
            raise too_many_ties(error.query, str(path)) from None
        raise_duplicate(path, error.query)
    finally:
        if not (part / manifests.MANIFEST).exists():
            disk.remove_tree(part)
    if file_cache.stamp_of(path) != before:
        disk.remove_tree(part)
        raise UsageError(
            "the file changed while it was read",
            where=str(path),
            hint="repeat the command once the file is complete",
            code="file-changed",
        )
    final = folder / sha256
    if final.exists():  # the same bytes under another name; or a damaged one, which this one replaces
        disk.remove_tree(final)
    disk.rename(part, final)
    file_cache.remember(path, folder, msgspec.structs.replace(before, sha256=sha256))
    ranking = mapped_run.open_mapped(final)
    if ranking is None:
        raise UsageError("checksum mismatch after writing the ingested run", where=str(final), hint="check the disk")
    return ranking


def write_mapped(path: Path, part: Path, progress: Progress) -> str:
    """Write all files into `part` and return the run file's SHA-256; tries numeric ids and grouped queries first."""
    is_numbered = True
    while True:
        try:
            with open_writer(part, is_numbered=is_numbered) as writer:
                return _write_in_one_pass(path, writer, progress)
        except NonNumericIdError:
            is_numbered = False
        except UngroupedQueriesError:
            break
    while True:
        try:
            with open_writer(part, is_numbered=is_numbered) as writer:
                return _write_by_buckets(path, part, writer, progress)
        except NonNumericIdError:
            is_numbered = False


class _Prefetcher:
    """Parses a run in order while a second thread reads, hashes and unpacks the next block."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path, self._progress = path, progress
        self._queue: queue.Queue[tuple[int, bytes] | BaseException | None] = queue.Queue(maxsize=2)
        self._is_over = threading.Event()
        self.sha256 = ""  # once all is read

    def _put(self, item: tuple[int, bytes] | BaseException | None) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.2)
                return

    def _read(self) -> None:
        try:
            with translate_read_errors(self._path), contextlib.closing(OpenedFile(self._path)) as file:
                total = self._path.stat().st_size
                for item in blocks(self._path, file.stream, BLOCK):
                    if self._is_over.is_set():
                        return
                    self._put(item)
                    self._progress(file.position, total)
                self.sha256 = file.sha256()
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for the rows
            self._put(error)

    def frames(self) -> Generator[pl.DataFrame, None, None]:
        thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        thread.start()
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield parse_block(self._path, item[1], item[0])
        finally:
            self._is_over.set()
            thread.join()


def _write_in_one_pass(path: Path, writer: MappedRunWriter, progress: Progress) -> str:
    """Write a run whose queries are grouped, in one pass over the file; return the file's SHA-256."""
    prefetcher = _Prefetcher(path, progress)
    rest: pl.DataFrame | None = None
    tag, repetition = "", DuplicateCheck(BUCKET)
    with contextlib.closing(prefetcher.frames()) as frames:
        for fresh in frames:
            frame = fresh if rest is None else pl.concat([rest, fresh])
            if not len(frame):
                continue
            tag = tag or str(frame["tag"][0])
            cut = int(starts_of(frame["query"])[-2])  # the last query may continue in the next block
            repetition.check(frame.slice(cut))
            if cut:
                writer.add(order_rows(frame.slice(0, cut)))
            rest = frame.slice(cut)
    if rest is not None:
        writer.add(order_rows(rest))
    writer.finish(path, prefetcher.sha256, tag, is_scattered=False)
    return prefetcher.sha256


def _write_by_buckets(path: Path, part: Path, writer: MappedRunWriter, progress: Progress) -> str:
    """Write a run whose queries are scattered: count, distribute by query, then order each bucket."""
    counts, tag, sha256 = _count_rows(path, progress)
    folder = part / "buckets"
    disk.make_folder(folder)
    buckets = (np.cumsum(list(counts.values())) - 1) // BUCKET
    table = pl.DataFrame({"query": list(counts), "place": np.arange(len(counts)), "bucket": buckets})
    second_sha256 = _distribute(path, table, folder, progress)
    if second_sha256 != sha256:
        raise UsageError(
            "the file changed while it was read", where=str(path), hint="repeat the command once the file is complete"
        )
    for bucket in dict.fromkeys(buckets.tolist()):
        file = folder / f"{bucket}.run"
        frame = _read_bucket(file)
        frame = frame.join(table, on="query", how="left", maintain_order="left")
        writer.add(order_rows(frame.sort("place", maintain_order=True)))
        disk.remove(file)
    disk.remove_tree(folder)
    writer.finish(path, sha256, tag, is_scattered=True)
    return sha256


def _read_bucket(file: Path) -> pl.DataFrame:
    """Return all rows of a bucket: about `BUCKET` rows, or all rows of one large query."""
    repetition, frames = DuplicateCheck(2 * BUCKET), list[pl.DataFrame]()
    with contextlib.closing(_Prefetcher(file, _no_progress).frames()) as bucket_frames:
        for frame in bucket_frames:
            frames.append(frame)
            repetition.check(pl.concat(frames))
    return pl.concat(frames)


def _count_rows(path: Path, progress: Progress) -> tuple[dict[str, int], str, str]:
    """Return the number of rows of each query in order of appearance, the first tag, and the file's SHA-256."""
    prefetcher = _Prefetcher(path, progress)
    counts: dict[str, int] = {}
    tag = ""
    for frame in prefetcher.frames():
        tag = tag or (str(frame["tag"][0]) if len(frame) else "")
        for query, count in frame.group_by("query", maintain_order=True).len().iter_rows():
            counts[query] = counts.get(query, 0) + count
    return counts, tag, prefetcher.sha256


def _distribute(path: Path, table: pl.DataFrame, folder: Path, progress: Progress) -> str:
    """Append every row to the file of its query's bucket in the order of the run; return the run's SHA-256."""
    prefetcher = _Prefetcher(path, progress)
    columns = ["query", pl.lit("Q0").alias("q0"), "document", "rank", "score", "tag"]
    with contextlib.ExitStack() as stack:
        files: dict[int, disk.Handle] = {}
        for frame in prefetcher.frames():
            joined = frame.join(table, on="query", how="left", maintain_order="left")
            for (bucket,), piece in joined.partition_by("bucket", as_dict=True, maintain_order=True).items():
                if bucket not in files:
                    files[bucket] = disk.open_append(folder / f"{bucket}.run")
                    stack.callback(disk.close, files[bucket])
                text = piece.select(columns).write_csv(include_header=False, separator=" ", quote_style="never")
                disk.append(files[bucket], text.encode())
    return prefetcher.sha256
