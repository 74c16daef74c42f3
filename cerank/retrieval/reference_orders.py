"""Orders of candidates that no model made, as rows beside re-rankers: the best possible one, and a random one."""

from __future__ import annotations

from collections.abc import Mapping

from cerank.core.rankings import Ranking
from cerank.core.seeds import derive

ORACLE, RANDOM = "oracle", "random-order"
REFERENCE_ORDERS = {
    ORACLE: "the candidates in the order of their judgments: no re-ranker of these candidates can do better by nDCG",
    RANDOM: "the candidates in one random order: what a re-ranker without any knowledge gives",
}


def reference_order(name: str, candidates: Ranking, qrels: Mapping[str, Mapping[str, int]], seed: int) -> Ranking:
    """Return the candidates in one of `REFERENCE_ORDERS`.

    Args:
        name: which order. candidates: what a re-ranker would put in order. qrels: judgments, which decide the oracle's
        order; equal grades keep the candidates' order, unjudged ones count 0. seed: decides the random order.

    Example:
        >>> candidates = Ranking({"q": ["d1", "d2", "d3"]}, {"q": [3.0, 2.0, 1.0]})
        >>> reference_order("oracle", candidates, {"q": {"d3": 2, "d2": 1}}, 42)["q"]
        ('d3', 'd2', 'd1')
    """
    documents: dict[str, list[str]] = {}
    for query in candidates:
        if name == ORACLE:
            grades = qrels.get(query, {})
            documents[query] = sorted(candidates[query], key=lambda doc: -max(grades.get(doc, 0), 0))
        else:
            documents[query] = sorted(candidates[query], key=lambda doc: derive(seed, "random order", query, doc))
    return Ranking(documents, {query: [float(-rank) for rank in range(len(docs))] for query, docs in documents.items()})
