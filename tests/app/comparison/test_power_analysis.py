"""Power: the published figures, the spread of given rankings, and whether a plan can show the margins it declares."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from cerank.app import plans
from cerank.app.comparison import comparisons, named_systems, power_analysis
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.power_analysis import PowerRequest
from cerank.cli.tables import power_tables
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import RecipeError, UsageError
from tests.app.made_runs import changed, made_run
from tests.refusals import refused
from tests.worker.small import small_plan

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    plan, settings = small_plan(tmp_path_factory.mktemp("powering"))
    made_run(settings, changed(plan), "a", skill=0.3)
    made_run(settings, changed(plan, seed=7), "b", skill=0.7)
    return SimpleNamespace(settings=settings, plan=plan)


# Detectable d_z and smallest TOST margin in sd at 80 % power, worked out with the noncentral t apart from cerank.
@pytest.mark.parametrize(
    ("queries", "effect", "tenth", "margin"),
    [(43, 0.437, 0.584, 0.453), (50, 0.404, 0.538, 0.420), (54, 0.388, 0.516, 0.404), (97, 0.287, 0.378, 0.299)],
)
def test_the_smallest_difference_and_margin_are_the_known_ones(queries, effect, tenth, margin):
    found = power_analysis.of_numbers(queries, 1.0, PowerRequest()).estimate
    assert found.smallest_difference == pytest.approx(effect, abs=6e-4)
    assert found.smallest_margin == pytest.approx(margin, abs=2e-3)
    corrected = power_analysis.of_numbers(queries, 1.0, PowerRequest(tests=10)).estimate
    assert corrected.smallest_difference == pytest.approx(tenth, abs=6e-4)
    assert corrected.alpha == pytest.approx(0.005)


@pytest.mark.parametrize(("difference", "sd", "queries"), [(0.01, 0.10, 787), (0.01, 0.05, 199), (0.02, 0.10, 199)])
def test_the_queries_needed_for_a_difference_are_the_known_ones(difference, sd, queries):
    assert (
        power_analysis.of_numbers(43, sd, PowerRequest(difference=difference)).estimate.queries_for_difference
        == queries
    )


def test_statsmodels_agrees_about_power_and_queries():
    from statsmodels.stats.power import TTestPower

    found = power_analysis.of_numbers(43, 0.1, PowerRequest(difference=0.04, power=0.9, alpha=0.02)).estimate
    assert found.power_for_difference == pytest.approx(TTestPower().power(0.4, 43, 0.02), abs=1e-6)
    wanted = TTestPower().solve_power(effect_size=0.4, power=0.9, alpha=0.02)
    assert found.queries_for_difference - 1 < wanted <= found.queries_for_difference


@pytest.mark.parametrize(("measure", "sd"), [("nDCG@10", 0.1), ("NDCG@20", 0.1), ("MRR@10", 0.31), ("AP(rel=2)", 0.07)])
def test_without_an_sd_the_usual_one_is_assumed_and_said_to_be(measure, sd):
    case = power_analysis.of_numbers(50, None, PowerRequest(margin=0.01), measure)
    assert (case.estimate.sd, case.spread) == (sd, "assumed")
    assert power_analysis.sentences([case])[-1] == power_analysis.ASSUMPTION


def test_a_measure_without_a_usual_spread_asks_for_one():
    with refused(UsageError, "spread-unknown", "P@5") as caught:
        power_analysis.of_numbers(50, None, PowerRequest(), "P@5")
    assert "--sd" in caught.value.hint
    assert power_analysis.of_numbers(50, 0.2, PowerRequest(), "P@5").spread == "given"


@pytest.mark.parametrize(
    ("queries", "sd", "asked"),
    [
        (1, 0.1, PowerRequest()),
        (43, 0.0, PowerRequest()),
        (43, float("nan"), PowerRequest()),
        (43, 0.1, PowerRequest(difference=float("nan"))),
        (43, 0.1, PowerRequest(difference=-0.01)),
        (43, 0.1, PowerRequest(margin=float("inf"))),
        (43, 0.1, PowerRequest(margin=0.0)),
        (43, 0.1, PowerRequest(alpha=0.5)),
        (43, 0.1, PowerRequest(power=1.0)),
        (43, 0.1, PowerRequest(tests=0)),
    ],
)
def test_a_number_out_of_its_range_is_refused(queries, sd, asked):
    with pytest.raises(UsageError):
        power_analysis.of_numbers(queries, sd, asked)


def test_the_spread_of_rankings_is_that_of_their_comparison(lab):
    cases = power_analysis.of_rankings(
        lab.settings, ComparisonRequest(targets=("a", "b"), measures=("nDCG@10",)), PowerRequest(margin=0.2)
    )
    rows = comparisons.compare(lab.settings, ComparisonRequest(targets=("a", "b"), measures=("nDCG@10",))).rows
    assert [(case.first_stage, case.left, case.right) for case in cases] == [("bm25", "a", "b"), ("oracle", "a", "b")]
    for case, row in zip(cases, rows, strict=True):
        assert case.spread == "measured"
        assert case.estimate.sd == row.paired.sd
        assert case.estimate.queries == row.paired.n == 12
        assert case.can_show is (case.estimate.power_for_margin >= 0.8)


def test_the_spread_of_rankings_serves_another_number_of_queries(lab):
    few, many = (
        power_analysis.of_rankings(
            lab.settings, ComparisonRequest(targets=("a", "b"), measures=("nDCG@10",)), PowerRequest(), queries=n
        )[0]
        for n in (12, 1200)
    )
    assert few.estimate.sd == many.estimate.sd
    assert few.estimate.smallest_difference > 9 * many.estimate.smallest_difference


def test_rankings_without_a_spread_are_refused_by_name(lab):
    with refused(UsageError, "no-spread") as caught:
        power_analysis.of_rankings(
            lab.settings, ComparisonRequest(targets=("a", "same=a"), measures=("nDCG@10",)), PowerRequest()
        )
    assert caught.value.where.startswith("a and same, nDCG@10")
    with refused(UsageError, "too-few-systems"):
        power_analysis.of_rankings(lab.settings, ComparisonRequest(targets=("a",)), PowerRequest())


def planned(lab, measures=("nDCG@10", "RR@10"), **margins):
    given = {name.replace("_at_", "@"): value for name, value in margins.items()}
    evaluate = msgspec.structs.replace(lab.plan.recipe.evaluate, measures=measures, margins=given)
    recipe = msgspec.structs.replace(lab.plan.recipe, evaluate=evaluate)
    return plans.plan_of(recipe, lab.settings, now=NOW)


def test_a_plan_keeps_its_margins_under_canonical_names_with_its_time(lab):
    plan = planned(lab, NDCG_at_10=0.02, MRR_at_10=0.05)
    assert plan.recipe.evaluate.margins == {"nDCG@10": 0.02, "RR@10": 0.05}
    assert plan.created == "2030-01-01T00:00:00+00:00"
    again = plans.plan_of(plan.recipe, lab.settings, now=NOW)
    assert again.fingerprint == plan.fingerprint
    assert planned(lab, NDCG_at_10=0.03, MRR_at_10=0.05).fingerprint != plan.fingerprint


@pytest.mark.parametrize(
    ("margins", "what"),
    [
        ({"P_at_5": 0.1}, "margin-unused P@5"),
        ({"nDCG_at_10": 2.0}, "margin-too-large nDCG@10 2"),
        ({"RR_at_10": 0.1, "MRR_at_10": 0.2}, "margin-twice RR@10"),
    ],
)
def test_a_margin_that_judges_nothing_is_refused_at_plan_time_with_its_key(lab, margins, what):
    with refused(RecipeError, *what.split()) as caught:
        planned(lab, **margins)
    assert caught.value.where == "evaluate.margins"


def test_a_margin_for_a_measure_no_one_knows_is_refused_with_its_key(lab):
    with refused(UsageError, "unknown-measure") as caught:
        planned(lab, nDGC_at_10=0.1)
    assert caught.value.where == "evaluate.margins nDGC@10"


def test_a_plan_takes_the_spread_of_earlier_runs_and_counts_every_comparison_of_its_table(lab):
    plan = planned(lab, nDCG_at_10=0.02)
    found = power_analysis.of_plan(plan, lab.settings.lab)
    assert {(one.kind, one.measure) for one in found} == {
        (kind, m) for kind in power_analysis.KINDS for m in ("nDCG@10", "RR@10")
    }
    assert {one.low.tests for one in found} == {3 * 2 * 1 * 2}  # comparisons, first stages, test datasets, measures
    assert {one.low.alpha for one in found} == {0.05 / 12}
    assert {one.source for one in found} == {"earlier runs of this lab"}
    spreads = {}
    for name in ("a", "b"):
        run = comparisons.of_run(named_systems.target(lab.settings.lab, name).folder)
        for row in run.rows:
            kind = power_analysis.KINDS[row.left == run.baseline]
            spreads.setdefault((kind, row.measure), []).append(row.paired.sd)
    for one in found:
        known = spreads[one.kind, one.measure]
        assert (one.low.sd, one.high.sd) == pytest.approx((min(known), max(known)), rel=1e-9)
    lines = power_analysis.told(found)
    assert lines[0].startswith("stage against stage by nDCG@10 on 12 queries of data[70%:]: a true difference of ")
    assert "±0.02" in lines[0]
    assert lines[-1].startswith("the run's table will hold 12 comparisons: each is taken at level 0.0042")


def test_a_plan_without_earlier_runs_or_runs_of_its_dataset_has_an_assumed_range(lab, tmp_path):
    plan = planned(lab, measures=("nDCG@10", "P@5"), nDCG_at_10=0.02)
    bare = msgspec.structs.replace(plan, recipe=msgspec.structs.replace(plan.recipe, chain=("contrastive",)))
    found = power_analysis.of_plan(bare, tmp_path)
    dataset = open_dataset(plan.recipe.data.test[0], lab.settings.cache)
    assert len(dataset.runs) < 2
    (one,) = found  # of P@5 no spread is known
    assert (one.kind, one.source, one.low.sd, one.high.sd) == ("stage against first stage", "assumed", 0.19, 0.32)
    assert one.can_show is False


def test_an_assumed_spread_promises_no_power_that_the_embedded_data_would_not_have():
    """With sd .10 and two tests the margin .02 had "100 % power" on 731 queries; with the .318 seen it has none."""
    before, after = (
        power_analysis.of_numbers(731, sd, PowerRequest(margin=0.02, tests=2)).estimate for sd in (0.10, 0.318)
    )
    assert before.power_for_margin > 0.99
    assert after.power_for_margin < 0.001
    assert after.queries_for_margin == 2659


def test_what_was_planned_stands_beside_what_was_seen(lab):
    run = comparisons.of_run(named_systems.target(lab.settings.lab, "b").folder)
    lines = power_analysis.seen(power_analysis.of_plan(planned(lab), lab.settings.lab), run)
    assert len(lines) == 4
    sds = [row.paired.sd for row in run.rows if row.measure == "nDCG@10" and row.left != run.baseline]
    assert lines[0].startswith("stage against stage by nDCG@10 on data[70%:]: planned with sd ")
    assert f"seen {min(sds):.4f} to {max(sds):.4f}" in lines[0]


@pytest.mark.parametrize(
    ("queries", "sd", "asked", "what"),
    [
        (43, 2.0, PowerRequest(), "spread-too-large 1.0118 43 2"),
        (2, 1.42, PowerRequest(), "spread-too-large 1.4142"),
        (43, 0.9, PowerRequest(difference=0.6), "spread-too-large 0.6 0.8095"),
        (43, 0.1, PowerRequest(difference=1.5), "difference-too-large 1.5 nDCG@10"),
        (43, 0.1, PowerRequest(margin=1.0), "difference-too-large 1 nDCG@10"),
    ],
)
def test_what_no_two_systems_can_show_is_refused(queries, sd, asked, what):
    with refused(UsageError, *what.split()):
        power_analysis.of_numbers(queries, sd, asked)


def test_the_largest_sd_is_that_of_differences_at_both_ends_of_the_range():
    d = np.array([1.0, -1.0] * 21 + [1.0])
    mean = float(d.mean())
    assert d.std(ddof=1) == pytest.approx(np.sqrt(43 / 42 * (1 - mean**2)))
    assert power_analysis.of_numbers(43, float(d.std(ddof=1)), PowerRequest()).estimate.sd == d.std(ddof=1)


def test_two_queries_can_show_no_difference_that_the_measure_allows():
    assert power_analysis.sentences([power_analysis.of_numbers(2, 0.1, PowerRequest())])[0] == (
        "no true difference that nDCG@10 allows would be seen with this power"
    )
    cases = [power_analysis.of_numbers(2, sd, PowerRequest()) for sd in (0.1, 0.3)]
    table = power_tables.power_table(cases, "json")
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for row in table.rows]
    assert [row["smallest_difference"] for row in rows] == [None, None]
    assert [row["smallest_margin"] is None for row in rows] == [False, True]


def test_a_baseline_near_the_top_leaves_no_gain_that_would_be_seen(lab):
    (case, _) = power_analysis.of_rankings(
        lab.settings, ComparisonRequest(targets=("b", "a"), measures=("nDCG@10",)), PowerRequest(tests=20)
    )
    rows = comparisons.compare(lab.settings, ComparisonRequest(targets=("b", "a"), measures=("nDCG@10",))).rows
    assert case.headroom == pytest.approx(1 - rows[0].paired.mean_left)
    small = msgspec.structs.replace(case, headroom=0.0116)
    assert (
        power_analysis.sentences([small])[0] == "no gain that nDCG@10 allows would be seen: only 0.0116 is left above b"
    )


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two recipes with a first stage of training in common, each run with three seeds."""
    plan, settings = small_plan(tmp_path_factory.mktemp("seeds"))
    stages = plan.recipe.stages
    slower = msgspec.structs.replace(stages["distill"], learning_rate=1e-4)
    recipe = msgspec.structs.replace(plan.recipe, name="slower", stages={**stages, "distill": slower})
    other = msgspec.structs.replace(plan, recipe=recipe)
    for seed in (1, 2, 3):
        made_run(settings, changed(plan, seed=seed), f"fast{seed}", skill=0.7)
        made_run(settings, changed(other, seed=seed), f"slow{seed}", skill=0.3)
    targets = ("fast=fast1,fast2,fast3", "slow=slow1,slow2,slow3")
    return SimpleNamespace(settings=settings, request=ComparisonRequest(targets=targets, measures=("nDCG@10",)))


def test_a_grid_of_seeds_and_queries_rests_on_the_spread_that_an_analysis_of_variance_finds(seeds):
    import pandas as pd
    from scipy import stats
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    cells = power_analysis.seed_grid(seeds.settings, seeds.request, PowerRequest(), [5])
    systems, _ = comparisons.measured_systems(
        seeds.settings, named_systems.targets_of(seeds.settings.lab, seeds.request.targets), seeds.request
    )
    for first in ("bm25", "oracle"):
        place = [entry.condition.first_stage for entry in systems[0].measured].index(first)
        fast, slow = ([member.measured[place].values["nDCG@10"] for member in system.members] for system in systems)
        rows = [
            {"seed": f"s{seed}", "query": query, "difference": slow[seed][query] - fast[seed][query]}
            for seed in range(3)
            for query in fast[seed]
        ]
        table = anova_lm(ols("difference ~ C(seed) + C(query)", pd.DataFrame(rows)).fit())
        by_seed, by_query, rest = table["mean_sq"][["C(seed)", "C(query)", "Residual"]]
        noise, of_seeds = rest, max(0.0, (by_seed - rest) / len(fast[0]))
        of_queries = max(0.0, (by_query - rest) / 3)
        here = {(cell.queries, cell.seeds): cell for cell in cells if cell.first_stage == first}
        pilot = len(fast[0])
        assert set(here) == {(n, k) for n in (pilot // 2, pilot, 2 * pilot, 4 * pilot) for k in (3, 5)}
        for (queries, count), cell in here.items():
            variance = of_queries / queries + of_seeds / count + noise / (queries * count)
            # Satterthwaite's degrees of freedom of MS(query) + MS(seed) - MS(rest), as a pilot of this size would have
            of_each = ((noise + count * of_queries, queries - 1), (noise + queries * of_seeds, count - 1))
            squares = [*of_each, (noise, (queries - 1) * (count - 1))]
            df = (queries * count * variance) ** 2 / sum(square**2 / degrees for square, degrees in squares)
            bound = stats.t.ppf(0.975, df)
            effect = cell.smallest_difference / variance**0.5
            power = stats.nct.sf(bound, df, effect) + stats.nct.cdf(-bound, df, effect)
            assert power == pytest.approx(0.8, abs=0.005)


def test_more_seeds_and_more_queries_show_smaller_differences(seeds):
    cells = power_analysis.seed_grid(seeds.settings, seeds.request, PowerRequest(), [5, 10])
    bm25 = {(cell.queries, cell.seeds): cell.smallest_difference for cell in cells if cell.first_stage == "bm25"}
    for (queries, count), size in bm25.items():
        assert size >= bm25.get((2 * queries, count), 0.0)
        assert size >= bm25.get((queries, 2 * count), 0.0)


@pytest.mark.parametrize(
    ("targets", "counts", "what"),
    [
        (("fast=fast1,fast2,fast3",), [3], "too-few-recipes"),
        (("fast=fast1,fast2,fast3", "slow=slow1,slow2,slow3"), [1], "too-few-seeds 2"),
        (("fast=fast1,fast2", "slow=slow1,slow2"), [3], "seeds-unpaired"),
    ],
)
def test_seeds_that_plan_nothing_are_refused(seeds, targets, counts, what):
    request = msgspec.structs.replace(seeds.request, targets=targets)
    with refused(UsageError, *what.split()):
        power_analysis.seed_grid(seeds.settings, request, PowerRequest(), counts)
