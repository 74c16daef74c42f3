"""Primary rows share one family; all others are descriptive and cost them nothing."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy import stats

from cerank.errors import UsageError
from cerank.evaluation.answers import answers, paragraphs
from cerank.evaluation.compare import Condition, Measured, System, compare
from cerank.evaluation.comparison_rows import family, footnotes, summary
from cerank.evaluation.primary_questions import PrimaryQuestion, is_sensitivity, questions
from cerank.evaluation.verdicts.terms import Margin, Pairing, Terms
from tests.refusals import refused

WHERE = Condition("c", "bm25")


def systems(*labels: str, n: int = 60, seed: int = 0, measures: tuple[str, ...] = ("nDCG@10", "RR@10")) -> list[System]:
    random = np.random.default_rng(seed)
    made = []
    for place, label in enumerate(labels):
        values = {
            name: {f"q{at}": float(v) for at, v in enumerate(random.normal(0.4 + 0.03 * place, 0.05, n))}
            for name in measures
        }
        made.append(System(label=label, measured=(Measured(condition=WHERE, qrels_sha256="x", values=values),)))
    return made


CHAIN = ("first-stage", "contrastive", "distill")
STEPS = ("contrastive against first-stage", "distill against contrastive")


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("nDCG@10", PrimaryQuestion("nDCG@10")),
        ("distill against contrastive", PrimaryQuestion("", "distill", "contrastive")),
        ("MRR@10: distill against contrastive", PrimaryQuestion("RR@10", "distill", "contrastive")),
        ("RR(rel=2)@10: b against c", PrimaryQuestion("RR(rel=2)@10", "b", "c")),
    ],
)
def test_a_question_names_a_measure_or_two_systems_or_both(text, question):
    assert questions([text], "evaluate.primary") == (question,)


@pytest.mark.parametrize("text", ["", "against", "a against ", ": a against b", "nDCG@10: a", "nDCG@10:", "NOSUCH@10"])
def test_what_is_no_question_is_refused_with_its_place(text):
    with pytest.raises(UsageError) as caught:
        questions([text], "evaluate.primary")
    assert caught.value.where == "evaluate.primary"


def test_in_a_chain_each_stage_against_the_one_before_it_and_the_first_stage_is_primary():
    comparison = compare(systems(*CHAIN), ["nDCG@10"], terms=Terms(pairs="stages"))
    primary = [(row.right, row.left) for row in comparison.rows if row.is_primary]
    assert primary == [("contrastive", "first-stage"), ("distill", "contrastive"), ("distill", "first-stage")]
    assert comparison.family == 3


def test_a_baseline_beside_a_chain_is_descriptive_unless_a_question_names_it():
    *chain, other = systems(*CHAIN, "reranker")
    beside = [*chain, msgspec.structs.replace(other, is_baseline=True)]
    plain = compare(beside, ["nDCG@10"], terms=Terms(pairs="stages"))
    rows = {(row.right, row.left) for row in plain.rows if not row.is_primary}
    assert rows == {("reranker", "first-stage"), ("contrastive", "reranker"), ("distill", "reranker")}
    assert plain.family == 3
    asked = compare(beside, ["nDCG@10"], terms=Terms(pairs="stages", primary=("distill against reranker",)))
    assert {(row.right, row.left) for row in asked.rows if row.is_primary} == {("distill", "reranker")}
    assert asked.family == 1


def test_a_descriptive_row_has_the_figures_of_a_single_test_and_no_verdict():
    terms = Terms(pairs="stages", primary=STEPS, margins={"nDCG@10": Margin(value=0.2)})
    comparison = compare(systems(*CHAIN), ["nDCG@10"], terms=terms)
    (row,) = (row for row in comparison.rows if not row.is_primary)
    first, third = (list(comparison.systems[at].measured[0].values["nDCG@10"].values()) for at in (0, 2))
    test = stats.ttest_rel(third, first)
    assert row.verdict == "descriptive"
    assert (row.judgment.p, row.judgment.p_corrected) == pytest.approx((test.pvalue, test.pvalue))
    low, high = test.confidence_interval(0.95)
    assert (row.judgment.low, row.judgment.high) == pytest.approx((low, high))
    assert row.worth is None
    assert row.judgment.detectable is None


def test_adding_a_descriptive_measure_changes_no_primary_row():
    terms = Terms(pairs="all", correction="holm")
    alone = compare(systems(*CHAIN), ["nDCG@10"], terms=terms)
    both = compare(systems(*CHAIN), ["nDCG@10", "RR@10"], terms=msgspec.structs.replace(terms, primary=("nDCG@10",)))
    assert [row for row in both.rows if row.is_primary] == list(alone.rows)
    assert both.family == alone.family
    everything = compare(systems(*CHAIN), ["nDCG@10", "RR@10"], terms=terms)
    assert everything.family == 2 * alone.family


def test_a_measure_over_judged_documents_is_descriptive_beside_the_plain_one():
    condensed = "nDCG(judged_only=True)@10"
    measures = ("nDCG@10", condensed)
    comparison = compare(systems("a", "b", measures=measures), measures)
    assert [row.is_primary for row in comparison.rows] == [True, False]
    assert is_sensitivity(condensed, measures)
    assert not is_sensitivity(condensed, [condensed])


def test_a_question_that_no_row_answers_is_refused_and_the_rows_are_named():
    with refused(UsageError, "question-unanswered", "distill", "nobody") as caught:
        compare(systems(*CHAIN), ["nDCG@10"], terms=Terms(primary=("distill against nobody",)))
    assert all(system in caught.value.hint for system in ("contrastive", "first-stage"))


def test_a_table_says_which_rows_are_descriptive():
    comparison = compare(systems(*CHAIN), ["nDCG@10"], terms=Terms(pairs="stages", primary=STEPS))
    assert any("descriptive" in line for line in footnotes(comparison))
    assert [line.is_primary for line in summary(comparison)] == [None, True, True, False]


def test_rows_given_one_by_one_say_themselves_whether_they_are_primary():
    made = systems(*CHAIN)
    rows = [
        Pairing(condition=WHERE, measure="nDCG@10", left="first-stage", right=right, is_primary=False)
        for right in CHAIN[1:]
    ]
    comparison = compare(made, ["nDCG@10"], pairings=rows)
    assert comparison.family == 0
    assert {row.verdict for row in comparison.rows} == {"descriptive"}
    assert family(comparison) == "no primary question is answered: all rows are descriptive"


def test_a_descriptive_row_is_told_as_such_and_not_in_the_runs_answer():
    comparison = compare(systems(*CHAIN), ["nDCG@10"], terms=Terms(pairs="stages", primary=STEPS))
    told = {(answer.right, answer.left): answer.text for answer in answers(comparison)}
    assert "no verdict is made" in told["distill", "first-stage"]
    assert "of this row alone" in told["distill", "first-stage"]
    assert "no verdict is made" not in " ".join(paragraphs(comparison))
