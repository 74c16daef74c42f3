"""A query's difference told document by document sums to the measure's own difference."""

from __future__ import annotations

import pytest

from cerank.core.rankings import Ranking
from cerank.errors import UsageError
from cerank.evaluation.measures import per_query
from cerank.evaluation.sensitivity.document_shares import decomposed, shape_of, value
from cerank.trec.text_io import read_qrels, read_run
from tests.refusals import refused

MEASURES = ("nDCG@10", "nDCG", "RR@10", "RR(rel=2)@10", "AP", "AP(rel=2)@20", "P@5", "R@20", "Success@3", "Rprec")
CONDENSED = ("nDCG(judged_only=True)@10", "AP(judged_only=True)@10")
GRADES = {"a": 2, "b": 1, "c": 0, "d": 3, "e": -1}


def ranked(docs):
    return Ranking({"q": docs}, {"q": [float(-place) for place in range(len(docs))]})


@pytest.mark.parametrize("measure", MEASURES + CONDENSED)
def test_parts_sum_to_the_difference_of_the_measure(measure):
    left, right = ("x", "b", "c", "a", "y"), ("d", "x", "z", "e", "a", "b")
    parts = decomposed(measure, GRADES, left, right)
    ends = [per_query((measure,), {"q": GRADES}, ranked(side))[measure]["q"] for side in (left, right)]
    assert sum(part.difference for part in parts) == pytest.approx(ends[1] - ends[0], abs=1e-12)
    assert value(shape_of(measure), GRADES, right) == pytest.approx(ends[1], abs=1e-12)
    assert all(part.difference or part.grade is None for part in parts)


@pytest.mark.parametrize("measure", MEASURES)
def test_public_runs_of_trec_dl_2020_are_told_exactly(shared, measure):
    folder = shared / "trec-dl-2020-top100"
    qrels = read_qrels(folder / "qrels")
    left, right = (read_run(folder / "runs" / f"{name}.run").ranking for name in ("bm25", "tasb"))
    ends = [per_query((measure,), qrels, side)[measure] for side in (left, right)]
    for query, grades in qrels.items():
        parts = decomposed(measure, grades, left[query], right[query])
        assert sum(part.difference for part in parts) == pytest.approx(ends[1][query] - ends[0][query], abs=1e-12)


def test_a_document_that_moved_up_carries_its_discounts():
    parts = decomposed("nDCG@2", {"a": 1, "b": 0}, ("b", "a"), ("a", "b"))
    assert [(part.document, part.left_rank, part.right_rank) for part in parts] == [("a", 2, 1)]
    assert (parts[0].left, parts[0].right) == pytest.approx((0.6309297535714575, 1.0))


def test_unjudged_documents_that_came_in_are_named_with_nothing():
    parts = decomposed("nDCG@1", {"a": 1}, ("a",), ("x", "a"))
    assert [(part.document, part.grade, part.difference) for part in parts] == [("a", 1, -1.0), ("x", None, 0.0)]


@pytest.mark.parametrize("measure", ["ERR@10", "RBP(p=0.8)", "Bpref"])
def test_a_measure_that_is_no_known_sum_is_refused(measure):
    with refused(UsageError, "measure-not-a-sum") as caught:
        shape_of(measure)
    assert "nDCG" in caught.value.hint
