"""Whether the scores of a run rise with its ranks, as distances do whose smallest value is rank 1.

trec_eval reads scores and not ranks, and so does cerank: of such a run the document that was meant to be last counts as
the first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from cerank.text.safe_text import counted


def rises(ranks: Sequence[bytes | str], scores: Sequence[float]) -> bool:
    """Return whether no score of a query falls from one rank to the next and some score rises.

    Args:
        ranks: the rank of each document as it is written; one that is no whole number tells nothing of the query.
        scores: their scores.

    Example:
        >>> rises(["1", "2", "3"], [0.1, 0.1, 0.7]), rises(["3", "2", "1"], [0.1, 0.1, 0.7])
        (True, False)
    """
    try:
        first, last = int(ranks[0]), int(ranks[-1])
        if first == last or (scores[0] != scores[-1] and (first < last) != (scores[0] < scores[-1])):
            return False  # of nearly all lists this is seen at once
        listed = sorted(zip(map(int, ranks), scores, strict=True))
    except ValueError:
        return False
    is_in_order = all(low[0] < high[0] and low[1] <= high[1] for low, high in itertools.pairwise(listed))
    return is_in_order and listed[0][1] < listed[-1][1]


def count_rising(rows: Iterable[tuple[str, str, float]]) -> tuple[int, int]:
    """Return the number of queries whose scores rise with the rank, and of all queries.

    Args:
        rows: query, rank and score of each row, in any order.
    """
    queries: dict[str, tuple[list[str], list[float]]] = {}
    for query, rank, score in rows:
        ranks, scores = queries.setdefault(query, ([], []))
        ranks.append(rank)
        scores.append(score)
    return sum(rises(ranks, scores) for ranks, scores in queries.values()), len(queries)


def note_on_rising(rising: int, queries: int) -> tuple[str, ...]:
    """Return the sentence on a run with queries whose scores rise with the rank; nothing where there are none."""
    if not rising:
        return ()
    what = f"the scores of {rising:,} of {counted(queries, 'query')} rise with the rank; cerank orders by score, as"
    return (f"{what} trec_eval does, so that the last rank counts as the first: negate scores that are distances",)
