"""Power, detectable differences and queries needed agree with G*Power's and scipy's figures and with simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import nctdtr
from statsmodels.stats.power import TTestPower

from cerank.errors import UsageError
from cerank.evaluation import power
from tests.refusals import refused


@pytest.mark.parametrize(
    ("n", "smallest", "at_a_tenth", "margin"),
    [
        (43, 0.437, 0.584, 0.453),
        (50, 0.404, 0.538, 0.420),
        (54, 0.388, 0.516, 0.404),
        (97, 0.287, 0.378, 0.299),
        (6980, 0.034, 0.044, 0.035),
    ],
)
def test_the_figures_of_the_fields_survey_come_out(n, smallest, at_a_tenth, margin):
    assert power.smallest_difference(n, 1.0) == pytest.approx(smallest, abs=5.1e-4)
    assert power.smallest_difference(n, 1.0, alpha=0.005) == pytest.approx(at_a_tenth, abs=5.1e-4)
    assert power.smallest_margin(n, 1.0) == pytest.approx(margin, abs=1.1e-3)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_queries_needed_are_those_g_power_prints_for_cohens_small_medium_and_large_effects(effect, n):
    assert power.queries_for_difference(effect, 1.0) == n


@pytest.mark.parametrize(("delta", "sd", "n"), [(0.01, 0.1, 787), (0.01, 0.05, 199), (0.02, 0.1, 199)])
def test_queries_needed_for_differences_of_ndcg(delta, sd, n):
    assert power.queries_for_difference(delta, sd) == n
    assert power.power_of_difference(n, delta, sd) >= 0.8 > power.power_of_difference(n - 1, delta, sd)


@pytest.mark.parametrize("n", [3, 10, 43, 500, 6980])
@pytest.mark.parametrize("nc", [0.0, 0.5, 2.8, 6.0])
def test_power_is_that_of_scipys_noncentral_t_and_of_statsmodels(n, nc):
    effect, critical = nc / math.sqrt(n), stats.t.ppf(0.975, n - 1)
    found = power.power_of_difference(n, effect, 1.0)
    assert found == pytest.approx(stats.nct.sf(critical, n - 1, nc) + stats.nct.cdf(-critical, n - 1, nc), abs=1e-9)
    assert found == pytest.approx(TTestPower().power(effect, n, 0.05), abs=1e-9)


def test_a_huge_noncentrality_gives_one_where_scipy_gives_nan():
    assert math.isnan(nctdtr(42, 40, 2.0))
    assert power.power_of_difference(43, 40 / math.sqrt(43), 1.0) == pytest.approx(1.0, abs=1e-12)
    assert power.t_below(2.0, 42, 40) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("df", "t", "nc"), [(1, 12.7, 3), (3, 3.18, 5), (42, 2.0, 2.8), (53, -6.6, -6), (6979, 1.96, 2.8)]
)
def test_the_noncentral_t_is_scipys_where_scipy_has_one(df, t, nc):
    assert power.t_below(t, df, nc) == pytest.approx(stats.nct.cdf(t, df, nc), abs=1e-10)


@pytest.mark.parametrize(("n", "margin", "true"), [(43, 0.454, 0.0), (20, 0.6, 0.2), (43, 0.2, 0.0), (200, 0.25, 0.25)])
def test_power_of_equivalence_is_that_of_an_integral_over_the_sample_sd(n, margin, true):
    error, c = 1 / math.sqrt(n), stats.t.ppf(0.95, n - 1)

    def rejected(s: float) -> float:
        inside = stats.norm.cdf((margin - true) / error - c * s) - stats.norm.cdf(-(margin + true) / error + c * s)
        return max(inside, 0.0) * stats.chi.pdf(s * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)

    expected = quad(rejected, 0, margin / error / c, epsabs=1e-12, limit=200)[0]
    assert power.power_of_equivalence(n, margin, 1.0, true) == pytest.approx(expected, abs=1e-8)


def test_power_of_equivalence_is_what_simulated_tests_show():
    d = np.random.default_rng(1).standard_normal((20_000, 43))
    error = d.std(axis=1, ddof=1) / math.sqrt(43)
    share = np.mean((0.454 - abs(d.mean(axis=1))) / error > stats.t.ppf(0.95, 42))
    assert power.power_of_equivalence(43, 0.454, 1.0) == pytest.approx(share, abs=4 * math.sqrt(0.16 / 20_000))


def test_power_at_the_margin_itself_is_at_most_alpha():
    assert 0.049 < power.power_of_equivalence(6980, 0.1, 1.0, true=0.1) <= 0.05 + 1e-9
    assert power.power_of_equivalence(10, 0.1, 1.0, true=0.1) < 0.05


def test_an_estimate_of_power_holds_what_a_planner_asks():
    found = power.power_estimate(43, 0.1, difference=0.01, margin=0.02)
    assert (found.queries_for_difference, found.smallest_difference) == (787, pytest.approx(0.0437, abs=1e-4))
    assert found.power_for_difference == pytest.approx(0.098, abs=1e-3)
    assert found.power_for_margin < 0.01
    assert power.power_estimate(43, 0.1, tests=10).smallest_difference == pytest.approx(0.0584, abs=1e-4)


def test_no_number_of_queries_is_promised_for_nothing():
    assert power.queries_for_difference(0.0, 0.1) is None
    assert power.queries_for_difference(1e-9, 0.1) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"queries": 1, "sd": 0.1}, "too-few-queries 2"),
        ({"queries": 43, "sd": 0.0}, "spread-out-of-range 0"),
        ({"queries": 43, "sd": math.nan}, "spread-out-of-range 0"),
        ({"queries": 43, "sd": 0.1, "alpha": 0.0}, "alpha-out-of-range"),
        ({"queries": 43, "sd": 0.1, "power": 1.0}, "power-out-of-range"),
        ({"queries": 43, "sd": 0.1, "margin": -0.1}, "margin-out-of-range 0"),
        ({"queries": 43, "sd": 0.1, "tests": 0}, "family-out-of-range 1"),
    ],
)
def test_numbers_out_of_range_are_refused(given, said):
    with refused(UsageError, *said.split()):
        power.power_estimate(**given)


def test_the_spread_of_given_runs_is_their_differences_sd_and_refused_where_there_is_none():
    assert power.spread_of([0.1, 0.2, 0.3], [0.2, 0.2, 0.5]) == pytest.approx(0.1)
    with refused(UsageError, "no-spread"):
        power.spread_of([0.1, 0.2], [0.1, 0.2])
