"""Choose the positives and negatives of a query, and sample some of them.

Invariant: a document judged positive for a query is never one of its negatives, whichever way these are chosen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from cerank.core.negative_samplers import NEGATIVE_SAMPLERS
from cerank.errors import RunFailedError
from cerank.recipes.schema import Stage

T = TypeVar("T", bound=Hashable)
Grades = Mapping[str, int]
UNRANKED = 10**9  # rank of a document that was not retrieved


def usable_positives(stage: Stage, grades: Grades, ranked: Sequence[str], has_text: Callable[[str], bool]) -> list[str]:
    """Return the documents of at least the stage's relevance grade that have a text, by id.

    With `unretrieved = "none"` only those down to the window's last rank, as a run cut at that depth would leave them.
    """
    positives = sorted(doc for doc, grade in grades.items() if grade >= stage.relevance and has_text(doc))
    if stage.unretrieved != "none" or not positives:
        return positives
    retrieved = set(ranked[: stage.window[1]])
    return [doc for doc in positives if doc in retrieved]


def choose_positives(
    stage: Stage, positives: Sequence[str], ranked: Sequence[str], generator: random.Random
) -> list[str]:
    """Return as many positives as the stage asks for, or all there are."""
    count = min(stage.positives, len(positives))
    if stage.positives_by == "random":
        return generator.sample(positives, count)
    place = {doc: rank for rank, doc in enumerate(ranked)}
    return sorted(positives, key=lambda doc: (place.get(doc, UNRANKED), doc))[:count]


def possible_negatives(
    stage: Stage,
    grades: Grades,
    ranked: Sequence[str],
    *,
    positives: Sequence[str],
    needed: int,
    has_text: Callable[[str], bool],
) -> list[tuple[int, str]]:
    """Return (rank, document) of the query's possible negatives, best first.

    Args:
        stage: settings of the stage: its window of ranks, and which judged documents count.
        grades: document id -> grade of the query's judged documents.
        ranked: ids of the first stage's documents, best first.
        positives: the query's positives, as `usable_positives` returned them.
        needed: number of negatives that a group takes; `below_positives = "fill"` adds documents above the lowest
            positive only up to this number.
        has_text: returns whether a judged document has a text.
    """
    relevant = {doc for doc, grade in grades.items() if grade >= stage.relevance}
    first, last = stage.window
    pool = [(rank, doc) for rank, doc in enumerate(ranked[first - 1 : last], first) if doc not in relevant]
    if stage.unretrieved == "judged":
        in_pool = {doc for _, doc in pool}
        added = [doc for doc in grades if doc not in relevant and doc not in in_pool and has_text(doc)]
        pool += [(last + place, doc) for place, doc in enumerate(sorted(added), 1)]
    if stage.negatives_from != "all":
        pool = [(rank, doc) for rank, doc in pool if (doc in grades) == (stage.negatives_from == "judged")]
    if stage.below_positives == "no":
        return pool
    place = {doc: rank for rank, doc in enumerate(ranked, 1)}
    lowest = max((place.get(doc, UNRANKED) for doc in positives), default=0)
    below = [(rank, doc) for rank, doc in pool if rank > lowest]
    if stage.below_positives == "yes" or len(below) >= needed:
        return below
    above = [(rank, doc) for rank, doc in pool if rank < lowest]
    return above[len(above) - min(needed - len(below), len(above)) :] + below


def sample_candidates(
    stage: Stage, pool: Sequence[T], ranks: Sequence[int], size: int, generator: random.Random
) -> list[T]:
    """Return `size` items of the pool as the stage's `negatives` setting says; `ranks` are the items' ranks, from 1.

    Raises:
        RunFailedError: the sampler of an extension returned other items, or another number of them.
    """
    sampled = list(NEGATIVE_SAMPLERS.find(stage.negatives)(pool, ranks, size, generator))
    if len(set(sampled)) != size or not set(sampled) <= set(pool):
        what = f"the sampler '{stage.negatives}' must return {size} different items of its pool"
        raise RunFailedError(what, where="negatives")
    return sampled
