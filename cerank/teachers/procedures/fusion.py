"""Merges the rankings of several teachers: mean of standardized scores, reciprocal ranks, or Kemeny's rule."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from cerank.core.rankings import Ranking, ordered
from cerank.retrieval.rank_fusion import reciprocal_ranks
from cerank.teachers.procedures import kemeny


def merge(rankings: Sequence[Ranking], how: Literal["mean", "rrf", "kemeny"]) -> Ranking:
    """Return one ranking of the queries that all have; each ranks the same documents of a query.

    mean: of each teacher's scores, standardized over the query's documents, for teachers differ in scale. rrf: the sum
    of 1 / (60 + rank). kemeny: the order with the least disagreement, counted in pairs. Ties keep the first's order.
    """
    first = rankings[0]
    documents: dict[str, Sequence[str]] = {}
    scores: dict[str, Sequence[float]] = {}
    for query in first:
        docs = first[query]
        if how == "kemeny":
            places = {doc: place for place, doc in enumerate(docs)}
            order = kemeny.merge([[places[doc] for doc in ranking[query]] for ranking in rankings])
            documents[query] = [docs[place] for place in order]
            scores[query] = [float(len(docs) - rank) for rank in range(len(docs))]
            continue
        row = dict.fromkeys(docs, 0.0)
        for ranking in rankings:
            for doc, value in zip(ranking[query], _values(ranking, query, how), strict=True):
                row[doc] += value / len(rankings)
        single = ordered({query: row}, first)
        documents[query], scores[query] = single[query], single.scores(query)
    return Ranking(documents, scores)


def _values(ranking: Ranking, query: str, how: str) -> list[float]:
    """Return what each document of a query gets from one teacher, in its order."""
    scores = ranking.scores(query)
    if how == "rrf":
        return reciprocal_ranks(len(scores))
    middle, spread = statistics.fmean(scores), statistics.pstdev(scores)
    return [(score - middle) / spread if spread else 0.0 for score in scores]
