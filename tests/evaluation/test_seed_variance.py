"""Several seeds are one system with a spread: closed forms, statsmodels' mixed model and simulation agree."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.anova import anova_lm

from cerank import guides
from cerank.errors import UsageError
from cerank.evaluation.compare import Condition, Measured, System
from cerank.evaluation.seed_variance import crossed, mean_of, pairs_of, two_way
from tests.refusals import refused
from tests.simulations.type_one_error import two_way_bootstrap

RESULTS = Path(__file__).parents[1] / "simulations" / "RESULTS.md"
DL = Condition(dataset="dl20", first_stage="bm25")


def seed(label: str, values: dict[str, float], sha: str = "aa") -> System:
    return System(label=label, measured=(Measured(condition=DL, qrels_sha256=sha, values={"nDCG@10": values}),))


def drawn(random: np.random.Generator, seeds: int, n: int, *, sd_seed: float, sd_noise: float = 0.08) -> np.ndarray:
    noise = random.normal(0, sd_noise, (seeds, n))
    return 0.5 + random.normal(0, sd_seed, (seeds, 1)) + noise


def test_seeds_are_averaged_query_by_query_by_id():
    found = mean_of("recipe", [seed("s1", {"q1": 0.1, "q2": 0.4}), seed("s2", {"q2": 0.6, "q1": 0.3})])
    assert found.measured[0].values["nDCG@10"] == pytest.approx({"q1": 0.2, "q2": 0.5})
    assert [member.label for member in found.members] == ["s1", "s2"]


@pytest.mark.parametrize(
    "other",
    [seed("s2", {"q1": 0.1}), seed("s2", {"q1": 0.1, "q2": 0.2}, sha="bb"), System(label="s2", measured=())],
)
def test_seeds_measured_differently_are_refused(other):
    with refused(UsageError, "seeds-differ", "s1", "s2"):
        mean_of("recipe", [seed("s1", {"q1": 0.1, "q2": 0.4}), other])


def test_one_seed_is_no_mean():
    with refused(UsageError, "too-few-seeds", 2):
        mean_of("recipe", [seed("s1", {"q1": 0.1})])


def test_the_guide_gives_the_price_of_stacking_seeds_as_queries_as_simulated():
    rates = [float(line.split("|")[5]) for line in RESULTS.read_text().splitlines() if "| stacked as queries" in line]
    assert len(rates) == 4
    price = f"{100 * min(rates):.0f} to {math.ceil(100 * max(rates)):.0f} of 100 comparisons of equals"
    assert price in guides.find("verdicts").markdown.replace("\n", " ")


def test_without_seeds_the_recipes_claim_is_the_paired_t_test():
    random = np.random.default_rng(0)
    left, right = drawn(random, 1, 43, sd_seed=0), drawn(random, 1, 43, sd_seed=0)
    found = two_way(left, right, left_fixed=True, right_fixed=True).estimate
    scipy = stats.ttest_rel(right[0], left[0])
    assert (found.p(), found.df) == (pytest.approx(scipy.pvalue, rel=1e-9), 42)


def test_without_spread_of_queries_the_recipes_claim_is_welchs_test_of_seeds():
    left = np.repeat([[0.1], [0.2], [0.4]], 5, axis=1)
    right = np.repeat([[0.6], [0.5], [0.9], [0.7]], 5, axis=1)
    found = two_way(left, right).estimate
    welch = stats.ttest_ind(right[:, 0], left[:, 0], equal_var=False)
    assert (found.p(), found.df) == pytest.approx((welch.pvalue, welch.df), rel=1e-9)


@pytest.mark.filterwarnings("ignore:The MLE may be on the boundary")
def test_the_error_is_that_of_statsmodels_mixed_model():
    random = np.random.default_rng(3)
    seeds, n = 10, 60
    query = random.normal(0, 0.05, n)
    left = 0.5 + random.normal(0, 0.03, (seeds, 1)) + random.normal(0, 0.05, (seeds, n))
    right = 0.52 + query + random.normal(0, 0.03, (seeds, 1)) + random.normal(0, 0.05, (seeds, n))
    found = two_way(left, right)
    # d of paired seeds: query and seed as crossed random effects around one mean
    d = (right - left).ravel()
    frame = pd.DataFrame({"d": d, "s": np.repeat(np.arange(seeds), n), "q": np.tile(np.arange(n), seeds), "g": 1})
    model = MixedLM.from_formula("d ~ 1", frame, groups="g", vc_formula={"s": "0 + C(s)", "q": "0 + C(q)"}).fit()
    assert found.estimate.difference == pytest.approx(model.params["Intercept"], abs=1e-9)
    assert found.estimate.error == pytest.approx(model.bse["Intercept"], rel=0.12)


def test_the_bootstrap_of_many_seeds_and_queries_agrees_with_the_closed_form():
    random = np.random.default_rng(4)
    left, right = drawn(random, 30, 80, sd_seed=0.03), 0.02 + drawn(random, 30, 80, sd_seed=0.03)
    low, high = two_way_bootstrap(left, right, rounds=1500)
    closed = two_way(left, right).estimate.interval(0.05)
    assert (low, high) == pytest.approx(closed, abs=0.15 * (closed[1] - closed[0]))


def test_stacking_finds_differences_where_there_are_none_and_means_do_not():
    random = np.random.default_rng(5)
    rounds, seeds, n = 400, 5, 43
    stacked = means = recipes = 0
    for _ in range(rounds):
        shared = random.normal(0, 0.08, n)  # what one recipe does better on a query, whatever the seed; 0 on average
        left, right = random.normal(0, 0.06, (seeds, n)), shared + random.normal(0, 0.06, (seeds, n))
        d = right - left
        stacked += stats.ttest_1samp(d.ravel(), 0).pvalue < 0.05
        means += stats.ttest_1samp(d.mean(axis=0), 0).pvalue < 0.05
        recipes += two_way(left, right).estimate.p() < 0.05
    assert stacked / rounds > 0.2
    assert means / rounds < 0.05 + 3 * math.sqrt(0.05 * 0.95 / rounds)
    assert recipes <= means


# d[seed][query]; R's `anova(lm(d ~ factor(seed) + factor(query)))` has the mean squares that statsmodels has below.
CROSSED = np.array([[0.10, 0.30, -0.05, 0.20], [0.05, 0.20, -0.10, 0.25], [0.15, 0.35, 0.05, 0.25]])


def test_paired_seeds_have_the_variance_of_a_two_way_analysis_without_repetition():
    left = np.random.default_rng(0).normal(0.4, 0.1, CROSSED.shape)
    found = crossed(left, left + CROSSED, [1, 2, 3])
    rows = [(seed, query, CROSSED[seed, query]) for seed in range(3) for query in range(4)]
    table = pd.DataFrame(rows, columns=["seed", "query", "d"])
    anova = anova_lm(ols("d ~ C(seed) + C(query)", table).fit())["mean_sq"]
    total = anova["C(query)"] + anova["C(seed)"] - anova["Residual"]
    assert found.estimate.difference == pytest.approx(CROSSED.mean())
    assert found.estimate.error == pytest.approx(math.sqrt(total / 12))
    parts = anova["C(query)"] ** 2 / 3 + anova["C(seed)"] ** 2 / 2 + anova["Residual"] ** 2 / 6
    assert found.estimate.df == pytest.approx(total**2 / parts)
    assert (found.is_paired, found.seeds) == (True, (1, 2, 3))


def test_what_both_sides_of_a_seed_share_cancels():
    random = np.random.default_rng(1)
    shared = random.normal(0, 0.05, (3, 1))
    left = 0.4 + shared + random.normal(0, 0.01, (3, 80))
    right = 0.42 + shared + random.normal(0, 0.01, (3, 80))
    assert crossed(left, right).estimate.error < two_way(left, right).estimate.error / 5


def test_fewer_than_three_shared_seeds_are_no_pairs():
    with pytest.raises(UsageError):
        crossed(CROSSED[:2], CROSSED[:2])
    with pytest.raises(UsageError):
        crossed(CROSSED, CROSSED[:2])


@pytest.mark.parametrize(
    ("seeds", "shares", "is_pair"),
    [
        (((1, 2, 3), (1, 2, 3)), (("order cl x",), ("order cl x", "order kd x")), True),
        (((1, 2, 3), (3, 2, 1)), (("order cl x",), ("order cl x",)), True),
        (((1, 2, 3), (1, 2, 4)), (("order cl x",), ("order cl x",)), False),
        (((1, 2), (1, 2)), (("order cl x",), ("order cl x",)), False),
        (((1, 2, 3), (1, 2, 3)), (("order cl x",), ("order kd x",)), False),
        (((1, 2, 3), (1, 2, 3)), ((), ()), False),
    ],
)
def test_seeds_are_pairs_where_both_sides_have_them_and_share_what_they_decide(seeds, shares, is_pair):
    sides = [
        System(
            label=f"side{place}",
            measured=(),
            members=tuple(System(label=f"{s}", measured=(), seed=s, shares=shares[place]) for s in seeds[place]),
        )
        for place in (0, 1)
    ]
    pairs = pairs_of(*sides)
    assert bool(pairs) == is_pair
    assert all(left.seed == right.seed for left, right in pairs)
