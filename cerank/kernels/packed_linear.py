"""Apply linear layers with torch, or with weights pre-packed for the CPU's kernels.

Invariant: weights are pre-packed only in inference mode, because those kernels have no backward pass.
"""

from __future__ import annotations

import functools
import platform
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_PREPACK_ROWS = 2048  # rows that weights are pre-packed for; other numbers of rows give the same product


class LinearLayer(Protocol):
    """A linear layer with fixed weights."""

    def __call__(self, states: Tensor) -> Tensor:
        """Return (rows, out) of `states` (rows, in), in the type of the weights."""

    def gelu(self, states: Tensor) -> Tensor:
        """Return the same through the exact GELU."""

    def add_to(self, states: Tensor, others: Tensor) -> Tensor:
        """Return the sum with `others` (rows, out) in float32; `others` may be overwritten."""


class _PlainLinear(msgspec.Struct, frozen=True):
    """A linear layer as torch computes it, with gradients."""

    weight: Tensor
    bias: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        return linear(states, self.weight, self.bias)

    def gelu(self, states: Tensor) -> Tensor:
        return nn.functional.gelu(self(states))

    def add_to(self, states: Tensor, others: Tensor) -> Tensor:
        return others + self(states)


class _ModuleLinear(msgspec.Struct, frozen=True):
    """Modules that compute more than one product, such as layers with an adapter; their outputs stand side by side."""

    modules: tuple[nn.Module, ...]
    dtype: torch.dtype

    def __call__(self, states: Tensor) -> Tensor:
        is_narrow = self.dtype is not torch.float32
        with torch.autocast(states.device.type, self.dtype if is_narrow else None, enabled=is_narrow):
            parts = [module(states) for module in self.modules]
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    def gelu(self, states: Tensor) -> Tensor:
        return nn.functional.gelu(self(states))

    def add_to(self, states: Tensor, others: Tensor) -> Tensor:
        return others + self(states)


class _PrepackedLinear(msgspec.Struct, frozen=True):
    """A linear layer by oneDNN on weights in its own layout, with the bias added within it."""

    weight: Tensor
    bias: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        return self._by("none", states)

    def gelu(self, states: Tensor) -> Tensor:
        if states.dtype is torch.float32:
            return self._by("gelu", states)
        return nn.functional.gelu(self(states))  # fused with the product it costs more than the product itself

    def add_to(self, states: Tensor, others: Tensor) -> Tensor:
        if states.dtype is not torch.float32:
            return others.add_(self(states))
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(states, others, self.weight, self.bias, "add")
        return out

    def _by(self, after: str, states: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, after, [], "none")
        return out


def linear_layer(*modules: nn.Module, dtype: torch.dtype, for_few_rows: bool = False) -> LinearLayer:
    """Return a linear layer with the weights of `modules` stacked, in `dtype`, as they are now.

    A layer with an adapter is computed by itself while it is trained, and else as the one matrix that it amounts to.
    Pre-packed weights cost milliseconds and half a megabyte for every new number of rows: pass `for_few_rows` where
    there are few rows, and often another number of them.
    """
    if not all(is_one_product(module) for module in modules):
        return _ModuleLinear(modules, dtype)
    weights = [weight_of(module).to(dtype) for module in modules]
    biases: list[Tensor] = [getattr(module, "bias").to(dtype) for module in modules]  # noqa: B009 - untyped in torch
    weight, bias = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in (weights, biases))
    may_prepack = weight.device.type == "cpu" and torch.is_inference_mode_enabled() and not for_few_rows
    if may_prepack and _can_prepack(dtype):
        return _PrepackedLinear(torch.ops.mkldnn._reorder_linear_weight(weight, _PREPACK_ROWS), bias)
    return _PlainLinear(weight, bias)


def is_one_product(module: nn.Module) -> bool:
    """Return whether a layer is one matrix product: a plain one, or one whose adapter adds to its matrix.

    The latter only in inference mode: gradients of a whole matrix would cost what an adapter is to save, and dropout
    of what the adapter reads is no change of the matrix. Others are quantized layers, and adapters that also scale it.
    """
    if type(module) is nn.Linear:
        return True
    layer: Any = module
    adds = type(getattr(module, "base_layer", None)) is nn.Linear and not getattr(module, "lora_variant", True)
    return adds and torch.is_inference_mode_enabled() and not module.training and not layer.merged


def weight_of(module: nn.Module) -> Tensor:
    """Return the matrix of a layer that `is_one_product`, with what its adapter adds."""
    layer: Any = module
    if type(module) is nn.Linear:
        return module.weight
    weight: Tensor = layer.base_layer.weight
    for name in layer.active_adapters:
        weight = weight + layer.get_delta_weight(name)
    return weight


@functools.cache
def _can_prepack(dtype: torch.dtype) -> bool:
    """Return whether this machine and this torch have the operations for pre-packed weights."""
    if platform.machine() not in {"x86_64", "AMD64"}:  # other processors were not measured
        return False
    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(torch.eye(32, dtype=dtype), _PREPACK_ROWS)
        states = torch.arange(64, dtype=dtype).view(2, 32)
        product = _PrepackedLinear(weight, torch.zeros(32, dtype=dtype))
        return torch.equal(product(states), states) and torch.equal(
            product.add_to(states, states.float()), 2.0 * states
        )
    except (AttributeError, RuntimeError):  # a torch without oneDNN or these operations, a processor without bf16
        return False
