"""Collections pooled where few of their queries differ: one more query that differs much must leave an equivalence."""

from __future__ import annotations

import numpy as np
import pytest

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
