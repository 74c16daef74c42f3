"""Fuse several rankings into one: by their ranks, by their scores, or by any method of ranx.

Reciprocal rank fusion, the weighted sum and interpolation are a few lines and computed here; everything else is ranx's
own code, an extra, imported when one of its methods is asked for (its import takes seconds).

Invariant: the same rankings give the same ranking; ties fall to the smaller document id.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from cerank.core.rankings import Ranking, ordered
from cerank.errors import MissingError, UsageError
from cerank.registry import nearest

RRF, WEIGHTED_SUM, INTERPOLATE = "rrf", "wsum", "interpolate"
# ranx's methods that need neither judgments nor weights: method -> its name in ranx
BY_RANX = {
    "combsum": "sum",
    "combmnz": "mnz",
    "combgmnz": "gmnz",
    "combanz": "anz",
    "combmax": "max",
    "combmin": "min",
    "combmed": "med",
    "isr": "isr",
    "log-isr": "log_isr",
    "logn-isr": "logn_isr",
    "bordafuse": "bordafuse",
    "condorcet": "condorcet",
}
_BY_RANK = ("isr", "log-isr", "logn-isr", "bordafuse", "condorcet")  # scores are not looked at
METHODS = (RRF, WEIGHTED_SUM, INTERPOLATE, *BY_RANX)
INTERPOLATED = "interpolated"  # begins the tag of an interpolated run, which says its weight
RRF_K = 60  # Cormack, Clarke and Büttcher 2009

Scores = Mapping[str, Mapping[str, float]]


def check_method(method: str) -> None:
    """Refuse a method of fusion that does not exist.

    Raises:
        UsageError: it does not; the hint names the nearest.
    """
    if method not in METHODS:
        what = f"no method of fusion is called '{method}'"
        raise UsageError(what, where="--method", hint=nearest(method, METHODS), code="fusion-method-unknown")


def reciprocal_ranks(count: int, k: int = RRF_K) -> list[float]:
    """Return what reciprocal rank fusion gives the documents of one ranking: 1 / (k + rank), ranks from 1.

    Example:
        >>> [round(value, 4) for value in reciprocal_ranks(2)]
        [0.0164, 0.0161]
    """
    return [1 / (k + rank) for rank in range(1, count + 1)]


def rrf(rankings: Sequence[Ranking], k: int = RRF_K) -> Ranking:
    """Return the documents by the sum of 1 / (k + rank) over the rankings.

    Example:
        >>> one = Ranking({"q": ["a", "b"]}, {"q": [2.0, 1.0]})
        >>> other = Ranking({"q": ["b", "c"]}, {"q": [9.0, 8.0]})
        >>> rrf([one, other])["q"]
        ('b', 'a', 'c')
    """
    fused: dict[str, dict[str, float]] = {}
    for ranking in rankings:
        for query in ranking:
            row = fused.setdefault(query, {})
            for doc, value in zip(ranking[query], reciprocal_ranks(len(ranking[query]), k), strict=True):
                row[doc] = row.get(doc, 0.0) + value
    return ordered(fused)


def min_max(ranking: Ranking) -> dict[str, dict[str, float]]:
    """Return the scores of each query moved to 0..1; where all are equal, they are 0, as in ranx."""
    out = {}
    for query in ranking:
        scores = ranking.scores(query)
        low, width = min(scores, default=0.0), max(max(scores, default=0.0) - min(scores, default=0.0), 1e-9)
        out[query] = {doc: (score - low) / width for doc, score in zip(ranking[query], scores, strict=True)}
    return out


def weighted_sum(scores: Sequence[Scores], weights: Sequence[float]) -> Ranking:
    """Return the documents by the weighted sum of their scores; a document that a list lacks has 0 there."""
    fused: dict[str, dict[str, float]] = {}
    for each, weight in zip(scores, weights, strict=True):
        for query, of_query in each.items():
            row = fused.setdefault(query, {})
            for doc, score in of_query.items():
                row[doc] = row.get(doc, 0.0) + weight * score
    return ordered(fused)


def interpolated(first: Ranking, reranked: Ranking, alpha: float) -> Ranking:
    """Return the re-ranked documents by alpha x their score + (1 - alpha) x that of the first stage, each in 0..1.

    Only documents that were re-ranked take part: below them the re-ranker says nothing.

    Example:
        >>> first = Ranking({"q": ["a", "b", "c"]}, {"q": [3.0, 2.0, 1.0]})
        >>> reranked = Ranking({"q": ["c", "b", "a"]}, {"q": [0.9, 0.8, 0.0]})
        >>> interpolated(first, reranked, 0.5)["q"], interpolated(first, reranked, 1.0)["q"]
        (('b', 'a', 'c'), ('c', 'b', 'a'))
    """
    documents, scores = {}, {}
    for query in reranked:
        reranked_docs = set(reranked[query])
        pairs = [
            pair for pair in zip(first.get(query, ()), _scores(first, query), strict=True) if pair[0] in reranked_docs
        ]
        documents[query], scores[query] = [doc for doc, _ in pairs], [score for _, score in pairs]
    return weighted_sum([min_max(reranked), min_max(Ranking(documents, scores))], [alpha, 1 - alpha])


def _scores(ranking: Ranking, query: str) -> tuple[float, ...]:
    return ranking.scores(query) if query in ranking else ()


def fuse_by_ranx(rankings: Sequence[Ranking], method: str) -> Ranking:
    """Return what ranx makes of the rankings by one of `BY_RANX`, scores moved to 0..1 before where they count.

    Raises:
        MissingError: ranx is not installed.
    """
    try:
        from ranx import Run, fuse
    except ImportError as error:
        what = f"the method '{method}' is ranx's, and ranx is not installed"
        hint = f"pip install 'cerank[fusion]', or take {RRF} or {WEIGHTED_SUM}"
        raise MissingError(what, where="--method", hint=hint, code="ranx-missing") from error
    by_members: dict[tuple[int, ...], list[str]] = {}  # ranx refuses runs of different queries
    for query in dict.fromkeys(query for ranking in rankings for query in ranking):
        members = tuple(place for place, ranking in enumerate(rankings) if ranking.get(query))
        by_members.setdefault(members, []).append(query)
    fused: dict[str, Mapping[str, float]] = {}
    for members, queries in by_members.items():
        rows = [{query: _row(rankings[place], query) for query in queries} for place in members]
        if len(rows) > 1:
            runs: list[Any] = [Run(row) for row in rows]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numba says of ranx's own loops that 64 bits are cast
                made = fuse(runs, norm=None if method in _BY_RANK else "min-max", method=BY_RANX[method])
            fused |= made.to_dict()
        elif rows:  # a query of one ranking alone keeps its order
            fused |= rows[0]
    return ordered(fused)


def _row(ranking: Ranking, query: str) -> dict[str, float]:
    return dict(zip(ranking[query], map(float, ranking.scores(query)), strict=True))
