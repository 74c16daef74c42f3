"""Turns rows that a program generates, such as ir_datasets' scoreddocs, into a memory-mapped ranking.

Invariant: the ranking is the one that `text_io.run_of` makes of the same rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from cerank.errors import FormatError
from cerank.files import disk, file_cache
from cerank.files.line_reader import checked_id
from cerank.trec import mapped_run
from cerank.trec.ingest import ingest_run
from cerank.trec.mapped_run import MappedRanking
from cerank.trec.rows import LARGEST, ingested_folder

PIECE_ROWS = 100_000  # rows written at once


def ranking_of_rows(
    rows: Iterable[tuple[str, str, float]], tag: str, where: str, *, identity: str, cache: Path
) -> MappedRanking:
    """Return the ranking of (query, document, score) rows; it is built once and kept in `cache`.

    Args:
        rows: (query, document, score) triples; not read if the ranking is in the cache.
        tag: the last column of the run.
        where: the rows' origin, for errors.
        identity: a hash that differs whenever any row differs.
        cache: folder of caches, which may be emptied whenever the ranking is not in use.

    Raises:
        FormatError: as `text_io.run_of`.
        RunFailedError: the cache cannot be written.
    """
    folder = ingested_folder(cache)
    pointer, run = folder / f"{identity}.rows", folder / f"{identity}.run"
    ranking = _open_known(pointer, folder)
    if ranking is not None:
        return ranking
    with file_cache.exclusive_lock(pointer, folder):
        ranking = _open_known(pointer, folder)
        if ranking is None:
            _write(rows, tag, where, run)
            ranking = ingest_run(run, cache)
            disk.write(pointer, ranking.sha256.encode())
            disk.remove(run)
    return ranking


def _open_known(pointer: Path, folder: Path) -> MappedRanking | None:
    try:
        sha256 = pointer.read_text().strip()
    except OSError:
        return None
    return mapped_run.open_mapped(folder / sha256) if sha256 else None


def _write(rows: Iterable[tuple[str, str, float]], tag: str, where: str, run: Path) -> None:
    """Write the rows as a TREC run, replacing what an earlier attempt left."""
    disk.remove(run)
    file = disk.open_append(run)
    checked = (_run_line(row, tag, where) for row in rows)
    try:
        while piece := "".join(itertools.islice(checked, PIECE_ROWS)):
            disk.append(file, piece.encode())
    finally:
        disk.close(file)


def _run_line(row: tuple[str, str, float], tag: str, where: str) -> str:
    query, document, score = row
    if not -LARGEST <= score <= LARGEST:
        raise FormatError(f"score {score} is not a finite number within float32", where=where)
    return f"{checked_id(query, 'query', where)} Q0 {checked_id(document, 'document', where)} 0 {score!r} {tag}\n"
