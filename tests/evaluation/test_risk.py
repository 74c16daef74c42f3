"""Risk beside the mean: against statsmodels, by hand, and on public runs of TREC DL 2020."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from cerank.evaluation.measures import per_query
from cerank.evaluation.secondary_tests import queries_to_flip, risk, trisk, wilson
from cerank.trec.text_io import read_qrels, read_run

D = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05, 0.02, -0.01, -0.05])
QUERIES = tuple(f"q{place}" for place in range(D.size))


@pytest.mark.parametrize(("count", "n"), [(0, 5), (1, 9), (12, 54), (54, 54)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilsons_interval_is_that_of_statsmodels(count, n, confidence):
    expected = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
    assert wilson(count, n, confidence) == pytest.approx(expected, abs=1e-12)


def test_trisk_is_the_t_of_differences_whose_losses_count_twice():
    weighted = np.where(D < 0, 2 * D, D)
    assert trisk(D) == pytest.approx(stats.ttest_1samp(weighted, 0).statistic)
    assert trisk(np.full(4, 0.1)) is None


def test_losses_up_to_the_threshold_hurt_nobody():
    found = risk(D, QUERIES, threshold=0.02)
    assert (found.hurt, found.helped) == (1, 7)
    assert found.mean_loss == pytest.approx(-0.05)
    assert found.worst == ("q9", "q8")
    assert (risk(D, QUERIES).hurt, risk(np.abs(D), QUERIES).mean_loss) == (2, None)


@pytest.mark.parametrize("seed", range(6))
def test_the_fewest_queries_to_remove_are_those_of_every_choice(seed):
    random = np.random.default_rng(seed)
    d = random.exponential(0.1, 9) + random.normal(0.05, 0.05, 9)
    expected = next(
        (
            size
            for size in range(8)
            if any(
                stats.ttest_1samp(np.delete(d, chosen), 0).pvalue > 0.05
                for chosen in itertools.combinations(range(9), size)
            )
        ),
        None,
    )
    assert queries_to_flip(d) == (expected or None)
    assert queries_to_flip(-d) == (expected or None)


def test_a_single_large_gain_hides_a_difference_better_than_it_shows_it():
    d = np.array([0.1, 0.11, 0.09, 0.1, 0.12, 0.1, 0.09, 0.45])
    assert stats.ttest_1samp(d, 0).pvalue <= 0.05
    assert stats.ttest_1samp(d[:-1], 0).pvalue < 1e-6  # without it the others show the difference all the more
    assert stats.ttest_1samp(d[1:], 0).pvalue <= 0.05
    assert queries_to_flip(d) == 3
    assert queries_to_flip(np.array([0.1, -0.1, 0.05, -0.06])) is None


@pytest.mark.parametrize(
    ("left", "right", "flips", "hurt", "helped", "mean_loss", "t_risk"),
    [  # computed apart from this program, with numpy alone
        ("bm25", "tasb", 18, 10, 44, -0.165, 3.86),
        ("tasb", "splade-pp-ed", 3, 12, 30, -0.093, 0.68),
        ("splade-pp-ed", "ada2", 1, 28, 19, -0.149, -3.54),
        ("bm25", "splade-pp-ed", 24, 8, 44, -0.137, 5.32),
    ],
)
def test_public_runs_of_trec_dl_2020_hurt_and_flip_as_computed_elsewhere(
    shared, left, right, flips, hurt, helped, mean_loss, t_risk
):
    folder = shared / "trec-dl-2020-top100"
    qrels = read_qrels(folder / "qrels")
    sides = [
        per_query(["nDCG@10"], qrels, read_run(folder / "runs" / f"{name}.run").ranking)["nDCG@10"]
        for name in (left, right)
    ]
    d = np.array([sides[1][query] - value for query, value in sides[0].items()])
    found = risk(d, tuple(sides[0]), threshold=0.02)
    assert (found.queries_to_flip, found.hurt, found.helped) == (flips, hurt, helped)
    assert found.mean_loss == pytest.approx(mean_loss, abs=6e-4)
    assert found.trisk == pytest.approx(t_risk, abs=6e-3)
