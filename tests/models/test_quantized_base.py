"""An adapter over a base in 8 or 4 bits: what is rounded, what is trained, and that nothing rounded is saved.

What bitsandbytes computes is tried with the library itself where it is installed; it has kernels for CPUs, too. A
stand-in that rounds to whole hundredths is enough for what cerank does around it.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from cerank.errors import MissingError, UsageError
from cerank.inference.rerank import Scorer
from cerank.models import cross_encoder
from cerank.models.bases import BaseFiles, locate
from cerank.models.cross_encoder import load_tokenizer
from cerank.models.load_model import load_model
from cerank.models.lora import rounded_matrices
from cerank.models.lora.adapter_training import take_adapter, write_adapter
from cerank.models.lora.rounded_matrices import WEIGHT_BYTES, check_quantization, is_rounded, rounded_weights
from cerank.models.model_reading import weight_shapes
from cerank.planning.training_memory import training_memory
from cerank.recipes.plan import without_defaults
from cerank.recipes.schema import Stage
from cerank.recipes.sections.adapter_specs import AdapterSpec
from cerank.tokenization.tokens import TokenLimits
from cerank.training.trainer import PausedError, Trainer
from tests.models.family_fixtures import PAIRS
from tests.models.test_model_families import FAMILIES, STAGE, Nothing, data_of, scores_of
from tests.refusals import refused

pytest.importorskip("peft")

EIGHT = AdapterSpec(kind="lora", rank=4, dropout=0.1, quantize="8bit")
BY_TITLE = {family.title: family for family in FAMILIES}


class Rounded(nn.Parameter):
    """Weights in whole hundredths."""

    def __new__(cls, data, requires_grad=False, **_):
        return super().__new__(cls, (data * 100).round() / 100, requires_grad)


class StandIn(nn.Linear):
    """A layer that bitsandbytes would make."""

    def __init__(self, inputs, outputs, bias=True, **_):
        super().__init__(inputs, outputs, bias=bias)


@pytest.fixture
def stand_in(monkeypatch):
    from peft.import_utils import is_bnb_available

    is_bnb_available()  # peft remembers what it finds, and must not remember the stand-in
    library = types.ModuleType("bitsandbytes")
    library.__spec__ = importlib.machinery.ModuleSpec("bitsandbytes", None)
    layers = types.ModuleType("bitsandbytes.nn")
    layers.Linear8bitLt = layers.Linear4bit = StandIn
    layers.Int8Params = layers.Params4bit = Rounded
    if not is_bnb_available():
        monkeypatch.setitem(sys.modules, "bitsandbytes", library)
        monkeypatch.setitem(sys.modules, "bitsandbytes.nn", layers)
    return is_bnb_available()


def train(files: BaseFiles, stage: Stage, folder: Path, *, merges: bool = True, callback: Nothing | None = None):
    model = load_model(files, "auto", seed=3, merges=merges, spec=stage.adapter).to("cpu")
    callback = callback or Nothing()
    try:
        Trainer(0, "s", stage, seed=3, folder=folder, device="cpu").train(model, data_of(model, files, stage), callback)
    except PausedError:
        assert callback.stop_after
    return model, callback


def stage_of(spec: AdapterSpec, length: int = 64) -> Stage:
    return msgspec.structs.replace(STAGE, adapter=spec, max_length=length)


def check_whole_way(files: BaseFiles, spec: AdapterSpec, length: int, folder: Path) -> None:
    """Train, resume, take out, save and read an adapter over a rounded base."""
    stage = stage_of(spec, length)
    plain = load_model(files, "auto", seed=3)
    start = {name: value.clone() for name, value in plain.state_dict().items()}
    model, told = train(files, stage, folder / "whole")
    assert model.full_precision
    _, first = train(files, stage, folder / "killed", callback=Nothing(stop_after=2))
    resumed, second = train(files, stage, folder / "killed")
    assert first.losses + second.losses == told.losses
    kept = model.checkpoint_weights()
    assert all(torch.equal(value, kept[name]) for name, value in resumed.checkpoint_weights().items())
    over_rounded = scores_of(model, files, length)
    taken = take_adapter(model)
    merged = scores_of(model, files, length)
    assert merged != over_rounded, "validation saw the rounded base, and the merged model is of the whole one"
    assert merged == pytest.approx(over_rounded, abs=0.5)
    assert merged != pytest.approx(scores_of(plain, files, length), abs=1e-4)
    found = model.state_dict()
    assert found.keys() == start.keys(), "it is an ordinary model again"
    assert {value.dtype for value in found.values()} == {value.dtype for value in start.values()}
    same = [name for name in start if torch.equal(found[name], start[name])]
    assert any(is_rounded(name.removeprefix("encoder.").removesuffix(".weight"), "") for name in same)
    limits = TokenLimits(length, length)
    write_adapter(model, taken, folder / "adapter", limits, base=str(files.folder), base_sha256=files.sha256)
    cross_encoder.save(model, load_tokenizer(files.folder), folder / "merged", limits)
    for name in ("adapter", "merged"):
        assert Scorer.load(folder / name).score(PAIRS[:5]) == pytest.approx(merged, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("more", [{}, pytest.param({"quantize": "4bit", "dora": True}, marks=pytest.mark.slow)])
def test_what_is_saved_holds_the_adapter_over_the_whole_base_and_not_over_the_rounded_one(more, stand_in, tmp_path):
    if stand_in and more:
        pytest.skip("the library itself is there, and does not train 4 bits on a CPU")
    family = BY_TITLE["BERT"]
    check_whole_way(locate(family.write(tmp_path)), msgspec.structs.replace(EIGHT, **more), 64, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "more"),
    [
        ("BERT", {"rslora": True, "modules_to_save": ("layer.1.output",)}),
        ("Qwen3-Reranker", {}),
        ("monoT5", {}),
    ],
)
def test_with_the_library_itself_every_kind_of_model_is_trained_over_eight_bits(title, more, tmp_path):
    pytest.importorskip("bitsandbytes")  # its layers of 4 bits are not trained on a CPU: they change their layout there
    family = BY_TITLE[title]
    spec = msgspec.structs.replace(EIGHT, **more)
    check_whole_way(locate(family.write(tmp_path)), spec, family.length, tmp_path)


def test_an_adapter_is_trained_further_over_a_rounded_base(stand_in, tmp_path):
    files = locate(BY_TITLE["ELECTRA"].write(tmp_path))
    model, _ = train(files, stage_of(EIGHT), tmp_path / "first")
    taken = take_adapter(model)
    limits = TokenLimits(64, 64)
    write_adapter(model, taken, tmp_path / "adapter", limits, base=str(files.folder), base_sha256=files.sha256)
    found = locate(str(tmp_path / "adapter"))
    again = load_model(found, "auto", seed=9, merges=False, spec=EIGHT).to("cpu")
    assert again.adapter is not None
    assert again.full_precision
    further, _ = train(found, stage_of(EIGHT), tmp_path / "second", merges=False)
    before = scores_of(model, files, 64)
    take_adapter(further)
    assert scores_of(further, found, 64) != pytest.approx(before, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_the_bytes_that_a_plan_says_are_those_that_the_library_takes(quantize):
    layers = pytest.importorskip("bitsandbytes").nn
    size, weights = (512, 1024), torch.randn(1024, 512)
    if quantize == "8bit":
        layer = layers.Linear8bitLt(*size, bias=False, has_fp16_weights=False)
        layer.weight = layers.Int8Params(weights, requires_grad=False, has_fp16_weights=False)
    else:
        layer = layers.Linear4bit(*size, bias=False, compress_statistics=True, quant_type="nf4")
        layer.weight = layers.Params4bit(weights, requires_grad=False, compress_statistics=True, quant_type="nf4")
    held = layer.to("cpu").train().state_dict()
    taken = sum(value.numel() * value.element_size() for name, value in held.items() if "quant_" not in name)
    assert taken == pytest.approx(WEIGHT_BYTES[quantize] * weights.numel(), rel=0.01)


def test_a_plan_counts_less_memory_for_the_weights_in_few_bits(tmp_path):
    folder = Path(BY_TITLE["BERT"].write(tmp_path))
    shapes = weight_shapes(folder)
    config = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536, "num_attention_heads": 12}
    rounded = rounded_weights(EIGHT, shapes, "bert")
    assert 0 < rounded < sum(torch.Size(shape).numel() for shape in shapes.values())
    assert rounded_weights(msgspec.structs.replace(EIGHT, quantize="none"), shapes, "bert") == 0
    million = {"parameters": 2_000_000, "trained": 1000}
    plain = training_memory(stage_of(AdapterSpec(kind="lora")), config, **million)
    for quantize, size in (("8bit", 5_000_000), ("4bit", 4_515_869)):
        stage = stage_of(msgspec.structs.replace(EIGHT, quantize=quantize))
        memory = training_memory(stage, config, **million, rounded=1_000_000)
        assert memory.weights == pytest.approx(size, abs=10)
        assert plain.total - memory.total == plain.weights - memory.weights


@pytest.mark.parametrize(
    ("name", "kind", "trained", "is_expected"),
    [
        ("encoder.layer.0.attention.self.query", "bert", (), True),
        ("encoder.layer.0.attention.self.query", "bert", ("layer.0",), False),
        ("encoder.layer.10.attention.self.query", "bert", ("layer.1",), True),
        ("pooler.dense", "bert", (), False),
        ("classifier", "bert", (), False),
        ("lm_head", "qwen3", (), False),
        ("model.layers.3.mlp.down_proj", "qwen3", (), True),
        ("encoder.block.0.layer.1.DenseReluDense.wo", "t5", (), False),
        ("encoder.block.0.layer.1.DenseReluDense.wi", "t5", (), True),
    ],
)
def test_matrices_of_numbered_layers_are_rounded_and_no_head(name, kind, trained, is_expected):
    assert is_rounded(name, kind, trained) == is_expected


def test_few_bits_need_a_gpu_and_the_library(monkeypatch):
    where = "stages.contrastive.adapter"
    with refused(UsageError, "quantize-without-gpu", f"{where}.quantize", "8bit", "cpu"):
        check_quantization(EIGHT, "cpu", where)
    check_quantization(AdapterSpec(kind="lora"), "cpu", where)
    monkeypatch.setattr(rounded_matrices.importlib.util, "find_spec", lambda _: None)
    with refused(MissingError, "library-missing", f"{where}.quantize") as error:
        check_quantization(EIGHT, "cuda:0", where)
    assert "cerank[quantized]" in error.value.hint


def test_only_a_stage_that_asks_for_few_bits_has_another_key():
    assert without_defaults(AdapterSpec(kind="lora", rank=4)) == {"kind": "lora", "rank": 4}
    assert without_defaults(EIGHT) == {"kind": "lora", "rank": 4, "quantize": "8bit"}
