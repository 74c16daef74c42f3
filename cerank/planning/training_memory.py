"""How much memory a stage's training takes, from the sizes in its base's config.json: said before anything is loaded.

The largest microbatch decides: weights, gradients, the optimizer's moments (two of AdamW, one of Lion), the average of
the weights if there is one, and what the forward pass keeps for the backward pass. What a layer keeps was
counted on packed float32 training with dropout, tensor by tensor, and a test counts it again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from cerank.models.lora.adapter_targets import LAYER_NUMBER
from cerank.models.lora.rounded_matrices import WEIGHT_BYTES
from cerank.planning.gpu_settings import activation_bytes
from cerank.recipes.schema import Stage

_FLOAT = 4
MOMENTS = {"adamw": 2, "lion": 1}  # numbers that an optimizer keeps of each trained weight
_STATES, _STATES_WITH_DROPOUT = 9, 11  # states of the hidden size: a layer's input, query, key, value, sums, norms
_INNER, _INNER_WITH_GATE = 2, 4  # states of the inner size: before and after the activation, and beside it a gate
_SCORES = 3  # matrices of attention weights a head: the softmax, dropout's mask, their product; none without dropout
_TABLES = re.compile(r"\.(?:embeddings|embed_tokens|shared)\.")
_GATED = {"modernbert", "gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"}


class TrainingMemory(msgspec.Struct, frozen=True):
    """Bytes that training a stage takes."""

    weights: int
    gradients: int
    moments: int
    activations: int  # as the stage is set
    recomputed: int  # with gradient checkpointing
    average: int = 0  # of the trained weights, where the stage keeps one

    @property
    def total(self) -> int:
        """Return all of it together."""
        return self.weights + self.gradients + self.moments + self.average + self.activations


def training_memory(
    stage: Stage,
    config: Mapping[str, Any],
    *,
    parameters: int,
    trained: int,
    layers: int = 0,
    device: str = "cpu",
    rounded: int = 0,
    shares: int = 1,
) -> TrainingMemory | None:
    """Return the memory of training a stage; None where config.json does not give the model's sizes.

    Args:
        stage: the stage.
        config: config.json of its base.
        parameters: number of the model's weights.
        trained: number of those that are trained.
        layers: number of the layers that are used; 0 for all.
        device: device of the plan; a GPU's kernels keep no attention weights.
        rounded: number of the weights that are held in 8 or 4 bits.
        shares: devices among which weights, gradients and moments are divided; the memory is that of one.
    """
    hidden = _size(config, "hidden_size", "dim", "d_model")
    depth = layers or _size(config, "num_hidden_layers", "n_layers", "num_layers")
    inner = _size(config, "intermediate_size", "hidden_dim", "d_ff")
    heads = _size(config, "num_attention_heads", "n_heads", "num_heads")
    if not (hidden and depth and inner and heads):
        return None
    pairs = stage.groups_per_step * (stage.group_size + stage.in_batch)
    tokens = min(stage.tokens_at_once, pairs * stage.max_length)
    has_dropout = stage.dropout is None or stage.dropout > 0
    states = _STATES_WITH_DROPOUT if has_dropout else _STATES
    inners = _INNER_WITH_GATE if config.get("model_type") in _GATED else _INNER
    scores = _SCORES if has_dropout and device == "cpu" else 0
    layer = _FLOAT * tokens * (states * hidden + inners * inner + scores * heads * stage.max_length)
    on_gpu = activation_bytes(config, is_narrow=stage.precision in {"bf16", "auto"}) if device != "cpu" else 0
    if on_gpu:
        layer = tokens * on_gpu // _size(config, "num_hidden_layers")
    layer_input = _FLOAT * tokens * hidden
    everything, again = depth * layer, depth * layer_input + layer
    if shares > 1 and device != "cpu" and stage.precision in {"bf16", "auto"}:
        everything += 2 * parameters  # what was cast of gathered weights, kept for the backward pass of their layer
    in_few_bits = round(WEIGHT_BYTES.get(stage.adapter.quantize, _FLOAT) * rounded)
    return TrainingMemory(
        weights=(_FLOAT * (parameters - rounded) + in_few_bits) // shares,
        gradients=_FLOAT * trained // shares,
        moments=MOMENTS[stage.optimizer] * _FLOAT * trained // shares,
        activations=again if stage.gradient_checkpointing else everything,
        recomputed=again,
        average=_FLOAT * trained // shares if stage.ema else 0,
    )


def trained_parameters(stage: Stage, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of weights that a stage without an adapter trains, of a model with weights of these shapes."""
    total = 0
    for name, shape in shapes.items():
        is_table = _TABLES.search(f".{name}") is not None
        is_frozen = is_table and (stage.freeze == "embeddings" or (stage.freeze == "positions" and "position" in name))
        place = LAYER_NUMBER.search(f".{name}")
        if not is_frozen and not (place is not None and int(place[1]) < stage.freeze_layers):
            total += math.prod(shape)
    return total


def _size(config: Mapping[str, Any], *names: str) -> int:
    """Return the first of the sizes that is a number; 0 where none is."""
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)


def in_words(memory: TrainingMemory, stage: Stage) -> str:
    """Return a sentence about the memory of training a stage, as it is set and the other way."""
    parts = (
        f"weights {size_text(memory.weights)}, gradients and moments {size_text(memory.gradients + memory.moments)}, "
        f"{f'average of weights {size_text(memory.average)}, ' if memory.average else ''}"
        f"activations {size_text(memory.activations)}"
    )
    text = f"about {size_text(memory.total)}: {parts}"
    if stage.gradient_checkpointing:
        return f"{text}, by gradient checkpointing"
    return f"{text}; with gradient_checkpointing = true {size_text(memory.recomputed)} of activations"


def size_text(size: int) -> str:
    """Return a number of bytes for display."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
