"""A model of cerank in mteb: its own interface, with cerank's scores."""

from __future__ import annotations

import json
import math

import pytest

import cerank
from cerank.errors import UsageError
from cerank.models.cross_encoder import load, load_tokenizer, save
from cerank.tokenization.tokens import TokenLimits
from tests.refusals import refused

pytestmark = pytest.mark.slow  # its import takes half a minute
pytest.importorskip("mteb")


def test_a_model_is_a_cross_encoder_of_mteb_with_the_scores_of_cerank(tiny, tmp_path) -> None:
    from mteb.models.models_protocols import CrossEncoderProtocol

    from cerank.mteb import MtebReranker

    folder = tmp_path / "model"
    save(load(tiny, "auto", seed=3), load_tokenizer(tiny.folder), folder, TokenLimits(32, 12))
    reranker = MtebReranker(folder, device="cpu", name="lab/model")
    assert isinstance(reranker, CrossEncoderProtocol)
    assert reranker.mteb_model_meta.name == "lab/model"
    queries, documents = ["alpha", "beta", "kappa"], ["alpha beta", "", "iota"]
    batches = [[{"text": texts[:2]}, {"text": texts[2:]}] for texts in (queries, documents)]
    model = cerank.load(folder, device="cpu")
    expected = model.score_pairs(list(zip(queries, documents, strict=True)))
    assert reranker.predict(*batches).tolist() == pytest.approx(expected, abs=1e-6)
    with refused(UsageError, "text-missing"):
        reranker.predict([{"image": [1]}], [{"text": ["a"]}])
    with refused(UsageError, "usage", "name"):
        MtebReranker(model, name="no-slash")


def test_mteb_itself_evaluates_a_model_over_the_predictions_of_a_first_stage(tiny, tmp_path) -> None:
    import mteb
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    from cerank.mteb import MtebReranker

    documents = {"d1": "alpha beta", "d2": "kappa iota", "d3": "gamma"}
    queries = {"q1": "alpha", "q2": "iota kappa", "q3": "beta"}

    class InMemory(AbsTaskRetrieval):
        """Three documents, three queries."""

        metadata = TaskMetadata(
            name="InMemory",
            description="three documents",
            dataset={"path": "nobody/nothing", "revision": "1"},
            type="Retrieval",
            category="t2t",
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_more) -> None:
            corpus = [{"id": key, "title": "", "text": text} for key, text in documents.items()]
            split = {
                "corpus": Dataset.from_list(corpus),
                "queries": Dataset.from_list([{"id": key, "text": text} for key, text in queries.items()]),
                "relevant_docs": {key: {"d1": 1} for key in queries},
                "top_ranked": None,
            }
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    first_stage = {query: {doc: float(place) for place, doc in enumerate(documents)} for query in queries}
    predictions = {"mteb_model_meta": {"model_name": "a/b", "revision": None}, "default": {"test": first_stage}}
    (tmp_path / "InMemory_predictions.json").write_text(json.dumps(predictions))
    folder = tmp_path / "model"
    save(load(tiny, "auto", seed=3), load_tokenizer(tiny.folder), folder, TokenLimits(32, 12))
    task = InMemory().convert_to_reranking(tmp_path, top_k=3)
    result = mteb.evaluate(MtebReranker(folder, device="cpu", name="lab/model"), task, cache=None)
    model, gains = cerank.load(folder, device="cpu"), []
    for text in queries.values():
        scores = model.score(text, list(documents.values()))
        gains.append(1 / math.log2(2 + sorted(scores, reverse=True).index(scores[0])))
    assert result.task_results[0].get_score() == pytest.approx(sum(gains) / len(gains), abs=1e-4)
