"""Rankings by id: TREC runs and parquet, as Rank-DistiLLM, ColBERTv2's training run and any first stage come.

A TREC run has six columns at white space (query Q0 document rank score tag), plain or packed. A parquet file has the
columns query_id (or qid), doc_id (or docno), and score or rank or both; others are left alone. Without scores
the last of a query's n documents by rank has 1 and the first n. Equal scores fall to the smaller rank.
Gives: a run a file, named after it (`__rankzephyr-...__msmarco-....run` is `rankzephyr-...`) or by --name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cerank.data.files import FREE, at, exploding, line_blocks
from cerank.data.importing.archives import opened
from cerank.data.importing.blocks import are_ids
from cerank.data.importing.parquet_pages import check_size
from cerank.data.importing.sink import LARGEST, Sink, run_name
from cerank.errors import FormatError, UsageError
from cerank.reading import open_file
from cerank.text import shown

_PARQUET = b"PAR1"
_SLICE = 500_000  # rows of a parquet file in memory at once
_QUERY, _DOCUMENT = ("query_id", "qid"), ("doc_id", "docno")
_ENDINGS = (".gz", ".zip", ".tar", ".parquet", ".run", ".tsv", ".txt", ".trec")
_HINT = "a TREC run has 6: query Q0 document rank score tag"


def name_of(path: Path) -> str:
    """The run's name in a file's: between lightning-ir's double underscores, or without the endings."""
    name = path.name
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    if name.startswith("__") and "__" in name[2:]:
        name = name[2:].partition("__")[0]
    return run_name(name)


def read(files: Sequence[Path], sink: Sink, name: str) -> None:
    """Reads runs; `name` is for a single one, "" takes each file's."""
    names = [name or name_of(path) for path in files]
    if len(set(names)) != len(names):
        raise UsageError("two of the files would be one run", hint="give them different names, or import one at a time")
    for path, run in zip(files, names, strict=True):
        with open_file(path) as file:
            is_parquet = file.read(4) == _PARQUET
        (_parquet if is_parquet else _trec)(path, sink, run)


def number_of(text: bytes, where: str) -> float:
    """A score as C's atof reads it; the sink refuses what is beyond float32.

    Raises:
        FormatError: it is no decimal number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if b"_" in text or not math.isfinite(value):
        raise FormatError(f"score '{shown(text.decode(), 40)}' is not a finite number", where=where)
    return value


def _taken_whole(path: Path, lines: list[bytes], first: int, sink: Sink, run: str) -> bool:
    """Whether the lines were taken as columns; if not, each is to be looked at."""
    import polars

    from cerank.data.candidates.parsing import parsed

    try:
        found = parsed(path, b"\n".join(lines), first)
    except FormatError:
        return False  # line by line finds the same fault
    if not (are_ids(found["query"]) and are_ids(found["document"])) or (found["score"].abs() > LARGEST).any():
        return False
    plain = polars.col("rank").str.contains(r"^[0-9]{1,9}$")
    rank = polars.when(plain).then(polars.col("rank").cast(polars.Int64, strict=False)).otherwise(0)
    rows = found.select("query", "document", polars.col("score").alias("value"), rank.alias("rank"))
    sink.records += found.height
    sink.ranked(run, rows)
    return True


def _trec(path: Path, sink: Sink, run: str) -> None:
    for first, lines in line_blocks(path, columns=True, opener=opened):
        if _taken_whole(path, lines, first, sink, run):
            continue
        for number, line in enumerate(lines, first):
            parts = line.split()
            if not parts:
                continue
            where = at(path, number)
            if len(parts) != 6:
                raise FormatError(f"{len(parts)} columns", where=where, hint=_HINT)
            rank = int(parts[3]) if parts[3].isdigit() and len(parts[3]) < 10 else 0
            sink.records += 1
            sink.scored(run, parts[0].decode(), parts[2].decode(), number_of(parts[4], where), where, rank=rank)


def _parquet(path: Path, sink: Sink, run: str) -> None:
    unscored = 0
    for number, (query_id, doc_id, score, rank) in enumerate(_parquet_rows(path), 1):
        sink.records += 1
        if score is None:
            unscored += 1
            sink.listed(run, query_id, doc_id, at(path, number), rank=rank)
        else:
            sink.scored(run, query_id, doc_id, score, at(path, number), rank=rank)
    sink.count("rows ordered by their rank, for the file has no scores", unscored)


def _column(names: Sequence[str], wanted: Sequence[str], path: Path) -> str:
    found = [name for name in wanted if name in names]
    if len(found) != 1:
        what = f"has both columns {' and '.join(wanted)}" if found else f"has no column {' or '.join(wanted)}"
        raise FormatError(what, where=str(path), hint=_listed(names))
    return found[0]


def _listed(names: Sequence[str]) -> str:
    return "its columns: " + shown(", ".join(names), 300)


def _frame(path: Path) -> tuple[Any, str, str, str, str]:
    """The file, scanned, and its columns for query, document, score and rank; "" for one that is absent."""
    import polars

    try:
        frame = polars.scan_parquet(path, glob=False)
        schema = frame.collect_schema()
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
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


def _damaged(path: Path, error: BaseException) -> FormatError:
    return FormatError(f"is no parquet that can be read: {shown(error, 200)}", where=str(path))


def _length(path: Path, frame: Any) -> int:
    import polars

    try:
        return int(frame.select(polars.len()).collect().item())
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, str, float | None, int]]:
    """(query, document, score or None, rank or 0) of each row, a slice of the file in memory at a time."""
    import polars

    check_size(path)
    frame, query, document, score, rank = _frame(path)
    columns = [polars.col(query).cast(polars.String), polars.col(document).cast(polars.String)]
    columns.append(polars.col(score).cast(polars.Float64) if score else polars.lit(None).alias("no score"))
    columns.append(polars.col(rank).cast(polars.Int64) if rank else polars.lit(0).alias("no rank"))
    for start in range(0, _length(path, frame), _SLICE):
        try:
            part = frame.select(columns).slice(start, _SLICE).collect()
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError, ValueError) as error:
            raise _damaged(path, error) from error
        if sum(int(part.to_series(column).str.len_bytes().sum()) for column in (0, 1)) > 4 * FREE:
            raise exploding(path)  # a text that a dictionary has once and every row names
        for number, row in enumerate(part.rows(), start + 1):
            if row[0] is None or row[1] is None or row[3] is None or (score and row[2] is None):
                raise FormatError("a row without query, document, score or rank", where=at(path, number))
            if score and not math.isfinite(row[2]):
                raise FormatError(f"score {row[2]} is not a finite number", where=at(path, number))
            yield row
