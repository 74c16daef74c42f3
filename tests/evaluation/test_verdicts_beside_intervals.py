"""Over random designs no verdict stands beside an interval that says otherwise, or it is said why."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import numpy as np
import pytest

from cerank.api import ComparisonResult
from cerank.app.comparison.export_comparison import by_stage, document, short_table
from cerank.app.comparison.several_collections.pool_comparisons import sentences
from cerank.app.comparison.several_collections.pooled_tables import summary
from cerank.app.rankings import first_stage_table
from cerank.app.report import latex
from cerank.evaluation.answers import HOLDS_ZERO, REACHES_BEYOND, SHARPER, answers, explain
from cerank.evaluation.compare import Comparison, Condition, Measured, System, compare
from cerank.evaluation.comparison_rows import NOTE_OF_STEP, STEP_MARK
from cerank.evaluation.studies.factor_effects import FactorCell, effect_study
from cerank.evaluation.studies.interaction import interaction_study
from cerank.evaluation.studies.judge_estimates import judged_estimates
from cerank.evaluation.studies.pooling import CollectionDifference, pooled
from cerank.evaluation.verdicts.terms import Margin, Terms
from cerank.evaluation.verdicts.verdict import Judgment

MEASURE = "nDCG@10"
MARGINS = (None, None, Margin(value=0.03), Margin(value=0.12))
ONE_STEP = ("bonferroni", "bh", "none")  # each has one level, that of its intervals
DESIGNS = 60
HAS_LESS = "an interval that says less"


def is_told_apart(judgment: Judgment) -> bool:
    """Whether a verdict says more than its interval, worked out from the figures that a table shows."""
    within = judgment.verdict in {"equivalent", "different but negligible"}
    differs = judgment.verdict in {"better", "worse", "different but negligible"}
    holds_zero = judgment.low <= 0 <= judgment.high
    assert holds_zero or differs  # no interval without 0 beside a verdict that shows no difference
    if not within:
        return differs and holds_zero
    inside = -judgment.margin.value < judgment.equivalence_low and judgment.equivalence_high < judgment.margin.value
    return (differs and holds_zero) or not inside


def values_of(random: np.random.Generator, systems: int, queries: int) -> np.ndarray:
    """Scores between 0 and 1, some far from those of the first system and some near, as a step down takes."""
    shifts = np.where(random.random(systems) < 0.75, 0.25, random.uniform(0.03, 0.07, systems))
    shifts[0] = 0.0
    topics = random.normal(0.4, 0.05, (queries, 1))
    return np.clip(topics + shifts + random.normal(0, 0.09, (queries, systems)), 0, 1)


def tables(correction: str, family: int = 0) -> Iterator[Comparison]:
    """Random tables of three to six comparisons with a baseline on 20 to 60 queries."""
    for seed in range(DESIGNS):
        random = np.random.default_rng([seed, 1])
        values = values_of(random, int(random.integers(4, 8)), int(random.integers(20, 61)))
        systems = []
        for place, column in enumerate(values.T):
            of_query = {MEASURE: {f"q{at}": float(value) for at, value in enumerate(column)}}
            at = Measured(condition=Condition("made", "bm25"), qrels_sha256="x", values=of_query)
            systems.append(System(label=f"s{place}", measured=(at,)))
        margin = MARGINS[seed % len(MARGINS)]
        margins = {} if margin is None else {MEASURE: margin}
        terms = Terms(correction=correction, margins=margins, rounds=199, seed=seed, family=family)
        yield compare(systems, [MEASURE], terms=terms)


@pytest.mark.parametrize("correction", ["holm", "max-t"])
def test_a_verdict_of_a_stepped_down_p_says_so_where_its_interval_says_less(correction):
    seen = 0
    for comparison in tables(correction):
        told = {row.right: is_told_apart(row.judgment) for row in comparison.rows}
        for table in (short_table(comparison), *by_stage(comparison)):
            assert {row[0]: STEP_MARK in str(row) for row in table.rows if row[0] in told} == told
            assert (NOTE_OF_STEP in table.notes) == any(told.values())
        notes = json.loads(document(comparison))["notes"]
        said = {name for name in told for note in notes if note.startswith(f"{name} against") and HAS_LESS in note}
        assert said == {name for name, is_told in told.items() if is_told}
        assert ("\\S{}" in latex.differences(comparison, MEASURE)) == any(told.values())
        assert [STEP_MARK in line for line in repr(ComparisonResult(comparison)).splitlines()] == list(told.values())
        for row, answer in zip(comparison.rows, answers(comparison), strict=True):
            judgment = row.judgment
            assert judgment.is_beyond_interval == told[row.right]
            assert ("adjusted p" in explain(judgment)) == told[row.right]
            low, high = judgment.low, judgment.high
            if judgment.is_equivalent:  # a sentence has one interval, that of the margin
                low, high = judgment.equivalence_low, judgment.equivalence_high
            says_less = judgment.is_different and low <= 0 <= high
            if judgment.is_equivalent:
                says_less |= not -judgment.margin.value < low <= high < judgment.margin.value
            assert (SHARPER in answer.text) == says_less
        seen += sum(told.values())
    assert seen > 3  # the designs hold what is looked for


@pytest.mark.parametrize("correction", ONE_STEP)
def test_a_correction_of_one_step_never_says_more_than_its_intervals(correction):
    for comparison in itertools.islice(tables(correction, family=9), 30):
        assert not any(is_told_apart(row.judgment) or row.judgment.is_beyond_interval for row in comparison.rows)


def test_effects_and_interactions_have_the_mark_where_their_intervals_say_less():
    seen = 0
    for seed in range(DESIGNS):
        random = np.random.default_rng([seed, 2])
        values = values_of(random, 4, 40)
        cells = [FactorCell({"loss": f"l{place}"}, column) for place, column in enumerate(values.T)]
        effects = effect_study(
            cells, {"loss": [f"l{place}" for place in range(4)]}, MEASURE, margin=MARGINS[seed % 4]
        ).effects
        told = [is_told_apart(each.judgment) for each in effects]
        assert [each.judgment.is_beyond_interval for each in effects] == told
        study = interaction_study(values.reshape(40, 2, 2).repeat(2, axis=2), ["a", "b"], ["c", "d", "e", "f"], MEASURE)
        differs = [each.verdict == "gain differs" and each.low <= 0 <= each.high for each in study.contrasts]
        table = first_stage_table.tables(study, is_marked=True)[1]
        assert [STEP_MARK in str(row) for row in table.rows] == differs
        assert (NOTE_OF_STEP in table.notes) == any(differs)
        seen += sum(told)
    assert seen > 1


def test_pooled_lines_and_claims_say_it_in_a_note_and_in_their_sentence():
    seen = 0
    for seed in range(4 * DESIGNS):
        random = np.random.default_rng([seed, 3])
        rows = [
            CollectionDifference(
                collection=f"c{place}",
                measure=MEASURE,
                left="base",
                right=name,
                queries=50,
                difference=float(gain + random.normal(0, 0.008)),
                error=0.01,
            )
            for name, gain in {"far": 0.3, "farther": 0.5, "near": float(random.uniform(0.005, 0.02))}.items()
            for place in range(6)
        ]
        margin = MARGINS[seed % len(MARGINS)]
        result = pooled(rows, margins={} if margin is None else {MEASURE: margin})
        told = {row.right: is_told_apart(row.judgment) for row in result.rows}
        said = {row.right: text for row in result.rows for text in sentences(result, {(MEASURE, "base", row.right)})}
        for name, is_told in told.items():
            assert (HOLDS_ZERO in said[name] or REACHES_BEYOND in said[name]) == is_told
            text = [note for note in summary(result).notes if note.startswith(f"{name} against base")]
            assert bool(text) == is_told
        tests = [row.pooled.estimate for row in result.rows]
        for correction in ONE_STEP:
            judgments = judged_estimates(tests, [margin] * len(tests), correction=correction)
            assert not any(map(is_told_apart, judgments))
        seen += sum(told.values())
    assert seen > 1
