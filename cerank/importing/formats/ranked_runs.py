"""Rankings by id: TREC runs and parquet, as Rank-DistiLLM, ColBERTv2's training run and any first stage come.

A TREC run has six columns at white space (query Q0 document rank score tag), plain or packed. A parquet file, or a
table with a header, has the columns query_id (or qid, q_id), doc_id (or docno), and score or rank or both; others are
left alone. Without scores the last of a query's n documents by rank has 1 and the first n. Equal scores fall to the
smaller rank. `trec.layouts` knows the other layouts: JSON, commas, three and five columns. Comments at the beginning of
a file (ir_metadata) are kept beside the run.
Gives: a run a file, named after it (`__rankzephyr-...__msmarco-....run` is `rankzephyr-...`) or by --name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cerank.errors import FormatError, UsageError
from cerank.files import tables
from cerank.files.line_reader import at, line_blocks
from cerank.files.packed_files import PACKED_ENDINGS
from cerank.importing.column_blocks import are_ids
from cerank.importing.dataset_writer import LARGEST, DatasetWriter, run_name
from cerank.text.safe_text import counted, shown
from cerank.trec import layouts
from cerank.trec.layouts import Layout
from cerank.trec.rows import is_comment

_ENDINGS = (*PACKED_ENDINGS, ".tar", ".parquet", ".run", ".tsv", ".csv", ".json", ".txt", ".trec")
_HINT = "a TREC run has 6: query Q0 document rank score tag"


def name_of(path: Path) -> str:
    """Return the run's name from a file name: between lightning-ir's double underscores, or without endings."""
    name = path.name
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    if name.startswith("__") and "__" in name[2:]:
        name = name[2:].partition("__")[0]
    return run_name(name)


def read(files: Sequence[Path], writer: DatasetWriter, name: str) -> None:
    """Read runs; `name` is for a single one, "" takes each file's name."""
    names = [name or name_of(path) for path in files]
    if len(set(names)) != len(names):
        raise UsageError(
            "two of the files would be one run",
            hint="give them different names, or import one at a time",
            code="run-name-twice",
        )
    for path, run in zip(files, names, strict=True):
        layout = layouts.layout_of(path, "run")
        comments = layouts.comment_lines(path) if layout.kind in {"trec", "text"} else []
        if comments:
            writer.keep_comments(run, comments)
        if layout.kind == "parquet":
            _parquet(path, writer, run)
        elif layout.kind == "trec":
            _trec(path, writer, run)
        else:
            _foreign(path, layout, writer, run)


def number_of(text: bytes, where: str) -> float:
    """Return a score as C's atof reads it; the writer rejects what is beyond float32.

    Raises:
        FormatError: it is no decimal number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if b"_" in text or not math.isfinite(value):
        raise FormatError(
            f"score '{shown(text.decode(), 40)}' is not a finite number", where=where, code="score-not-finite"
        )
    return value


def _taken_whole(path: Path, lines: list[bytes], first: int, writer: DatasetWriter, run: str) -> bool:
    """Return whether the lines could be added as columns; if not, each must be parsed strictly."""
    import polars

    from cerank.trec.parse_blocks import parse_block

    try:
        frame = parse_block(path, b"\n".join(lines), first)
    except FormatError:
        return False  # parsing line by line finds the same error
    if not (are_ids(frame["query"]) and are_ids(frame["document"])) or (frame["score"].abs() > LARGEST).any():
        return False
    plain = polars.col("rank").str.contains(r"^[0-9]{1,9}$")
    rank = polars.when(plain).then(polars.col("rank").cast(polars.Int64, strict=False)).otherwise(0)
    rows = frame.select("query", "document", polars.col("score").alias("value"), rank.alias("rank"))
    writer.records += frame.height
    writer.ranked(run, rows)
    return True


def _trec(path: Path, writer: DatasetWriter, run: str) -> None:
    for first, lines in line_blocks(path, columns=True):
        if _taken_whole(path, lines, first, writer, run):
            continue
        for number, line in enumerate(lines, first):
            parts = line.split()
            if not parts or (not writer.records and is_comment(line)):
                continue
            where = at(path, number)
            if len(parts) != 6:
                raise FormatError(
                    f"the line has {counted(len(parts), 'column')}", where=where, hint=_HINT, code="column-count"
                )
            rank = int(parts[3]) if parts[3].isdigit() and len(parts[3]) < 10 else 0
            writer.records += 1
            writer.scored(run, parts[0].decode(), parts[2].decode(), number_of(parts[4], where), where, rank=rank)


def _parquet(path: Path, writer: DatasetWriter, run: str) -> None:
    kinds = tables.column_kinds(path)
    query, document, score, rank = layouts.value_columns(list(kinds), "run", str(path))
    for name in (query, document):
        if kinds[name] not in {"text", "whole"}:
            raise FormatError(
                f"column {name} holds neither text nor whole numbers", where=str(path), code="column-type"
            )
    if kinds.get(score, "number") not in {"number", "whole"} or kinds.get(rank, "whole") != "whole":
        hint = "its columns: " + shown(", ".join(kinds), 300)
        raise FormatError(
            "scores are not numbers, or ranks not whole ones", where=str(path), hint=hint, code="column-type"
        )
    columns = [query, document, *([score] if score else []), *([rank] if rank else [])]
    for number, (query_id, doc_id, *values) in tables.rows(path, columns):
        where = at(path, number)
        if query_id is None or doc_id is None or None in values:
            raise FormatError("a row without query, document, score or rank", where=where, code="value-missing")
        writer.records += 1
        if not score:
            writer.count("rows ordered by their rank, for the file has no scores")
            writer.listed(run, str(query_id), str(doc_id), where, rank=values[0])
        elif not math.isfinite(values[0]):
            raise FormatError(f"score {values[0]} is not a finite number", where=where, code="score-not-finite")
        else:
            writer.scored(run, str(query_id), str(doc_id), float(values[0]), where, rank=values[1] if rank else 0)


def _foreign(path: Path, layout: Layout, writer: DatasetWriter, run: str) -> None:
    """Read a run in another layout than TREC's: JSON, a table with a header or commas, three or five columns."""
    foreign = layouts.read_foreign(path, layout, "run")
    for note in foreign.notes:
        writer.count(note, len(foreign.rows))
    for query_id, doc_id, score in foreign.rows:
        writer.records += 1
        writer.scored(run, query_id, doc_id, score, str(path))
