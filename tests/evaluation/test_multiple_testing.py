"""Corrected p-values agree with R and statsmodels, and each level rejects what its corrected p rejects."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cerank.errors import UsageError
from cerank.evaluation.compare import compare
from cerank.evaluation.multiple_testing import corrected, max_t
from cerank.evaluation.verdicts.terms import Terms
from tests.refusals import refused
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
def test_an_interval_never_excludes_what_its_corrected_p_does_not_reject(ps, more):
    for method in ("holm", "bh", "bonferroni", "none"):
        found = corrected(ps, method, family=len(ps) + more)
        for p, out in zip(ps, found.ps, strict=True):
            if abs(out - 0.05) > 1e-9 and p <= found.level:
                assert out <= 0.05, method
            if abs(out - 0.05) > 1e-9 and method != "holm":
                assert (p <= found.level) == (out <= 0.05), method


def closed(ps, within, local):
    """The adjusted p of each test by its definition: the largest p of any set of null hypotheses that can be true."""
    options = [[None, (place, False), *([] if q is None else [(place, True)])] for place, q in enumerate(within)]
    out = {}
    for chosen in itertools.product(*options):
        true = [one for one in chosen if one is not None]
        if true:
            p = local(true)
            for one in true:
                out[one] = max(out.get(one, 0.0), p)
    return out


SOME = st.floats(0, 1).map(lambda p: p**3)


@settings(max_examples=60)
@given(st.lists(st.tuples(SOME, st.none() | SOME), min_size=1, max_size=5), st.integers(0, 3))
def test_holm_of_differences_and_equivalences_is_the_closed_test_of_both(tests, more):
    ps, within = [p for p, _ in tests], [q for _, q in tests]
    found = corrected(ps, "holm", equivalent=within, family=len(ps) + more)
    value = {(place, False): p for place, p in enumerate(ps)} | {(place, True): q for place, q in enumerate(within)}
    wanted = closed(ps, within, lambda true: min(1.0, (len(true) + more) * min(value[one] for one in true)))
    for place, q in enumerate(within):
        assert found.ps[place] == pytest.approx(wanted[place, False], abs=1e-12)
        if q is not None:
            assert found.ps_equivalent[place] == pytest.approx(wanted[place, True], abs=1e-12)


def test_all_verdicts_of_a_family_together_err_in_five_of_a_hundred_tables():
    """One system is truly equal, one truly at the margin: two families of 5 % each would err in .097."""
    random = np.random.default_rng(11)
    n, sd, margin, rounds = 400, 0.08, 0.02, 4000
    errors = apart = 0
    for _ in range(rounds):
        error = sd * np.sqrt(random.chisquare(n - 1, 2) / (n - 1)) / np.sqrt(n)
        means = random.normal([0.0, margin], sd / np.sqrt(n))
        different = 2 * stats.t.sf(np.abs(means / error), n - 1)
        within = stats.t.cdf(-(margin - np.abs(means)) / error, n - 1)
        found = corrected(different.tolist(), "holm", equivalent=within.tolist())
        errors += found.ps[0] <= 0.05 or found.ps_equivalent[1] <= 0.05
        both = [corrected(each.tolist(), "holm").ps for each in (different, within)]
        apart += both[0][0] <= 0.05 or both[1][1] <= 0.05
    noise = 3 * np.sqrt(0.05 * 0.95 / rounds)
    assert errors / rounds < 0.05 + noise
    assert apart / rounds > 0.08


def test_tests_declared_but_not_shown_count_as_unrejected():
    assert corrected([0.01, 0.02], "holm", family=5).ps == pytest.approx([0.05, 0.08])
    assert corrected([0.01, 0.02], "holm", family=5).ps == pytest.approx(
        multipletests([0.01, 0.02, 1, 1, 1], method="holm")[1][:2]
    )


def test_a_family_smaller_than_what_is_shown_is_refused():
    with refused(UsageError, "family-too-small", 2, 3):
        corrected([0.1, 0.2, 0.3], family=2)


def test_one_comparison_by_the_largest_statistic_is_fishers_randomization_test():
    d = np.random.default_rng(0).normal(0.03, 0.1, 12)
    flips = 1 - 2 * ((np.arange(2**12)[:, None] >> np.arange(12)) & 1)
    exact = np.mean(np.abs(flips @ d) >= abs(d.sum()) - 1e-12)
    found = max_t([d[:, None]], rounds=20_000)
    assert found.ps[0] == found.raw[0] == pytest.approx(exact, abs=0.012)


def test_many_comparisons_are_corrected_as_statsmodels_and_scipy_correct_independent_ones():
    d = np.random.default_rng(1).normal(0.0, 0.1, (200, 5))
    d[:, 0] += 0.02
    found = max_t([d], rounds=9999)
    raw = stats.ttest_1samp(d, 0).pvalue
    sidak = multipletests(raw, method="holm-sidak")[1]  # exact for independent tests, stepped down
    assert found.ps == pytest.approx(sidak.tolist(), abs=0.025)
    assert found.critical == pytest.approx(stats.t.ppf(1 - (1 - 0.95**0.2) / 2, 199), abs=0.08)


def test_the_stepped_down_maximum_is_the_closed_test_over_all_flips():
    random = np.random.default_rng(8)
    d = random.normal(0, 0.05, (11, 1)) + random.normal([0.05, 0.02, 0.0, 0.04], 0.08, (11, 4))
    signs = 1 - 2 * ((np.arange(2**11)[:, None] >> np.arange(11)) & 1)
    root = np.sqrt(11)

    def t(x):
        return np.abs(x.mean(axis=0) / (x.std(axis=0, ddof=1) / root))

    drawn = np.array([t(sign[:, None] * d) for sign in signs])
    error = d.std(axis=0, ddof=1) / root
    margins = [0.06, None, 0.09, 0.2]
    within = [
        None if m is None else (m - abs(mean)) / e for m, mean, e in zip(margins, d.mean(axis=0), error, strict=True)
    ]
    value = {(place, False): one for place, one in enumerate(t(d))} | {(at, True): q for at, q in enumerate(within)}

    def local(true):
        most = max(value[one] for one in true)
        return np.mean(drawn[:, [place for place, _ in true]].max(axis=1) >= most - 1e-9)

    wanted = closed(t(d), within, local)
    found = max_t([d], statistics=t(d).tolist(), equivalent=within, rounds=40_000)
    assert found.ps == pytest.approx([wanted[place, False] for place in range(4)], abs=0.012)
    for place, q in enumerate(within):
        if q is not None:
            assert found.ps_equivalent[place] == pytest.approx(wanted[place, True], abs=0.012)
    assert found.critical == pytest.approx(np.quantile(drawn.max(axis=1), 0.95, method="higher"), abs=0.15)
    assert all(p >= raw for p, raw in zip(found.ps, found.raw, strict=True))


def test_the_step_down_is_sharper_than_one_step_and_its_intervals_hold_together(shared):
    from tests.evaluation.test_compare import dl20

    found = compare(dl20(shared / "trec-dl-2020-top100"), ["nDCG@10"], terms=Terms(pairs="all"))
    assert found.method == "max-t"
    rows = {(row.left, row.right): row for row in found.rows}
    # worked out apart from cerank, by another program: .0478 (one step .0786, Holm .0572) and .0762 (Holm .0899)
    assert rows["tasb", "splade-pp-ed"].p_corrected == pytest.approx(0.0478, abs=0.006)
    assert rows["ada2", "splade-pp-ed"].p_corrected == pytest.approx(0.0762, abs=0.008)
    widths = [
        (row.judgment.high - row.judgment.low) / 2 / (row.paired.sd / np.sqrt(row.paired.n)) for row in found.rows
    ]
    assert widths == pytest.approx([2.709] * 10, abs=0.06)  # one width rule; Bonferroni's is 2.929
    assert max(widths) - min(widths) < 1e-9


def test_all_intervals_of_a_family_hold_their_true_differences_together():
    random = np.random.default_rng(21)
    true = np.array([0.2, 0.2, 0.05, 0.0, 0.1, 0.0])
    held, rounds = 0, 300
    for number in range(rounds):
        d = true + random.normal(0, 0.1, (40, 1)) + random.normal(0, 0.1, (40, 6))
        found = max_t([d], rounds=499, seed=number)
        half = found.critical * d.std(axis=0, ddof=1) / np.sqrt(40)
        held += bool((np.abs(d.mean(axis=0) - true) <= half).all())
    assert held / rounds > 0.95 - 3 * np.sqrt(0.05 * 0.95 / rounds)


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


def test_p_is_at_most_alpha_wherever_t_exceeds_the_critical_value():
    for seed in range(20):
        d = np.random.default_rng(seed).normal(0.02, 0.1, (30, 4))
        found = max_t([d], rounds=199, seed=seed)
        t = np.abs(stats.ttest_1samp(d, 0).statistic)
        rejected = np.array([p <= 0.05 for p in found.ps])
        assert rejected[t > found.critical].all()
        assert rejected.any() == (t > found.critical).any()  # the first step is the single one


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
