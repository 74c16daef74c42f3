"""Rows of a TREC run, and what a run is once it was read: shared by the readers line by line and by columns."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import msgspec

from cerank.core.rankings import Ranking
from cerank.errors import FormatError
from cerank.files.line_reader import at, blocks, open_stream, translate_read_errors
from cerank.text.safe_text import counted, shown

LARGEST = 3.4028234663852886e38  # float32; trec_eval keeps scores as C floats
RUN_HINT = "a TREC run has 6: query Q0 document rank score tag"


class RunFile(msgspec.Struct, frozen=True):
    """A TREC run as read from a file."""

    ranking: Ranking
    tag: str  # of the first row; "" for an empty file
    ties: int = 0  # entries whose float32 score equals a neighbour's
    sha256: str = ""  # of the file's bytes; "" for a ranking that was never a file


def score_of(text: bytes, path: Path, line: int) -> float:
    """A score as C's atof reads it; `float` also takes 1_0, where C stops at the underscore and reads 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if b"_" in text or not -LARGEST <= value <= LARGEST:
        what = f"score '{shown(text.decode(), 40)}' is not a finite number within float32"
        raise FormatError(what, where=at(path, line))
    return value


def run_row(row: bytes, path: Path, line: int) -> tuple[str, str, str, float, str] | None:
    """(query, document, rank as written, score, tag) of a row of a run; None for a blank line.

    Raises:
        FormatError: not six columns, or a score that is not a decimal number within float32; `line` names the place.
    """
    parts = row.split()
    if len(parts) != 6:
        if not parts:
            return None
        raise FormatError(counted(len(parts), "column"), where=at(path, line), hint=RUN_HINT)
    query, _, document, rank, score, tag = parts
    return query.decode(), document.decode(), rank.decode(), score_of(score, path, line), tag.decode()


def raise_duplicate(path: Path, query: str) -> None:
    """Names the line where a query has a document again; a second pass, so that a good file keeps no line numbers.

    Raises:
        FormatError: always where there is such a line.
    """
    seen: dict[bytes, int] = {}
    key = query.encode()
    with translate_read_errors(path), contextlib.closing(open_stream(path)) as file:
        for first, block in blocks(path, file):
            for number, line in enumerate(block.split(b"\n") if key in block else (), first):
                parts = line.split()
                if parts and parts[0] == key and seen.setdefault(parts[2], number) != number:
                    pair = f"document '{shown(parts[2].decode(), 80)}' stands twice for query '{shown(query, 80)}'"
                    raise FormatError(f"{pair}, first on line {seen[parts[2]]}", where=at(path, number))


def ingested_folder(cache: Path) -> Path:
    """The folder of ingested runs."""
    return cache / "rankings"
