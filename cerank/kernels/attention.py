"""Compute attention within each pair of a pack, without padding and without a mask.

On a CPU, and wherever no varlen kernel fits, it is computed over spans of pairs of one length; on a GPU in bf16 by
flash-attention where it is installed, else by torch's own varlen kernel. All give the same numbers but for rounding.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cerank.kernels.packing import Pack
from cerank.kernels.varlen_attention import AttentionOptions, attend_by_spans

NAME = "cerank_packed"  # name in transformers' registries
ARGUMENT = "cerank_pack"  # keyword argument of a model within `use_packed_attention`: the pack


def attend(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    """Return the attention output of each token over the tokens of its own pair; of the shape of `query`.

    Args:
        query: (tokens, heads, size), or (pairs, heads, size) of the first token of each pair alone.
        key: (tokens, heads, size).
        value: (tokens, heads, size).
        pack: where each pair starts and ends in the row.
        options: scale, dropout and window.
    """
    kernel = _varlen_kernel(query, options.dropout)
    if kernel is not None:
        return kernel(query, key, value, pack, options)
    return attend_by_spans(query, key, value, pack, options)


@functools.cache
def _has_flash() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def _varlen_kernel(
    query: Tensor, dropout: float
) -> Callable[[Tensor, Tensor, Tensor, Pack, AttentionOptions], Tensor] | None:
    """Return the varlen kernel that supports these queries, if there is one."""
    if not query.is_cuda or query.dtype not in {torch.bfloat16, torch.float16} or query.shape[-1] % 8:
        return None
    if _has_flash():
        return _flash_attention
    if dropout or importlib.util.find_spec("torch.nn.attention.varlen") is None:  # torch's own kernel has no dropout
        return None
    return _torch_attention if torch.cuda.get_device_capability(query.device) >= (8, 0) else None


def _query_edges(query: Tensor, key: Tensor, pack: Pack) -> tuple[Tensor, int]:
    """Return where each pair's queries begin and end, and the most of a pair."""
    if len(query) == len(pack.starts) != len(key):
        return torch.arange(len(query) + 1, dtype=torch.int32, device=query.device), 1
    return pack.edges, pack.longest


def _flash_attention(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]  # optional, and needs a GPU

    edges, longest = _query_edges(query, key, pack)
    mixed: Tensor = flash_attn_varlen_func(
        query,
        key,
        value,
        edges,
        pack.edges,
        longest,
        pack.longest,
        dropout_p=options.dropout,
        softmax_scale=options.scale,
        window_size=(options.window, options.window) if options.window else (-1, -1),
        deterministic=True,  # else its backward pass sums in any order, and a resumed run differs in bits
    )
    return mixed


def _torch_attention(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    edges, longest = _query_edges(query, key, pack)
    sides = (options.window, options.window) if options.window else (-1, -1)
    mixed: Any = varlen_attn(
        query, key, value, edges, pack.edges, longest, pack.longest, scale=options.scale, window_size=sides
    )
    return mixed  # type: ignore[no-any-return]  # one tensor, as nothing else was asked for


def _transformers_interface(
    _: nn.Module, query: Tensor, key: Tensor, value: Tensor, __: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """Adapt `attend` to transformers' interface: in (1, heads, tokens, size), out (1, tokens, heads, size)."""
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    scale = how.get("scaling") or query.shape[-1] ** -0.5
    window = (how.get("sliding_window") or 1) - 1  # transformers counts the token itself
    mixed = attend(query, key, value, how[ARGUMENT], AttentionOptions(scale, how.get("dropout", 0.0), window))
    return mixed.unsqueeze(0), None


@functools.cache
def _register_attention() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _transformers_interface)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)


@contextlib.contextmanager
def use_packed_attention(model: Any) -> Iterator[None]:
    """Use packed attention in `model` within this context; the pack is passed as the keyword argument `ARGUMENT`.

    The implementation's name is removed from the model's config on exit, so that saved checkpoints stay loadable by
    other programs.
    """
    _register_attention()
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
