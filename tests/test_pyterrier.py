"""Re-ranking in PyTerrier: its own pipelines and experiments, without Java."""

from __future__ import annotations

import pytest

import cerank
from cerank.errors import UsageError
from cerank.models.cross_encoder import load, load_tokenizer, save
from cerank.tokenization.tokens import TokenLimits
from tests.refusals import refused

pt = pytest.importorskip("pyterrier")
pandas = pytest.importorskip("pandas")

QUERIES = {"q1": "alpha beta", "q2": "kappa"}
TEXTS = {"d1": "alpha beta gamma", "d2": "kappa iota", "d3": "alpha beta gamma", "d4": "mu nu"}


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save(load(tiny, "auto", seed=3), load_tokenizer(tiny.folder), folder, TokenLimits(32, 12))
    return folder


@pytest.fixture(scope="module")
def reranker(checkpoint):
    from cerank.pyterrier import Reranker

    return Reranker(checkpoint, device="cpu")


@pytest.fixture
def results():
    rows = [(qid, query, docno, text, 9.0, 0) for qid, query in QUERIES.items() for docno, text in TEXTS.items()]
    return pandas.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"])


def test_scores_are_those_of_the_model_and_ranks_follow_them(checkpoint, reranker, results):
    before = results.copy()
    out = reranker(results)
    model = cerank.load(checkpoint, device="cpu")
    for qid, query in QUERIES.items():
        own = out[out["qid"] == qid].sort_values("rank")
        expected = model.rerank(query, list(TEXTS.values()))
        assert own["docno"].tolist() == [list(TEXTS)[passage.index] for passage in expected]
        assert own["score"].tolist() == pytest.approx([passage.score for passage in expected], abs=1e-6)
        assert own["rank"].tolist() == [0, 1, 2, 3]
    pandas.testing.assert_frame_equal(results, before)


def test_it_is_part_of_a_pipeline_and_its_experiment_is_compared(reranker, results):
    first = pt.Transformer.from_df(results)
    qrels = pandas.DataFrame([("q1", "d1", 1), ("q2", "d2", 1)], columns=["qid", "docno", "label"])
    topics = pandas.DataFrame(QUERIES.items(), columns=["qid", "query"])
    systems, names = [first, first >> reranker], ["first", "mine"]
    values = pt.Experiment(systems, topics, qrels, ["ndcg_cut_10", "recip_rank"], names=names, perquery=True)
    compared = cerank.compare(values, margins={"nDCG@10": 0.02})
    assert {(row.measure, row.system, row.against) for row in compared} == {
        ("nDCG@10", "mine", "first"),
        ("RR", "mine", "first"),
    }
    by_measure = {row.measure: row for row in compared}
    own = values[(values["name"] == "mine") & (values["measure"] == "ndcg_cut_10")]["value"].mean()
    assert by_measure["nDCG@10"].mean == pytest.approx(own)


def test_no_results_give_no_results(reranker, results):
    out = reranker(results.iloc[:0])
    assert len(out) == 0
    assert {"qid", "docno", "score", "rank"} <= set(out.columns)


def test_a_model_that_is_loaded_is_taken_as_it_is(checkpoint, results):
    from cerank.pyterrier import Reranker

    model = cerank.load(checkpoint, device="cpu")
    assert Reranker(model).model is model
    assert str(checkpoint) in repr(Reranker(model))


@pytest.mark.parametrize(("column", "code"), [("text", "column-missing"), ("query", "column-missing")])
def test_a_missing_column_is_named(reranker, results, column, code):
    with refused(UsageError, code, column):
        reranker.transform(results.drop(columns=[column]))


def test_a_document_without_text_is_named(reranker, results):
    results.loc[1, "text"] = None
    with refused(UsageError, "text-missing", "d2"):
        reranker.transform(results)
