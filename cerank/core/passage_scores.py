"""The scores of a document's passages, and how they become the score of the document.

A passage is called DOCUMENT%pN, N from 0, as in PyTerrier, whose passage aggregations read such a ranking.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

Aggregation: TypeAlias = Literal["MaxP", "FirstP", "SumP", "MeanP", "TopMeanP"]

AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
_MARK = "%p"


def passage_id(doc_id: str, number: int) -> str:
    """Return the id of a document's passage of that number, from 0.

    >>> passage_id("D7", 0)
    'D7%p0'
    """
    return f"{doc_id}{_MARK}{number}"


def passages_by_document(scores: Mapping[str, float]) -> dict[str, list[float]]:
    """Return document -> the scores of its passages, in their order, from scores of passages that are in order."""
    documents: dict[str, list[float]] = {}
    for passage, score in scores.items():
        documents.setdefault(passage.rpartition(_MARK)[0], []).append(score)
    return documents


def aggregate(aggregation: Aggregation, scores: Sequence[float], top: int) -> float:
    """Return the score of a document from those of its passages, of which there is at least one.

    Args:
        aggregation: "MaxP" takes the best, "FirstP" the first; "MeanP" the mean, "TopMeanP" the mean of the `top` best;
            "SumP" the sum of sigmoids, because a sum of scores below 0 would prefer short documents.
        scores: scores of the passages, in their order.
        top: how many passages "TopMeanP" takes; a document that has fewer has the mean of those.

    >>> aggregate("MaxP", [1.0, 3.0, 2.0], 2), aggregate("TopMeanP", [1.0, 3.0, 2.0], 2)
    (3.0, 2.5)
    """
    if aggregation == "MaxP":
        return max(scores)
    if aggregation == "FirstP":
        return scores[0]
    if aggregation == "SumP":
        return math.fsum(map(_sigmoid, scores))
    chosen = sorted(scores, reverse=True)[:top] if aggregation == "TopMeanP" else scores
    return math.fsum(chosen) / len(chosen)


def document_scores(
    passages: Mapping[str, Mapping[str, float]], aggregation: Aggregation, top: int
) -> dict[str, dict[str, float]]:
    """Return query -> document -> score, from query -> passage -> score."""
    return {
        query: {doc: aggregate(aggregation, scores, top) for doc, scores in passages_by_document(of_query).items()}
        for query, of_query in passages.items()
    }


def _sigmoid(score: float) -> float:
    """Return 1 / (1 + exp(-score)), without an overflow for scores far from 0."""
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    power = math.exp(score)
    return power / (1.0 + power)
