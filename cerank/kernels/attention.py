"""Attention within each pair of a pack, without padding and without a mask.

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
from cerank.kernels.varlen_attention import How, attend_by_spans

NAME = "cerank_packed"  # under which transformers' registries know it
ARGUMENT = "cerank_pack"  # of a model within `packed`: the pack


def attend(query: Tensor, key: Tensor, value: Tensor, pack: Pack, how: How) -> Tensor:
    """What each token draws from the tokens of its own pair; of the shape of `query`.

    Args:
        query: (tokens, heads, size), or (pairs, heads, size) of the first token of each pair alone.
        key: (tokens, heads, size).
        value: (tokens, heads, size).
        pack: how the row falls into pairs.
        how: scale, dropout, window.
    """
    kernel = _varlen(query, how.dropout)
    if kernel is not None:
        return kernel(query, key, value, pack, how)
    return attend_by_spans(query, key, value, pack, how)


@functools.cache
def _has_flash() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def _varlen(query: Tensor, dropout: float) -> Callable[[Tensor, Tensor, Tensor, Pack, How], Tensor] | None:
    """The varlen kernel that takes these queries, if one does."""
    if not query.is_cuda or query.dtype not in {torch.bfloat16, torch.float16} or query.shape[-1] % 8:
        return None
    if _has_flash():
        return _flash
    if dropout or importlib.util.find_spec("torch.nn.attention.varlen") is None:  # torch's own knows no dropout
        return None
    return _torch_varlen if torch.cuda.get_device_capability(query.device) >= (8, 0) else None


def _edges(query: Tensor, key: Tensor, pack: Pack) -> tuple[Tensor, int]:
    """Where each pair's queries begin and end, and the most of a pair."""
    if len(query) == len(pack.starts) != len(key):
        return torch.arange(len(query) + 1, dtype=torch.int32, device=query.device), 1
    return pack.edges, pack.longest


def _flash(query: Tensor, key: Tensor, value: Tensor, pack: Pack, how: How) -> Tensor:
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]  # optional, and needs a GPU

    edges, longest = _edges(query, key, pack)
    mixed: Tensor = flash_attn_varlen_func(
        query,
        key,
        value,
        edges,
        pack.edges,
        longest,
        pack.longest,
        dropout_p=how.dropout,
        softmax_scale=how.scale,
        window_size=(how.window, how.window) if how.window else (-1, -1),
        deterministic=True,  # else its backward pass sums in any order, and a resume is not the same bits
    )
    return mixed


def _torch_varlen(query: Tensor, key: Tensor, value: Tensor, pack: Pack, how: How) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    edges, longest = _edges(query, key, pack)
    sides = (how.window, how.window) if how.window else (-1, -1)
    mixed: Any = varlen_attn(
        query, key, value, edges, pack.edges, longest, pack.longest, scale=how.scale, window_size=sides
    )
    return mixed  # type: ignore[no-any-return]  # one tensor, as nothing else was asked for


def _interface(
    _: nn.Module, query: Tensor, key: Tensor, value: Tensor, __: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """`attend` as transformers calls it: in (1, heads, tokens, size), out (1, tokens, heads, size)."""
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    scale = how.get("scaling") or query.shape[-1] ** -0.5
    window = (how.get("sliding_window") or 1) - 1  # transformers counts the token itself
    mixed = attend(query, key, value, how[ARGUMENT], How(scale, how.get("dropout", 0.0), window))
    return mixed.unsqueeze(0), None


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _interface)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)


@contextlib.contextmanager
def packed(model: Any) -> Iterator[None]:
    """Within, `model` attends as the pack says that it is given as the keyword argument `ARGUMENT`.

    The name of the attention stands in the model's config only as long as this lasts: a checkpoint that carried it
    could be loaded by nobody else.
    """
    _register()
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
