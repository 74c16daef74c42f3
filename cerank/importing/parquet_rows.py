"""Reads rankings from a parquet file, row by row.

Invariant: a file is decoded here only after another process has decoded all of it: a damaged page can make the library
ask for more memory than there is, which ends its process at once, and no exception tells of it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cerank.errors import FormatError
from cerank.files.line_reader import UNCHECKED_BYTES, at, decompression_bomb
from cerank.importing.parquet_pages import check_size
from cerank.text.safe_text import shown

_SLICE = 500_000  # rows of a file in memory at once
_QUERY, _DOCUMENT = ("query_id", "qid"), ("doc_id", "docno")
_DECODING_PROGRAM = """
import json, sys
from pathlib import Path
from cerank.importing.parquet_rows import decode
for line in sys.stdin:
    decode(Path(json.loads(line)))
    print(flush=True)
"""


def rows(path: Path) -> Iterator[tuple[str, str, float | None, int]]:
    """Yield (query, document, score or None, rank or 0) of each row, with one slice of the file in memory.

    Raises:
        FormatError: it is no parquet file of rankings, or a row of it is not whole.
    """
    check_size(path)
    _decode_in_other_process(path)
    for start, part, has_scores in _slices(path):
        if sum(int(part.to_series(column).str.len_bytes().sum()) for column in (0, 1)) > 4 * UNCHECKED_BYTES:
            raise decompression_bomb(path)  # a text that a dictionary has once and every row names
        for number, row in enumerate(part.rows(), start + 1):
            if row[0] is None or row[1] is None or row[3] is None or (has_scores and row[2] is None):
                raise FormatError("a row without query, document, score or rank", where=at(path, number))
            if has_scores and not math.isfinite(row[2]):
                raise FormatError(f"score {row[2]} is not a finite number", where=at(path, number))
            yield row


def decode(path: Path) -> None:
    """Decode everything that `rows` will, in a process that may die of it; `rows` reports unreadable files."""
    with contextlib.suppress(FormatError):
        for _ in _slices(path):
            pass


def _decode_in_other_process(path: Path) -> None:
    other = _decoding_process(os.getpid())
    assert other.stdin is not None  # noqa: S101 - a pipe
    assert other.stdout is not None  # noqa: S101 - a pipe
    try:
        other.stdin.write(json.dumps(str(path.absolute())) + "\n")
        other.stdin.flush()
        answer = other.stdout.readline()
    except OSError:  # it had ended before
        answer = ""
    if not answer:
        _decoding_process.cache_clear()
        other.kill()
        code = other.wait()
        raise _damaged_error(
            path, f"decoding it ended with signal {-code}" if code < 0 else f"decoding it ended with {code}"
        )


@functools.lru_cache(maxsize=1)
def _decoding_process(_: int) -> subprocess.Popen[str]:
    """Return the process that decodes files first; it ends with this process, whose id is the argument."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _DECODING_PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf8",
    )


def _slices(path: Path) -> Iterator[tuple[int, Any, bool]]:
    """Yield the rows before a slice, its columns query, document, score and rank, and whether there are scores."""
    import polars

    frame, query, document, score, rank = _frame(path)
    columns = [polars.col(query).cast(polars.String), polars.col(document).cast(polars.String)]
    columns.append(polars.col(score).cast(polars.Float64) if score else polars.lit(None).alias("no score"))
    columns.append(polars.col(rank).cast(polars.Int64) if rank else polars.lit(0).alias("no rank"))
    for start in range(0, _length(path, frame), _SLICE):
        try:
            part = frame.select(columns).slice(start, _SLICE).collect()
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
            raise _damaged_error(path, error) from error
        yield start, part, bool(score)


def _frame(path: Path) -> tuple[Any, str, str, str, str]:
    """Return the file, scanned, and its columns for query, document, score and rank; "" for one that is absent."""
    import polars

    try:
        frame = polars.scan_parquet(path, glob=False)
        schema = frame.collect_schema()
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
        raise _damaged_error(path, error) from error
    names = schema.names()
    query, document = _column(names, _QUERY, path), _column(names, _DOCUMENT, path)
    score, rank = ("score" if "score" in names else ""), ("rank" if "rank" in names else "")
    if not (score or rank):
        raise FormatError("has neither scores nor ranks", where=str(path), hint=_listed(names))
    for name in (query, document):
        if not (schema[name] == polars.String or schema[name].is_integer()):
            raise FormatError(f"column {name} holds {schema[name]}, not text or whole numbers", where=str(path))
    if (score and not schema[score].is_numeric()) or (rank and not schema[rank].is_integer()):
        raise FormatError("scores are not numbers, or ranks not whole ones", where=str(path), hint=_listed(names))
    return frame, query, document, score, rank


def _column(names: Sequence[str], accepted: Sequence[str], path: Path) -> str:
    matches = [name for name in accepted if name in names]
    if len(matches) != 1:
        what = f"has both columns {' and '.join(accepted)}" if matches else f"has no column {' or '.join(accepted)}"
        raise FormatError(what, where=str(path), hint=_listed(names))
    return matches[0]


def _listed(names: Sequence[str]) -> str:
    return "its columns: " + shown(", ".join(names), 300)


def _length(path: Path, frame: Any) -> int:
    import polars

    try:
        return int(frame.select(polars.len()).collect().item())
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
        raise _damaged_error(path, error) from error


def _damaged_error(path: Path, error: BaseException | str) -> FormatError:
    return FormatError(f"not a readable parquet file: {shown(error, 200)}", where=str(path))
