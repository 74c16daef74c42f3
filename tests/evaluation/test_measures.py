"""Measures per query agree with trec_eval's own output, and a name that cannot be meant is refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import pytrec_eval

from cerank.core.rankings import Ranking, ordered
from cerank.errors import UsageError
from cerank.evaluation.measures import by_ir_measures, check, per_query
from tests.evaluation.files import qrels_of, ranking_of, scores_of
from tests.refusals import refused

QRELS = {"q07": {"a": 1, "b": 2, "n": 0}, "x": {"c": 0, "d": 1}, "none": {"z": 0}}
RUNS = ("bm25", "bm25-rm3", "tasb", "ada2", "splade-pp-ed")


def ranked(**lists: str) -> Ranking:
    return Ranking(
        {q: docs.split() for q, docs in lists.items()},
        {q: range(99, 99 - len(d.split()), -1) for q, d in lists.items()},
    )


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("nDCG@10", "nDCG@10"),
        ("NDCG@10", "nDCG@10"),
        ("MRR@10", "RR@10"),
        ("RR(rel=1)@10", "RR@10"),
        ("RR(cutoff=10)", "RR@10"),
        ("MAP(rel=2)", "AP(rel=2)"),
        (" AP( rel = 2 )@100 ", "AP(rel=2)@100"),
        ("AP(judged_only=True, rel=2)", "AP(rel=2,judged_only=True)"),
        ("NumRelRet", "NumRet(rel=1)"),
    ],
)
def test_a_name_or_alias_becomes_the_canonical_name_and_stays_it(given, canonical):
    assert check([given], QRELS, "") == (canonical,)
    assert check([canonical], QRELS, "") == (canonical,)


def test_a_measure_named_twice_is_kept_once():
    assert check(["MRR@10", "nDCG@10", "RR@10"], QRELS, "") == ("RR@10", "nDCG@10")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nDGC@10", "did you mean 'nDCG@10'?"),
        ("ndcg_cut", "stands for nDCG@5, nDCG@10"),
        ("AP(relevance=2)", "known: cutoff, judged_only, rel"),
        ("P", "write it as P@10"),
        ("P@0", "cutoff cannot be 0"),
        ("P@ten", "is not a measure's name"),
        ("AP(rel=True)", "rel cannot be True"),
        ("nDCG@10; import os", "is not a measure's name"),
        ("AP(**{'rel': 2})", "is not a measure's name"),
        ("", "is not a measure's name"),
        ("NumQ", "says nothing of a ranking"),
        ("Accuracy@10", "cannot be paired"),
        ("RBP(rel=1)", "no installed provider computes"),
    ],
)
def test_a_name_that_cannot_be_meant_is_refused_with_a_way_on(given, said):
    with pytest.raises(UsageError) as refused:
        check([given], QRELS, "--measure")
    assert said in str(refused.value)
    assert str(refused.value).startswith("--measure: ")


def test_no_measure_at_all_is_refused():
    with refused(UsageError, "measures-missing"):
        check([], QRELS, "")


@pytest.mark.parametrize("name", ["RR(rel=3)@10", "AP(rel=3)", "R(rel=3)@100", "P(rel=4)@5"])
def test_a_threshold_above_the_largest_grade_is_refused_for_it_makes_the_measure_zero(name):
    with refused(UsageError, "measure-always-0", 0, 2):
        check([name], QRELS, "")


@pytest.mark.parametrize("name", ["nDCG@10", "RR@10"])
def test_qrels_without_a_relevant_document_are_refused(name):
    with pytest.raises(UsageError):
        check([name], {"q": {"a": 0, "b": -1}}, "")


def test_a_threshold_that_calls_irrelevant_documents_relevant_is_refused():
    with refused(UsageError, "measure-counts-irrelevant"):
        check(["AP(rel=0)"], QRELS, "")


def test_qrels_without_judgments_are_refused():
    with refused(UsageError, "no-judgments"):
        check(["nDCG@10"], {"q": {}}, "")


def test_every_judged_query_has_a_value_and_a_missing_one_counts_zero():
    values = per_query(("RR@10", "nDCG@10", "Judged@10"), QRELS, ranked(q07="n b a", stranger="a b"))
    assert list(values) == ["RR@10", "nDCG@10", "Judged@10"]
    assert all(list(row) == ["q07", "x", "none"] for row in values.values())
    assert values["RR@10"] == {"q07": 0.5, "x": 0.0, "none": 0.0}
    assert values["Judged@10"] == {"q07": 1.0, "x": 0.0, "none": 0.0}


def test_ndcg_of_a_hand_worked_list():
    found = per_query(("nDCG@10", "nDCG@2"), QRELS, ranked(q07="n b a", x="d c"))
    ideal = 2 + 1 / math.log2(3)
    assert found["nDCG@10"]["q07"] == pytest.approx((2 / math.log2(3) + 1 / math.log2(4)) / ideal, abs=1e-12)
    assert found["nDCG@2"]["q07"] == pytest.approx(2 / math.log2(3) / ideal, abs=1e-12)
    assert found["nDCG@10"]["x"] == 1.0


def test_rr_counts_grade_one_unless_told_otherwise():
    found = per_query(("RR@10", "RR(rel=2)@10"), QRELS, ranked(q07="n a b"))
    assert (found["RR@10"]["q07"], found["RR(rel=2)@10"]["q07"]) == (0.5, 1 / 3)


def test_the_order_of_a_ranking_decides_even_where_float32_sees_a_tie():
    near = {"x": {"d": 1e8 + 1, "c": 1e8 + 2}, "q07": {"b": 1.0, "n": 1.0 + 1e-9, "a": 1.0 - 1e-9}}
    first = ordered(near, {"x": ["d", "c"], "q07": ["b", "n", "a"]})
    second = ordered(near, {"x": ["c", "d"], "q07": ["n", "b", "a"]})
    names = ("RR", "RR@10", "P@1")  # two providers with opposite tie orders compute the first two
    for ranking, value in ((first, 1.0), (second, 0.5)):
        found = per_query(names, QRELS, ranking)
        assert found["RR"] == found["RR@10"] == {"q07": value, "x": value, "none": 0.0}


@pytest.mark.skipif(shutil.which("perl") is None, reason="gdeval is a Perl program")
def test_exponential_gains_keep_queries_whose_ids_gdeval_would_cut():
    qrels = {"Q-007": {"a": 2}, "Q-7": {"a": 1, "b": 3}, "no relevant": {"a": 0}}
    ranking = Ranking(dict.fromkeys(qrels, ("a", "b")), dict.fromkeys(qrels, (2.0, 1.0)))
    found = per_query(("nDCG(dcg='exp-log2')@10",), qrels, ranking)["nDCG(dcg='exp-log2')@10"]
    expected = (1 + 7 / math.log2(3)) / (7 + 1 / math.log2(3))
    assert found == {"Q-007": 1.0, "Q-7": pytest.approx(expected, abs=1e-5), "no relevant": 0.0}


def test_a_measure_alone_and_among_others_has_the_same_values(shared: Path):
    folder = shared / "trec-dl-2020-top100"
    qrels, ranking = qrels_of(folder / "qrels"), ranking_of(folder / "runs" / "tasb.run")
    names = check(
        ["nDCG@10", "nDCG(judged_only=True)@10", "AP(rel=2)", "RR(rel=2)@10", "Bpref(rel=2)", "P@5"], qrels, ""
    )
    together = per_query(names, qrels, ranking)
    assert {name: per_query([name], qrels, ranking)[name] for name in names} == together


@pytest.mark.parametrize("run", RUNS)
def test_per_query_ndcg_is_that_of_the_reference_file_and_of_pytrec_eval(shared: Path, run: str):
    folder = shared / "trec-dl-2020-top100"
    qrels, path = qrels_of(folder / "qrels"), folder / "runs" / f"{run}.run"
    found = per_query(("nDCG@10", "AP(rel=2)", "RR(rel=2)"), qrels, ranking_of(path))
    head, *rows = (line.split("\t") for line in (folder / "ndcg10-per-query.tsv").read_text().splitlines())
    assert {row[0]: float(row[head.index(run)]) for row in rows} == pytest.approx(found["nDCG@10"], abs=5.1e-7)
    for name, trec, level in (("nDCG@10", "ndcg_cut_10", 1), ("AP(rel=2)", "map", 2), ("RR(rel=2)", "recip_rank", 2)):
        direct = pytrec_eval.RelevanceEvaluator(qrels, [trec], relevance_level=level).evaluate(scores_of(path))
        expected = {query: row[trec] for query, row in direct.items()}
        assert found[name] == pytest.approx(expected, abs=1e-9), name


def test_values_are_those_that_trec_eval_prints_for_its_own_test(shared: Path):
    folder = shared / "trec_eval-tests"
    names = {"map": "AP", "Rprec": "Rprec", "bpref": "Bpref", "recip_rank": "RR", "P_10": "P@10", "recall_100": "R@100"}
    names |= {
        "ndcg": "nDCG",
        "ndcg_cut_10": "nDCG@10",
        "infAP": "infAP",
        "map_cut_100": "AP@100",
        "success_10": "Success@10",
    }
    qrels = qrels_of(folder / "qrels.test")
    found = per_query(tuple(names.values()), qrels, ranking_of(folder / "results.test"))
    compared = 0
    for line in (folder / "out.test.aq").read_text().splitlines():
        trec, query, value = line.split(maxsplit=2)
        if trec in names and query != "all":
            assert found[names[trec]][query] == pytest.approx(float(value), abs=5.1e-5), (trec, query)
            compared += 1
    assert compared >= len(names) * len(qrels) > 0


@pytest.mark.parametrize("run", RUNS)
def test_condensed_measures_are_those_of_pytrec_eval_over_judged_documents(shared: Path, run: str):
    folder = shared / "trec-dl-2020-top100"
    qrels, path = qrels_of(folder / "qrels"), folder / "runs" / f"{run}.run"
    names = {
        "ndcg_cut_10": ("nDCG(judged_only=True)@10", 1),
        "map": ("AP(rel=2,judged_only=True)", 2),
        "P_5": ("P(judged_only=True)@5", 1),
        "recall_100": ("R(rel=2,judged_only=True)@100", 2),
        "success_1": ("Success(judged_only=True)@1", 1),
        "recip_rank": ("RR(rel=2,judged_only=True)@10", 2),
    }
    asked = check([name for name, _ in names.values()], qrels, "")
    assert asked == tuple(name for name, _ in names.values())
    found = per_query(asked, qrels, ranking_of(path))
    for trec, (name, level) in names.items():
        direct = pytrec_eval.RelevanceEvaluator(qrels, {trec}, relevance_level=level, judged_docs_only_flag=True)
        expected = {query: row[trec] for query, row in direct.evaluate(scores_of(path)).items()}
        if trec == "recip_rank":  # pytrec_eval has no cutoff here: below rank 10 the measure is 0
            expected = {query: value if value >= 0.1 else 0.0 for query, value in expected.items()}
        assert found[name] == pytest.approx(expected, abs=1e-9), name


@pytest.mark.skipif(shutil.which("perl") is None, reason="gdeval is a Perl program")
def test_a_measure_that_ir_measures_cannot_condense_is_that_of_the_list_without_unjudged_documents():
    (name,) = check(["ERR(judged_only=True)@2"], QRELS, "")
    found = per_query([name], QRELS, ranked(q07="u v a w b", x="z c d"))
    assert found[name] == by_ir_measures(["ERR@2"], QRELS, ranked(q07="a b", x="c d"))["ERR@2"]
    assert found[name]["q07"] > 0


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("ndcg_cut_10", "nDCG@10"),
        ("ndcg_cut.10", "nDCG@10"),
        ("map", "AP"),
        ("map_cut_100", "AP@100"),
        ("recip_rank", "RR"),
        ("P_10", "P@10"),
        ("recall_100", "R@100"),
        ("success_1", "Success@1"),
        ("bpref", "Bpref"),
        ("ndcg@10", "nDCG@10"),
        ("NDCG@10", "nDCG@10"),
        ("recall@100", "R@100"),
        ("map@100", "AP@100"),
    ],
)
def test_the_names_of_trec_eval_pytrec_eval_and_ranx_are_understood(name: str, canonical: str) -> None:
    assert check([name], {"q": {"d": 1}}, "here") == (canonical,)


def test_measures_in_one_word_are_split_at_commas_outside_of_brackets() -> None:
    names = ["nDCG@10,AP(rel=2,judged_only=True)", "RR"]
    assert check(names, {"q": {"d": 2}}, "here") == ("nDCG@10", "AP(rel=2,judged_only=True)", "RR")
