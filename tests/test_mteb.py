"""A model of cerank in mteb: its own interface, with cerank's scores."""

from __future__ import annotations

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
