"""Secondary tests agree with published examples (Darwin's maize, R's sleep), scipy and pingouin."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy import stats

from cerank.evaluation.secondary_tests import bca, effect_interval, posterior, randomization, secondary, sign, wilcoxon
from cerank.evaluation.significance import Estimate, estimate_of, paired
from tests.work import steps_of

DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)
SLEEP = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
_FEW_LARGE = (-0.112, 0.134, 0.095, 0.183, -0.103, -0.076, 0.18, -0.153, -0.096, 0.075, 0.103, -0.144, -0.078, -0.109)
_SMALL = (-0.06, -0.005, 0.062, 0.031, -0.035, -0.058, 0.047, 0.04, 0.012, -0.043, -0.029, -0.051, 0.014, -0.039, 0.061)
_SMALLER = (-0.006, 0.003, 0.022, 0.016)
SPREAD = np.array([*_FEW_LARGE, *_SMALL, *_SMALLER, *[0.0] * 7])
MANY = np.random.default_rng(0).normal(0.001, 0.1, 6980)


def test_randomization_of_darwins_maize_is_fishers_count_of_863_in_32768():
    assert randomization(DARWIN, rounds=2**15) == 2 * 863 / 2**15  # The Design of Experiments, section 21


def test_sampled_randomization_comes_near_the_exact_one_and_adds_one():
    assert randomization(DARWIN, rounds=20_000, seed=3) == pytest.approx(2 * 863 / 2**15, abs=0.006)
    assert randomization(np.ones(60), rounds=999) == 1 / 1000


@pytest.mark.parametrize("n", [2, 5, 8, 9, 11])
def test_exact_randomization_is_that_of_all_flips_and_of_scipy(n):
    d = np.random.default_rng(n).normal(0.3, 1, n).round(1)
    flips = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in product((1, -1), repeat=n)]
    expected = np.mean([value >= abs(d.sum()) - 1e-9 for value in flips])
    assert randomization(d) == pytest.approx(expected)
    scipy = stats.permutation_test(
        (d, np.zeros(n)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=10**5
    )
    assert randomization(d) == pytest.approx(scipy.pvalue, abs=1e-9)


def test_ten_thousand_flips_of_6980_queries_take_a_step_for_eight_queries_and_little_memory():
    tracemalloc.start()
    p, steps = steps_of(lambda: randomization(MANY))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert steps < 6980 / 2
    assert peak < 64 << 20  # the signs of all flips at once would be 6980 * 9,999 numbers
    assert p == pytest.approx(stats.ttest_1samp(MANY, 0).pvalue, abs=0.02)


def test_wilcoxon_of_darwins_maize_is_the_published_one():
    assert stats.wilcoxon(DARWIN).statistic == 24  # two negative ranks, 10 and 14
    assert wilcoxon(DARWIN) == pytest.approx(0.0412598, abs=1e-6)  # R: wilcox.test(..., exact = TRUE)


def test_wilcoxon_ranks_zeros_before_it_drops_them():
    assert wilcoxon(SPREAD) == pytest.approx(stats.wilcoxon(SPREAD, zero_method="pratt").pvalue)
    assert wilcoxon(SPREAD, "zsplit") == pytest.approx(stats.wilcoxon(SPREAD, zero_method="zsplit").pvalue)
    assert wilcoxon(np.zeros(5)) == 1.0


@pytest.mark.parametrize("d", [DARWIN, SLEEP, SPREAD, -SPREAD, np.array([1.0, -1.0]), np.array([0.0, 2.0])])
def test_the_sign_test_is_scipys_binomial(d):
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    assert sign(d) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)


def test_the_sign_test_of_nothing_is_one():
    assert sign(np.zeros(4)) == 1.0


@pytest.mark.parametrize("d", [SPREAD, SLEEP, np.random.default_rng(2).exponential(1, 50)])
def test_the_bca_interval_is_scipys_within_resampling_error(d):
    found = bca(d, rounds=20_000)
    expected = stats.bootstrap(
        (d,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    tolerance = 0.06 * d.std() / np.sqrt(d.size)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=tolerance * 2)


def test_the_bca_interval_of_a_symmetric_large_sample_is_the_t_interval():
    t = stats.ttest_1samp(MANY, 0).confidence_interval()
    found = bca(MANY, rounds=4000)
    assert (found.low, found.high) == pytest.approx((t.low, t.high), abs=1.5e-4)


def test_the_bca_interval_of_one_value_repeated_is_that_value():
    found = bca(np.full(5, 0.25))
    assert (found.low, found.high) == (0.25, 0.25)


def estimated(d: np.ndarray) -> Estimate:
    return estimate_of(paired(np.zeros(d.size), d))


@pytest.mark.parametrize(
    ("difference", "p", "left", "within", "right"),  # pairs of runs of TREC DL 2019, 43 queries, margin .02
    [
        (-0.0174, 0.352, 0.445, 0.531, 0.025),
        (-0.0349, 0.060, 0.793, 0.205, 0.002),
        (-0.0076, 0.654, 0.234, 0.711, 0.055),
        (0.0098, 0.601, 0.058, 0.650, 0.292),
    ],
)
def test_the_posterior_is_that_of_the_mean_difference(difference, p, left, within, right):
    error = abs(difference) / stats.t.isf(p / 2, 42)
    found = posterior(Estimate(difference=difference, error=error, df=42), 0.02)
    assert (found.left, found.within, found.right) == pytest.approx((left, within, right), abs=0.004)
    assert found.right == pytest.approx(stats.t.sf(0.02, 42, difference, error), rel=1e-9)


def test_the_posterior_of_what_is_within_the_tost_interval_is_at_least_ninety_percent():
    estimate = estimated(SPREAD)
    low, high = estimate.interval(0.10)
    assert posterior(estimate, max(-low, high)).within >= 0.9


@pytest.mark.parametrize("d", [SPREAD, SLEEP, DARWIN])
def test_the_interval_of_the_effect_inverts_scipys_noncentral_t(d):
    figures = paired(np.zeros(d.size), d)
    found = effect_interval(figures)
    root = np.sqrt(d.size)
    assert stats.nct.cdf(figures.t, d.size - 1, found.low * root) == pytest.approx(0.975, abs=1e-8)
    assert stats.nct.cdf(figures.t, d.size - 1, found.high * root) == pytest.approx(0.025, abs=1e-8)


def test_the_interval_of_a_small_effect_is_near_pingouins_and_a_huge_one_is_finite():
    found = effect_interval(paired(np.zeros(40), SPREAD))  # pingouin 0.7.0 compute_esci approximates: -.358, .282
    assert (found.low, found.high) == pytest.approx((-0.358, 0.282), abs=0.015)
    huge = effect_interval(paired(np.zeros(60), 1 + 1e-3 * np.random.default_rng(0).standard_normal(60)))
    assert 0 < huge.low < 1000 < huge.high * 1.5
    assert effect_interval(paired([0.1, 0.2], [0.2, 0.3])) is None


def test_all_secondary_figures_are_a_function_of_the_seed():
    first = secondary(SPREAD, 0.95, estimate=estimated(SPREAD), rope=0.01, seed=7, rounds=499)
    assert secondary(SPREAD, 0.95, estimate=estimated(SPREAD), rope=0.01, seed=7, rounds=499) == first
    assert secondary(SPREAD, 0.95, estimate=estimated(SPREAD), rope=0.01, seed=8, rounds=499) != first
    assert secondary(SPREAD, 0.95, estimate=estimated(SPREAD), rope=None, seed=7, rounds=499).posterior is None
