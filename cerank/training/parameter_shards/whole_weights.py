"""All weights in one process, with the bits that several processes compute from their shares of them.

Two things would make the last digits differ. A matrix product depends on where in memory its matrices begin, and
gathered weights begin where torch's allocator puts them, not where a file had them. And fully_shard collects the
gradients of all inputs of a layer before it passes them on, which groups sums otherwise where layers share an input.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils._pytree import tree_flatten, tree_unflatten

from cerank.models.cross_encoder import CrossEncoder
from cerank.training.parameter_shards.sharded_weights import layers_of
from cerank.training.weight_shares import WeightShares


class WholeWeights(WeightShares):
    """The weights of the only process.

    Args:
        model: the model, on the CPU; it goes to the device.
        device: the device.
    """

    def __init__(self, model: CrossEncoder, device: torch.device) -> None:
        super().__init__(model)
        for weight in model.parameters():
            weight.data = weight.data.clone()
        for layer in layers_of(model):
            layer.register_forward_pre_hook(_collect_gradients, with_kwargs=True)
        model.to(device)

    def clip(self, largest: float) -> Tensor:
        """Return the norm () of all gradients, and scale them down; the norm of each weight is computed by itself."""
        limit = largest or math.inf
        return clip_grad_norm_(self._model.parameters(), limit, error_if_nonfinite=False, foreach=False)


def _collect_gradients(
    _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Let a layer's inputs get their gradients at once; a pre-hook of the layer."""
    values, shape = tree_flatten((inputs, named))
    places = [at for at, value in enumerate(values) if isinstance(value, Tensor) and value.requires_grad]
    if not places or not torch.is_grad_enabled():
        return None
    for at, value in zip(places, _Together.apply(*(values[at] for at in places)), strict=True):  # type: ignore[no-untyped-call]
        values[at] = value
    replaced: tuple[tuple[Any, ...], dict[str, Any]] = tree_unflatten(values, shape)
    return replaced


class _Together(torch.autograd.Function):
    """Tensors as they are; in the backward pass none is passed on before the gradients of all are there."""

    @staticmethod
    def forward(_: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tensors

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients
