"""Pooling gives metafor's values, which are stored here with the code that made them, and refuses what says nothing.

library(metafor)  # 3.8-1, R 4.2.2
show <- function(yi, vi) for (test in c("knha", "adhoc")) {
  res <- rma(yi, vi, method="REML", test=test, control=list(threshold=1e-12, maxiter=10000))
  ci <- confint(res, control=list(tol=1e-14))$random
  print(c(res$b, res$se, res$ci.lb, res$ci.ub, res$pval, res$tau2, res$I2, res$QE, res$QEp, ci["tau^2", 2:3]))
}
show(escalc(measure="RR", ai=tpos, bi=tneg, ci=cpos, di=cneg, data=dat.bcg)[, c("yi", "vi")])
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from cerank.errors import UsageError
from cerank.evaluation.studies.random_effects import pool

BCG = (  # dat.bcg: log relative risks of thirteen vaccine trials, and their variances
    [
        *(-0.889311333920205, -1.585388657201431, -1.348073148299693, -1.441551190021305, -0.217547322211296),
        *(-0.786115585818864, -1.620898223598392, 0.011952333523841, -0.469417648738149, -1.371344803472784),
        *(-0.339358828338391, 0.445913400571379, -0.017313948216880),
    ],
    np.sqrt(
        [
            *(0.325584765003961, 0.194581121398144, 0.415367965367965, 0.020010031902248, 0.051210172169631),
            *(0.006905618455909, 0.223017247572315, 0.003961579297818, 0.056434210463249, 0.073024793613029),
            *(0.012412213971560, 0.532505845200153, 0.071404659683986),
        ]
    ).tolist(),
)
THREE = [0.031, 0.012, -0.004], [0.011, 0.009, 0.006]
ALIKE = [0.020, 0.022, 0.018], [0.011, 0.009, 0.010]
TWO = [0.031, 0.002], [0.011, 0.009]
TEN = (
    [0.02, 0.035, -0.01, 0.05, 0.01, 0.0, 0.03, 0.015, 0.06, -0.02],
    [0.01, 0.015, 0.02, 0.012, 0.008, 0.011, 0.02, 0.009, 0.025, 0.014],
)
# mean, its standard errors by "knha" and "adhoc", tau2 with its interval, I2 in %, Q
METAFOR = [
    (BCG, -0.714532342, 0.180791744, 0.180791744, 0.313243258, 0.119718361, 1.111479084, 92.221384521, 152.233008082),
    (THREE, 0.011378771, 0.010056457, 0.010062457, 0.0002284, 0.0000092, 0.012044975, 76.09904359, 8.38733673),
    (ALIKE, 0.020153262, 0.001203442, 0.005715672, 0.0, 0.0, 0.00006766, 0.0, 0.088663711),
    (TWO, 0.015810345, 0.01448359, 0.01448359, 0.0003195, 0.0, 0.428076602, 75.98097503, 4.163366337),
    (TEN, 0.017166658, 0.007381508, 0.007381508, 0.000305475, 0.000053235, 0.001839863, 66.921261575, 24.366226745),
]  # fmt: skip


@pytest.mark.parametrize(("data", "mean", "knha", "adhoc", "tau2", "low", "high", "i2", "q"), METAFOR)
def test_the_pooled_mean_its_error_and_the_scatter_are_metafors(data, mean, knha, adhoc, tau2, low, high, i2, q):
    plain, careful = pool(*data, is_never_narrower=False), pool(*data)
    assert plain.estimate.difference == pytest.approx(mean, abs=1e-8)
    assert plain.estimate.error == pytest.approx(knha, abs=1e-8)
    assert careful.estimate.error == pytest.approx(adhoc, abs=1e-8)
    assert careful.tau2 == pytest.approx(tau2, abs=1e-8)
    assert (careful.tau2_low, careful.tau2_high) == pytest.approx((low, high), abs=2e-8)
    assert 100 * careful.i2 == pytest.approx(i2, abs=1e-5)
    assert careful.q == pytest.approx(q)
    assert careful.estimate.df == len(data[0]) - 1


def test_interval_and_p_are_metafors():
    found = pool(*BCG)
    assert found.estimate.interval(0.05) == pytest.approx((-1.108443713686, -0.320620970631), abs=1e-8)
    assert found.estimate.p() == pytest.approx(0.00192001509606, abs=1e-8)
    assert found.p_q == pytest.approx(1.99676459085e-26)
    few = pool(*ALIKE)
    assert few.estimate.interval(0.05) == pytest.approx((-0.004439291916, 0.044745815032), abs=1e-8)


def test_the_prediction_interval_is_metafors_width_at_two_degrees_of_freedom_fewer_than_collections():
    """Metafor gives -0.0257524576 to 0.0600857729 with k - 1; Higgins, Thompson and Spiegelhalter (2009) take k - 2."""
    low, high = pool(*TEN).prediction
    ratio = stats.t.ppf(0.975, 8) / stats.t.ppf(0.975, 9)
    assert high - low == pytest.approx((0.0600857729 + 0.0257524576) * ratio, abs=1e-8)
    assert (low + high) / 2 == pytest.approx(0.017166657642, abs=1e-8)
    assert pool(*TWO).prediction is None


def test_at_the_scatter_that_was_found_statsmodels_comes_to_the_same_mean_and_error():
    found = pool(*TEN, is_never_narrower=False)
    theirs = combine_effects(np.array(TEN[0]), np.array(TEN[1]) ** 2 + found.tau2, method_re="dl", use_t=True)
    assert theirs.mean_effect_fe == pytest.approx(found.estimate.difference)
    assert theirs.sd_eff_w_fe_hksj == pytest.approx(found.estimate.error)


def test_equal_collections_weigh_the_same_and_a_precise_one_more():
    assert pool([0.1, 0.1, 0.1], [0.02, 0.02, 0.02]).weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    weights = pool([0.1, 0.1, 0.1], [0.01, 0.02, 0.02]).weights
    assert weights[0] == pytest.approx(4 * weights[1])
    assert math.fsum(weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("differences", "errors"),
    [([0.1], [0.02]), ([], []), ([0.1, 0.2], [0.1, 0.0]), ([0.1, 0.2], [0.1]), ([math.nan, 0.1], [0.1, 0.1])],
)
def test_one_collection_or_one_without_spread_is_refused(differences, errors):
    with pytest.raises(UsageError):
        pool(differences, errors)
