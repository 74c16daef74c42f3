"""Scoring: canonical, finite, and the embedding teacher equal to its own library."""

from __future__ import annotations

import contextlib

import pytest
import torch

from cerank.core.prefetch import made_ahead
from cerank.errors import RunFailedError, UsageError
from cerank.inference.embeddings import Embedder, embedding_similarity
from cerank.inference.rerank import Scorer, Writes, rerank
from cerank.models.cross_encoder import load, load_tokenizer
from cerank.models.forward_pass import ForwardPass
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from tests.model_fixtures import WORDS
from tests.refusals import refused
from tests.training.test_forward_backward import hold

QUERIES = {f"q{i}": f"{WORDS[i]} {WORDS[-i]}" for i in range(8)}
DOCUMENTS = {f"d{i}": " ".join(WORDS[i : i + 1 + i % 5]) for i in range(16)}


def scorer_of(files):
    return Scorer(load(files, "auto", seed=0), PairTokenizer(load_tokenizer(files.folder), TokenLimits(24, 8)))


def scored(scorer, wanted):
    return scorer.score_candidates(
        wanted, lambda ids: [QUERIES[i] for i in ids], lambda ids: [DOCUMENTS[i] for i in ids]
    )


def test_a_chunk_gives_the_same_bits_whatever_was_scored_before_it(tiny):
    wanted = {query: sorted(DOCUMENTS)[:5] for query in list(QUERIES)[:4]}
    used = scorer_of(tiny)
    scored(used, {query: sorted(DOCUMENTS) for query in QUERIES})
    assert scored(used, wanted) == scored(scorer_of(tiny), wanted)


class StoredChunks(dict):
    """Finished chunks, in memory."""

    load, save = dict.get, dict.__setitem__


def test_finished_chunks_are_not_scored_again_and_the_others_give_the_same_bits(tiny, monkeypatch):
    monkeypatch.setattr("cerank.inference.rerank.CHUNK", 3)
    texts = (lambda ids: [QUERIES[i] for i in ids]), (lambda ids: [DOCUMENTS[i] for i in ids])

    def chunks(store):
        return list(rerank(scorer_of(tiny), QUERIES, lambda _: sorted(DOCUMENTS), *texts, store=store))

    stored = StoredChunks()
    first = chunks(stored)
    assert [list(chunk.scores) for chunk in first] == [["q0", "q1", "q2"], ["q3", "q4", "q5"], ["q6", "q7"]]
    assert sum(chunk.pairs for chunk in first) == len(QUERIES) * len(DOCUMENTS)
    del stored[1]
    again = chunks(stored)
    assert [chunk.pairs for chunk in again] == [0, 3 * len(DOCUMENTS), 0]
    assert [chunk.scores for chunk in again] == [chunk.scores for chunk in first]


def test_texts_made_ahead_of_a_gpu_come_in_order_and_an_error_in_one_ends_the_rest():
    made = []

    def make(number):
        made.append(number)
        if number == 3:
            raise KeyError(number)
        return number * 10

    ahead = made_ahead(make, range(5))
    assert [next(ahead) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(KeyError):
        next(ahead)
    assert made[:4] == [0, 1, 2, 3]


def test_writes_beside_a_gpu_keep_their_order_and_an_error_of_the_disk_is_raised():
    written = []
    with Writes(in_thread=True) as writes:
        for number in range(30):
            writes.do(written.append, number)
    assert written == list(range(30))

    def full(_):
        raise RunFailedError("no space left on the disk", code="disk-full")

    with refused(RunFailedError, "disk-full"), Writes(in_thread=True) as writes:
        writes.do(full, 1)


def test_a_scorer_leaves_the_model_in_the_mode_it_found(tiny):
    model = load(tiny, "auto", seed=0).train()
    Scorer(model, PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(24, 8))).score([("alpha", "beta")])
    assert model.training


def test_a_scorer_that_memory_does_not_hold_takes_less_at_once_and_gives_the_same_scores(tiny, monkeypatch):
    pairs = [(query, document) for query in QUERIES.values() for document in DOCUMENTS.values()]
    expected = scorer_of(tiny).score(pairs)
    hold(monkeypatch, 600)
    assert scorer_of(tiny).score(pairs) == pytest.approx(expected, abs=1e-6)
    hold(monkeypatch, 1)
    with pytest.raises(torch.OutOfMemoryError):
        scorer_of(tiny).score(pairs)


def test_a_device_without_threads_scores_the_largest_batch_first_and_is_waited_for_once(tiny, monkeypatch):
    pairs = [(query, document) for query in QUERIES.values() for document in DOCUMENTS.values()]
    expected = scorer_of(tiny).score(pairs)
    sizes, copies, scoring, cpu = [], [], ForwardPass.scoring, torch.Tensor.cpu

    @contextlib.contextmanager
    def recorded(forward):
        with scoring(forward) as score:
            yield lambda rows: sizes.append(max(len(row.ids) for row in rows)) or score(rows)

    monkeypatch.setattr(ForwardPass, "scoring", recorded)
    monkeypatch.setattr(ForwardPass, "supports_threads", False)
    monkeypatch.setattr("cerank.inference.rerank.token_budget", lambda _: 200)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(1) or cpu(tensor))
    assert scorer_of(tiny).score(pairs) == pytest.approx(expected, abs=1e-6)
    assert len(sizes) > 3
    assert sizes == sorted(sizes, reverse=True)
    assert len(copies) == 1
    assert scorer_of(tiny).score([]) == []


def test_scores_that_are_not_finite_are_refused(tiny):
    model = load(tiny, "auto", seed=0)
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    with refused(RunFailedError, "score-not-finite"):
        Scorer(model, PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(24, 8))).score([("alpha", "beta")])


def test_a_bare_encoder_is_refused_because_its_head_is_not_trained(tiny):
    with refused(UsageError, "head-untrained"):
        Scorer.load(tiny.folder)


def test_the_embedding_teacher_is_the_cosine_that_sentence_transformers_gives(minilm):
    st = pytest.importorskip("sentence_transformers")
    queries = {"a": "how to sort a list", "b": "what is the capital of France"}
    documents = {"x": "list.sort sorts in place", "y": "Paris is the capital of France", "z": "word " * 100}
    encoded = []
    found = embedding_similarity(
        Embedder(minilm, max_length=64),
        {query: list(documents) for query in queries},
        lambda ids: [queries[i] for i in ids],
        lambda ids: [documents[i] for i in ids],
        encoded.append,
    )
    assert sum(encoded) == len(queries) + len(documents)  # each text once, though each document has two queries
    model = st.SentenceTransformer(str(minilm.folder), device="cpu")
    model.max_seq_length = 64
    expected = model.similarity(model.encode(list(queries.values())), model.encode(list(documents.values())))
    values = [[found[query][doc] for doc in documents] for query in queries]
    torch.testing.assert_close(torch.tensor(values), expected, atol=1e-5, rtol=0)
