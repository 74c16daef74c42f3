"""Effects of factors: what was put into the values is found, by the same test as in any paired comparison."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cerank.errors import UsageError
from cerank.evaluation.studies.factor_effects import FactorCell, effect_study, means_by_levels
from cerank.evaluation.verdicts.terms import Margin
from cerank.recipes.factors import design
from tests.refusals import refused

LEVELS = dict.fromkeys("abcd", ("no", "yes"))
MARGIN = Margin(value=0.02, before=True)


def cells_of(levels, fraction="full", queries=60):
    rng = np.random.default_rng(7)
    hard = rng.normal(0.5, 0.2, queries)
    return [
        FactorCell(row, hard + 0.06 * (row["a"] != "no") - 0.05 * (row["c"] != "no") + rng.normal(0, 0.05, queries))
        for row in design(levels, fraction)
    ]


@pytest.mark.parametrize("fraction", ["full", "half"])
def test_effects_that_are_there_are_found_and_the_others_are_equivalent(fraction):
    study = effect_study(cells_of(LEVELS, fraction), LEVELS, "nDCG@10", is_fraction=fraction != "full", margin=MARGIN)
    verdicts = {effect.factor: effect.judgment.verdict for effect in study.effects}
    assert verdicts == {"a": "better", "b": "equivalent", "c": "worse", "d": "equivalent"}
    assert {effect.cells for effect in study.effects} == {8 if fraction == "full" else 4}


def test_an_effect_is_the_paired_t_test_of_the_means_over_the_other_factors():
    cells = cells_of(LEVELS)
    study = effect_study(cells, LEVELS, "nDCG@10")
    side = {
        level: np.mean([cell.values for cell in cells if cell.levels["b"] == level], axis=0) for level in ("no", "yes")
    }
    effect = study.effects[1]
    reference = stats.ttest_rel(side["yes"], side["no"])
    assert effect.figures.p == pytest.approx(reference.pvalue, rel=1e-9)
    assert effect.figures.difference == pytest.approx(np.mean(side["yes"] - side["no"]), abs=1e-12)
    ps = sorted(each.figures.p for each in study.effects)
    adjusted = stats.false_discovery_control(
        ps, method="by"
    )  # another order-preserving correction: the order is the same
    assert np.argsort(adjusted, kind="stable").tolist() == [0, 1, 2, 3]
    assert min(each.judgment.p_corrected for each in study.effects) == pytest.approx(min(1.0, 4 * ps[0]))


def test_an_effect_lies_in_its_interval_which_stays_within_what_the_measure_allows():
    worse = [
        FactorCell({"a": level}, np.full(8, 0.9) - drop) for level, drop in (("no", 0.0), ("yes", np.arange(8) / 9))
    ]
    (effect,) = effect_study(worse, {"a": ("no", "yes")}, "nDCG@10", limits=(0.0, 1.0)).effects
    assert effect.judgment.low < effect.figures.difference < effect.judgment.high
    assert effect.judgment.low >= -0.9
    assert effect.judgment.high <= 0.1 + 1e-9


def test_only_cells_that_differ_in_nothing_else_are_held_against_each_other():
    values = np.linspace(0.1, 0.9, 9)
    cells = [
        FactorCell({"recipe": "one"}, values),
        FactorCell({"recipe": "two", "rate": "low"}, values + 0.1),
        FactorCell({"recipe": "two", "rate": "high"}, values + 0.3 + 0.01 * np.arange(9)),
    ]
    (effect,) = effect_study(cells, {"recipe": ("one", "two"), "rate": ("low", "high")}, "nDCG@10").effects
    assert (effect.factor, effect.cells) == ("rate", 1)
    with refused(UsageError, "no-factor"):
        effect_study(cells[:2], {"recipe": ("one", "two"), "rate": ("low", "high")}, "nDCG@10")


def test_a_factor_that_changes_no_ranking_is_identical_and_outside_the_family():
    values = np.linspace(0.1, 0.9, 12)
    rng = np.random.default_rng(1)
    other = values + rng.normal(0.1, 0.1, 12)
    cells = [
        FactorCell({"scores": scores, "rate": rate}, values if rate == "low" else other, f"ranking at {rate}")
        for scores in ("fp32", "bf16")
        for rate in ("low", "high")
    ]
    scores, rate = effect_study(cells, {"scores": ("fp32", "bf16"), "rate": ("low", "high")}, "nDCG@10").effects
    assert scores.judgment.verdict == "identical"
    assert rate.judgment.p_corrected == rate.figures.p


@pytest.mark.parametrize(("queries", "verdict", "unseen"), [(20, "cannot tell", 0.25), (60, "equivalent", None)])
@pytest.mark.parametrize("differing", [0, 1])
def test_an_effect_on_few_queries_is_equivalent_only_if_one_more_that_differs_much_leaves_it_so(
    queries, verdict, unseen, differing
):
    before = np.full(queries, 0.5)
    after = before.copy()
    after[:differing] += 0.01  # a t-test would call 0.01 on 1 of 20 queries equivalent within .02
    cells = [FactorCell({"a": "no"}, before, "one ranking"), FactorCell({"a": "yes"}, after, "another")]
    (effect,) = effect_study(cells, {"a": ("no", "yes")}, "nDCG@10", margin=MARGIN, limits=(0.0, 1.0)).effects
    assert (effect.judgment.verdict, effect.judgment.unseen) == (verdict, unseen)
    assert effect.judgment.basis == "exact sign flips"


def test_an_effect_on_five_queries_of_one_direction_is_not_shown():
    """Five signs that agree have p .0625 at best, whatever a t-test says of five equal gains."""
    after = np.full(50, 0.5)
    after[:5] = 0.9
    cells = [FactorCell({"a": "no"}, np.full(50, 0.5)), FactorCell({"a": "yes"}, after)]
    (effect,) = effect_study(cells, {"a": ("no", "yes")}, "nDCG@10", limits=(0.0, 1.0)).effects
    assert effect.figures.p < 0.03
    assert (effect.judgment.verdict, effect.judgment.p) == ("cannot tell", pytest.approx(0.0625))


def test_means_by_two_factors_are_over_the_others_and_a_missing_pair_is_refused():
    cells = cells_of(LEVELS)
    means = means_by_levels(cells, LEVELS, ("a", "c"))
    chosen = [cell.values for cell in cells if (cell.levels["a"], cell.levels["c"]) == ("yes", "no")]
    np.testing.assert_allclose(means[:, 1, 0], np.mean(chosen, axis=0))
    with refused(UsageError, "factor-unknown", "z"):
        means_by_levels(cells, LEVELS, ("a", "z"))
    with refused(UsageError, "no-cell"):
        means_by_levels([cell for cell in cells if cell.levels["a"] == "no"], LEVELS, ("a", "c"))
