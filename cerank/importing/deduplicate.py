"""Removes duplicates from collected rows and orders them strictly; counts everything that it drops.

Invariant: pure; rows of one table in, rows and counts out, every row of a query at once.
"""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING

from cerank.trec.rows import LARGEST, too_many_ties

if TYPE_CHECKING:
    import numpy as np
    import polars

    Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

_TWICE = "duplicate pairs, dropped"
_SCORES = "scores that contradict another of the same pair; the first is kept"
_GRADES = "judgments that contradict another; the higher grade is kept"
_RANKS = "queries whose ranks contradict their scores; scores decide"
_TIES = "tied scores, separated by the smallest float32 step"
_DEPTH = "candidates beyond the depth, dropped"
_SIGN = 0x7FFFFFFF


def judgments(rows: polars.DataFrame, counts: Counter[str]) -> tuple[bytes, int]:
    """Return lines of qrels and their number: each pair once with its highest grade, in order of appearance."""
    import polars

    pair = ["query", "document"]
    if rows["value"].n_unique() > 1:
        best = polars.col("value").max().over(pair)
        counts[_GRADES] += rows.filter(polars.col("value").first().over(pair) != polars.col("value")).height
        rows = rows.with_columns(best.alias("value"))
    judged = _by_query(rows.unique(pair, keep="first", maintain_order=True)).sort("first", maintain_order=True)
    columns = ("query", polars.lit("0"), "document", polars.col("value").cast(polars.Int64))
    return _text(judged, columns), judged.height


def candidates(
    rows: polars.DataFrame, run: str, counts: Counter[str], *, is_listed: bool, depth: int
) -> tuple[bytes, int]:
    """Return lines of a TREC run and their number.

    Args:
        rows: rows of one run, in the order in which they were read.
        run: name of the run, which is also the tag in its lines.
        counts: counter of dropped and changed rows, to which this call adds.
        is_listed: whether ranks, then the order of rows, decide (the last of n gets 1); else scores decide before them.
        depth: number of candidates of a query to keep, best first; 0 keeps all.

    Raises:
        FormatError: scores tie at the end of float32.
    """
    import polars

    distinct = _drop_duplicates(rows, counts)
    ordered = _score_by_rank(distinct) if is_listed else _order_by_score(distinct, counts)
    if depth:
        top = ordered.filter(polars.col("place") < depth)
        counts[_DEPTH] += ordered.height - top.height
        ordered = top
    columns = ("query", polars.lit("Q0"), "document", polars.col("place") + 1, "score", polars.lit(run))
    return _text(ordered, columns), ordered.height


def _text(rows: polars.DataFrame, columns: tuple[str | polars.Expr, ...]) -> bytes:
    import polars

    named = [
        (polars.col(column) if isinstance(column, str) else column).alias(f"column {number}")
        for number, column in enumerate(columns)
    ]
    out = io.BytesIO()
    rows.select(named).write_csv(out, include_header=False, separator=" ", quote_style="never")
    return out.getvalue()


def _by_query(rows: polars.DataFrame) -> polars.DataFrame:
    """Return the rows with `first`, the place of their query's first row."""
    import polars

    numbered = rows.with_row_index("row")
    return numbered.with_columns(polars.col("row").min().over("query").alias("first")).drop("row")


def _drop_duplicates(rows: polars.DataFrame, counts: Counter[str]) -> polars.DataFrame:
    """Return the first row of each pair, in order, with `first`."""
    import polars

    pair = ["query", "document"]
    distinct = rows.unique(pair, keep="first", maintain_order=True)
    if distinct.height < rows.height:
        other = rows.filter(polars.col("value").first().over(pair) != polars.col("value")).height
        counts[_SCORES] += other
        counts[_TWICE] += rows.height - distinct.height - other
    return _by_query(distinct)


def _number_rows(first: polars.Series) -> tuple[Ints, Ints]:
    """Return the number of each row's query and its place in it, both from 0; rows are sorted by `first`."""
    import numpy as np

    numbers = first.to_numpy()
    starts = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    query = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(numbers))))
    return query, np.arange(len(numbers)) - starts[query]


def _score_by_rank(rows: polars.DataFrame) -> polars.DataFrame:
    import numpy as np
    import polars

    ordered = rows.sort("first", "rank", maintain_order=True)
    query, place = _number_rows(ordered["first"])
    score = (np.bincount(query)[query] - place).astype(np.float32)
    return ordered.with_columns(polars.Series("place", place), polars.Series("score", score))


def _order_by_score(rows: polars.DataFrame, counts: Counter[str]) -> polars.DataFrame:
    """Order rows by score; scores that tie as float32 are separated, each just below the one before.

    Two scores that differ only beyond float32's digits keep their order; so do two that are nearly zero.
    Float32 as whole numbers in its own order, 0 for both zeros, makes "just below" a subtraction of 1: the score at
    place i is the least of what stands at i and, for each j before it, what stands at j less i - j.
    """
    import numpy as np
    import polars

    exact = polars.col("value") + 0.0  # -0.0 ties with 0.0
    ordered = rows.with_columns(_float32_to_ordered_int(rows["value"])).sort(
        "first", exact, "rank", descending=[False, True, False], maintain_order=True
    )
    query, place = _number_rows(ordered["first"])
    keys, rank = ordered["whole"].to_numpy(), ordered["rank"].to_numpy()
    far = query * np.int64(1 << 34)  # keeps the least of one query out of the next: no whole number comes near it
    separated = np.minimum.accumulate(keys + place - far) - place + far
    falls = (rank[1:] < rank[:-1]) & (query[1:] == query[:-1])
    counts[_RANKS] += len(np.unique(query[1:][falls]))
    counts[_TIES] += int((separated != keys).sum())
    ordered = ordered.with_columns(polars.Series("place", place), _ordered_int_to_float32(separated))
    beyond = ordered.filter(~(polars.col("score") >= -LARGEST))
    if beyond.height:
        raise too_many_ties(beyond["query"][0], "")
    return ordered


def _float32_to_ordered_int(values: polars.Series) -> polars.Series:
    """Return float32 values as integers in the same order; neighboring floats differ by one."""
    import numpy as np
    import polars

    bits = values.to_numpy().astype(np.float32).view(np.int32).astype(np.int64)
    return polars.Series("whole", np.where(bits < 0, -(bits & _SIGN), bits))


def _ordered_int_to_float32(numbers: Ints) -> polars.Series:
    """Invert `_float32_to_ordered_int`."""
    import numpy as np
    import polars

    bits = np.where(numbers < 0, -numbers | (_SIGN + 1), numbers)
    return polars.Series("score", bits.astype(np.uint32).view(np.float32))
