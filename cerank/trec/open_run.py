"""Opens TREC runs: small ones in memory, large ones as a memory-mapped ranking that is built once.

Invariant: both ways of reading give the same ranking and differ only in time and memory. numpy and polars are imported
only for a large run.
"""

from __future__ import annotations

from pathlib import Path

from cerank.errors import os_error
from cerank.files import file_cache
from cerank.files.hashing import input_sha256
from cerank.files.packed_files import PACKED_ENDINGS
from cerank.trec.layouts import layout_of
from cerank.trec.rank_order import note_on_rising
from cerank.trec.rows import RunFile, ingested_folder
from cerank.trec.text_io import read_run

LARGE = 64 << 20  # bytes from which a run is ingested: some 1.5 million rows
LARGE_PACKED = 16 << 20  # likewise, where it is packed


def is_large(*paths: Path) -> bool:
    """Return whether the run, or the files that are one collection together, are read through a memory map.

    Raises:
        MissingError, UsageError: a file does not exist or cannot be read.
    """
    size = 0
    for path in paths:
        try:
            size += path.stat().st_size
        except OSError as error:
            raise os_error(error, path) from error
    return size >= (LARGE_PACKED if paths[0].suffix in PACKED_ENDINGS else LARGE)


def open_run_file(path: Path, cache: Path | None) -> RunFile:
    """Return the run in `path`.

    A large one, or one that `cerank data ingest` was given, from `cache`, made there if need be.

    Args:
        path: a TREC run, plain or packed.
        cache: folder of caches; None reads all of it into memory.

    Raises:
        FormatError, MissingError, UsageError: as `text_io.read_run`.
    """
    if cache is None or not (is_large(path) or file_cache.known_sha256(path, ingested_folder(cache))):
        return read_run(path)
    if layout_of(path, "run").kind != "trec":  # files of other layouts fit into memory
        return read_run(path)
    from cerank.trec import ingest

    ranking = ingest.ingest_run(path, cache)
    contents = ranking.store.contents
    notes = note_on_rising(contents.rising, contents.queries)
    return RunFile(ranking=ranking, tag=contents.tag, ties=contents.ties, sha256=contents.sha256, notes=notes)


def run_file_sha256(path: Path, cache: Path | None) -> str:
    """Return the SHA-256 of the run's bytes; a large run is ingested in the same pass over the file.

    Of a run that was ingested before and has its size and time still, the hash of then is believed.

    Raises:
        FormatError, MissingError, UsageError: as `open_run_file`.
    """
    return open_run_file(path, cache).sha256 if cache is not None and is_large(path) else input_sha256(path)
