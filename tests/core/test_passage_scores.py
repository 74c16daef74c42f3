"""From the scores of passages to those of documents."""

from __future__ import annotations

import math

import pytest

from cerank.core.passage_scores import AGGREGATIONS, aggregate, document_scores, passage_id, passages_by_document

SCORES = [0.5, -1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MaxP", 2.0),
        ("FirstP", 0.5),
        ("MeanP", 0.625),
        ("TopMeanP", 1.5),
        ("SumP", sum(1 / (1 + math.exp(-score)) for score in SCORES)),
    ],
)
def test_each_aggregation_is_what_it_is_called(name, expected):
    assert aggregate(name, SCORES, 2) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_a_document_of_one_passage_has_the_order_of_its_score(name):
    low, high = (aggregate(name, [score], 3) for score in (-800.0, 1.5))
    assert low < high
    assert math.isfinite(low)


def test_passages_are_put_together_by_document_whatever_its_id_holds():
    ids = ["D1", "D1%p0", "a%pb"]
    scores = {passage_id(doc, number): float(number) for doc in ids for number in range(2)}
    assert passages_by_document(scores) == {doc: [0.0, 1.0] for doc in ids}
    assert document_scores({"q": scores}, "MaxP", 1) == {"q": dict.fromkeys(ids, 1.0)}
