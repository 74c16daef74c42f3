"""Models: loading, saving, and equal scores wherever else the checkpoint is read."""

from __future__ import annotations

import msgspec
import pytest
import torch

from cerank.errors import CerankError, UsageError
from cerank.inference.rerank import Scorer
from cerank.models.bases import BaseFiles, fingerprint
from cerank.models.cross_encoder import load, load_tokenizer, save, tie_token_types
from cerank.tokenization.tokens import PairTokenizer, TokenLimits
from tests.refusals import refused

PAIRS = [("alpha beta", "gamma delta epsilon"), ("alpha", ""), ("mu nu", "xi " * 20), ("pi", "pi pi pi")]


def saved(files, folder, max_length=32, pooling="auto"):
    model = load(files, pooling, seed=3)
    tokenizer = load_tokenizer(files.folder)
    scores = Scorer(model, PairTokenizer(tokenizer, TokenLimits(max_length, 12))).score(PAIRS)
    save(model, tokenizer, folder, TokenLimits(max_length, 12))
    return scores


@pytest.mark.parametrize("base", ["tiny", "tiny_classifier", "minilm"])
def test_a_saved_model_scores_the_same_when_cerank_loads_it(base, request, tmp_path):
    scores = saved(request.getfixturevalue(base), tmp_path / "m")
    assert Scorer.load(tmp_path / "m").score(PAIRS) == scores


@pytest.mark.parametrize(("base", "pooling"), [("tiny", "mean"), ("tiny_classifier", "auto"), ("minilm", "mean")])
def test_a_saved_model_scores_the_same_as_sentence_transformers_cross_encoder(base, pooling, request, tmp_path):
    st = pytest.importorskip("sentence_transformers")
    scores = saved(request.getfixturevalue(base), tmp_path / "m", pooling=pooling)
    assert st.CrossEncoder(str(tmp_path / "m")).predict(PAIRS).tolist() == pytest.approx(scores, abs=2e-6)


def test_a_saved_classifier_scores_the_same_as_transformers_auto_class(tiny_classifier, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    scores = saved(tiny_classifier, tmp_path / "m")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    inputs = tokenizer([q for q, _ in PAIRS], [d for _, d in PAIRS], padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**inputs).logits.squeeze(-1).tolist()
    assert found == pytest.approx(scores, abs=2e-6)


def test_the_checkpoint_says_how_to_load_it_and_where_transformers_cannot(tiny, tmp_path):
    saved(tiny, tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" not in card
    assert 'Scorer.load("this folder")' in card


def test_a_product_starts_as_the_cosine_of_the_mean_states_of_query_and_document(minilm):
    from transformers import AutoModel

    assert minilm.pooling == "product"
    scorer = Scorer(load(minilm, "auto", seed=0), PairTokenizer(load_tokenizer(minilm.folder), TokenLimits(64, 32)))
    query, document = "how to sort a list", "list.sort sorts the items in place"
    tokenizer = load_tokenizer(minilm.folder)
    inputs = tokenizer([query], [document], return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(minilm.folder).eval()(**inputs).last_hidden_state[0]
    second = inputs["token_type_ids"][0].bool()
    cosine = torch.cosine_similarity(states[~second].mean(0), states[second].mean(0), dim=0).item()
    assert scorer.score([(query, document)]) == pytest.approx([20 * cosine], abs=1e-4)


def test_a_product_says_that_no_other_library_loads_all_of_it_and_how_cerank_does(tiny, tmp_path):
    scores = saved(tiny, tmp_path / "m", pooling="product")
    card = (tmp_path / "m" / "README.md").read_text()
    assert "Neither transformers nor sentence-transformers" in card
    lines = [line.strip() for line in card.splitlines() if line.startswith("    ")]
    lines[1] = lines[1].replace("this folder", str(tmp_path / "m"))
    space = {"pairs": PAIRS}
    exec("\n".join([*lines[:2], "found = scorer.score(pairs)"]), space)
    assert space["found"] == scores
    from transformers import AutoModel

    assert AutoModel.from_pretrained(tmp_path / "m").config.hidden_size == 16


def test_token_types_are_passed_where_the_base_has_them(tiny):
    model = load(tiny, "auto", seed=0).eval()
    tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(16, 8))
    tokens.add("query", ["q"], lambda keys: ["alpha"])
    tokens.add("document", ["d"], lambda keys: ["beta"])
    batch = tokens.batch([tokens.pair("q", "d")], torch.device("cpu"))
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1]]
    blind = type(batch)(batch.ids, batch.mask, torch.zeros_like(batch.segments), True)
    assert model(batch).item() != model(blind).item()


def test_the_head_is_a_function_of_the_seed(tiny):
    one, same, other = (load(tiny, "auto", seed=seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_score_does_not_depend_on_what_else_is_in_its_batch_beyond_rounding(tiny):
    scorer = Scorer(load(tiny, "auto", seed=0), PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(32, 12)))
    together = scorer.score(PAIRS)
    assert [scorer.score([pair])[0] for pair in PAIRS] == pytest.approx(together, abs=1e-6)


def test_a_folder_without_a_model_is_refused_with_its_path(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with refused(CerankError, "weights-missing"):
        fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with refused(CerankError, "not-an-encoder", tmp_path):
        load(BaseFiles("x", tmp_path, "mean", ""), "auto", seed=0)


@pytest.mark.parametrize(
    ("what", "expected"), [("nothing", 0), ("positions", 64 * 16), ("embeddings", (25 + 64 + 2) * 16 + 2 * 16)]
)
def test_freezing_keeps_what_it_names_and_nothing_else(tiny, what, expected):
    from cerank.models.cross_encoder import freeze

    model = load(tiny, "auto", seed=0)
    before = sum(p.numel() for p in model.parameters() if p.requires_grad)
    freeze(model, what)
    assert before - sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


def test_frozen_layers_keep_their_weights_and_more_layers_than_there_are_is_refused(tiny):
    from cerank.models.cross_encoder import freeze

    model = load(tiny, "auto", seed=0)
    freeze(model, "embeddings", 1)
    names = {name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad}
    assert names
    assert all(name.startswith("encoder.layer.1.") for name in names)
    with refused(UsageError, "too-many-frozen-layers", 2):
        freeze(model, "nothing", 3)


def test_a_base_of_some_layers_scores_as_its_files_without_the_others(tiny, tmp_path):
    import msgspec
    import torch
    from transformers import AutoModel

    whole = AutoModel.from_pretrained(tiny.folder)
    kept = load(msgspec.structs.replace(tiny, layers=(1,), equal_token_types=True), "auto", seed=0).encoder
    whole.encoder.layer = torch.nn.ModuleList([whole.encoder.layer[1]])
    ids = torch.tensor([[2, 5, 6, 3]])
    asked = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}
    with torch.inference_mode():
        expected = whole.eval()(**asked).last_hidden_state
        assert torch.equal(kept.eval()(**asked).last_hidden_state, expected)
        other = kept(input_ids=ids, token_type_ids=torch.ones_like(ids)).last_hidden_state
    assert torch.equal(other, expected)
    assert kept.config.num_hidden_layers == 1
    kept.save_pretrained(tmp_path)
    assert len(AutoModel.from_pretrained(tmp_path).encoder.layer) == 1


def test_tied_token_types_train_as_if_every_token_were_of_type_0(tiny):
    tokens = PairTokenizer(load_tokenizer(tiny.folder), TokenLimits(32, 12))
    tokens.add("query", [query for query, _ in PAIRS], list)
    tokens.add("document", [document for _, document in PAIRS], list)
    batch = tokens.batch([tokens.pair(*pair) for pair in PAIRS], torch.device("cpu"))
    tied, single = load(tiny, "mean", seed=3), load(tiny, "mean", seed=3)
    assert tie_token_types(tied)
    single_batch = msgspec.structs.replace(batch, segments=torch.zeros_like(batch.segments))
    for model, inputs in ((tied, batch), (single, single_batch)):
        model.eval()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    types, plain = (model.encoder.embeddings.token_type_embeddings.weight for model in (tied, single))
    assert torch.equal(types[0], types[1])
    assert torch.allclose(types[0], plain[0], atol=1e-6)
    assert not torch.equal(plain[0], plain[1])
    with torch.inference_mode():
        assert torch.allclose(tied(batch), single(single_batch), atol=1e-4)
