"""Re-ranking by passages: MaxP by hand with transformers, any order, any batches, and no score computed twice."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from cerank.core.passage_scores import AGGREGATIONS
from cerank.inference import rerank as rerank_module
from cerank.inference.rerank import Scorer, rerank
from cerank.inference.score_cache import ScoreCache
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.forward_pass import ForwardPass
from cerank.tokenization.passage_windows import PassageWindows, WindowsInUse
from tests.model_fixtures import WORDS
from tests.models.family_fixtures import write_encoder

WINDOWS = PassageWindows(max_passages=4, length=20, stride=12)
DRAW = random.Random(11)
DOCUMENTS = {f"d{i}": " ".join(DRAW.choices(WORDS, k=DRAW.choice([1, 8, 20, 21, 33, 60, 150]))) for i in range(20)}
QUERIES = {f"q{i}": " ".join(DRAW.choices(WORDS, k=size)) for i, size in enumerate([1, 3, 6])}
CANDIDATES = {query: sorted(DOCUMENTS) for query in QUERIES}
TEXTS = (lambda ids: [QUERIES[i] for i in ids]), (lambda ids: [DOCUMENTS[i] for i in ids])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("model") / "m", "BertForSequenceClassification", num_labels=1)


def scorer_of(folder, aggregation="MaxP", top=2, windows=WINDOWS):
    scorer = Scorer.load(folder)
    scorer.use_passages(WindowsInUse(windows), aggregation, top)
    return scorer


def reranked(scorer, candidates=CANDIDATES, **options):
    chunks = list(rerank(scorer, list(candidates), candidates.__getitem__, *TEXTS, **options))
    scores = {query: of_query for chunk in chunks for query, of_query in chunk.scores.items()}
    passages = {query: of_query for chunk in chunks for query, of_query in chunk.passages.items()}
    return scores, passages, sum(chunk.pairs for chunk in chunks)


def by_hand(model, tokenizer, query, document):
    """The scores of a document's passages, by transformers alone."""
    query_ids = tokenizer(query, add_special_tokens=False)["input_ids"]
    room = len(query_ids) + 3 + WINDOWS.length
    overlap = WINDOWS.length - WINDOWS.stride
    rows = tokenizer(
        query,
        document,
        truncation="only_second",
        max_length=room,
        stride=overlap,
        return_overflowing_tokens=True,
        padding=True,
        return_tensors="pt",
    )
    del rows["overflow_to_sample_mapping"]
    with torch.no_grad():
        return model(**rows).logits.squeeze(-1).tolist()[: WINDOWS.max_passages]


def test_max_p_by_hand_on_twenty_documents(folder):
    scores, passages, pairs = reranked(scorer_of(folder), {"q1": CANDIDATES["q1"]})
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for doc, text in DOCUMENTS.items():
        expected = by_hand(model, tokenizer, QUERIES["q1"], text)
        own = [score for name, score in passages["q1"].items() if name.startswith(f"{doc}%p")]
        assert own == pytest.approx(expected, abs=2e-5)
        assert scores["q1"][doc] == max(own)
    assert pairs == len(passages["q1"]) > 2 * len(DOCUMENTS)


def test_the_order_of_queries_and_documents_and_the_size_of_batches_change_rounding_alone(folder, monkeypatch):
    expected, _, _ = reranked(scorer_of(folder))
    other = {query: CANDIDATES[query][::-1] for query in reversed(CANDIDATES)}
    monkeypatch.setattr(rerank_module, "CHUNK", 1)
    scorer = scorer_of(folder)
    scorer.tokens.clear()
    found, _, _ = reranked(scorer, other, block_depth=3)
    for query, of_query in expected.items():
        assert [found[query][doc] for doc in of_query] == pytest.approx(list(of_query.values()), abs=2e-6)


def test_packed_and_padded_passages_have_the_same_scores(folder, monkeypatch):
    packed = scorer_of(folder)
    expected, _, _ = reranked(packed)
    assert packed.forward.is_packed
    monkeypatch.setattr(ForwardPass, "is_packed", property(lambda _: False))
    padded, _, _ = reranked(scorer_of(folder))
    for query, of_query in expected.items():
        assert [padded[query][doc] for doc in of_query] == pytest.approx(list(of_query.values()), abs=2e-5)


def test_another_aggregation_takes_every_passage_from_the_cache_and_other_windows_none(folder, tmp_path):
    def cached(scorer):
        cache = ScoreCache(tmp_path, [scorer.checkpoint + scorer.scored_text], has_passages=True)
        return reranked(scorer, cache=cache, block_depth=8)

    first, passages, computed = cached(scorer_of(folder))
    assert computed == sum(map(len, passages.values()))
    rankings = {"MaxP": first}
    for aggregation in AGGREGATIONS[1:]:
        rankings[aggregation], again, pairs = cached(scorer_of(folder, aggregation))
        assert (again, pairs) == (passages, 0)
    assert all(one != other for one, other in pairwise(rankings.values()))
    assert cached(scorer_of(folder))[0] == first
    shorter = PassageWindows(max_passages=4, length=20, stride=11)
    assert cached(scorer_of(folder, windows=shorter))[2] > 0


class ChunksInMemory(dict):
    """Finished chunks, in memory."""

    load, save = dict.get, dict.__setitem__


def test_a_stored_chunk_holds_passages_and_gives_the_same_documents(folder, monkeypatch):
    monkeypatch.setattr(rerank_module, "CHUNK", 2)
    stored = ChunksInMemory()
    first = reranked(scorer_of(folder), store=stored)
    again = reranked(scorer_of(folder), store=stored)
    assert again[:2] == first[:2]
    assert again[2] == 0
    assert reranked(scorer_of(folder, "MeanP"), store=stored)[0] != first[0]


def test_without_passages_nothing_is_aggregated(folder):
    whole = Scorer.load(folder)
    scores, passages, pairs = reranked(whole)
    assert isinstance(whole.model, CrossEncoder)
    assert (passages, pairs) == ({}, sum(map(len, CANDIDATES.values())))
    assert all(set(of_query) == set(DOCUMENTS) for of_query in scores.values())
