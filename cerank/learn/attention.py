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

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from cerank.learn.dropping import dropped
from cerank.learn.packing import Pack

NAME = "cerank_packed"  # under which transformers' registries know it
ARGUMENT = "cerank_pack"  # of a model within `packed`: the pack
_STEP = 16  # tokens; for any other number of keys than its multiples torch's kernel takes up to twice as long (2.13)


class How(msgspec.Struct, frozen=True):
    """How tokens attend."""

    scale: float  # of the products
    dropout: float = 0.0  # of the weights
    window: int = 0  # how many tokens away a token may look to either side; 0 is any


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
    narrow = query.dtype
    if narrow is not torch.float32 and not query.is_cuda and torch.is_grad_enabled():
        # torch's backward pass of it on a CPU takes twelve times as long in bf16 (2.13, pairs of 64 tokens)
        query, key, value = query.float(), key.float(), value.float()
    firsts = len(query) == len(pack.starts) != len(key)
    reads_on = not (query.is_cuda or how.dropout or torch.is_grad_enabled())
    out = []
    for part in _parts(pack, reads_on):
        places = part.firsts if firsts else part.tokens
        q = query[places].view(part.pairs, -1, *query.shape[1:]).transpose(1, 2)
        k, v = (_windows(values, part).transpose(1, 2) for values in (key, value))
        mask = _mask(q.shape[2], part, how.window, q)
        if how.dropout and not q.is_cuda:
            mixed = _by_hand(q, k, v, mask, how)
        else:
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=how.dropout, scale=how.scale)
        out.append(mixed.transpose(1, 2).flatten(0, 1))
    return (torch.cat(out) if len(out) > 1 else out[0]).to(narrow)


class _Part(msgspec.Struct, frozen=True):
    """Neighbours of one length, and how many tokens of other pairs are read along with each, to be masked."""

    start: int  # of its first token in the row
    first: int  # of its pairs
    pairs: int
    length: int
    before: int = 0
    after: int = 0

    @property
    def tokens(self) -> slice:
        """Where its tokens stand."""
        return slice(self.start, self.start + self.pairs * self.length)

    @property
    def firsts(self) -> slice:
        """Where its pairs stand among all."""
        return slice(self.first, self.first + self.pairs)


def _parts(pack: Pack, reads_on: bool) -> Iterator[_Part]:
    """The spans of a pack; with `reads_on` each reads as many tokens as the kernel likes, where the row has them."""
    start = first = 0
    total = sum(span.tokens for span in pack.spans)
    for span in pack.spans:
        extra = -span.length % _STEP if reads_on else 0
        end = start + span.tokens
        last = end - span.length
        if end + extra <= total:
            yield _Part(start, first, span.pairs, span.length, after=extra)
        elif start >= extra:
            yield _Part(start, first, span.pairs, span.length, before=extra)
        elif (
            last >= extra and last + extra <= end
        ):  # nothing else is in the row: the last pair looks back on the others
            yield _Part(start, first, span.pairs - 1, span.length, after=extra)
            yield _Part(last, first + span.pairs - 1, 1, span.length, before=extra)
        else:
            yield _Part(start, first, span.pairs, span.length)
        start, first = end, first + span.pairs


def _windows(values: Tensor, part: _Part) -> Tensor:
    """(pairs, tokens read, heads, size) of `values` (tokens, heads, size), overlapping where other pairs' are read."""
    if not part.before + part.after:
        return values[part.tokens].view(part.pairs, part.length, *values.shape[1:])
    token, *rest = values.stride()
    return values.as_strided(
        (part.pairs, part.before + part.length + part.after, *values.shape[1:]),
        (part.length * token, token, *rest),
        values.storage_offset() + (part.start - part.before) * token,
    )


def _mask(rows: int, part: _Part, window: int, like: Tensor) -> Tensor | None:
    """(rows or 1, tokens read), to be added: -inf where a token may not look; None where it may look anywhere."""
    is_banded = bool(window) and part.length > window + 1
    if not is_banded and not part.before + part.after:
        return None
    mask = like.new_zeros(rows if is_banded else 1, part.before + part.length + part.after)
    mask[:, : part.before] = -torch.inf
    mask[:, part.before + part.length :] = -torch.inf
    if is_banded:
        places = torch.arange(part.length, device=like.device)
        far = (places[:rows, None] - places[None, :]).abs() > window
        mask[:, part.before : part.before + part.length].masked_fill_(far, -torch.inf)
    return mask


def _by_hand(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, how: How) -> Tensor:
    """Attention with dropout, which torch does not fuse on a CPU; (pairs, heads, tokens, size) in and out."""
    q, k, v = (part.flatten(0, 1) for part in (query, key, value))
    products = torch.baddbmm(q.new_zeros(1), q, k.transpose(1, 2), beta=0, alpha=how.scale)
    if mask is not None:
        products = products + mask
    return torch.bmm(dropped(products.softmax(dim=-1), how.dropout), v).view(query.shape)


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
