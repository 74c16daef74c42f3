"""The interaction of first stage and re-ranker is what statsmodels computes, and its contrasts are paired t-tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.multitest import multipletests

from cerank.app.rankings import first_stage_table
from cerank.errors import UsageError
from cerank.evaluation.comparison_rows import FEW_MARK
from cerank.evaluation.studies.interaction import interaction_study, interaction_test
from cerank.evaluation.verdicts.terms import Margin
from cerank.text.table_data import records
from tests.refusals import refused

FIRSTS, RERANKERS = ("bm25", "dense", "sparse"), ("small", "large", "teacher")


def values_of(firsts: int, rerankers: int, effect: float = 0.0, n: int = 30, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    values = 0.4 + 0.2 * draw.normal(size=(n, 1, 1)) + 0.1 * draw.normal(size=(n, firsts, rerankers))
    values += np.array([0.0, 0.1, 0.05])[:firsts, None] + np.array([0.0, 0.05, 0.1])[:rerankers]
    values[:, -1, -1] += effect
    return values


@pytest.mark.parametrize(("firsts", "rerankers"), [(2, 2), (2, 3), (3, 3)])
def test_f_is_that_of_the_analysis_of_variance_with_repeated_measures(firsts, rerankers):
    values = values_of(firsts, rerankers, effect=0.05)
    rows = [
        {"query": q, "first": f, "reranker": r, "value": values[q, f, r]}
        for q in range(len(values))
        for f in range(firsts)
        for r in range(rerankers)
    ]
    expected = AnovaRM(pd.DataFrame(rows), "value", "query", ["first", "reranker"]).fit().anova_table.iloc[2]
    found = interaction_test(values)
    assert (found.f, found.df, found.df_error, found.p) == pytest.approx(
        (expected["F Value"], expected["Num DF"], expected["Den DF"], expected["Pr > F"])
    )
    assert 1 / found.df <= found.epsilon <= 1 + 1e-12
    assert found.p_reduced >= found.p - 1e-12 or found.f < 1  # a smaller df asks for more, but where F is small
    assert (found.epsilon == pytest.approx(1)) == (found.df == 1)


def test_a_contrast_is_the_paired_t_test_of_the_difference_of_gains_adjusted_by_holm():
    values = values_of(3, 3, effect=0.12)
    done = interaction_study(values, FIRSTS, RERANKERS, "nDCG@10")
    raw = []
    for each in done.contrasts:
        behind, ahead = (RERANKERS.index(name) for name in each.rerankers)
        one, other = (FIRSTS.index(name) for name in each.first_stages)
        gain = values[:, :, ahead] - values[:, :, behind]
        assert each.gains == pytest.approx((gain[:, one].mean(), gain[:, other].mean()))
        raw.append(stats.ttest_rel(gain[:, other], gain[:, one]).pvalue)
    assert len(raw) == 9
    assert [each.p for each in done.contrasts] == pytest.approx(raw)
    assert [each.p_corrected for each in done.contrasts] == pytest.approx(multipletests(raw, method="holm")[1])
    differing = {(each.rerankers, each.first_stages) for each in done.contrasts if each.verdict == "gain differs"}
    assert differing
    assert all("teacher" in rerankers and "sparse" in firsts for rerankers, firsts in differing)
    for each in done.contrasts:
        if each.low > 0 or each.high < 0:  # an interval that excludes 0 comes with a small p
            assert each.verdict == "gain differs"


def test_a_gain_is_called_the_same_only_within_a_margin():
    values = values_of(2, 2, n=4000)
    (without,) = interaction_study(values, FIRSTS[:2], RERANKERS[:2], "nDCG@10").contrasts
    assert without.verdict == "cannot tell"
    margin = Margin(value=0.02)
    (within,) = interaction_study(values, FIRSTS[:2], RERANKERS[:2], "nDCG@10", margin=margin).contrasts
    assert within.verdict == "gain is the same"
    assert within.keeps_order
    (narrow,) = interaction_study(values[:20], FIRSTS[:2], RERANKERS[:2], "nDCG@10", margin=margin).contrasts
    assert narrow.verdict == "cannot tell"


def test_rankings_that_are_the_same_behind_each_first_stage_show_no_interaction():
    values = np.repeat(np.random.default_rng(0).random((10, 1, 2)), 2, axis=1)
    done = interaction_study(values, FIRSTS[:2], RERANKERS[:2], "nDCG@10")
    assert (done.test.p_reduced, done.contrasts[0].verdict) == (1.0, "cannot tell")
    assert np.isnan(done.test.f)


@pytest.mark.parametrize(
    ("queries", "verdict", "unseen"),
    [(20, "cannot tell", 0.5), (40, "cannot tell", 0.5), (60, "gain is the same", None)],
)
def test_gains_that_differ_on_few_queries_are_the_same_only_if_one_more_that_differs_much_leaves_them_so(
    queries, verdict, unseen
):
    """A gain lies between -1 and 1, so that a quarter of its range is .5."""
    values = np.full((queries, 2, 2), 0.5)
    values[0, 1, 1] += 0.01
    margin = Margin(value=0.02)
    (contrast,) = interaction_study(
        values, FIRSTS[:2], RERANKERS[:2], "nDCG@10", margin=margin, limits=(0.0, 1.0)
    ).contrasts
    assert (contrast.verdict, contrast.unseen) == (verdict, unseen)


@pytest.mark.parametrize("shape", [(5, 1, 2), (5, 2, 1), (1, 2, 2)])
def test_one_of_anything_has_no_interaction(shape):
    values = np.zeros(shape)
    with refused(UsageError, "interaction-of-one"):
        interaction_study(values, FIRSTS[: shape[1]], RERANKERS[: shape[2]], "nDCG@10")


def test_the_interval_of_gains_that_differ_on_few_queries_is_marked_for_people():
    values = values_of(2, 3)
    values[:, :, 1] = values[:, :, 0] + 0.1
    values[:2, 1, 1] -= 0.05  # the gain of "large" over "small" depends on the first stage for two queries alone
    done = interaction_study(values, FIRSTS[:2], RERANKERS, "nDCG@10")
    table = first_stage_table.tables(done, is_marked=True)[1]
    marked = [isinstance(row["high"], str) for row in records(table)]
    assert marked == [each.figures.losses + each.figures.wins == 2 for each in done.contrasts] == [True, False, False]
    assert any(FEW_MARK in note for note in table.notes)
    assert [row["high"] for row in records(first_stage_table.tables(done)[1])] == [each.high for each in done.contrasts]
