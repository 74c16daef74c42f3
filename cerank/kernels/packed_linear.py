"""Products of states with weights: as torch has them, or with the weights laid out beforehand for the CPU's kernels.

Invariant: only who can want no gradient gets weights laid out beforehand; those kernels have no backward pass.
"""

from __future__ import annotations

import functools
import platform
from typing import Protocol

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_ROWS = 2048  # for which weights are laid out; fewer or more rows give the same product


class Product(Protocol):
    """A linear layer of fixed weights."""

    def __call__(self, states: Tensor) -> Tensor:
        """(rows, out) of `states` (rows, in), in the type of the weights."""

    def gelu(self, states: Tensor) -> Tensor:
        """The same through the exact GELU."""

    def plus(self, states: Tensor, others: Tensor) -> Tensor:
        """The same and `others` (rows, out) in float32, in float32; what `others` held may be lost."""


class _Plain(msgspec.Struct, frozen=True):
    """The product as torch computes it, with gradients."""

    weight: Tensor
    bias: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        return linear(states, self.weight, self.bias)

    def gelu(self, states: Tensor) -> Tensor:
        return nn.functional.gelu(self(states))

    def plus(self, states: Tensor, others: Tensor) -> Tensor:
        return others + self(states)


class _LaidOut(msgspec.Struct, frozen=True):
    """The product by oneDNN on weights in its own layout, the bias added within it."""

    weight: Tensor
    bias: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        return self._by("none", states)

    def gelu(self, states: Tensor) -> Tensor:
        if states.dtype is torch.float32:
            return self._by("gelu", states)
        return nn.functional.gelu(self(states))  # within the product it costs more than the product itself

    def plus(self, states: Tensor, others: Tensor) -> Tensor:
        if states.dtype is not torch.float32:
            return others.add_(self(states))
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(states, others, self.weight, self.bias, "add")
        return out

    def _by(self, after: str, states: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, after, [], "none")
        return out


def product_of(*modules: nn.Linear, dtype: torch.dtype, of_few: bool = False) -> Product:
    """The product with the weights of `modules` above one another in `dtype`, as they are now.

    Laid out, it costs milliseconds and half a megabyte for every new number of rows: `of_few` is for who asks it with
    few rows, and any number of them.
    """
    weights, biases = ([getattr(module, name).to(dtype) for module in modules] for name in ("weight", "bias"))
    weight, bias = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in (weights, biases))
    is_for_layout = weight.device.type == "cpu" and torch.is_inference_mode_enabled() and not of_few
    if is_for_layout and _lays_out(dtype):
        return _LaidOut(torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS), bias)
    return _Plain(weight, bias)


@functools.cache
def _lays_out(dtype: torch.dtype) -> bool:
    """Whether this machine and this torch can."""
    if platform.machine() not in {"x86_64", "AMD64"}:  # others were not measured
        return False
    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(torch.eye(32, dtype=dtype), _ROWS)
        states = torch.arange(64, dtype=dtype).view(2, 32)
        product = _LaidOut(weight, torch.zeros(32, dtype=dtype))
        return torch.equal(product(states), states) and torch.equal(product.plus(states, states.float()), 2.0 * states)
    except (AttributeError, RuntimeError):  # a torch without oneDNN or these operations, a processor without bf16
        return False
