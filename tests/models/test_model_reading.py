"""What a folder holds is recognized, and a finished re-ranker scores as its own library scores it."""

from __future__ import annotations

import json
import random

import pytest
import torch

from cerank.errors import UsageError
from cerank.inference.rerank import Scorer
from cerank.models.bases import locate
from cerank.models.cross_encoder import load_tokenizer, save
from cerank.models.describe_model import describe
from cerank.models.load_model import load_model, load_reranker
from cerank.models.model_reading import read_model
from cerank.tokenization.tokens import TokenLimits
from tests.models.family_fixtures import PAIRS, edit_json, write_causal, write_encoder
from tests.refusals import refused

CLASSIFIERS = ["Bert", "Roberta", "Electra", "XLMRoberta", "DistilBert", "ModernBert", "DebertaV2"]


def transformers_scores(folder, pairs):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    queries, documents = zip(*pairs, strict=True)
    inputs = tokenizer(list(queries), list(documents), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits
    return (logits.squeeze(-1) if logits.shape[-1] == 1 else logits.log_softmax(dim=-1)[:, 1]).tolist()


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("family", CLASSIFIERS)
def test_a_finished_classifier_scores_as_in_transformers_in_any_order_and_batch(family, labels, tmp_path):
    folder = write_encoder(tmp_path / "m", f"{family}ForSequenceClassification", num_labels=labels)
    reading = read_model(folder)
    assert (reading.head, reading.pooling, reading.label) == ("trained", "classifier", None if labels == 1 else 1)
    expected = transformers_scores(folder, PAIRS)
    assert max(expected) - min(expected) > 0.003, "scores that hardly differ would test nothing"
    scorer = Scorer.load(folder)
    assert scorer.score(PAIRS) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    order = list(range(len(PAIRS)))
    random.Random(5).shuffle(order)
    shuffled = scorer.score([PAIRS[at] for at in order])
    assert [shuffled[order.index(at)] for at in range(len(PAIRS))] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert [scorer.score([pair])[0] for pair in PAIRS] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_finished_classifier_scores_as_in_sentence_transformers(tmp_path):
    st = pytest.importorskip("sentence_transformers")
    folder = write_encoder(tmp_path / "m", "BertForSequenceClassification", num_labels=1)
    edit_json(folder / "config.json", sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"})
    assert read_model(folder).activation == "Sigmoid"
    scores = torch.tensor(Scorer.load(folder).score(PAIRS)).sigmoid().tolist()
    assert st.CrossEncoder(str(folder)).predict(PAIRS).tolist() == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("architecture", ["ModernBertModel", "BertModel"])
def test_a_cross_encoder_of_modules_scores_as_in_sentence_transformers_also_when_saved(pooling, architecture, tmp_path):
    folder = write_modules(tmp_path, architecture, pooling)
    st = pytest.importorskip("sentence_transformers")
    expected = st.CrossEncoder(str(folder)).predict(PAIRS).tolist()
    reading = read_model(folder)
    assert (reading.head, reading.pooling) == ("trained", pooling)
    assert "Pooling > Dense > LayerNorm > Dense" in reading.family
    scorer = Scorer.load(folder)
    assert scorer.score(PAIRS) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert scorer.forward.is_packed
    files = locate(str(folder))
    model, tokenizer = load_model(files, "auto", seed=0), load_tokenizer(folder)
    save(model, tokenizer, tmp_path / "saved", TokenLimits(64, 64, 0, "longest_first"))
    assert Scorer.load(tmp_path / "saved").score(PAIRS) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    saved = st.CrossEncoder(str(tmp_path / "saved")).predict(PAIRS).tolist()
    assert saved == pytest.approx(expected, rel=1e-5, abs=1e-5)


def write_modules(root, architecture, pooling):
    """A cross-encoder of the layout of Ettin's re-rankers, as sentence-transformers saves it."""
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    encoder = write_encoder(root / "encoder", architecture)
    torch.manual_seed(2)
    modules = [
        Transformer(str(encoder)),
        Pooling(32, pooling),
        Dense(32, 32, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(32),
        Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    model = st.CrossEncoder(modules=modules, activation_fn=torch.nn.Identity())
    model.save_pretrained(str(root / "modules"))
    return root / "modules"


def test_a_prompt_of_sentence_transformers_is_written_before_each_query(tmp_path):
    st = pytest.importorskip("sentence_transformers")
    folder = write_modules(tmp_path, "BertModel", "cls")
    without = Scorer.load(folder).score(PAIRS)
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "the cat: "}, default_prompt_name="query")
    expected = st.CrossEncoder(str(folder)).predict(PAIRS).tolist()
    assert Scorer.load(folder).score(PAIRS) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert expected != pytest.approx(without, abs=1e-3)
    assert ("before each query", "the cat: ") in describe(str(folder))
    model, tokenizer = load_model(locate(str(folder)), "auto", seed=0), load_tokenizer(folder)
    save(model, tokenizer, tmp_path / "saved", TokenLimits(64, 64, 0, "longest_first"))
    assert Scorer.load(tmp_path / "saved").score(PAIRS) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_an_encoder_gets_a_fresh_head_and_is_not_measured_as_if_it_were_trained(tmp_path):
    folder = write_encoder(tmp_path / "m", "BertForMaskedLM")
    assert (read_model(folder).head, read_model(folder).pooling) == ("fresh", "classifier")
    with refused(UsageError, "head-untrained"):
        load_reranker(folder)


def test_a_finished_re_ranker_keeps_its_head_as_a_base(tmp_path):
    folder = write_encoder(tmp_path / "m", "ElectraForSequenceClassification", num_labels=1)
    scores = []
    for seed in (1, 2):
        model = load_model(locate(str(folder)), "auto", seed=seed)
        tokens = model.make_tokens(load_tokenizer(folder), TokenLimits(64, 64, 0, "longest_first"))
        scores.append(Scorer(model, tokens).score(PAIRS))
    assert scores[0] == scores[1] == pytest.approx(transformers_scores(folder, PAIRS), abs=1e-5)


def test_a_two_label_checkpoint_of_cerank_keeps_its_two_labels(tmp_path):
    folder = write_encoder(tmp_path / "m", "BertForSequenceClassification", num_labels=2)
    model, tokenizer = load_model(locate(str(folder)), "auto", seed=0), load_tokenizer(folder)
    limits = TokenLimits(64, 64, 0, "longest_first")
    expected = Scorer(model, model.make_tokens(tokenizer, limits)).score(PAIRS)
    save(model, tokenizer, tmp_path / "saved", limits)
    assert Scorer.load(tmp_path / "saved").score(PAIRS) == expected


def test_the_label_that_means_relevant_is_found_by_its_name(tmp_path):
    folder = write_encoder(tmp_path / "m", "BertForSequenceClassification", num_labels=2)
    edit_json(folder / "config.json", id2label={"0": "relevant", "1": "not_relevant"})
    assert read_model(folder).label == 0


@pytest.mark.parametrize(
    ("labels", "names", "reason"),
    [
        (3, {"0": "contradiction", "1": "entailment", "2": "neutral"}, "relevant-label-unknown"),
        (2, {"0": "entailment", "1": "not_entailment"}, "relevant-label-unknown"),
        (2, {"0": "NEGATIVE", "1": "POSITIVE"}, "relevant-label-unknown"),
        (5, None, "relevant-label-unknown 5"),
    ],
)
def test_a_classifier_of_something_else_is_refused(labels, names, reason, tmp_path):
    folder = write_encoder(tmp_path / "m", "BertForSequenceClassification", num_labels=labels)
    edit_json(folder / "config.json", id2label=names)
    with refused(UsageError, *reason.split()):
        locate(str(folder))


def test_weights_and_settings_that_disagree_about_a_head_are_refused(tmp_path):
    finished = write_encoder(tmp_path / "a", "BertForSequenceClassification", num_labels=1)
    edit_json(finished / "config.json", architectures=["BertModel"])
    with refused(UsageError, "head-undeclared"):
        locate(str(finished))
    encoder = write_encoder(tmp_path / "b", "BertModel")
    edit_json(encoder / "config.json", architectures=["BertForSequenceClassification"])
    with refused(UsageError, "head-missing"):
        locate(str(encoder))


def test_weights_that_lack_a_layer_are_refused(tmp_path):
    folder = write_encoder(tmp_path / "m", "BertModel")
    edit_json(folder / "config.json", num_hidden_layers=3)
    with refused(UsageError, "weights-incomplete", 16, "bert.encoder.layer.2"):
        load_model(locate(str(folder)), "auto", seed=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"1_Pooling/config.json": {"embedding_dimension": 32, "pooling_mode": "lasttoken"}},
            "pooling-not-supported lasttoken",
        ),
        ({"2_Dense/config.json": {"activation_function": "os.system"}}, "unknown-activation os.system"),
        ({"2_Dense/config.json": {"in_features": 16}}, "invalid-modules"),
        ({"modules.json": [{"idx": 0, "name": "0", "path": "../..", "type": "x.Transformer"}]}, "path-out-of-folder"),
        ({"modules.json": {"0": "x"}}, "invalid-modules"),
    ],
)
def test_modules_that_cannot_be_read_are_refused(change, reason, tmp_path):
    folder = write_modules(tmp_path, "BertModel", "cls")
    for name, values in change.items():
        if isinstance(values, list) or name == "modules.json":
            (folder / name).write_text(json.dumps(values))
        else:
            edit_json(folder / name, **values)
    with refused(UsageError, *reason.split()):
        load_model(locate(str(folder)), "auto", seed=0)


def test_an_embedder_without_a_head_says_what_to_declare_and_takes_it(tmp_path):
    folder = write_modules(tmp_path, "BertModel", "cls")
    rows = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(rows[:2]))
    with refused(UsageError, "head-missing") as error:
        locate(str(folder))
    assert 'pooling = "classifier"' in error.value.hint
    assert locate(str(folder), pooling="classifier").reading().head == "fresh"
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert (locate(str(folder)).pooling, locate(str(folder)).reading().head) == ("product", "fresh")


def test_a_pooling_that_is_asked_for_takes_the_encoder_alone_and_says_so(tmp_path):
    folder = write_modules(tmp_path, "BertModel", "cls")
    files = locate(str(folder), pooling="mean")
    assert files.reading().family == "encoder (BertModel) with a fresh head, pooling mean"
    assert load_model(files, "mean", seed=1).head.weight.shape == (1, 32)
    with refused(UsageError, "option-for-encoders"):
        locate(str(write_causal(tmp_path / "Qwen3-Reranker-4B", "qwen3")), pooling="mean")


@pytest.mark.parametrize("family", ["encoder", "classifier", "modules", "language model"])
def test_a_description_says_family_head_and_score_with_an_example(family, tmp_path):
    folder = {
        "encoder": lambda: write_encoder(tmp_path / "m", "BertModel"),
        "classifier": lambda: write_encoder(tmp_path / "m", "BertForSequenceClassification", num_labels=2),
        "modules": lambda: write_modules(tmp_path, "BertModel", "cls"),
        "language model": lambda: write_causal(tmp_path / "Qwen3-Reranker-0.6B", "qwen3"),
    }[family]()
    said = dict(describe(str(folder)))
    expected = {
        "encoder": ("BertModel) with a fresh head", "fresh", "classification head", "[CLS] what is a cross"),
        "classifier": ("classifier of two labels", "trained", "log P(label 1)", "[SEP] a cross"),
        "modules": ("cross-encoder (Transformer > Pooling", "trained", "the first token", "[CLS] what"),
        "language model": (
            "Qwen3-Reranker, causal",
            "trained",
            "logit of 'yes'",
            "<Query>: what is a cross-encoder\\n<Doc",
        ),
    }[family]
    for key, words in zip(("family", "head", "score", "example"), expected, strict=True):
        assert words in said[key], key
    weights = sum(parameter.numel() for parameter in load_model(locate(str(folder)), "auto", 0).encoder.parameters())
    assert said["parameters"] == f"{weights / 1e6:.1f} million"


@pytest.mark.parametrize("use", [lambda folder: describe(str(folder)), load_reranker], ids=["describe", "load"])
def test_a_tokenizer_that_is_missing_or_of_another_model_is_refused_and_so_are_cut_weights(use, tmp_path):
    folder = write_encoder(tmp_path / "m", "BertForSequenceClassification", num_labels=1)
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens([f"new{number}" for number in range(5)])
    tokenizer.save_pretrained(folder)
    with refused(UsageError, "vocabulary-mismatch", str(folder)):
        use(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / file).unlink(missing_ok=True)
    with refused(UsageError, "tokenizer-missing", str(folder)):
        use(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with refused(UsageError, "weights-damaged", str(weights)):
        use(folder)
