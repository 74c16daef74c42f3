"""Collections pooled where few of their queries differ: one more query that differs much must leave an equivalence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cerank.app.comparison.several_collections.forest_plot import forest_lines
from cerank.evaluation.studies.pooling import CollectionDifference, pooled, unseen_in
from cerank.evaluation.verdicts.terms import Margin

MARGINS = {"nDCG@10": Margin(value=0.02, before=True)}


def collection(name, gains, unseen=None):
    return CollectionDifference(
        collection=name,
        measure="nDCG@10",
        left="A",
        right="B",
        queries=len(gains),
        difference=float(np.mean(gains)),
        error=float(np.std(gains, ddof=1) / np.sqrt(len(gains))),
        unseen=unseen,
    )


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_one_more_query_changes_the_summary_as_it_would_change_the_values(sign):
    gains = [0.0] * 17 + [0.01, -0.02, 0.03]
    more, expected = collection("a", gains, 0.25).with_one_more(sign), collection("a", [*gains, sign * 0.25])
    assert (more.queries, more.difference, more.error) == (
        expected.queries,
        pytest.approx(expected.difference),
        pytest.approx(expected.error),
    )


@pytest.mark.parametrize(
    ("queries", "unseen", "verdict"),
    [(10, 0.25, "cannot tell"), (10, None, "equivalent"), (60, 0.25, "equivalent")],
)
def test_a_pooled_equivalence_needs_collections_on_which_one_more_query_would_not_undo_it(queries, unseen, verdict):
    rows = [collection(name, [0.0] * (queries - 2) + [0.004, -0.003], unseen) for name in "abc"]
    (row,) = pooled(rows, margins=MARGINS).rows
    assert row.judgment.verdict == verdict
    assert row.judgment.unseen == (unseen if verdict == "cannot tell" else None)
    assert row.pooled.estimate.difference == pytest.approx(0.001 / queries)  # what was seen is what is shown


def test_of_a_summary_the_number_of_differing_queries_decides():
    assert [unseen_in("nDCG@10", differing) for differing in (0, 9, 10, None)] == [0.25, 0.25, None, None]


@pytest.mark.parametrize(("measure", "end"), [("nDCG@10", 1.0), ("NumRel", None)])
def test_pooled_intervals_and_predictions_end_where_the_measure_does(measure, end):
    differences, error = [0.05, 0.5, 0.9], 0.01
    rows = [
        CollectionDifference(
            collection=f"c{place}",
            measure=measure,
            left="A",
            right="B",
            queries=40,
            difference=difference,
            error=error,
            limits=(-0.06, 0.94) if end else None,
        )
        for place, difference in enumerate(differences)
    ]
    (row,) = pooled(rows).rows
    mean, half = np.mean(differences), stats.t.ppf(0.975, 2) * np.std(differences, ddof=1) / np.sqrt(3)
    assert mean + half > 1  # equal errors: Hartung and Knapp's interval is that of a t-test of the three
    assert row.judgment.low == pytest.approx(mean - half, abs=2e-3)
    assert row.judgment.high == pytest.approx(end or mean + half, abs=2e-3)
    assert row.judgment.is_cut == (end is not None)
    predicted = row.pooled.prediction
    assert (predicted == (-1.0, 1.0)) == (end is not None)  # with one degree of freedom it spans -4 to 5
    lines = forest_lines(row)
    assert lines[2][4] == pytest.approx(0.9 + stats.t.ppf(0.975, 39) * error)
    assert (lines[3][4], lines[4][4]) == (row.judgment.high, predicted[1])


def test_a_domain_of_one_collection_ends_where_its_own_comparison_does():
    wide = [
        CollectionDifference(
            collection="b",
            measure="nDCG@10",
            left="A",
            right="B",
            queries=3,
            difference=0.01,
            error=0.5,
            limits=(-0.2, 0.8),
        )
    ]
    rows = [*wide, collection("a", [0.01, 0.02, 0.03]), collection("c", [0.01, 0.02, 0.04])]
    ours = next(row for row in pooled(rows, in_domain=("b",)).rows if row.domain == "in-domain")
    assert (ours.judgment.low, ours.judgment.high) == (-0.2, 0.8)
    assert forest_lines(ours)[0][3:5] == (-0.2, 0.8)
