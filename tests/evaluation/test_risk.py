"""Risk beside the mean: against statsmodels, by hand, and on public runs of TREC DL 2020."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from cerank.evaluation.secondary_tests import queries_to_flip, risk, trisk, wilson

D = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05, 0.02, -0.01, -0.05])
QUERIES = tuple(f"q{place}" for place in range(D.size))


@pytest.mark.parametrize(("count", "n"), [(0, 5), (1, 9), (12, 54), (54, 54)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilsons_interval_is_that_of_statsmodels(count, n, confidence):
    expected = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
    assert wilson(count, n, confidence) == pytest.approx(expected, abs=1e-12)


def test_trisk_is_the_t_of_differences_whose_losses_count_twice():
    weighted = np.where(D < 0, 2 * D, D)
    assert trisk(D) == pytest.approx(stats.ttest_1samp(weighted, 0).statistic)
    assert trisk(np.full(4, 0.1)) is None


def test_losses_up_to_the_threshold_hurt_nobody():
    found = risk(D, QUERIES, threshold=0.02)
    assert (found.hurt, found.helped) == (1, 7)
    assert found.mean_loss == pytest.approx(-0.05)
    assert found.worst == ("q9", "q8")
    assert (risk(D, QUERIES).hurt, risk(np.abs(D), QUERIES).mean_loss) == (2, None)


def test_without_its_largest_gains_a_difference_is_not_shown_any_more():
    count = queries_to_flip(D)
    assert count is not None
    ordered = np.sort(D)
    assert stats.ttest_1samp(D, 0).pvalue <= 0.05
    assert stats.ttest_1samp(ordered[: D.size - count + 1], 0).pvalue <= 0.05
    assert stats.ttest_1samp(ordered[: D.size - count], 0).pvalue > 0.05
    assert queries_to_flip(-D) == count
    assert queries_to_flip(np.array([0.1, -0.1, 0.05, -0.06])) is None
