"""The exact test where few queries differ is that of scipy over all sign patterns, and p, interval and margin agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cerank.evaluation.significance import (
    FEW,
    Estimate,
    SignFlips,
    Stricter,
    needs_exact_test,
    p_equivalent,
    p_not_worse,
)

DIFFERENCES = [
    [0.5, 0.5],
    [0.5] * 5,
    [0.25] * 12,
    [0.0] * 5,
    [0.0] * 6 + [0.2],
    [0.3, -0.1, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.1] * 6 + [0.0] * 4,
    np.random.default_rng(3).normal(0.05, 0.1, 9).tolist(),
]


def flips(d: list[float], *, limit: float = 1.0) -> SignFlips:
    return SignFlips(values=tuple(each for each in d if each), n=len(d), least=-limit, most=limit)


def by_scipy(d: list[float], mu: float, alternative: str) -> float:
    shifted = (np.asarray(d) - mu,)
    how = {"permutation_type": "samples", "n_resamples": np.inf, "alternative": alternative}
    return stats.permutation_test(shifted, np.sum, **how).pvalue


@pytest.mark.parametrize("d", DIFFERENCES)
def test_p_is_that_of_all_sign_patterns(d):
    assert flips(d).p() == pytest.approx(by_scipy(d, 0.0, "two-sided"), abs=1e-12)


@pytest.mark.parametrize("d", DIFFERENCES)
@pytest.mark.parametrize("margin", [0.02, 0.11, 0.4])
def test_equivalence_is_two_one_sided_tests_over_all_sign_patterns(d, margin):
    test, most = flips(d), max(0.5, *(abs(each) for each in d))  # the limits of `flips` are 2 apart: a quarter is .5
    samples = [d] if np.count_nonzero(d) >= FEW else [d, [*d, most], [*d, -most]]
    wanted = max(max(by_scipy(each, -margin, "greater"), by_scipy(each, margin, "less")) for each in samples)
    assert p_equivalent(test, margin) == pytest.approx(wanted, abs=1e-12)
    worse = max(by_scipy(each, -margin, "greater") for each in samples)
    assert p_not_worse(test, margin) == pytest.approx(worse, abs=1e-12)


@pytest.mark.parametrize("d", DIFFERENCES)
@pytest.mark.parametrize("level", [0.05, 0.1, 0.2])
def test_the_interval_holds_what_scipy_does_not_reject_and_nothing_else(d, level):
    low, high = flips(d).interval(level)
    for mu in np.linspace(-0.97, 0.97, 41):
        is_kept = by_scipy(d, mu, "greater") > level / 2 and by_scipy(d, mu, "less") > level / 2
        assert is_kept == (low <= mu <= high), mu


def test_equal_gains_on_every_query_are_worth_two_to_the_power_of_one_minus_n():
    assert [flips([0.5] * n).p() for n in (2, 5, 6, 43)] == [0.5, 0.0625, 0.03125, 2.0**-42]


def test_with_too_few_queries_nothing_that_the_measure_allows_is_excluded():
    assert flips([0.5] * 5, limit=0.7).interval(0.05) == (-0.7, 0.7)


def test_one_query_that_differs_among_twenty_is_no_evidence():
    assert flips([0.0] * 19 + [0.5]).p() == 1.0  # where a t-test has p = .33


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.1, -0.1, 0.25, 0.5, -0.4]), min_size=2, max_size=FEW - 1),
    st.integers(0, 300),
    st.sampled_from([0.02, 0.05, 0.1]),
)
def test_the_interval_excludes_zero_exactly_where_p_is_within_the_level(values, zeros, level):
    found = flips([*values, *[0.0] * zeros])
    low, high = found.interval(level)
    assert (low > 0 or high < 0) == (found.p() <= level)
    assert low - 1e-9 <= found.difference <= high + 1e-9


@pytest.mark.parametrize(
    ("differing", "size", "queries", "margin", "is_shown"),
    [
        (0, 0.0, 5, 0.02, False),  # alone 2^-5: what a gain of .2 on every tenth query would give in 59 of 100 draws
        (0, 0.0, 30, 0.02, False),
        (0, 0.0, 31, 0.02, True),
        (0, 0.0, 31, 0.01, False),  # a smaller margin takes more queries
        (0, 0.0, 59, 0.01, True),
        (5, 0.1, 205, 0.02, True),  # rare and small differences stay equivalent
        (9, 0.1, 60, 0.02, False),
    ],
)
def test_an_equivalence_of_few_differing_queries_must_hold_with_one_more_that_differs_much(
    differing, size, queries, margin, is_shown
):
    test = flips([size] * differing + [0.0] * (queries - differing), limit=0.5)
    assert (p_equivalent(test, margin) <= 0.05) == is_shown


def test_it_is_due_where_few_differ_or_all_by_the_same():
    assert needs_exact_test(FEW - 1, 0.1)
    assert needs_exact_test(400, 0.0)
    assert not needs_exact_test(FEW, 0.1)


def test_a_t_test_of_few_equal_gains_promises_more_than_any_sign_pattern_can():
    for k in range(1, FEW):
        d = np.array([0.1] * k + [0.0] * (1000 - k))
        assert stats.ttest_1samp(d, 0).pvalue < 0.7 * flips(d.tolist()).p()


def test_of_two_tests_only_what_both_show_counts():
    few = flips([0.1] * 5 + [0.0] * 200)
    sure = Estimate(difference=few.difference, error=1e-4, df=100)
    both = Stricter(sure, few)
    assert both.p() == few.p() > 0.05 > sure.p()
    low, high = both.interval(0.05)
    assert low <= 0 < high
    assert p_equivalent(both, 0.01) == max(p_equivalent(sure, 0.01), p_equivalent(few, 0.01))
