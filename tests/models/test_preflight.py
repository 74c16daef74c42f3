"""What would end a run much later is refused when its plan is made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from cerank.errors import UsageError
from cerank.models.finite_weights import check_finite
from cerank.models.preflight import check_base, read_sizes, weight_shapes
from tests.refusals import refused

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(95))]


def _model(folder: Path, *, tokenizer: bool = True, words: int = 100, **keys: object) -> Path:
    torch.manual_seed(0)
    settings: dict[str, object] = {"vocab_size": 100, "num_labels": 1, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(**(settings | {"hidden_size": 16, "intermediate_size": 32} | keys))  # type: ignore[arg-type]
    BertForSequenceClassification(config).save_pretrained(folder)
    if tokenizer:
        (folder / "vocab.txt").write_text("\n".join(WORDS[:words]) + "\n")
    return folder


def test_a_sound_folder_passes_and_its_facts_are_those_of_the_model(tmp_path: Path) -> None:
    facts = check_base(_model(tmp_path / "m"), {"stages.a.max_length": 512})
    assert (facts.family, facts.embeddings, facts.tokens) == ("bert", 100, 100)
    assert (facts.longest, facts.token_types, facts.head) == (512, 2, 1)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "tokenizer-missing"):
        check_base(_model(tmp_path / "m", tokenizer=False), {})


@pytest.mark.parametrize(("words", "rows"), [(100, 90), (5, 100)])
def test_a_tokenizer_that_does_not_fit_the_embeddings_is_refused(tmp_path: Path, words: int, rows: int) -> None:
    with refused(UsageError, "vocabulary-mismatch", words, rows):
        check_base(_model(tmp_path / "m", words=words, vocab_size=rows), {})


def test_tokens_that_were_added_count(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m")
    (folder / "vocab.txt").unlink()
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    values = {"model": {"vocab": vocabulary}, "added_tokens": [{"id": 100, "content": "[NEW]"}], "post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with refused(UsageError, "vocabulary-mismatch", 101):
        check_base(folder, {})


def test_token_types_that_the_model_lacks_are_refused(tmp_path: Path) -> None:
    with refused(UsageError, "token-types-differ"):
        check_base(_model(tmp_path / "m", type_vocab_size=1), {})


@pytest.mark.parametrize("labels", [2, 3])
def test_a_head_with_several_scores_is_refused_where_it_would_be_used(tmp_path: Path, labels: int) -> None:
    folder = _model(tmp_path / "m", num_labels=labels)
    with refused(UsageError, "output-count", labels):
        check_base(folder, {})
    assert check_base(folder, {}, needs_one_score=False).head == labels


def test_a_length_beyond_the_positions_is_refused_and_the_place_is_named(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m", max_position_embeddings=64)
    check_base(folder, {"stages.a.max_length": 64})
    with refused(UsageError, "length-too-large", "stages.b.max_length", 65, 64):
        check_base(folder, {"stages.a.max_length": 64, "stages.b.max_length": 65})


def test_roberta_reads_two_tokens_less_than_it_has_positions(tmp_path: Path) -> None:
    config = RobertaConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
    )
    model = RobertaForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    longest = read_sizes(tmp_path).longest
    assert longest == 64
    model.eval()(input_ids=torch.full((1, longest), 5))  # the longest input does pass
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 5))


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | {"is_encoder_decoder": True, "model_type": "t5"}
    (folder / "config.json").write_text(json.dumps(config))
    with refused(UsageError, "model-type-not-supported"):
        check_base(folder, {})


def test_weights_that_are_a_pointer_cut_or_garbage_are_called_so(tmp_path: Path) -> None:
    folder = _model(tmp_path / "m")
    sound = (folder / "model.safetensors").read_bytes()
    assert weight_shapes(folder / "model.safetensors")["classifier.weight"] == (1, 16)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 90868376\n"
    for content, what in (
        (pointer, "wrong-file-kind LFS"),
        (sound[:-10], "weights-damaged"),
        (sound[:20], "weights-damaged"),
        (b"", "weights-damaged"),
    ):
        shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
        (tmp_path / "copy/model.safetensors").write_bytes(content)
        with refused(UsageError, *what.split()):
            check_base(tmp_path / "copy", {})


def test_the_shipped_base_passes() -> None:
    from cerank.models.bases import locate

    facts = check_base(locate("minilm").folder, {"stages.a.max_length": 512}, needs_one_score=False)
    assert facts.tokens == facts.embeddings == 30522


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_named_before_anything_is_loaded(tmp_path: Path, kind, value) -> None:
    tensors = {"sound.weight": torch.full((3, 5), 3e4, dtype=kind), "broken.weight": torch.ones(7, dtype=kind)}
    save_file(tensors | {"steps": torch.ones(2, dtype=torch.int64)}, tmp_path / "model.safetensors")
    check_finite(tmp_path)
    tensors["broken.weight"][6] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with refused(UsageError, "weights-not-finite", "broken.weight"):
        check_finite(tmp_path)


def test_offsets_that_are_none_are_damage(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [-9, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with refused(UsageError, "weights-damaged"):
        check_finite(tmp_path)
