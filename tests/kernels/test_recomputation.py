"""Layers that are computed again in the backward pass give the same bits, and keep less."""

from __future__ import annotations

import pytest
import torch
import transformers

from cerank.kernels import dropout
from cerank.kernels.recomputation import recompute_layers
from cerank.models.cross_encoder import CrossEncoder
from cerank.models.forward_pass import ForwardPass
from cerank.planning.training_memory import training_memory
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import Pair
from cerank.training.forward_backward import ForwardBackward

SIZES = {"hidden_size": 64, "num_hidden_layers": 6, "intermediate_size": 128, "num_attention_heads": 4}
SPECIAL = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
KINDS = {
    "Bert": {},
    "ModernBert": {"attention_dropout": 0.1, "mlp_dropout": 0.1, "embedding_dropout": 0.1},
    "DebertaV2": {},
}


class Tokens:
    """Stands for a tokenizer: pads pairs of ids."""

    has_types = False

    def batch(self, pairs, device):
        from cerank.tokenization.tokens import PaddedBatch

        longest = max(len(pair.ids) for pair in pairs)
        ids = torch.tensor([[*pair.ids, *[0] * (longest - len(pair.ids))] for pair in pairs])
        return PaddedBatch(ids, (ids != 0).long(), torch.zeros_like(ids), has_types=False)


def made(kind: str) -> CrossEncoder:
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=200, max_position_embeddings=100, **SIZES, **SPECIAL, **KINDS[kind]
    )
    torch.manual_seed(1)
    encoder = getattr(transformers, f"{kind}Model")(config)
    dropout.replace_dropout(encoder)
    return CrossEncoder(encoder, "mean", torch.nn.Linear(64, 1)).train()


def gradients(model: CrossEncoder, pairs, *, again: bool) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Scores, the gradient of every weight, and the bytes that were kept for it."""
    recompute_layers(model.encoder, enabled=again)
    model.zero_grad()
    forward = ForwardPass(model, Tokens(), torch.device("cpu"), "fp32")
    assert forward.is_packed or model.encoder.config.model_type == "deberta-v2"
    passes = ForwardBackward(forward, "s", 5, 10**6)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        scores = passes.forward(pairs, (3, 0))
    size = sum(storage.nbytes() for storage in kept.values())
    passes.backward((scores * torch.arange(len(pairs))).sum())
    return scores.detach(), [weight.grad.clone() for weight in model.parameters() if weight.grad is not None], size


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_have_the_same_bits_with_dropout_packed_padded_and_in_threads(kind, threads):
    pairs = [
        Pair(tuple(4 + (number * 7 + place) % 190 for place in range(30 + number % 3)), 10) for number in range(32)
    ]
    model, before = made(kind), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scores, expected, _ = gradients(model, pairs, again=False)
        same, found, _ = gradients(model, pairs, again=True)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(scores, same)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("kind", ["Bert", "ModernBert"])
def test_what_the_model_of_memory_says_is_kept_is_kept_within_15_percent(kind):
    pairs = [Pair(tuple(range(4, 36)), 10) for _ in range(16)]
    model, before = made(kind), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sizes = [gradients(model, pairs, again=again)[2] for again in (False, True)]
    finally:
        torch.set_num_threads(before)
    stage = Stage(steps=1, groups_per_step=2, group_size=8, max_length=32, max_query_length=8)
    said = training_memory(stage, model.encoder.config.to_dict(), parameters=1, trained=1)
    assert sizes[0] == pytest.approx(said.activations, rel=0.15)
    assert sizes[1] < sizes[0] / 4
