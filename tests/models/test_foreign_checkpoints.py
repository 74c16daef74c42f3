"""Checkpoints of lightning-ir and xpmir score as those libraries compute it, from the layout that they write.

The layouts and the equality were taken from lightning-ir 0.0.6 and experimaestro-ir 1.5 themselves, which need other
releases of transformers than cerank; here the reference is written out with transformers alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import cerank
from cerank.errors import UsageError
from cerank.models import cross_encoder
from cerank.models.bases import locate
from cerank.models.load_model import load_reranker
from tests.models.family_fixtures import PAIRS, edit_json, write_lightning, write_xpm
from tests.refusals import refused

TEXTS = [pair for pair in PAIRS if pair[0]]


def cut_pair(tokenizer, query: str, document: str, room: int) -> dict[str, torch.Tensor]:
    """The pair as both libraries cut it: each text to its own length, then the document to what is left."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (query, document)]
    first = [tokenizer.cls_token_id, *ids[0][:8], tokenizer.sep_token_id]
    second = [*ids[1][:40][: room - len(first) - 1], tokenizer.sep_token_id]
    types = [0] * len(first) + [1] * len(second)
    return {"input_ids": torch.tensor([first + second]), "token_type_ids": torch.tensor([types])}


def lightning_scores(folder: Path, kind: str, pooling: str) -> list[float]:
    """Scores by the encoder of transformers, loaded from the weights by name, and the linear layer."""
    import transformers

    config = json.loads((folder / "config.json").read_text())
    known = getattr(transformers, f"{kind}Config")
    encoder = getattr(transformers, f"{kind}Model")(
        known(**{k: v for k, v in config.items() if k != "model_type"})
    ).eval()
    weights = load_file(folder / "model.safetensors")
    encoder.load_state_dict(weights, strict=False)
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    scores = []
    for query, document in TEXTS:
        with torch.inference_mode():
            states = encoder(**cut_pair(tokenizer, query, document, 64)).last_hidden_state[0]
        state = states[0] if pooling == "first" else states.mean(dim=0)
        if "bert_pool.0.weight" in weights:
            state = torch.tanh(state @ weights["bert_pool.0.weight"].T + weights["bert_pool.0.bias"])
        scores.append(float(state @ weights["linear.weight"][0] + weights.get("linear.bias", torch.zeros(1))[0]))
    return scores


@pytest.mark.parametrize(
    ("kind", "pooling", "extra"),
    [("Electra", "first", ()), ("Bert", "mean", ("linear.bias",)), ("Bert", "first", ("bert_pool.0",))],
)
def test_a_checkpoint_of_lightning_ir_gives_the_scores_of_its_layers(tmp_path: Path, kind, pooling, extra) -> None:
    folder = write_lightning(tmp_path / "m", pooling=pooling, backbone=kind)
    weights = load_file(folder / "model.safetensors")
    draw = torch.Generator().manual_seed(9)
    if "linear.bias" in extra:
        weights["linear.bias"] = torch.randn(1, generator=draw)
    if "bert_pool.0" in extra:
        weights["bert_pool.0.weight"] = torch.randn(32, 32, generator=draw)
        weights["bert_pool.0.bias"] = torch.randn(32, generator=draw)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    expected = lightning_scores(folder, kind, pooling)
    assert max(expected) - min(expected) > 0.5
    model = cerank.load(folder, device="cpu")
    assert model.score_pairs(TEXTS) == pytest.approx(expected, abs=1e-5)
    assert [model.score(query, [document])[0] for query, document in TEXTS[:3]] == pytest.approx(expected[:3], abs=1e-5)


def test_what_is_saved_of_it_is_read_by_cerank_with_equal_scores(tmp_path: Path) -> None:
    folder = write_lightning(tmp_path / "m")
    finished = load_reranker(folder)
    cross_encoder.save(finished.model, finished.tokenizer, tmp_path / "again", finished.limits)
    expected = cerank.load(folder, device="cpu").score_pairs(TEXTS)
    assert cerank.load(tmp_path / "again", device="cpu").score_pairs(TEXTS) == pytest.approx(expected, abs=1e-6)
    assert json.loads((tmp_path / "again" / "config.json").read_text())["model_type"] == "electra"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"pooling_strategy": "max"}, "pooling-not-supported"),
        ({"model_type": "set-encoder"}, "not-pointwise"),
        ({"use_adapter": True}, "adapter-type"),
        ({"backbone_model_type": "t5"}, "model-type-not-supported"),
    ],
)
def test_other_checkpoints_of_lightning_ir_are_refused(tmp_path: Path, settings, code) -> None:
    folder = write_lightning(tmp_path / "m")
    edit_json(folder / "config.json", **settings)
    with refused(UsageError, code, "config.json"):
        locate(str(folder))


def test_a_linear_layer_that_is_missing_or_of_two_scores_is_refused(tmp_path: Path) -> None:
    folder = write_lightning(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    for changed, code in ((None, "head-missing"), (torch.zeros(2, 32), "output-count")):
        rows = {name: value for name, value in weights.items() if name != "linear.weight"}
        save_file(rows | ({} if changed is None else {"linear.weight": changed}), folder / "model.safetensors")
        with refused(UsageError, code, "config.json"):
            locate(str(folder))


def test_a_checkpoint_of_xpmir_is_cut_as_its_definition_says_and_scores_as_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertForSequenceClassification

    folder = write_xpm(tmp_path / "m", query_prompt="query: ")
    part = folder / "encoder_path"
    model = BertForSequenceClassification.from_pretrained(part).eval()
    tokenizer = AutoTokenizer.from_pretrained(part)
    expected = []
    for query, document in TEXTS:
        with torch.inference_mode():
            expected.append(float(model(**cut_pair(tokenizer, f"query: {query}", document, 48)).logits[0, 0]))
    assert cerank.load(folder, device="cpu").score_pairs(TEXTS) == pytest.approx(expected, abs=1e-5)
    assert locate(str(folder)).folder == part.resolve()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ('{"fields": 3}', "usage"),
        ("[", "usage"),
        ('[{"typename": "xpmir.neural.splade.SpladeScorer"}]', "not-pointwise"),
        (
            '[{"typename": "x.CrossEncoderModuleLoader", "fields": {"encoder_path": {"value": "../up"}}}]',
            "path-out-of-folder",
        ),
    ],
)
def test_definitions_of_xpmir_that_are_none_or_of_something_else_are_refused(tmp_path: Path, change, code) -> None:
    folder = write_xpm(tmp_path / "m")
    (folder / "experimaestro.json").write_text(change)
    with refused(UsageError, code, "experimaestro.json"):
        locate(str(folder))


@pytest.mark.parametrize("definition", ["[]", '{"a": 1}', '[{"typename": "my.experiment.Learner"}]'])
def test_a_model_beside_a_file_of_another_program_of_experimaestro_is_read(tmp_path: Path, definition: str) -> None:
    part = write_xpm(tmp_path / "m") / "encoder_path"
    for folder in (part, part.parent):
        (folder / "experimaestro.json").write_text(definition)
    assert locate(str(part)).folder == part.resolve()
    assert cerank.load(part, device="cpu").score_pairs(TEXTS)


def test_prompts_that_have_no_form_here_are_refused(tmp_path: Path) -> None:
    for number, prompt in enumerate(({"doc_prompt": "passage: "}, {"query_prompt": "query: {text} ?"})):
        with refused(UsageError, "usage", "experimaestro.json"):
            locate(str(write_xpm(tmp_path / str(number), **prompt)))
