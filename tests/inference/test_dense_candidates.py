"""Exact search by a bi-encoder: the vectors of sentence-transformers, and the neighbors of brute force."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cerank.inference import dense_candidates
from cerank.inference.bi_encoders import is_bi_encoder, read_bi_encoder
from cerank.inference.dense_candidates import BiEncoder, nearest_documents, similarities
from tests.model_fixtures import WORDS, write_tiny

pytestmark = pytest.mark.slow


class Documents(dict[str, str]):
    """Documents in memory; iterated as (id, text)."""

    def __iter__(self):
        return iter(self.items())

    def texts(self, doc_ids):
        return [self[doc] for doc in doc_ids]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny encoder as a bi-encoder of sentence-transformers, with a prompt for queries."""
    made = write_tiny(tmp_path / "model").folder
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(kinds)
    ]
    (made / "modules.json").write_text(json.dumps(modules))
    (made / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    size = json.loads((made / "config.json").read_text())["hidden_size"]
    (made / "1_Pooling" / "config.json").write_text(json.dumps(pooling | {"word_embedding_dimension": size}))
    (made / "2_Normalize").mkdir()
    prompts = {"query": f"{WORDS[0]} ", "document": ""}
    about = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    (made / "config_sentence_transformers.json").write_text(json.dumps(about))
    (made / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    return made


def test_vectors_are_those_of_sentence_transformers(folder: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert is_bi_encoder(folder)
    ours = BiEncoder(read_bi_encoder(folder))
    texts = [" ".join(WORDS[n : n + 7]) for n in range(9)] + [WORDS[3]]
    expected = theirs.encode_query(texts, convert_to_tensor=True)
    torch.testing.assert_close(ours.queries(texts), expected.cpu(), atol=1e-5, rtol=0)
    expected = theirs.encode_document(texts, convert_to_tensor=True)
    torch.testing.assert_close(ours.documents(texts), expected.cpu(), atol=1e-5, rtol=0)


def test_neighbors_are_those_of_all_documents_whatever_the_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BiEncoder(read_bi_encoder(folder))
    documents = Documents(
        {f"d{n}": " ".join(WORDS[(n * 3 + k) % len(WORDS)] for k in range(n % 5 + 1)) for n in range(40)}
    )
    queries = {f"q{n}": " ".join(WORDS[n : n + 3]) for n in range(7)}
    exact = model.queries(list(queries.values())) @ model.documents(list(documents.values())).T
    monkeypatch.setattr(dense_candidates, "DOCUMENTS_AT_ONCE", 7)
    monkeypatch.setattr(dense_candidates, "QUERIES_AT_ONCE", 3)
    found = nearest_documents(model, queries, documents, 5)
    for row, query in zip(exact, queries, strict=True):
        assert len(found[query]) == 5
        assert sorted(found[query].values()) == pytest.approx(sorted(row.topk(5).values.tolist()), abs=1e-5)
    given = similarities(model, queries, {"q2": ["d9", "d4"]}, documents)
    assert given["q2"]["d4"] == pytest.approx(float(exact[2, 4]), abs=1e-5)
