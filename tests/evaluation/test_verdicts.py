"""A verdict is what its intervals say; TOST agrees with statsmodels and pingouin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from cerank.evaluation.answers import explain, shown
from cerank.evaluation.significance import Estimate, estimate_of, p_equivalent, paired
from cerank.evaluation.verdicts.terms import Margin
from cerank.evaluation.verdicts.verdict import Level, judge
from tests.evaluation.test_secondary_tests import SLEEP, SPREAD


def judged(estimate: Estimate, margin: float | None, *, level: float = 0.05, sd: float | None = 0.1):
    p = estimate.p()
    within = None
    if margin is not None:
        tost = p_equivalent(estimate, margin)
        within = Level(p=tost, corrected=min(tost * 0.05 / level, 1.0), level=level)
    different = Level(p=p, corrected=min(p * 0.05 / level, 1.0), level=level)
    return judge(estimate, different, margin=Margin(value=margin) if margin else None, equivalence=within, sd=sd)


def test_paired_figures_of_rs_sleep_data_are_the_published_ones():
    found = paired([0.0] * 10, SLEEP)  # t = 4.0621, df = 9, p = 0.002833, 0.7001142 to 2.4598858
    assert (found.t, found.df, found.p) == (pytest.approx(4.0621, abs=5e-5), 9, pytest.approx(0.002833, abs=5e-7))
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=5e-8)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.03, 0.05, 0.1])
def test_tost_is_that_of_statsmodels_and_scipy(margin):
    estimate = estimate_of(paired(np.zeros(SPREAD.size), SPREAD))
    found = p_equivalent(estimate, margin)
    assert found == pytest.approx(ttost_paired(SPREAD, np.zeros(SPREAD.size), -margin, margin)[0], rel=1e-9)
    above = stats.ttest_1samp(SPREAD, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(SPREAD, margin, alternative="less").pvalue
    assert found == pytest.approx(max(above, below), rel=1e-9)


def test_tost_is_that_of_pingouin():
    estimate = estimate_of(paired(np.zeros(SPREAD.size), SPREAD))
    assert p_equivalent(estimate, 0.05) == pytest.approx(0.00024, abs=5e-6)  # pingouin 0.7.0 tost
    assert p_equivalent(estimate, 0.03) == pytest.approx(0.017273, abs=5e-7)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.995])
def test_intervals_are_those_of_statsmodels(confidence):
    estimate = estimate_of(paired(np.zeros(SPREAD.size), SPREAD))
    assert estimate.interval(1 - confidence) == pytest.approx(
        DescrStatsW(SPREAD).tconfint_mean(1 - confidence), abs=1e-12
    )


@pytest.mark.parametrize(
    ("difference", "error", "margin", "verdict"),
    [
        (0.10, 0.01, 0.02, "better"),
        (-0.10, 0.01, 0.02, "worse"),
        (0.001, 0.005, 0.02, "equivalent"),
        (0.008, 0.003, 0.02, "different but negligible"),
        (-0.008, 0.003, 0.02, "different but negligible"),
        (0.01, 0.02, 0.02, "cannot tell"),
        (0.0, 0.02, 0.02, "cannot tell"),
        (0.10, 0.01, None, "better"),
        (0.001, 0.005, None, "cannot tell"),
        (0.0, 0.0, 0.02, "cannot tell"),  # without spread a t-test says nothing
        (0.3, 0.0, 0.02, "cannot tell"),
    ],
)
def test_verdicts_of_typical_cases(difference, error, margin, verdict):
    assert judged(Estimate(difference=difference, error=error, df=50), margin).verdict == verdict


@given(st.floats(-0.2, 0.2), st.floats(1e-4, 0.1), st.integers(1, 7000), st.floats(0.001, 0.2), st.floats(0.0005, 0.05))
def test_no_verdict_contradicts_its_intervals(difference, error, df, margin, level):
    found = judged(Estimate(difference=difference, error=error, df=df), margin, level=level, sd=None)
    excludes = found.low > 0 or found.high < 0
    within = -margin < found.equivalence_low and found.equivalence_high < margin
    near = min(
        abs(found.low), abs(found.high), abs(found.equivalence_low + margin), abs(found.equivalence_high - margin)
    )
    if near > 1e-9:
        assert excludes == (found.verdict in ("better", "worse", "different but negligible"))
        assert within == (found.verdict in ("equivalent", "different but negligible"))


def test_a_large_p_alone_is_never_equivalence():
    found = judged(Estimate(difference=0.0, error=0.05, df=42), None)
    assert (found.p, found.verdict) == (1.0, "cannot tell")


def test_cannot_tell_comes_with_what_would_tell():
    found = judged(Estimate(difference=0.01, error=0.1 / 43**0.5, df=42), 0.02)
    assert found.verdict == "cannot tell"
    assert found.detectable == pytest.approx(0.0437, abs=1e-4)
    assert (found.queries_for_difference, found.queries_for_margin) == (199, 216)  # of the margin, not the estimate
    text = explain(found)
    assert "a true difference of 0.0437 would show with 80 % power" in text
    assert "to show a true difference of 0.02 takes 199 queries" in text
    assert "chosen after the results" in text


def test_the_queries_needed_are_those_of_statsmodels_for_the_margin():
    from statsmodels.stats.power import TTestPower

    found = judged(Estimate(difference=0.02, error=0.1 / 43**0.5, df=42), 0.03)
    wanted = TTestPower().solve_power(effect_size=0.3, power=0.8, alpha=0.05)
    assert found.queries_for_difference - 1 < wanted <= found.queries_for_difference


def test_an_interval_is_cut_at_what_the_measure_allows_and_says_so():
    estimate = Estimate(difference=0.25, error=0.25, df=1)
    found = judge(estimate, Level(p=0.5, corrected=0.5, level=0.05), limits=(-0.75, 0.25))
    assert estimate.interval(0.05)[0] < -2.9
    assert (found.low, found.high, found.is_cut) == (-0.75, 0.25, True)
    assert "cut at the range of the measure" in explain(found)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((-0.9884, 0.0116), "no gain that the measure allows would show with 80 % power: only 0.0116 is left; a loss"),
        ((-0.01, 0.02), "no true difference that the measure allows would show with 80 % power: it takes 0.0437"),
        ((-0.5, 0.5), "a true difference of 0.0437 would show with 80 % power"),
    ],
)
def test_a_detectable_difference_beyond_the_headroom_is_said_to_be(limits, said):
    estimate = Estimate(difference=0.001, error=0.1 / 43**0.5, df=42)
    found = judge(estimate, Level(p=0.9, corrected=0.9, level=0.05), limits=limits, sd=0.1)
    assert said in explain(found, limits)


def test_a_verdict_in_a_cell_has_its_direction_and_a_dagger_for_a_late_margin():
    late, early = Margin(value=0.02), Margin(value=0.02, before=True)
    level = Level(p=0.001, corrected=0.001, level=0.05)
    for margin, mark in ((late, " †"), (early, "")):
        for sign, word in ((1, "better"), (-1, "worse")):
            estimate = Estimate(difference=sign * 0.008, error=0.002, df=99)
            found = judge(estimate, level, margin=margin, equivalence=level)
            assert shown(found, estimate.difference) == f"{word}, but by less than .02{mark}"
        same = judge(
            Estimate(difference=0.0, error=0.002, df=99),
            Level(p=1, corrected=1, level=0.05),
            margin=margin,
            equivalence=level,
        )
        assert shown(same, 0.0) == f"equivalent{mark}"
        apart = judge(Estimate(difference=0.3, error=0.002, df=99), level, margin=margin)
        assert shown(apart, 0.3) == "better"


def test_a_verdict_that_tells_needs_no_estimate_of_power():
    found = judged(Estimate(difference=0.1, error=0.01, df=42), 0.02)
    assert (found.detectable, found.queries_for_difference) == (None, None)
