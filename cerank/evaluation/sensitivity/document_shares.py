"""What each document gives to a measure's value of one query, so that differences can be told document by document.

Invariant: the shares of a ranking's documents sum to the measure's value. nDCG, P, R and Rprec are sums over documents
by themselves; AP is the sum of the precisions at the relevant ones; RR and Success belong to the first relevant one.
Any other measure is refused, for its value is no sum over documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cerank.errors import UsageError
from cerank.evaluation import measures as by_name

ADDITIVE = ("nDCG", "RR", "AP", "P", "R", "Success", "Rprec")


class SummedMeasure(msgspec.Struct, frozen=True):
    """A measure that is a sum over documents."""

    kind: str  # one of ADDITIVE
    cutoff: int | None
    rel: int
    is_condensed: bool  # unjudged documents are taken out first


class DocumentShare(msgspec.Struct, frozen=True, kw_only=True):
    """One document in two rankings of a query."""

    document: str
    grade: int | None  # None: not judged
    left_rank: int | None  # from 1, in the whole ranking; None: it is not there
    right_rank: int | None
    left: float  # what it gives to the measure's value there
    right: float

    @property
    def difference(self) -> float:
        """Return its part of the difference."""
        return self.right - self.left


def shape_of(measure: str) -> SummedMeasure:
    """Return how a measure is a sum over documents.

    Raises:
        UsageError: it is none that this module knows.
    """
    known = by_name.additive(measure)
    if known is None or known.kind not in ADDITIVE:
        raise UsageError(
            f"{measure} cannot be told document by document: its value is no sum over documents that cerank knows",
            hint=f"measures that can: {', '.join(ADDITIVE)}",
            code="measure-not-a-sum",
        )
    return SummedMeasure(known.kind, known.cutoff, known.rel, by_name.is_condensed(measure))


def shares(shape: SummedMeasure, grades: Mapping[str, int], ranking: Sequence[str]) -> dict[str, float]:
    """Return document -> what it gives to the measure's value of a query; those that give nothing are left out.

    Args:
        shape: of the measure.
        grades: the query's judgments.
        ranking: its documents in order.
    """
    docs = [doc for doc in ranking if doc in grades] if shape.is_condensed else list(ranking)
    relevant = sum(grade >= shape.rel for grade in grades.values())
    docs = docs[: relevant if shape.kind == "Rprec" else shape.cutoff]
    if shape.kind == "nDCG":
        ideal = ideal_dcg(grades.values(), shape.cutoff)
        gains = {doc: grades.get(doc, 0) / math.log2(rank + 1) for rank, doc in enumerate(docs, 1)}
        return {doc: gain / ideal for doc, gain in gains.items() if gain > 0 and ideal > 0}
    hits = [(rank, doc) for rank, doc in enumerate(docs, 1) if grades.get(doc, shape.rel - 1) >= shape.rel]
    if shape.kind in {"RR", "Success"}:
        return {doc: 1 / rank if shape.kind == "RR" else 1.0 for rank, doc in hits[:1]}
    if shape.kind == "AP":
        return {doc: hit / rank / relevant for hit, (rank, doc) in enumerate(hits, 1)}
    total = (shape.cutoff or 1) if shape.kind == "P" else relevant
    return {doc: 1 / total for _, doc in hits}


def ideal_dcg(grades: Iterable[int], cutoff: int | None) -> float:
    """Return the DCG of the best order of the judged documents."""
    gains = sorted((grade for grade in grades if grade > 0), reverse=True)[:cutoff]
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def value(shape: SummedMeasure, grades: Mapping[str, int], ranking: Sequence[str]) -> float:
    """Return the measure's value of a query."""
    return math.fsum(shares(shape, grades, ranking).values())


def decomposed(
    measure: str, grades: Mapping[str, int], left: Sequence[str], right: Sequence[str]
) -> tuple[DocumentShare, ...]:
    """Return the documents of a query that differ between two rankings, the largest part of the difference first.

    Their differences sum to that of the measure. Unjudged documents that only one side has within the cutoff are among
    them, with 0, for they stand where others could.

    Raises:
        UsageError: the measure is no sum over documents.
    """
    shape = shape_of(measure)
    first, second = shares(shape, grades, left), shares(shape, grades, right)
    ranks = [{doc: rank for rank, doc in enumerate(side, 1)} for side in (left, right)]
    cut = [set(side[: shape.cutoff]) for side in (left, right)]
    unjudged = [] if shape.is_condensed else sorted(doc for doc in cut[0] ^ cut[1] if doc not in grades)
    parts = [
        DocumentShare(
            document=doc,
            grade=grades.get(doc),
            left_rank=ranks[0].get(doc),
            right_rank=ranks[1].get(doc),
            left=first.get(doc, 0.0),
            right=second.get(doc, 0.0),
        )
        for doc in dict.fromkeys([*first, *second, *unjudged])
    ]
    moved = [part for part in parts if part.difference or part.grade is None]
    return tuple(sorted(moved, key=lambda part: (-abs(part.difference), part.document)))
