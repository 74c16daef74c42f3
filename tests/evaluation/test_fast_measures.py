"""Measures computed in arrays are ir_measures' own, query by query, whatever the qrels and rankings hold."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cerank.core.rankings import Ranking, ordered
from cerank.evaluation import fast_measures
from cerank.evaluation.measures import by_ir_measures, per_query
from cerank.trec.text_io import read_qrels, read_run

NAMES = (
    *("nDCG", "nDCG@1", "nDCG@3", "nDCG@10", "RR", "RR@2", "RR(rel=2)@10", "AP", "AP@3", "AP(rel=2)", "AP(rel=3)@5"),
    *("P@1", "P@5", "P(rel=2)@10", "R@1", "R@5", "R(rel=2)@100", "Success@1", "Success(rel=2)@5", "Rprec"),
    "Rprec(rel=2)",
)
OTHERS = ("nDCG(dcg='exp-log2')@5", "AP(judged_only=True)", "Judged@10", "Bpref", "nDCG(gains={0:0,1:3,2:7})@5")

ids = st.sampled_from([f"d{number}" for number in range(14)])
qrels_rows = st.dictionaries(ids, st.integers(-3, 5), max_size=12)
score_rows = st.dictionaries(ids, st.sampled_from([0.0, 0.5, 1.0, 1.0000001, 2.0, -3.0, 7.5]), max_size=14)
queries = st.sampled_from(["1", "07", "q", "é", "10"])


def close(found, wanted):
    assert found.keys() == wanted.keys()
    for name, row in wanted.items():
        assert list(found[name]) == list(row)
        assert all(abs(found[name][query] - value) <= 1e-12 for query, value in row.items()), name


@given(qrels=st.dictionaries(queries, qrels_rows, min_size=1), scores=st.dictionaries(queries, score_rows))
@example(qrels={"q": {}}, scores={"q": {"d1": 1.0}})
@example(qrels={"q": {"d1": 1}}, scores={})
@example(qrels={"q": {"d1": -1, "d2": -2}}, scores={"q": {"d1": 1.0, "d2": 1.0}})
@settings(max_examples=60)
def test_every_value_is_ir_measures_own_with_ties_gaps_and_grades_of_any_kind(qrels, scores):
    ranking = ordered({query: row for query, row in scores.items() if row})
    close(per_query(NAMES, qrels, ranking), by_ir_measures(NAMES, qrels, ranking))


@pytest.mark.parametrize("name", ["bm25", "bm25-rm3", "tasb", "ada2", "splade-pp-ed"])
def test_values_of_real_runs_are_ir_measures_own(shared, name):
    folder = shared / "trec-dl-2020-top100"
    qrels = read_qrels(folder / "qrels")
    ranking = read_run(folder / "runs" / f"{name}.run").ranking
    close(per_query(NAMES, qrels, ranking), by_ir_measures(NAMES, qrels, ranking))


def test_a_perfect_ranking_has_exactly_1():
    grades = {f"d{number}": 1 + number % 3 for number in range(60)}
    order = sorted(grades, key=lambda doc: (-grades[doc], doc))
    ranking = Ranking({"q": order}, {"q": range(60, 0, -1)})
    found = per_query(("nDCG", "nDCG@10", "nDCG@7", "AP", "R@60"), {"q": grades}, ranking)
    assert [row["q"] for row in found.values()] == [1.0] * 5


def test_measures_that_are_not_computed_in_arrays_stand_in_the_order_asked_for():
    qrels = {"q": {"d1": 2, "d2": 0, "d3": 1}, "p": {"d1": 1}}
    ranking = Ranking({"q": ("d3", "x", "d1")}, {"q": (3.0, 2.0, 1.0)})
    mixed = (OTHERS[0], "nDCG@10", *OTHERS[1:], "AP")
    found = per_query(mixed, qrels, ranking)
    assert list(found) == list(mixed)
    close(found, by_ir_measures(mixed, qrels, ranking))


def test_gains_of_one_measure_are_not_those_of_another_whatever_the_order_of_hashes():
    code = (
        "from cerank.evaluation.measures import by_ir_measures as by; from cerank.core.rankings import Ranking;"
        "run = Ranking({'q': ('d3', 'x', 'd1')}, {'q': (3.0, 2.0, 1.0)}); qrels = {'q': {'d1': 2, 'd2': 0, 'd3': 1}};"
        "print(by(('nDCG@10', 'nDCG(gains={0:0,1:3,2:7})@5', 'nDCG(gains={0:0,1:1,2:9})@5', 'AP'), qrels, run))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("2", "3", "4")
    }
    assert len(seen) == 1
    assert b"'nDCG@10': {'q': 0.760187" in seen.pop()


def test_a_measure_with_a_parameter_of_its_own_is_left_to_ir_measures(monkeypatch):
    seen = []
    monkeypatch.setattr(
        fast_measures, "per_query", lambda asked, qrels, ranking: seen.extend(asked) or {n: {"q": 0.0} for n in asked}
    )
    per_query((*NAMES, *OTHERS), {"q": {"d1": 1}}, Ranking({}, {}))
    assert seen == [*NAMES, "AP(judged_only=True)"]  # condensed here, so that it takes the same way


def test_blocks_of_queries_do_not_show(monkeypatch):
    rng = np.random.default_rng(3)
    docs = [f"d{number}" for number in range(40)]
    qrels = {f"q{n}": {doc: int(rng.integers(-1, 4)) for doc in rng.choice(docs, 9)} for n in range(30)}
    scores = {f"q{n}": {doc: float(rng.normal()) for doc in rng.choice(docs, 1 + n)} for n in range(29)}
    ranking = ordered(scores)
    whole = per_query(NAMES, qrels, ranking)
    monkeypatch.setattr(fast_measures, "MAX_CELLS", 50)
    assert per_query(NAMES, qrels, ranking) == whole
