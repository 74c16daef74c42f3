"""Which kinds of queries a difference comes from: rank correlations with features that were fixed beforehand.

Invariant: the list of features is fixed here, not chosen by their p; all of one row are adjusted together (Holm).
Correlations are no causes, and none of this makes a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cerank.evaluation import multiple_testing

FEATURES = {
    "words": "words of the query",
    "relevant": "relevant documents",
    "first_stage": "first stage's measure",
    "judged": "share judged within the cutoff",
}
LEAST = 5  # queries, below which no correlation is computed


class FeatureCorrelation(msgspec.Struct, frozen=True, kw_only=True):
    """Spearman's correlation of a feature with the differences."""

    feature: str  # one of FEATURES
    queries: int
    rho: float | None  # None where the feature is the same for all queries, or there are too few
    p: float | None
    p_corrected: float | None


def correlations(
    differences: Mapping[str, float], features: Mapping[str, Mapping[str, float]], alpha: float = 0.05
) -> tuple[FeatureCorrelation, ...]:
    """Return the correlation of each feature with the differences, in the order of `FEATURES`.

    Args:
        differences: query -> right minus left.
        features: feature -> query -> value; a feature that is not known is left out.
        alpha: error rate of the features results.
    """
    from scipy.stats import spearmanr

    results: dict[str, tuple[int, float, float] | None] = {}
    sizes = {}
    for name in FEATURES:
        values = features.get(name)
        if values is None:
            continue
        queries = [query for query in differences if query in values]
        pairs: tuple[Sequence[float], Sequence[float]] = (
            [values[query] for query in queries],
            [differences[query] for query in queries],
        )
        sizes[name] = len(queries)
        if len(queries) < LEAST or any(len(set(side)) < 2 for side in pairs):
            results[name] = None
            continue
        result = spearmanr(*pairs)
        results[name] = len(queries), float(result.statistic), float(result.pvalue)
    known = [name for name, each in results.items() if each is not None]
    ps = [each[2] for each in results.values() if each is not None]
    adjusted = dict(zip(known, multiple_testing.corrected(ps, "holm", alpha=alpha).ps, strict=True)) if ps else {}
    return tuple(
        FeatureCorrelation(
            feature=name,
            queries=sizes[name],
            rho=None if each is None else each[1],
            p=None if each is None else each[2],
            p_corrected=adjusted.get(name),
        )
        for name, each in results.items()
    )
