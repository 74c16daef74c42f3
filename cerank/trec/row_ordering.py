"""Orders the rows of many queries as trec_eval does and separates ties, on columns.

Invariant: documents and scores are those that `text_io.read_run` gives for the same rows, bit for bit.

Queries are numbered by appearance and their rows are adjacent; `starts` holds the first row of each and the number of
rows.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_LOWEST = -0x7F7FFFFF  # the key of the lowest float32
_APART = 1 << 34  # more than all keys of a query span, so that one running minimum serves all queries


class OrderedRows(msgspec.Struct, frozen=True):
    """Whole queries in their final order."""

    starts: Ints  # (queries + 1,)
    queries: list[str]
    documents: pl.Series  # String
    scores: NDArray[np.float32]  # strictly decreasing within a query
    ties: int  # rows whose float32 score equals a neighbor's
    misranked: int  # queries whose rank column orders documents against their scores
    rising: int  # of these, queries whose scores never fall with the rank, as distances do


class DuplicateDocumentError(Exception):
    """A query that has a document twice; the caller knows the file and can find the line."""

    def __init__(self, query: str) -> None:
        super().__init__(query)
        self.query = query


class TooManyTiesError(DuplicateDocumentError):
    """A query whose ties cannot be separated above the lowest float32."""


def starts_of(queries: pl.Series) -> Ints:
    """Return where each run of equal neighbors starts, and the number of rows; shape (queries + 1,)."""
    if not len(queries):
        return np.zeros(1, dtype=np.int64)
    changes = (queries != queries.shift(1)).fill_null(value=True)
    return np.append(changes.arg_true().to_numpy().astype(np.int64), len(queries))


def plain_numbers(documents: pl.Series) -> NDArray[np.uint32] | None:
    """Return the ids as uint32 if each is written as Python writes a number; else None."""
    numbers = documents.cast(pl.UInt32, strict=False)
    if numbers.null_count():
        return None
    values = numbers.to_numpy()
    digits = np.ones(len(values), dtype=np.uint32)
    for power in range(1, 10):
        digits += values >= 10**power
    return values if bool((documents.str.len_bytes().to_numpy() == digits).all()) else None


def order_rows(frame: pl.DataFrame) -> OrderedRows:
    """Return the rows of `frame` in their final order; the rows of each query must be adjacent.

    Without a column `rank` none is misranked, and no scores rise with the rank.

    Raises:
        DuplicateDocumentError: a query has a document twice.
        TooManyTiesError: ties run below the lowest float32.
    """
    starts = starts_of(frame["query"])
    counts = np.diff(starts)
    place = np.repeat(np.arange(len(counts), dtype=np.int64), counts)  # index of each row's query
    names = frame["query"].gather(starts[:-1]).to_list()
    _check_duplicates_by_hash(frame, place, names)
    scores = frame["score"].to_numpy().astype(np.float32)
    misranked, rising = _misranked(frame["rank"], scores, starts, place) if "rank" in frame.columns else (0, 0)
    documents = frame["document"]
    falls = np.ones(len(scores), dtype=bool)
    falls[:-1] = scores[:-1] > scores[1:]  # no difference: it may overflow
    falls[starts[1:] - 1] = True
    ties = 0
    if not falls.all():
        documents, scores = _sort_queries(documents, scores, place, np.unique(place[~falls]))
        scores, ties = _break_ties(scores, starts, place, names)
    return OrderedRows(starts, names, documents, scores, ties, misranked, rising)


def check_no_duplicates(frame: pl.DataFrame) -> None:
    """Check that no query of `frame` has a document twice; exact, and slower than the check in `order_rows`.

    Raises:
        DuplicateDocumentError: a query has a document twice.
    """
    again = frame.select("query", "document").is_duplicated()
    if again.any():
        raise DuplicateDocumentError(str(frame["query"].filter(again)[0]))


class DuplicateCheck:
    """Looks for duplicates whenever the number of rows has doubled, before a repetitive file fills the memory.

    Args:
        least: the number of rows below which nothing is checked.
    """

    def __init__(self, least: int) -> None:
        self._least = least

    def check(self, frame: pl.DataFrame) -> None:
        """Check `frame` if it has doubled since the last check; raises as `check_no_duplicates`."""
        if len(frame) > self._least:
            self._least = 2 * len(frame)
            check_no_duplicates(frame)


def _check_duplicates_by_hash(frame: pl.DataFrame, place: Ints, names: list[str]) -> None:
    marks = frame["document"].hash(seed=0).to_numpy() ^ (place.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    line = np.sort(marks)
    same = line[1:][line[1:] == line[:-1]]
    if not len(same):
        return
    for query in np.unique(place[np.isin(marks, same)]).tolist():  # few: a hash may meet another's by chance
        if bool(frame["document"].filter(pl.Series(place == query)).is_duplicated().any()):
            raise DuplicateDocumentError(names[query])


def _misranked(ranks: pl.Series, scores: NDArray[np.float32], starts: Ints, place: Ints) -> tuple[int, int]:
    """Count the queries whose ranks are not numbers or put a lower score before a higher one, and those that rise.

    The latter have different ranks, each a number, and no score that falls from one rank to the next.
    """
    numbers = ranks.cast(pl.Int64, strict=False)
    values = numbers.fill_null(0).to_numpy()
    is_fine = np.ones(len(values), dtype=bool)
    is_fine[1:] = (values[1:] > values[:-1]) & (scores[1:] <= scores[:-1])
    is_fine[starts[:-1]] = True
    if numbers.null_count():
        is_fine &= numbers.is_not_null().to_numpy()
    if is_fine.all():
        return 0, 0
    is_suspect = np.isin(place, np.unique(place[~is_fine]))
    where, ranked, scored = place[is_suspect], values[is_suspect], scores[is_suspect]
    order = np.lexsort((ranked, where))
    where, scored = where[order], scored[order]
    is_next = where[1:] == where[:-1]
    wrong = set(np.unique(where[1:][(scored[1:] > scored[:-1]) & is_next]).tolist())
    ranked = ranked[order]
    not_rising = is_next & ((scored[1:] < scored[:-1]) | (ranked[1:] == ranked[:-1]))
    rising = wrong - set(np.unique(where[1:][not_rising]).tolist())
    if numbers.null_count():
        unread = set(np.unique(place[numbers.is_null().to_numpy()]).tolist())
        return len(wrong | unread), len(rising - unread)
    return len(wrong), len(rising)


def _sort_queries(
    documents: pl.Series, scores: NDArray[np.float32], place: Ints, unsorted: Ints
) -> tuple[pl.Series, NDArray[np.float32]]:
    """Return the rows with the queries `asked` sorted: score descending, then document id descending as UTF-8 bytes."""
    rows = np.flatnonzero(np.isin(place, unsorted))
    numbers = plain_numbers(documents.gather(rows))
    key: Any = documents.gather(rows) if numbers is None else pl.Series(_decimal_sort_keys(numbers))
    columns = {"place": place[rows], "score": scores[rows] + np.float32(0), "key": key, "row": rows}  # no -0.0
    order = pl.DataFrame(columns).sort("place", "score", "key", descending=[False, True, True])["row"].to_numpy()
    new_order = np.arange(len(scores), dtype=np.int64)
    new_order[rows] = order
    return documents.gather(new_order), scores[new_order]


def _decimal_sort_keys(numbers: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return keys that sort as the numbers' decimal texts: digits from the left, shorter before longer."""
    values = numbers.astype(np.uint64)
    digits = np.ones(len(values), dtype=np.uint64)
    for power in range(1, 10):
        digits += values >= 10**power
    keys: NDArray[np.uint64] = values * np.power(np.uint64(10), np.uint64(10) - digits) * np.uint64(16) + digits
    return keys


def _break_ties(
    scores: NDArray[np.float32], starts: Ints, place: Ints, names: list[str]
) -> tuple[NDArray[np.float32], int]:
    """Return non-increasing scores, each tied one just below the one before, and the number of tied rows.

    As `rankings.strictly_decreasing`: with float32 as whole numbers that keep their order, the value of row i is the
    least of key + (rows since) over all rows before, so a running minimum of key + i finds it.
    """
    same = np.zeros(len(scores) + 1, dtype=bool)
    same[1:-1] = scores[1:] == scores[:-1]
    same[starts] = False
    ties = int((same[1:] | same[:-1]).sum())
    bits = scores.view(np.int32).astype(np.int64)
    raw = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    line = np.arange(len(scores), dtype=np.int64)
    apart = line - place * _APART
    keys = np.minimum.accumulate(raw + apart) - apart
    if len(keys) and int(keys.min()) < _LOWEST:
        raise TooManyTiesError(names[int(place[int(keys.argmin())])])
    moved = np.where(keys >= 0, keys, -keys | -0x80000000).astype(np.int64).astype(np.int32).view(np.float32)
    return np.where(keys == raw, scores, moved), ties
