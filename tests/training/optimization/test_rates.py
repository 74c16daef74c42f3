"""Learning rates by layer and of the head: which weight has which, on real architectures."""

from __future__ import annotations

import re

import msgspec
import pytest
import torch

from cerank.errors import UsageError
from cerank.models.cross_encoder import load
from cerank.planning.learning_rates import in_words, rate_groups
from cerank.planning.optimization import all_names, trained_names
from cerank.recipes.schema import Stage
from cerank.training.optimization.optimizers import make_optimizer, set_rate
from cerank.training.weight_shares import WeightShares
from tests.refusals import refused

STAGE = Stage(steps=1, layer_decay=0.8, head_rate_factor=10.0, learning_rate=1e-3)


def published_scale(name, layers, decay):
    """The factor of a weight by BEiT's `LayerDecayValueAssigner`, on which timm's groups are based.

    Its rule: `decay ** (num_layers + 1 - layer_id)`; 0 for embeddings, i + 1 for block i, `num_layers + 1` for others.
    """
    block = re.search(r"\.layer\.([0-9]+)\.", name)
    layer_id = int(block[1]) + 1 if block else 0 if "embeddings" in name else layers + 1
    return decay ** (layers + 1 - layer_id)


def test_every_trained_weight_of_an_electra_has_the_rate_of_the_published_rule_and_its_head_ten_times_that(
    tiny_classifier,
):
    model = load(tiny_classifier, "auto", 5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(STAGE, WeightShares(model), "stages.s")
    set_rate(optimizer, 1e-3)
    rates = {names[id(parameter)]: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert sorted(rates) == sorted(names.values())
    assert len(rates) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, rate in rates.items():
        head = 10.0 if ".classifier." in name else 1.0
        assert rate == pytest.approx(1e-3 * published_scale(name, 2, 0.8) * head), name


def test_a_step_moves_each_weight_by_its_own_rate(tiny):
    model = load(tiny, "auto", 5)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    stage = msgspec.structs.replace(STAGE, optimizer="lion", weight_decay=0.0)
    optimizer = make_optimizer(stage, WeightShares(model), "stages.s")
    set_rate(optimizer, 0.25)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    moved = {name: float((before[name] - value.detach()).max()) for name, value in model.named_parameters()}
    assert moved["head.weight"] == pytest.approx(2.5, rel=1e-5)
    assert moved["encoder.encoder.layer.1.output.dense.weight"] == pytest.approx(0.2, rel=1e-5)
    assert moved["encoder.encoder.layer.0.output.dense.weight"] == pytest.approx(0.16, rel=1e-5)
    assert moved["encoder.embeddings.LayerNorm.bias"] == pytest.approx(0.128, rel=1e-5)


def test_without_rates_of_their_own_all_weights_are_one_group_in_their_order(tiny):
    model = load(tiny, "auto", 5)
    optimizer = make_optimizer(Stage(steps=1), WeightShares(model), "stages.s")
    (group,) = optimizer.param_groups
    assert [id(parameter) for parameter in group["params"]] == [
        id(parameter) for parameter in model.parameters() if parameter.requires_grad
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (  # ModernBERT
            [
                "encoder.embeddings.tok_embeddings.weight",
                "encoder.layers.0.attn.Wqkv.weight",
                "encoder.layers.10.attn.Wqkv.weight",
                "encoder.layers.2.attn.Wqkv.weight",
                "encoder.final_norm.weight",
                "head.weight",
            ],
            {"embeddings": 4, "layer 1": 3, "layer 2": 2, "layer 3": 1, "above the layers": 0, "head": 0},
        ),
        (  # T5: the decoder lies over the encoder
            [
                "encoder.decoder.block.0.layer.0.SelfAttention.q.weight",
                "encoder.shared.weight",
                "encoder.encoder.block.0.layer.0.SelfAttention.q.weight",
                "encoder.encoder.block.1.layer.0.SelfAttention.q.weight",
                "encoder.encoder.final_layer_norm.weight",
                "encoder.score.weight",
            ],
            {"embeddings": 4, "layer 1": 3, "layer 2": 2, "layer 3": 1, "above the layers": 0, "head": 0},
        ),
        (  # Qwen with a linear head, and an adapter
            [
                "encoder.model.embed_tokens.weight",
                "encoder.model.layers.0.self_attn.q_proj.lora_A.default.weight",
                "encoder.model.layers.1.self_attn.q_proj.lora_A.default.weight",
                "encoder.model.norm.weight",
                "encoder.score.weight",
            ],
            {"embeddings": 3, "layer 1": 2, "layer 2": 1, "above the layers": 0, "head": 0},
        ),
        (  # DeBERTa
            [
                "encoder.deberta.embeddings.word_embeddings.weight",
                "encoder.deberta.encoder.rel_embeddings.weight",
                "encoder.deberta.encoder.LayerNorm.weight",
                "encoder.deberta.encoder.layer.0.output.dense.weight",
                "encoder.pooler.dense.weight",
                "encoder.classifier.weight",
            ],
            {"embeddings": 2, "layer 1": 1, "head": 0},
        ),
    ],
)
def test_layers_are_found_in_every_family(names, expected):
    groups = rate_groups(STAGE, names, names, "stages.s")
    powers = {group.name: 0.8**exponent for group, exponent in zip(groups, expected.values(), strict=True)}
    assert [group.name for group in groups] == list(expected)
    assert sorted(name for group in groups for name in group.names) == sorted(names)
    for group in groups:
        assert group.factor == pytest.approx(powers[group.name] * (10.0 if group.name == "head" else 1.0))


def test_layers_that_are_frozen_are_layers_all_the_same(tiny):
    model = load(tiny, "auto", 5)
    names = [name for name, _ in model.named_parameters()]
    trained = [name for name in names if ".layer.1." in name or name.startswith("head.")]
    groups = rate_groups(STAGE, trained, names, "stages.s")
    assert {group.name: round(group.factor, 6) for group in groups} == {"layer 2": 0.8, "head": 10.0}


def test_what_a_plan_lists_is_what_the_training_does(tiny):
    from cerank.models.cross_encoder import freeze
    from cerank.models.model_reading import weight_shapes

    stage = msgspec.structs.replace(STAGE, freeze="embeddings", freeze_layers=1)
    model = load(tiny, "auto", 5)
    freeze(model, stage.freeze, stage.freeze_layers)
    named = dict(model.named_parameters())
    done = rate_groups(stage, [name for name, value in named.items() if value.requires_grad], named, "stages.s")
    files = list(weight_shapes(tiny.folder))
    planned = rate_groups(stage, trained_names(files, stage, (), has_head=True), all_names(files, ()), "stages.s")
    assert [(group.name, group.factor) for group in planned] == [(group.name, group.factor) for group in done]
    assert "layer 2 0.0008" in in_words(stage, planned)


def test_layers_that_a_base_leaves_out_are_not_counted():
    names = [f"bert.encoder.layer.{number}.output.dense.weight" for number in range(6)]
    stage = msgspec.structs.replace(STAGE, head_rate_factor=1.0)
    used = (0, 2, 4, 5)
    groups = rate_groups(stage, trained_names(names, stage, used, has_head=True), all_names(names, used), "stages.s")
    assert [group.name for group in groups] == ["layer 1", "layer 2", "layer 3", "layer 4", "head"]
    assert groups[0].factor == pytest.approx(0.8**4)


def test_a_model_without_layers_or_without_a_head_is_refused():
    shared = ["encoder.albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight", "encoder.classifier.weight"]
    with refused(UsageError, "layers-unknown", "stages.s.layer_decay"):
        rate_groups(STAGE, shared, shared, "stages.s")
    answers = ["encoder.model.embed_tokens.weight", "encoder.model.layers.0.mlp.up_proj.weight"]
    with refused(UsageError, "head-unknown", "stages.s.head_rate_factor"):
        rate_groups(STAGE, answers, answers, "stages.s")
    assert rate_groups(msgspec.structs.replace(STAGE, head_rate_factor=1.0), answers, answers, "stages.s")
