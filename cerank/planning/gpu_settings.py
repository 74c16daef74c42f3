"""Fill the settings that a recipe leaves to the device: on a GPU the precision and the size of a microbatch.

A microbatch is chosen here and not where it is computed, so that the plan says it: with dropout the bits depend on it.
It is chosen by the memory that the GPU has, not by what is free, so that the same plan is made whatever else runs.
Where it does not fit after all, the worker halves it and records that (see `training.trainer`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cerank.machine.gpu_properties import BF16_CAPABILITY, FP16_CAPABILITY, GpuProperties
from cerank.recipes.schema import DEFAULT_MICROBATCH, Recipe, Stage

_USED_MEMORY = 0.7  # the rest is for validation, for memory cut into pieces, and for other programs
_WEIGHT_BYTES = 20  # weight, gradient and two moments in float32, and copies of the weight in the type of products
_MOST_TOKENS = 65_536  # more at once gains nothing
_FEWEST_TOKENS = 1024
_BERT_LIKE = {"bert", "electra", "roberta", "xlm-roberta", "camembert"}  # whose activations were counted


def fill_gpu_settings(
    recipe: Recipe, device: str, base: Path, gpu: GpuProperties | None
) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with what its stages leave to the device, and for each such setting what was chosen and why.

    Without a GPU nothing is filled in: a CPU computes in float32, with `DEFAULT_MICROBATCH` tokens at once.

    Args:
        recipe: the recipe.
        device: device of the plan.
        base: folder of the base model.
        gpu: the smallest GPU that may compute it; None where its driver does not tell.
    """
    if not device.startswith("cuda"):
        return recipe, {}
    reasons: dict[str, str] = {}
    stages = dict(recipe.stages)
    for name, given in recipe.chained():
        stage = given
        if stage.precision is None:
            stage = msgspec.structs.replace(stage, precision="auto")
            reasons[f"stages.{name}.precision"] = "auto, the default on a GPU: " + _precision_reason(gpu)
        if stage.microbatch is None:
            tokens, why = choose_microbatch(stage, _config_of(base), gpu)
            stage = msgspec.structs.replace(stage, microbatch=tokens)
            reasons[f"stages.{name}.microbatch"] = f"{tokens:,} tokens: {why}"
        stages[name] = stage
    return msgspec.structs.replace(recipe, stages=stages), reasons


def choose_microbatch(stage: Stage, config: Mapping[str, Any], gpu: GpuProperties | None) -> tuple[int, str]:
    """Return the tokens that go through the model at once in training, and the reason."""
    if gpu is None:
        return DEFAULT_MICROBATCH, "the driver does not tell how much memory the GPU has"
    is_narrow = stage.precision == "bf16" or (stage.precision == "auto" and gpu.capability >= BF16_CAPABILITY)
    per_token = activation_bytes(config, is_narrow=is_narrow)
    if not per_token:
        return DEFAULT_MICROBATCH, "how much memory this architecture needs for a token is not known"
    room = _USED_MEMORY * gpu.memory - _WEIGHT_BYTES * _weights(config)
    pairs = stage.groups_per_step * (stage.group_size + stage.in_batch)
    next_power = 1 << max(0, pairs * stage.max_length - 1).bit_length()  # of two, no less than a step's tokens
    most = min(_MOST_TOKENS, max(_FEWEST_TOKENS, next_power))
    tokens = most
    while tokens > _FEWEST_TOKENS and tokens * per_token > room:
        tokens //= 2
    limit = "memory allows no more" if tokens < most else "a step has no more" if most < _MOST_TOKENS else "at most"
    return tokens, f"{limit}, at {per_token / 1e6:.2f} MB a token on {gpu.model} with {gpu.memory / 2**30:.0f} GiB"


def activation_bytes(config: Mapping[str, Any], *, is_narrow: bool) -> int:
    """Return the bytes of a token that training keeps until its backward pass; 0 where they were not counted.

    Counted for BERT's family with packed pairs and dropout: residual sums and norms in float32, and what lies between
    the matrix products in their type, 2 bytes or 4.

    Args:
        config: the base's config.json.
        is_narrow: whether products are in bf16.
    """
    if config.get("model_type") not in _BERT_LIKE:
        return 0
    hidden, inner, layers = (int(config[key]) for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    return layers * (22 * hidden + 4 * inner if is_narrow else 36 * hidden + 8 * inner)


def _weights(config: Mapping[str, Any]) -> int:
    """Return about how many weights an encoder of BERT's family has."""
    hidden, inner, layers = (int(config[key]) for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    return int(config["vocab_size"]) * hidden + layers * (4 * hidden * hidden + 2 * hidden * inner)


def _precision_reason(gpu: GpuProperties | None) -> str:
    others = "float32 in training and fp16 in re-ranking"
    if gpu is None:
        return f"bf16 where the GPU multiplies it, else {others}"
    chosen = "bf16" if gpu.capability >= BF16_CAPABILITY else others if gpu.capability >= FP16_CAPABILITY else "float32"
    return f"{chosen} on {gpu.model} (compute capability {gpu.capability[0]}.{gpu.capability[1]})"


def _config_of(base: Path) -> dict[str, Any]:
    """Return the base's config.json; {} where it is not a table (what it lacks is told where it is loaded)."""
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
