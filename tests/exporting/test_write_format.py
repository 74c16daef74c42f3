"""Each family of re-rankers is written for the libraries that can hold it, and scores there as here."""

from __future__ import annotations

import pytest

from cerank.errors import UsageError
from cerank.exporting.export_formats import FORMATS, GRAPH_FILES
from cerank.exporting.score_elsewhere import check_scores
from cerank.exporting.write_format import write
from cerank.inference.rerank import Scorer
from cerank.models.cross_encoder import load, load_tokenizer, save
from cerank.models.load_model import load_reranker
from cerank.tokenization.tokens import TokenLimits
from tests.models.family_fixtures import PAIRS, write_causal, write_encoder, write_t5
from tests.refusals import refused


def one_label(folder, tiny):
    return write_encoder(folder, "BertForSequenceClassification", num_labels=1)


def two_labels(folder, tiny):
    return write_encoder(folder, "RobertaForSequenceClassification", num_labels=2)


def qwen(folder, tiny):
    return write_causal(folder / "Qwen3-Reranker-0.6B", "qwen3")


def mono_t5(folder, tiny):
    return write_t5(folder / "monot5-base")


def mean(folder, tiny):
    save(load(tiny, "mean", seed=3), load_tokenizer(tiny.folder), folder, TokenLimits(32, 12))
    return folder


def product(folder, tiny):
    save(load(tiny, "product", seed=3), load_tokenizer(tiny.folder), folder, TokenLimits(32, 12))
    return folder


HELD = {  # family -> the formats that hold it
    one_label: {"sentence-transformers", "transformers", "onnx"},
    two_labels: {"transformers", "onnx"},
    qwen: {"transformers"},
    mono_t5: {"transformers"},
    mean: {"sentence-transformers", "onnx"},
    product: {"onnx"},
}
NEEDS = {"sentence-transformers": "sentence_transformers", "onnx": "onnxruntime"}


@pytest.mark.parametrize(
    ("family", "form"), [(family, form) for family, forms in HELD.items() for form in sorted(forms)]
)
def test_an_exported_model_scores_in_its_library_as_here(family, form, tiny, tmp_path):
    if form in NEEDS:
        pytest.importorskip(NEEDS[form])
    reranker = load_reranker(family(tmp_path / "source", tiny))
    target = tmp_path / "target"
    target.mkdir()
    write(reranker, target, form, "the model")
    pairs = [pair for pair in PAIRS if len(pair[1]) < 5000]
    check = check_scores(target, form, reranker, pairs)
    assert check.pairs == len(pairs)
    own = Scorer(reranker.model, reranker.model.make_tokens(reranker.tokenizer, reranker.limits)).score(pairs)
    assert check.largest < 1e-5 * max(1.0, *map(abs, own))
    assert check.cut <= 2
    assert not (target / "README.md").exists()


@pytest.mark.parametrize(
    ("family", "form"),
    [
        (family, form)
        for family, forms in HELD.items()
        for form in FORMATS
        if form not in forms and not ("onnx" in forms and form in GRAPH_FILES)
    ],
)
def test_a_format_that_cannot_hold_a_model_is_refused_before_anything_is_written(family, form, tiny, tmp_path):
    reranker = load_reranker(family(tmp_path / "source", tiny))
    target = tmp_path / "target"
    target.mkdir()
    with refused(UsageError, "format-cannot-hold"):
        write(reranker, target, form, "the model")
    assert list(target.iterdir()) == []
