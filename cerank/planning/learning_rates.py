"""Decide how far each weight's learning rate is from the stage's: by its layer, and by whether it is of the head.

The rule is that of BEiT and timm: the layers above the encoder have the stage's rate, the top layer `layer_decay` times
it, each layer below it `layer_decay` times that, and the embeddings once more. ELECTRA's code differs by one factor: it
leaves a place free between head and top layer. Weights above the last layer that are not of the head, such as a final
norm, have the stage's own rate.

Invariant: names alone decide, so that a plan lists what the training will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cerank.errors import UsageError
from cerank.recipes.schema import Stage
from cerank.text.safe_text import counted

# stacks of layers as transformers calls them, in a name with a dot before it: BERT, ModernBERT, T5, GPT-2
_LAYER = re.compile(r"^(.*?)\.(?:layer|layers|block|blocks|h)\.([0-9]+)\.")
# tables that are looked up in, and what makes their rows an input of the first layer; norm or bias of positions
_EMBEDDINGS = re.compile(
    r"\.(?:[a-z_]*embeddings?[a-z_]*|embed_[a-z_]+|shared|wte|wpe)\.|\.encoder\.(?:LayerNorm|relative_attention_bias)\."
)
# from the last layer's states to a score: names of transformers' classifiers, with poolers, and cerank's own head
_HEAD = re.compile(r"^\.(?:encoder\.)?(?:classifier|score|pre_classifier|head)\.|\.pooler\.")

EMBEDDINGS, HEAD, ABOVE = "embeddings", "head", "above the layers"


class RateGroup(msgspec.Struct, frozen=True):
    """Weights that share a learning rate."""

    name: str  # "embeddings", "layer 3" (from 1 at the bottom), "head", or "above the layers"
    factor: float  # of the stage's rate
    names: tuple[str, ...]  # of the weights


def changes_rates(stage: Stage) -> bool:
    """Return whether weights of the stage have learning rates of their own."""
    return stage.layer_decay != 1.0 or stage.head_rate_factor != 1.0


def rate_groups(stage: Stage, trained: Sequence[str], every: Iterable[str], where: str) -> list[RateGroup]:
    """Return the trained weights in groups that share a learning rate, from the bottom up.

    Args:
        stage: settings of the stage.
        trained: names of the weights that are trained, as `CrossEncoder.named_parameters` has them.
        every: names of all weights: layers that are not trained count as layers, too.
        where: key path of the stage, for errors.

    Raises:
        UsageError: no layers can be told apart, or there is no head.

    Example:
        >>> names = ["encoder.embeddings.word.weight", "encoder.encoder.layer.0.dense.weight", "head.weight"]
        >>> stage = Stage(steps=1, layer_decay=0.5, head_rate_factor=10.0)
        >>> [(group.name, group.factor) for group in rate_groups(stage, names, names, "stages.s")]
        [('embeddings', 0.25), ('layer 1', 0.5), ('head', 10.0)]
    """
    heights = _heights(every)
    if stage.layer_decay != 1.0 and not heights:
        raise UsageError(
            "the model's weights have no numbered layers, so that none is above another",
            where=f"{where}.layer_decay",
            hint="leave it out for this base",
            code="layers-unknown",
        )
    members: dict[tuple[int, str], list[str]] = {}
    for name in trained:
        members.setdefault(_place(name, heights), []).append(name)
    if stage.head_rate_factor != 1.0 and not any(kind == HEAD for _, kind in members):
        raise UsageError(
            "the model has no head of its own: its score comes from the table of its tokens",
            where=f"{where}.head_rate_factor",
            hint="leave it out for this base",
            code="head-unknown",
        )
    top = len(heights) + 1
    groups = []
    for (height, kind), names in sorted(members.items()):
        factor = stage.layer_decay ** (top - height) * (stage.head_rate_factor if kind == HEAD else 1.0)
        groups.append(RateGroup(kind or f"layer {height}", factor, tuple(names)))
    return groups


def _place(name: str, heights: Mapping[tuple[str, int], int]) -> tuple[int, str]:
    """Return the height of a weight, from 0 for embeddings, and its kind; "" for a layer's."""
    if (layer := layer_of(name)) is not None:
        return heights[layer], ""
    if _EMBEDDINGS.search(f".{name}"):
        return 0, EMBEDDINGS
    return len(heights) + 1, HEAD if _HEAD.search(f".{name}") else ABOVE


def layer_of(name: str) -> tuple[str, int] | None:
    """Return the stack that a weight belongs to and the number of its layer in it; None for one of no layer.

    >>> layer_of("encoder.encoder.layer.0.dense.weight")
    ('.encoder.encoder', 0)
    """
    match = _LAYER.search(f".{name}")
    return (match[1], int(match[2])) if match is not None else None


def _heights(names: Iterable[str]) -> dict[tuple[str, int], int]:
    """Return the height of each layer, from 1 at the bottom; a decoder's layers lie over those of its encoder."""
    layers = {layer for name in names if (layer := layer_of(name)) is not None}
    ordered = sorted(layers, key=lambda layer: ("decoder" in layer[0], layer[0], layer[1]))
    return {layer: height for height, layer in enumerate(ordered, 1)}


def in_words(stage: Stage, groups: Sequence[RateGroup]) -> str:
    """Return the peak learning rates of a stage by group, neighboring layers together."""
    peak = stage.learning_rate
    layers = [group for group in groups if group.name.startswith("layer ")]
    parts = [f"{group.name} {peak * group.factor:.2g}" for group in groups if group.name == EMBEDDINGS]
    if len(layers) > 2:
        first, last = layers[0], layers[-1]
        numbers = f"{first.name.removeprefix('layer ')} to {last.name.removeprefix('layer ')}"
        parts.append(f"layers {numbers} {peak * first.factor:.2g} to {peak * last.factor:.2g}")
    else:
        parts += [f"{group.name} {peak * group.factor:.2g}" for group in layers]
    parts += [f"{group.name} {peak * group.factor:.2g}" for group in groups if group.name in {ABOVE, HEAD}]
    return f"peak learning rates in {counted(len(groups), 'group')}: {', '.join(parts)}"
