from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cerank.teachers.judging.agreement import kappa, kendall_tau, rank_biased_overlap, tau_ap


@given(st.permutations(range(8)), st.permutations(range(8)))
def test_tau_is_scipys(one: list[int], other: list[int]) -> None:
    places = [other.index(item) for item in one]
    assert kendall_tau(one, other) == pytest.approx(stats.kendalltau(range(8), places).statistic)


def test_an_error_at_the_top_costs_more_in_the_ap_correlation() -> None:
    truth = list("abcdef")
    top, bottom = list("bacdef"), list("abcdfe")
    assert kendall_tau(top, truth) == kendall_tau(bottom, truth)
    assert tau_ap(top, truth) < tau_ap(bottom, truth) < tau_ap(truth, truth) == 1.0
    assert tau_ap(truth[::-1], truth) == -1.0


def test_rank_biased_overlap_is_one_for_equal_and_zero_for_disjoint_lists() -> None:
    assert rank_biased_overlap("abcdef", "abcdef") == pytest.approx(1.0)
    assert rank_biased_overlap("abc", "xyz") == 0.0
    assert rank_biased_overlap("abcdef", "bacdef") > rank_biased_overlap("abcdef", "fbcdea")


def test_kappa_by_hand() -> None:
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert kappa(pairs) == pytest.approx(0.4)  # the textbook's example
    assert kappa([(1, 1)] * 3) is None
    near, far = [(0, 1), (3, 3), (0, 0), (3, 2)], [(0, 3), (3, 3), (0, 0), (3, 0)]
    assert kappa(near, weighted=True) > kappa(far, weighted=True)  # type: ignore[operator]
