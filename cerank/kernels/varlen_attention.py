"""Attention within each pair, one span of pairs of a length after another: wherever no varlen kernel fits.

Invariant: all ways give the same numbers but for rounding, and what a pair draws depends on its own span alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cerank.kernels.dropout import dropped
from cerank.kernels.packing import Pack, Span

_STEP = 16  # tokens; for any other number of keys than its multiples torch's kernel takes up to twice as long (2.13)
_SINGLE = range(36, 257)  # tokens of pairs that are faster one by one than together by torch's kernel (2.13, MKL)
_CACHED = 1 << 20  # bytes of products that stay in a core's own cache until they are used
_SAFE = 1e-30, 1e30  # sums of exponentials that have lost nothing to the edges of float32


class How(msgspec.Struct, frozen=True):
    """How tokens attend."""

    scale: float  # of the products
    dropout: float = 0.0  # of the weights
    window: int = 0  # how many tokens away a token may look to either side; 0 is any


def attend_by_spans(query: Tensor, key: Tensor, value: Tensor, pack: Pack, how: How) -> Tensor:
    """See `attention.attend`."""
    if query.is_cuda or how.dropout or torch.is_grad_enabled():
        return _with_gradients(query, key, value, pack, how)
    return _without(query, key, value, pack, how)


def _with_gradients(query: Tensor, key: Tensor, value: Tensor, pack: Pack, how: How) -> Tensor:
    """Each span by itself; also without gradients, where dropout is drawn or on CUDA."""
    narrow = query.dtype
    if narrow is not torch.float32 and not query.is_cuda and torch.is_grad_enabled():
        # torch's backward pass of it on a CPU takes twelve times as long in bf16 (2.13, pairs of 64 tokens)
        query, key, value = query.float(), key.float(), value.float()
    # split, not sliced: the gradient of each slice would be as long as the row
    asking = pack.split_firsts(query) if _asks_firsts(query, key, pack) else pack.split(query)
    out = []
    for span, *own in zip(pack.spans, asking, pack.split(key), pack.split(value), strict=True):
        q, k, v = (part.view(span.pairs, -1, *part.shape[1:]).transpose(1, 2) for part in own)
        mask = _mask(q.shape[2], _Part(0, 0, span.pairs, span.length), how.window, q)
        if how.dropout and not q.is_cuda:
            mixed = _dropping(q, k, v, mask, how)
        else:
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=how.dropout, scale=how.scale)
        out.append(mixed.transpose(1, 2).flatten(0, 1))
    return (torch.cat(out) if len(out) > 1 else out[0]).to(narrow)


def _asks_firsts(query: Tensor, key: Tensor, pack: Pack) -> bool:
    """Whether only the first token of each pair asks."""
    return len(query) == len(pack.starts) != len(key)


def _dropping(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, how: How) -> Tensor:
    """Attention with dropout, which torch does not fuse on a CPU; (pairs, heads, tokens, size) in and out."""
    q, k, v = (part.flatten(0, 1) for part in (query, key, value))
    products = torch.baddbmm(q.new_zeros(1), q, k.transpose(1, 2), beta=0, alpha=how.scale)
    if mask is not None:
        products = products + mask
    return torch.bmm(dropped(products.softmax(dim=-1), how.dropout), v).view(query.shape)


def _without(query: Tensor, key: Tensor, value: Tensor, pack: Pack, how: How) -> Tensor:
    """Without gradients and dropout, anywhere but on CUDA."""
    out = query.new_empty(query.shape)
    asks_firsts = _asks_firsts(query, key, pack)
    start = first = 0
    for span in pack.spans:
        own = slice(start, start + span.tokens)
        is_single = not asks_firsts and _is_single(query, span, how)
        if not is_single or not _singly(query[own], key[own], value[own], out[own], span, scale=how.scale):
            for part in _parts(start, first, span, len(key)):
                places = part.firsts if asks_firsts else part.tokens
                q = query[places].view(part.pairs, -1, *query.shape[1:]).transpose(1, 2)
                k, v = (_windows(values, part).transpose(1, 2) for values in (key, value))
                mask = _mask(q.shape[2], part, how.window, q)
                mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=how.scale)
                out[places] = mixed.transpose(1, 2).flatten(0, 1)
        start, first = start + span.tokens, first + span.pairs
    return out


def _is_single(query: Tensor, span: Span, how: How) -> bool:
    """Whether pairs of the span are faster one by one."""
    is_banded = how.window and span.length > how.window + 1
    is_float32 = query.dtype is torch.float32 and query.device.type == "cpu"
    has_mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return bool(is_float32 and has_mkl and not is_banded and span.length in _SINGLE)


def _singly(query: Tensor, key: Tensor, value: Tensor, out: Tensor, span: Span, *, scale: float) -> bool:
    """Fills `out` (tokens, heads, size) of a span, pair by pair; False where the products are too large for it.

    A softmax usually takes the largest product from all, so that no exponential is too large. That is a third of what
    attention costs at these lengths, and products of a model that means something are far from float32's edges: so
    the sums of exponentials are looked at instead, afterwards.
    """
    length, heads = span.length, query.shape[1]
    step = max(1, min(heads, _CACHED // (4 * length * length)))
    products, zero = query.new_empty(step, length, length), query.new_zeros(1)
    sums = query.new_empty(span.pairs, heads, length, 1)
    q, k, v, o = (part.view(span.pairs, length, heads, -1).transpose(1, 2) for part in (query, key, value, out))
    k = k.transpose(2, 3)
    for at in range(0, heads, step):
        few = slice(at, at + step)
        cuts = (part[:, few].unbind() for part in (q, k, v, sums, o))
        for asking, asked, given, total, mixed in zip(*cuts, strict=True):
            weights = torch.baddbmm(zero, asking, asked, beta=0, alpha=scale, out=products[: len(asking)]).exp_()
            torch.sum(weights, -1, keepdim=True, out=total)
            torch.div(torch.bmm(weights, given), total, out=mixed)
    least, most = sums.aminmax()
    return bool(least > _SAFE[0]) and bool(most < _SAFE[1])


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


def _parts(start: int, first: int, span: Span, total: int) -> Iterator[_Part]:
    """A span, so cut that each pair reads as many tokens as the kernel likes, where the row of `total` has them."""
    extra = -span.length % _STEP
    end = start + span.tokens
    last = end - span.length
    if end + extra <= total:
        yield _Part(start, first, span.pairs, span.length, after=extra)
    elif start >= extra:
        yield _Part(start, first, span.pairs, span.length, before=extra)
    elif last >= extra and last + extra <= end:  # nothing else is in the row: the last pair looks back on the others
        yield _Part(start, first, span.pairs - 1, span.length, after=extra)
        yield _Part(last, first + span.pairs - 1, 1, span.length, before=extra)
    else:
        yield _Part(start, first, span.pairs, span.length)


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
