"""What a recipe leaves to a GPU: precision and microbatch, chosen by the card and written into the plan."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import msgspec
import pytest
import torch

from cerank.app import plans
from cerank.kernels import attention
from cerank.machine import gpu_properties
from cerank.machine.gpu_properties import GpuProperties
from cerank.models.forward_pass import packed_model
from cerank.planning.gpu_settings import activation_bytes, choose_microbatch, fill_gpu_settings
from cerank.recipes.plan import without_defaults
from cerank.recipes.schema import Stage
from tests.kernels.test_gpu_operations import META, meta_row
from tests.worker.small import small_plan

H100 = GpuProperties("NVIDIA H100 80GB HBM3", 80 << 30, (9, 0))
RTX = GpuProperties("NVIDIA GeForce RTX 4060", 8 << 30, (8, 9))
T4 = GpuProperties("Tesla T4", 15 << 30, (7, 5))
BERT = {"model_type": "bert", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
BERT |= {"vocab_size": 30_522}
LARGE = BERT | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
BIG_STEP = Stage(steps=1, groups_per_step=64, group_size=8, precision="auto")


def bytes_of_a_token(kind, dtype, monkeypatch, **sizes):
    """Bytes that autograd keeps for each token of a row, counted on the meta device."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from cerank.models.cross_encoder import CrossEncoder

    config = AutoConfig.for_model(kind, num_labels=1, hidden_dropout_prob=0.1, **sizes)
    with META:
        model = CrossEncoder(AutoModelForSequenceClassification.from_config(config), "classifier", None).train()
    name = "torch flash" if dtype is torch.bfloat16 else "torch efficient"
    monkeypatch.setattr(attention, "kernel_name", lambda *_, **__: name)
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    packed = packed_model(model)

    def kept_bytes(row):
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage  # held, so that no other gets its address
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda it: it), packed.encoder.prepared(dtype) as cast:
            scores = packed.scores(row, cast)
            assert scores.requires_grad
        return sum(storage.nbytes() for storage in kept.values())

    few, many = meta_row(32), meta_row(320)
    return (kept_bytes(many) - kept_bytes(few)) / (len(many.ids) - len(few.ids)), config.to_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("bert", {}),
        ("bert", {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}),
        ("roberta", {}),
        ("electra", {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}),
    ],
)
def test_the_bytes_a_token_needs_are_those_that_autograd_keeps(kind, sizes, dtype, monkeypatch):
    counted, config = bytes_of_a_token(kind, dtype, monkeypatch, **sizes)
    assert activation_bytes(config, is_narrow=dtype is torch.bfloat16) == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize(
    ("gpu", "config", "stage", "tokens"),
    [
        (H100, BERT, BIG_STEP, 65_536),
        (H100, LARGE, BIG_STEP, 32_768),
        (RTX, BERT, BIG_STEP, 8192),
        (RTX, LARGE, BIG_STEP, 1024),  # the fewest: if not even these fit, the stage ends with a hint
        (T4, BERT, BIG_STEP, 8192),  # in float32
        (H100, BERT, Stage(steps=1), 8192),  # 32 pairs of at most 256 tokens
        (H100, BERT, Stage(steps=1, groups_per_step=5), 16_384),  # the next power of two
        (None, BERT, BIG_STEP, 8192),
        (H100, BERT | {"model_type": "deberta-v2"}, BIG_STEP, 8192),
        (H100, {}, BIG_STEP, 8192),
    ],
)
def test_the_microbatch_is_what_memory_holds_and_a_step_needs(gpu, config, stage, tokens):
    found, reason = choose_microbatch(stage, config, gpu)
    assert found == tokens
    assert reason


def test_what_a_recipe_says_itself_stays_and_a_cpu_fills_in_nothing(tmp_path):
    recipe = small_plan(tmp_path)[0].recipe
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    assert fill_gpu_settings(recipe, "cpu", tmp_path, None) == (recipe, {})
    filled, reasons = fill_gpu_settings(recipe, "cuda", tmp_path, H100)
    assert {(stage.precision, stage.microbatch) for _, stage in filled.chained()} == {("auto", 1024)}
    assert set(reasons) == {f"stages.{name}.{key}" for name in recipe.chain for key in ("precision", "microbatch")}
    assert "bf16 on NVIDIA H100" in reasons[f"stages.{recipe.chain[0]}.precision"]
    assert fill_gpu_settings(filled, "cuda", tmp_path, T4) == (filled, {})


def test_the_plan_for_a_gpu_says_what_was_chosen_and_is_another_than_the_cpus(tmp_path, monkeypatch):
    plan, settings = small_plan(tmp_path)
    monkeypatch.setattr(gpu_properties, "smallest_gpu", lambda *_: T4)
    told = []
    on_gpu = msgspec.structs.replace(settings, device="cuda")
    made = plans.plan_of(plan.recipe, on_gpu, now=datetime(2026, 1, 1, tzinfo=UTC), tell=told.append)
    assert {stage.precision for _, stage in made.recipe.chained()} == {"auto"}
    assert all(f"{setting}: {reason}" in told for setting, reason in made.reasons.items())
    assert "float32 in training and fp16 in re-ranking on Tesla T4" in " ".join(told)
    assert plan.reasons == {}


def test_a_setting_left_out_is_the_same_stage_as_the_one_it_means_on_a_cpu():
    """So that runs of releases which wrote the default into their plans keep their identity."""
    left_out, written = Stage(steps=1), Stage(steps=1, precision="fp32", microbatch=8192)
    assert without_defaults(left_out) == without_defaults(written) == {"steps": 1}
    assert without_defaults(Stage(steps=1, precision="auto", microbatch=4096)) == {
        "steps": 1,
        "precision": "auto",
        "microbatch": 4096,
    }


def test_the_smallest_gpu_that_a_plan_may_be_given_decides(monkeypatch):
    from cerank.machine.devices import Device

    gpus = [Device("cuda:0", "GPU-a", "large"), Device("cuda:1", "GPU-b", "small"), Device("cpu")]
    monkeypatch.setattr(gpu_properties, "detect_devices", lambda _: gpus)
    monkeypatch.setattr(gpu_properties, "properties_by_library", lambda _: [])
    printed = "GPU-b, 15360, 7.5\nGPU-a, 81559, 9.0\nGPU-c, [N/A], [N/A]\n"
    monkeypatch.setattr(
        gpu_properties, "properties_by_tool", lambda asked: gpu_properties.parse_properties(printed, asked)
    )
    assert gpu_properties.smallest_gpu("cuda", os.environ) == GpuProperties("small", 15360 << 20, (7, 5))
    assert gpu_properties.smallest_gpu("cuda:0", os.environ) == GpuProperties("large", 81559 << 20, (9, 0))
    monkeypatch.setattr(
        gpu_properties, "properties_by_tool", lambda asked: gpu_properties.parse_properties(printed, asked[:1])
    )
    assert gpu_properties.smallest_gpu("cuda", os.environ) is None  # one of them is not known
