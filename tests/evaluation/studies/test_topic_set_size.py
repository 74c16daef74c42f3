"""The size of a test set is that of R's and statsmodels' analysis of variance, and of the definitions by simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import FTestAnovaPower

from cerank.errors import UsageError
from cerank.evaluation.studies.topic_set_size import (
    half_width,
    needed,
    pilot_variance,
    power_of_systems,
    queries_for_systems,
    queries_for_width,
)


@pytest.mark.parametrize(("systems", "n", "difference", "variance"), [(3, 20, 0.5, 0.25), (5, 96, 0.05, 0.01)])
def test_the_power_is_that_of_a_one_way_analysis_of_variance(systems, n, difference, variance):
    effect = difference / math.sqrt(2 * systems * variance)
    theirs = FTestAnovaPower().power(effect, systems * n, 0.05, k_groups=systems)
    assert power_of_systems(n, systems, difference, variance, is_blocked=False) == pytest.approx(theirs)


def test_the_numbers_are_those_of_r():
    """R 4.2.2: power.anova.test(groups=3, n=20, between.var=.125/2, within.var=.25) and with n=21; then
    power.anova.test(groups=5, between.var=.05^2/2/4, within.var=.01, power=.8), which asks for 96.4 queries.
    """
    powers = [power_of_systems(n, 3, 0.5, 0.25, is_blocked=False) for n in (20, 21)]
    assert powers == pytest.approx([0.793311837656, 0.814769693304], abs=1e-8)
    assert queries_for_systems(3, 0.5, 0.25, is_blocked=False) == 21
    assert queries_for_systems(5, 0.05, 0.01, is_blocked=False) == 97


def test_two_systems_on_shared_queries_need_what_a_paired_t_test_needs():
    """The residual variance is half that of the differences, and F with one degree of freedom is t squared."""
    from cerank.evaluation.power import queries_for_difference

    assert queries_for_systems(2, 0.03, 0.1**2 / 2) == queries_for_difference(0.03, 0.1)


def test_the_variance_is_statsmodels_residual_of_a_two_way_analysis():
    random = np.random.default_rng(4)
    scores = random.normal(0.5, 0.1, (4, 30)) + random.normal(0, 0.2, 30) + np.arange(4)[:, None] * 0.05
    pilot = pilot_variance(scores.tolist())
    system, query = np.indices(scores.shape)
    data = pandas.DataFrame({"y": scores.ravel(), "system": system.ravel(), "query": query.ravel()})
    fitted = anova_lm(smf.ols("y ~ C(system) + C(query)", data).fit())
    assert pilot.variance == pytest.approx(fitted["mean_sq"]["Residual"])
    assert pilot.df == fitted["df"]["Residual"]
    total = pilot.variance * pilot.df
    assert (pilot.low, pilot.high) == pytest.approx(
        (total / stats.chi2.ppf(0.975, pilot.df), total / stats.chi2.ppf(0.025, pilot.df))
    )


def test_the_expected_half_width_is_that_of_drawn_samples():
    drawn = np.random.default_rng(1).normal(0, math.sqrt(2 * 0.01), (20_000, 12))
    half = stats.t.ppf(0.975, 11) * drawn.std(axis=1, ddof=1) / math.sqrt(12)
    assert half_width(12, 0.01) == pytest.approx(half.mean(), rel=0.01)
    count = queries_for_width(0.03, 0.01)
    assert half_width(count, 0.01) <= 0.03 < half_width(count - 1, 0.01)


def test_the_ends_of_the_variance_lie_around_what_is_needed():
    pilot = pilot_variance(np.random.default_rng(2).normal(0.5, 0.1, (5, 54)).tolist())
    size = needed(lambda variance: queries_for_systems(5, 0.05, variance), pilot)
    assert size.low < size.queries < size.high


@pytest.mark.parametrize("scores", [[[0.1, 0.2]], [[0.1], [0.2]], [[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]]])
def test_a_pilot_that_has_no_spread_is_refused(scores):
    with pytest.raises(UsageError):
        pilot_variance(scores)


def test_impossible_wishes_are_refused():
    for wish in ((1, 0.1, 0.01), (3, 0.0, 0.01), (3, 0.1, 0.0)):
        with pytest.raises(UsageError):
            queries_for_systems(*wish)
