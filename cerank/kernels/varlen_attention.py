"""Compute attention within each pair, one span of equally long pairs after another, where no varlen kernel fits.

Invariant: all ways give the same numbers but for rounding, and a pair's result depends on its own span alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cerank.kernels.dropout import apply_dropout
from cerank.kernels.packing import Pack, Span

_KEY_MULTIPLE = 16  # for other numbers of keys than its multiples torch's kernel takes up to twice as long (2.13)
_PAIR_BY_PAIR_LENGTHS = range(36, 257)  # in tokens: faster pair by pair than by torch's kernel (2.13, MKL)
CACHE_BYTES = 1 << 20  # size of products that stay in a core's own cache until they are used
_SAFE_SUMS = 1e-30, 1e30  # sums of exponentials within which float32 lost nothing


class AttentionOptions(msgspec.Struct, frozen=True):
    """Scale, dropout and window of an attention layer."""

    scale: float  # factor of the products of queries and keys
    dropout: float = 0.0  # dropout rate of the attention weights
    window: int = 0  # number of tokens to either side that a token attends to; 0: all


def attend_by_spans(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    """Return what `attention.attend` returns, span by span."""
    if query.is_cuda or options.dropout or torch.is_grad_enabled():
        return _attend_with_gradients(query, key, value, pack, options)
    return _attend_without_gradients(query, key, value, pack, options)


def _attend_with_gradients(query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions) -> Tensor:
    """Attend span by span with gradients; also without gradients, where dropout is sampled or on CUDA."""
    dtype = query.dtype
    if dtype is not torch.float32 and not query.is_cuda and torch.is_grad_enabled():
        # torch's backward pass of it on a CPU takes twelve times as long in bf16 (2.13, pairs of 64 tokens)
        query, key, value = query.float(), key.float(), value.float()
    # split, not sliced: the gradient of each slice would be as long as the row
    queries = pack.split_firsts(query) if _has_first_queries_only(query, key, pack) else pack.split(query)
    out = []
    for span, *own in zip(pack.spans, queries, pack.split(key), pack.split(value), strict=True):
        q, k, v = (part.view(span.pairs, -1, *part.shape[1:]).transpose(1, 2) for part in own)
        mask = _attention_mask(q.shape[2], _Part(0, 0, span.pairs, span.length), options.window, q)
        if options.dropout and not q.is_cuda:
            mixed = _attend_with_dropout(q, k, v, mask, options)
        else:
            mixed = scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=options.dropout, scale=options.scale
            )
        out.append(mixed.transpose(1, 2).flatten(0, 1))
    return (torch.cat(out) if len(out) > 1 else out[0]).to(dtype)


def _has_first_queries_only(query: Tensor, key: Tensor, pack: Pack) -> bool:
    """Return whether there is one query a pair: that of its first token."""
    return len(query) == len(pack.starts) != len(key)


def _attend_with_dropout(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: AttentionOptions
) -> Tensor:
    """Attend with dropout, which torch does not fuse on a CPU; (pairs, heads, tokens, size) in and out."""
    q, k, v = (part.flatten(0, 1) for part in (query, key, value))
    products = torch.baddbmm(q.new_zeros(1), q, k.transpose(1, 2), beta=0, alpha=options.scale)
    if mask is not None:
        products = products + mask
    return torch.bmm(apply_dropout(products.softmax(dim=-1), options.dropout), v).view(query.shape)


def _attend_without_gradients(
    query: Tensor, key: Tensor, value: Tensor, pack: Pack, options: AttentionOptions
) -> Tensor:
    """Attend without gradients and dropout, anywhere but on CUDA."""
    out = query.new_empty(query.shape)
    has_first_queries = _has_first_queries_only(query, key, pack)
    start = first = 0
    for span in pack.spans:
        own = slice(start, start + span.tokens)
        is_single = not has_first_queries and _is_faster_pair_by_pair(query, span, options)
        if not is_single or not attend_pair_by_pair(
            query[own], key[own], value[own], out[own], span, scale=options.scale
        ):
            for part in _aligned_parts(start, first, span, len(key)):
                places = part.firsts if has_first_queries else part.tokens
                q = query[places].view(part.pairs, -1, *query.shape[1:]).transpose(1, 2)
                k, v = (_overlapping_windows(values, part).transpose(1, 2) for values in (key, value))
                mask = _attention_mask(q.shape[2], part, options.window, q)
                mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=options.scale)
                out[places] = mixed.transpose(1, 2).flatten(0, 1)
        start, first = start + span.tokens, first + span.pairs
    return out


def _is_faster_pair_by_pair(query: Tensor, span: Span, options: AttentionOptions) -> bool:
    """Return whether pairs of the span are faster one by one."""
    is_banded = options.window and span.length > options.window + 1
    is_float32 = query.dtype is torch.float32 and query.device.type == "cpu"
    has_mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return bool(is_float32 and has_mkl and not is_banded and span.length in _PAIR_BY_PAIR_LENGTHS)


def attend_pair_by_pair(query: Tensor, key: Tensor, value: Tensor, out: Tensor, span: Span, *, scale: float) -> bool:
    """Fill `out` (tokens, heads, size) of a span, pair by pair; return False where the products are too large for it.

    A softmax usually subtracts the largest product from all, so that no exponential overflows. That is a third of the
    cost of attention at these lengths, and the products of a trained model are far from float32's limits: so this
    checks the sums of exponentials afterwards instead.
    """
    length, heads = span.length, query.shape[1]
    step = max(1, min(heads, CACHE_BYTES // (4 * length * length)))
    products, zero = query.new_empty(step, length, length), query.new_zeros(1)
    sums = query.new_empty(span.pairs, heads, length, 1)
    q, k, v, o = (part.view(span.pairs, length, heads, -1).transpose(1, 2) for part in (query, key, value, out))
    k = k.transpose(2, 3)
    for at in range(0, heads, step):
        few = slice(at, at + step)
        cuts = (part[:, few].unbind() for part in (q, k, v, sums, o))
        for queries, keys, values, total, mixed in zip(*cuts, strict=True):
            weights = torch.baddbmm(zero, queries, keys, beta=0, alpha=scale, out=products[: len(queries)]).exp_()
            torch.sum(weights, -1, keepdim=True, out=total)
            torch.div(torch.bmm(weights, values), total, out=mixed)
    least, most = sums.aminmax()
    return bool(least > _SAFE_SUMS[0]) and bool(most < _SAFE_SUMS[1])


class _Part(msgspec.Struct, frozen=True):
    """Pairs of one length next to each other, and how many tokens of other pairs are read with each and masked."""

    start: int  # place of its first token in the row
    first: int  # number of its first pair
    pairs: int
    length: int
    before: int = 0
    after: int = 0

    @property
    def tokens(self) -> slice:
        """Return the places of its tokens in the row."""
        return slice(self.start, self.start + self.pairs * self.length)

    @property
    def firsts(self) -> slice:
        """Return the places of its pairs among all."""
        return slice(self.first, self.first + self.pairs)


def _aligned_parts(start: int, first: int, span: Span, total: int) -> Iterator[_Part]:
    """Yield the parts of a span, cut so that each pair reads a multiple of tokens that suits torch's kernel."""
    extra = -span.length % _KEY_MULTIPLE
    end = start + span.tokens
    last = end - span.length
    if end + extra <= total:
        yield _Part(start, first, span.pairs, span.length, after=extra)
    elif start >= extra:
        yield _Part(start, first, span.pairs, span.length, before=extra)
    elif last >= extra and last + extra <= end:  # the only span: its last pair reads tokens of those before
        yield _Part(start, first, span.pairs - 1, span.length, after=extra)
        yield _Part(last, first + span.pairs - 1, 1, span.length, before=extra)
    else:
        yield _Part(start, first, span.pairs, span.length)


def _overlapping_windows(values: Tensor, part: _Part) -> Tensor:
    """Return views (pairs, tokens read, heads, size) of `values` (tokens, heads, size); they overlap."""
    if not part.before + part.after:
        return values[part.tokens].view(part.pairs, part.length, *values.shape[1:])
    token, *rest = values.stride()
    return values.as_strided(
        (part.pairs, part.before + part.length + part.after, *values.shape[1:]),
        (part.length * token, token, *rest),
        values.storage_offset() + (part.start - part.before) * token,
    )


def _attention_mask(rows: int, part: _Part, window: int, like: Tensor) -> Tensor | None:
    """Return (rows or 1, tokens read) to be added: -inf where a token must not attend; None without such."""
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
