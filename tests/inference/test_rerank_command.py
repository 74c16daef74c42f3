"""`cerank rerank`, from a model folder to a file: the scores are those of sentence-transformers' CrossEncoder."""

from __future__ import annotations

import random

import pytest
import torch
from typer.testing import CliRunner

from cerank.cli.typer_app import app
from cerank.models import forward_pass
from tests.model_fixtures import WORDS
from tests.models.family_fixtures import write_encoder
from tests.models.test_model_reading import write_modules

DEPTH = 6


@pytest.fixture(scope="module")
def texts():
    """Queries and documents with their candidates; of both, some are far beyond the 80 positions of the model."""
    draw = random.Random(3)
    documents = {f"d{i}": " ".join(draw.choices(WORDS, k=draw.choice([3, 9, 40, 150, 300]))) for i in range(24)}
    queries = {f"q{i}": " ".join(draw.choices(WORDS, k=size)) for i, size in enumerate([1, 4, 12, 60, 200, 200])}
    return queries, documents, {query: draw.sample(sorted(documents), DEPTH) for query in queries}


@pytest.fixture(scope="module")
def collection(tmp_path_factory, texts):
    queries, documents, candidates = texts
    folder = tmp_path_factory.mktemp("collection")
    (folder / "docs.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in documents.items()))
    (folder / "queries.tsv").write_text("".join(f"{key}\t{text}\n" for key, text in queries.items()))
    (folder / "qrels").write_text("".join(f"{query} 0 {candidates[query][0]} 1\n" for query in queries))
    rows = [f"{q} Q0 {d} {r} {50 - r} t\n" for q, docs in candidates.items() for r, d in enumerate(docs, 1)]
    (folder / "first.run").write_text("".join(rows))
    return folder


def by_command(collection, model, output):
    """What the command wrote: query -> document -> score."""
    words = ["rerank", str(model), "--run", str(collection / "first.run"), "--dataset", str(collection)]
    words += ["-o", str(output), "--cache", str(output.parent / "cache"), "--lab", str(output.parent / "lab")]
    result = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    scores: dict[str, dict[str, float]] = {}
    for line in output.read_text().splitlines():
        query, _, doc, _, score, _ = line.split()
        scores.setdefault(query, {})[doc] = float(score)
    return scores


def model_of(folder, layout):
    """A tiny finished cross-encoder in one of the two layouts that sentence-transformers reads."""
    if layout == "modules":
        return write_modules(folder, "BertModel", "cls")
    return write_encoder(folder / "model", "BertForSequenceClassification", num_labels=1)


@pytest.mark.parametrize("layout", ["classifier", "modules"])
@pytest.mark.parametrize("is_packed", [True, False])
def test_the_file_holds_the_scores_of_cross_encoder_predict(
    tmp_path, monkeypatch, collection, texts, layout, is_packed
):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    if not is_packed:
        monkeypatch.setattr(forward_pass, "packed_model", lambda model: None)
    queries, documents, candidates = texts
    model = model_of(tmp_path, layout)
    found = by_command(collection, model, tmp_path / "out.run")
    theirs = sentence_transformers.CrossEncoder(str(model), device="cpu")
    for query, docs in candidates.items():
        pairs = [(queries[query], documents[doc]) for doc in docs]
        expected = theirs.predict(pairs, activation_fn=torch.nn.Identity())
        assert found[query] == pytest.approx(dict(zip(docs, map(float, expected), strict=True)), abs=1e-5)
    assert len({score for row in found.values() for score in row.values()}) > 20
