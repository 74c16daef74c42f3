"""The row of a TREC run and the result of reading one; shared by the readers by lines and by columns."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import NoReturn

import msgspec

from cerank.core.rankings import Ranking
from cerank.errors import FormatError
from cerank.files.line_reader import at, blocks, duplicate_error, translate_read_errors
from cerank.files.packed_files import open_stream
from cerank.text.safe_text import counted, shown

LARGEST = 3.4028234663852886e38  # float32; trec_eval keeps scores as C floats
RUN_HINT = "a TREC run has 6: query Q0 document rank score tag"


class RunFile(msgspec.Struct, frozen=True):
    """A TREC run as read from a file."""

    ranking: Ranking
    tag: str  # tag in the first row; "" for an empty file
    ties: int = 0  # entries whose float32 score equals a neighbor's
    sha256: str = ""  # hash of the file's bytes; "" for a ranking that was never a file
    notes: tuple[str, ...] = ()  # sentences on how the file was read, and on scores that rise with its ranks
    comments: tuple[str, ...] = ()  # lines with # at its beginning, such as those of ir_metadata


def is_comment(line: bytes) -> bool:
    """Return whether a line at the beginning of a file is a comment, such as those of ir_metadata, and no row."""
    return line.startswith(b"#") and line.split()[1:2] not in ([b"Q0"], [b"0"])


def score_of(text: bytes, path: Path, line: int) -> float:
    """Return a score as C's atof reads it; Python's `float` also accepts 1_0, where C stops at the underscore."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if b"_" in text or not -LARGEST <= value <= LARGEST:
        what = f"score '{shown(text.decode(), 40)}' is not a finite number within float32"
        raise FormatError(what, where=at(path, line), code="score-not-finite")
    return value


def run_row(row: bytes, path: Path, line: int) -> tuple[str, str, str, float, str] | None:
    """Return (query, document, rank as written, score, tag) of a row of a run; None for a blank line.

    Raises:
        FormatError: not six columns, or a score that is not a decimal number within float32; `line` names the place.
    """
    parts = row.split()
    if len(parts) != 6:
        if not parts:
            return None
        raise FormatError(f"the line has {counted(len(parts), 'column')}", where=at(path, line), hint=RUN_HINT)
    query, _, document, rank, score, tag = parts
    return query.decode(), document.decode(), rank.decode(), score_of(score, path, line), tag.decode()


def raise_duplicate(path: Path, query: str) -> NoReturn:
    """Read the file again to find the line on which a document appears a second time for a query.

    A second reading, so that reading a correct file need not keep line numbers.

    Raises:
        FormatError: `where` names that line, or the file if the line cannot be found any more.
    """
    seen: set[bytes] = set()
    key = query.encode()
    with translate_read_errors(path), contextlib.closing(open_stream(path)) as file:
        for first, block in blocks(path, file):
            for number, line in enumerate(block.split(b"\n") if key in block else (), first):
                parts = line.split()
                if not parts or parts[0] != key:
                    continue
                if parts[2] in seen:
                    raise duplicate_error("document", parts[2].decode(), at(path, number), query=query)
                seen.add(parts[2])
    raise duplicate_error("document", "", str(path), query=query)


def too_many_ties(query: str, where: str) -> FormatError:
    """Return the error for a query whose tied scores cannot be moved apart within the range of float32."""
    return FormatError(
        f"query '{shown(query, 80)}': too many tied scores to separate within float32",
        where=where,
        code="too-many-ties",
    )


def ingested_folder(cache: Path) -> Path:
    """Return the folder of ingested runs."""
    return cache / "rankings"
