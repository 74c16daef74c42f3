"""Corrected p-values agree with R and statsmodels, and each level rejects what its corrected p rejects."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cerank.errors import UsageError
from cerank.evaluation.multiple_testing import corrected, max_t
from tests.work import steps_of

PS = [0.01, 0.02, 0.03, 0.04, 0.05]


@pytest.mark.parametrize(
    ("method", "adjusted"),  # as R's p.adjust prints them
    [
        ("holm", [0.05, 0.08, 0.09, 0.09, 0.09]),
        ("bh", [0.05, 0.05, 0.05, 0.05, 0.05]),
        ("bonferroni", [0.05, 0.10, 0.15, 0.20, 0.25]),
        ("none", PS),
    ],
)
def test_corrected_ps_are_those_of_rs_p_adjust(method, adjusted):
    assert corrected(PS, method).ps == pytest.approx(adjusted)


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), min_size=1, max_size=40), st.integers(0, 5))
def test_holm_bh_and_bonferroni_are_those_of_statsmodels(ps, more):
    whole = [*ps, *[1.0] * more]
    for method, name in (("holm", "holm"), ("bh", "fdr_bh"), ("bonferroni", "bonferroni")):
        wanted = multipletests(whole, method=name)[1][: len(ps)].tolist()
        assert corrected(ps, method, family=len(whole)).ps == pytest.approx(wanted, rel=1e-12, abs=1e-12), method


@settings(max_examples=15)
@given(st.lists(st.floats(0, 1).map(lambda p: p**4), min_size=1, max_size=12), st.integers(0, 5))
def test_each_level_rejects_exactly_what_its_corrected_p_rejects(ps, more):
    for method in ("holm", "bh", "bonferroni", "none"):
        found = corrected(ps, method, family=len(ps) + more)
        for p, out, level in zip(ps, found.ps, found.levels, strict=True):
            if abs(out - 0.05) > 1e-9:
                assert (p <= level) == (out <= 0.05), method


def test_tests_declared_but_not_shown_count_as_unrejected():
    assert corrected([0.01, 0.02], "holm", family=5).ps == pytest.approx([0.05, 0.08])
    assert corrected([0.01, 0.02], "holm", family=5).ps == pytest.approx(
        multipletests([0.01, 0.02, 1, 1, 1], method="holm")[1][:2]
    )


def test_a_family_smaller_than_what_is_shown_is_refused():
    with pytest.raises(UsageError, match="declared family has 2 tests, and 3 are shown"):
        corrected([0.1, 0.2, 0.3], family=2)


def test_one_comparison_by_the_largest_statistic_is_fishers_randomization_test():
    d = np.random.default_rng(0).normal(0.03, 0.1, 12)
    flips = 1 - 2 * ((np.arange(2**12)[:, None] >> np.arange(12)) & 1)
    exact = np.mean(np.abs(flips @ d) >= abs(d.sum()) - 1e-12)
    assert max_t([d[:, None]], rounds=20_000).ps[0] == pytest.approx(exact, abs=0.012)


def test_many_comparisons_are_corrected_as_statsmodels_and_scipy_correct_independent_ones():
    d = np.random.default_rng(1).normal(0.0, 0.1, (200, 5))
    d[:, 0] += 0.02
    found = max_t([d], rounds=9999)
    raw = stats.ttest_1samp(d, 0).pvalue
    sidak = multipletests(raw, method="sidak")[1]  # exact for independent tests
    assert found.ps == pytest.approx(sidak.tolist(), abs=0.025)
    assert found.critical == pytest.approx(stats.t.ppf(1 - (1 - 0.95**0.2) / 2, 199), abs=0.08)


def test_dependent_comparisons_cost_less_than_bonferroni():
    base = np.random.default_rng(2).normal(0.012, 0.1, (150, 1))
    d = base + np.random.default_rng(3).normal(0, 0.005, (150, 10))
    raw = stats.ttest_1samp(d, 0).pvalue
    assert max(max_t([d]).ps) < 3 * max(raw)


def test_blocks_of_queries_are_flipped_apart_and_keep_their_order():
    random = np.random.default_rng(4)
    first, second = random.normal(0, 0.1, (40, 2)), random.normal(0.08, 0.1, (60, 1))
    found = max_t([first, second])
    assert len(found.ps) == 3
    assert found.ps[2] < 0.001 < min(found.ps[:2])


def test_the_smallest_p_counts_the_data_as_one_of_the_flips():
    d = np.random.default_rng(5).normal(1, 0.1, (100, 1))
    assert max_t([d], rounds=199).ps == (1 / 200,)


def test_p_is_at_most_alpha_exactly_where_t_exceeds_the_critical_value():
    for seed in range(20):
        d = np.random.default_rng(seed).normal(0.02, 0.1, (30, 4))
        found = max_t([d], rounds=199, seed=seed)
        t = np.abs(stats.ttest_1samp(d, 0).statistic)
        assert [p <= 0.05 for p in found.ps] == (t > found.critical).tolist()


def test_comparisons_without_a_difference_have_p_one():
    assert max_t([np.zeros((10, 2))], rounds=99).ps == (1.0, 1.0)


def test_ten_thousand_flips_of_ten_comparisons_take_a_step_for_eight_queries_and_little_memory():
    d = np.random.default_rng(6).normal(0.001, 0.1, (6980, 10))
    tracemalloc.start()
    found, steps = steps_of(lambda: max_t([d], rounds=10_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert steps < 6980 / 2
    assert peak < 64 << 20  # the signs of all flips at once would be 6980 * 10,000 numbers
    assert min(found.ps) >= min(stats.ttest_1samp(d, 0).pvalue)
