"""Features of queries against scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cerank.evaluation.sensitivity.query_features import correlations


def test_correlations_are_those_of_scipy_adjusted_by_holm():
    random = np.random.default_rng(0)
    d = {f"q{at}": float(value) for at, value in enumerate(random.normal(0, 1, 30))}
    words = {query: float(round(3 + value + random.normal(0, 1))) for query, value in d.items()}
    relevant = {query: float(random.integers(1, 9)) for query in d}
    found = correlations(d, {"relevant": relevant, "words": words})
    assert [each.feature for each in found] == ["words", "relevant"]  # in the order that is fixed
    expected = [stats.spearmanr(list(each.values()), list(d.values())) for each in (words, relevant)]
    assert [each.rho for each in found] == pytest.approx([each.statistic for each in expected])
    assert [each.p for each in found] == pytest.approx([each.pvalue for each in expected])
    adjusted = multipletests([each.pvalue for each in expected], method="holm")[1]
    assert [each.p_corrected for each in found] == pytest.approx(list(adjusted))


def test_a_feature_without_spread_or_with_few_queries_has_no_correlation():
    d = {f"q{at}": float(at) for at in range(8)}
    found = correlations(d, {"words": dict.fromkeys(d, 2.0), "judged": {"q0": 1.0, "q1": 0.5}})
    assert [(each.feature, each.queries, each.rho, each.p_corrected) for each in found] == [
        ("words", 8, None, None),
        ("judged", 2, None, None),
    ]
    assert correlations(d, {}) == ()
