"""Which documents of a query are its positives and its negatives, and how some of them are drawn.

Invariant: a document judged positive for a query is never one of its negatives, whichever way these are chosen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cerank.recipes.schema import Stage

T = TypeVar("T")
Grades = Mapping[str, int]
NOWHERE = 10**9  # the rank of what was not retrieved


def positives(stage: Stage, grades: Grades, ranked: Sequence[str], has_text: Callable[[str], bool]) -> list[str]:
    """The documents of at least the stage's relevance that have a text, by id.

    With `unretrieved = "none"` only those down to the window's last rank, as a run cut at that depth would leave them.
    """
    found = sorted(doc for doc, grade in grades.items() if grade >= stage.relevance and has_text(doc))
    if stage.unretrieved != "none" or not found:
        return found
    seen = set(ranked[: stage.window[1]])
    return [doc for doc in found if doc in seen]


def chosen_positives(stage: Stage, found: Sequence[str], ranked: Sequence[str], draw: random.Random) -> list[str]:
    """As many positives as the stage wants, or all there are."""
    count = min(stage.positives, len(found))
    if stage.positives_by == "random":
        return draw.sample(found, count)
    place = {doc: rank for rank, doc in enumerate(ranked)}
    return sorted(found, key=lambda doc: (place.get(doc, NOWHERE), doc))[:count]


def negatives(
    stage: Stage,
    grades: Grades,
    ranked: Sequence[str],
    *,
    found: Sequence[str],
    wanted: int,
    has_text: Callable[[str], bool],
) -> list[tuple[int, str]]:
    """(rank, document) of the query's possible negatives, best first.

    Args:
        stage: what it says of the window, of judgements and of the lowest positive.
        grades: of the query's judged documents.
        ranked: the first stage's documents, best first.
        found: the query's positives, as `positives` returned them.
        wanted: how many a group takes; `below_positives = "fill"` gives more than lie below only up to these.
        has_text: whether a judged document has a text.
    """
    relevant = {doc for doc, grade in grades.items() if grade >= stage.relevance}
    first, last = stage.window
    pool = [(rank, doc) for rank, doc in enumerate(ranked[first - 1 : last], first) if doc not in relevant]
    if stage.unretrieved == "judged":
        there = {doc for _, doc in pool}
        added = [doc for doc in grades if doc not in relevant and doc not in there and has_text(doc)]
        pool += [(last + place, doc) for place, doc in enumerate(sorted(added), 1)]
    if stage.negatives_from != "all":
        pool = [(rank, doc) for rank, doc in pool if (doc in grades) == (stage.negatives_from == "judged")]
    if stage.below_positives == "no":
        return pool
    place = {doc: rank for rank, doc in enumerate(ranked, 1)}
    lowest = max((place.get(doc, NOWHERE) for doc in found), default=0)
    below = [(rank, doc) for rank, doc in pool if rank > lowest]
    if stage.below_positives == "yes" or len(below) >= wanted:
        return below
    above = [(rank, doc) for rank, doc in pool if rank < lowest]
    return above[len(above) - min(wanted - len(below), len(above)) :] + below


def drawn(stage: Stage, pool: Sequence[T], ranks: Sequence[int], size: int, draw: random.Random) -> list[T]:
    """`size` of the pool as the stage's `negatives` says; `ranks` are theirs, from 1.

    log-random: without replacement, each with a chance in proportion to 1/rank, so that as many come from ranks 1 to 10
    as from 10 to 100 (Efraimidis and Spirakis 2006: the smallest of exponential draws times rank).
    """
    if stage.negatives == "top":
        return list(pool[:size])
    if stage.negatives == "random":
        return draw.sample(pool, size)
    keys = [draw.expovariate(1.0) * rank for rank in ranks]
    return [pool[at] for at in sorted(range(len(pool)), key=keys.__getitem__)[:size]]
