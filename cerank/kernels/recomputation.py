"""Gradient checkpointing: keep only the input of each layer for the backward pass, and compute the layer again there.

Invariant: what is computed again has the same bits: the same dropout, precision and way of attention as the first time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cerank.errors import UsageError
from cerank.kernels.dropout import replayed_dropout, sampled_state


def recompute_layers(model: Any, *, enabled: bool) -> None:
    """Let each layer of a transformers model, while it is trained, be computed again in the backward pass; or not.

    Raises:
        UsageError: the model's class does not say which of its parts are layers.
    """
    if not enabled and not any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return
    try:
        again = partial(_apply_twice, model.config)
        model._set_gradient_checkpointing(enable=enabled, gradient_checkpointing_func=again)
    except (AttributeError, ValueError) as error:
        what = f"models of type {model.config.model_type} do not say which parts of them are layers"
        hint = "set gradient_checkpointing = false, and lower microbatch"
        raise UsageError(what, where="gradient_checkpointing", hint=hint, code="model-type-not-supported") from error


def apply_layer(layer: nn.Module, function: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """Return `function(hidden)`, which computes `layer`, in the way that `recompute_layers` chose for it."""
    hugging_face_layer: Any = layer
    if layer.training and torch.is_grad_enabled() and getattr(layer, "gradient_checkpointing", False):
        out: Tensor = hugging_face_layer._gradient_checkpointing_func(function, hidden)
        return out
    return function(hidden)


def _apply_twice(config: Any, function: Callable[..., Any], *inputs: Any) -> Any:
    """Return what `function` returns; the backward pass computes it again in the circumstances of now."""
    attention = config._attn_implementation
    sampled = sampled_state()

    @contextlib.contextmanager
    def as_now() -> Iterator[None]:
        before = config._attn_implementation
        config._attn_implementation = attention
        try:
            with replayed_dropout(sampled):
                yield
        finally:
            config._attn_implementation = before

    # a thread's own generator is replayed above; torch's, which all threads share, must then be left alone
    shares_generator = sampled is None
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=shares_generator,
        context_fn=lambda: (contextlib.nullcontext(), as_now()),
    )
