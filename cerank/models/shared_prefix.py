"""Run a causal language model over pairs laid end to end, the start that prompts of a query share computed once.

Each group of pairs that begin alike is one prefix, then what follows it in each pair, sorted by length:

    prefix of query 1 | rest of pair 1 | rest of pair 2 | ... | prefix of query 2 | ...

All that works token by token runs on the one row. Attention of a rest sees the prefix of its group, and its own tokens
up to itself: what it would see in a pair of its own, so the states are the same but for rounding.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from cerank.kernels.packing import to_device
from cerank.tokenization.tokens import Pair

_NAME = "cerank_shared_prefix"  # in transformers' registries
_ARGUMENT = "cerank_groups"  # keyword argument of a model within `prepared`
_SUPPORTED = {"gemma", "llama", "mistral", "qwen2", "qwen3"}  # rotary positions, and attention from the registry


class PrefixGroup(msgspec.Struct, frozen=True):
    """Pairs that begin alike: where their prefix starts in the row, and (pairs, length) of what follows it."""

    start: int
    prefix: int
    rests: tuple[tuple[int, int], ...]


class PrefixRow(msgspec.Struct, frozen=True):
    """Pairs as one row of tokens."""

    ids: Tensor  # (tokens,)
    places: Tensor  # (tokens,): position of each token in its pair
    lasts: Tensor  # (pairs,): place in the row of each pair's last token, in the order of the pairs given
    groups: tuple[PrefixGroup, ...]


def supports_shared_prefix(base: Any) -> bool:
    """Return whether the layers of a causal model can run so."""
    config = base.config
    slides = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return config.model_type in _SUPPORTED and not slides


def lay_out(pairs: Sequence[Pair], device: torch.device) -> PrefixRow:
    """Return the pairs as one row, grouped by what they share before their document."""
    ids: list[int] = []
    places: list[int] = []
    lasts = [0] * len(pairs)
    groups = []
    for prefix, members in shared_prefixes(pairs):
        start, rests = len(ids), []
        ids += prefix
        places += range(len(prefix))
        by_length = sorted(members, key=lambda index: (len(pairs[index].ids), index))
        for length, same in groupby(by_length, key=lambda index: len(pairs[index].ids) - len(prefix)):
            count = 0
            for index in same:
                ids += pairs[index].ids[len(prefix) :]
                places += range(len(prefix), len(prefix) + length)
                lasts[index] = len(ids) - 1
                count += 1
            rests.append((count, length))
        groups.append(PrefixGroup(start, len(prefix), tuple(rests)))
    tokens, positions, ends = (to_device(values, torch.int64, device) for values in (ids, places, lasts))
    return PrefixRow(tokens, positions, ends, tuple(groups))


def shared_prefixes(pairs: Sequence[Pair]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Return each distinct beginning of the pairs with the places of the pairs that have it, in order of first use."""
    members: dict[tuple[int, ...], list[int]] = {}
    for index, pair in enumerate(pairs):
        # at least the last token is the pair's own: its state is what is read
        members.setdefault(pair.ids[: min(pair.split, len(pair.ids) - 1)], []).append(index)
    return list(members.items())


def batches_by_prefix(pairs: Sequence[Pair], budget: int) -> list[list[int]]:
    """Return batches of places of pairs that share a prefix, by length, of at most `budget` tokens and a pair each.

    The cut depends on the pairs alone, never on the number of threads.
    """
    batches: list[list[int]] = []
    tokens = budget
    for prefix, members in shared_prefixes(pairs):
        if len(prefix) + tokens >= budget:
            batches.append([])
            tokens = 0
        tokens += len(prefix)
        for index in sorted(members, key=lambda index: (len(pairs[index].ids), index)):
            rest = len(pairs[index].ids) - len(prefix)
            if batches[-1] and tokens + rest > budget:
                batches.append([])
                tokens = len(prefix)
            batches[-1].append(index)
            tokens += rest
    return [batch for batch in batches if batch]


class SharedPrefixModel:
    """A causal model over pairs that share prefixes.

    Args:
        base: its layers, as transformers has them.
        score_states: from the states (pairs, size) of last tokens to scores (pairs,).
    """

    def __init__(self, base: Any, score_states: Callable[[Tensor], Tensor]) -> None:
        self._base, self._score_states = base, score_states

    @property
    def encoder(self) -> SharedPrefixModel:
        """Return what prepares the weights: this model."""
        return self

    @contextlib.contextmanager
    def prepared(self, dtype: torch.dtype) -> Iterator[torch.dtype]:
        """Yield the type of matrix products; within, the model's attention is that of groups."""
        _register()
        config = self._base.config
        before = config._attn_implementation
        config._attn_implementation = _NAME
        try:
            yield dtype
        finally:
            config._attn_implementation = before

    def row(self, pairs: Sequence[Pair], device: torch.device) -> PrefixRow:
        """Return the pairs as `scores` takes them."""
        return lay_out(pairs, device)

    def batches(self, pairs: Sequence[Pair], budget: int) -> list[list[int]]:
        """Return batches that keep pairs of a query together."""
        return batches_by_prefix(pairs, budget)

    def scores(self, row: PrefixRow, weights: torch.dtype) -> Tensor:
        """Return scores (pairs,) in float32."""
        is_narrow = weights is not torch.float32
        with torch.autocast(row.ids.device.type, weights if is_narrow else None, enabled=is_narrow):
            out = self._base(
                input_ids=row.ids.unsqueeze(0),
                position_ids=row.places.unsqueeze(0),
                use_cache=False,
                **{_ARGUMENT: row.groups},
            )
        return self._score_states(out.last_hidden_state[0][row.lasts])


def attend_in_groups(
    query: Tensor, key: Tensor, value: Tensor, groups: Sequence[PrefixGroup], *, scale: float, dropout: float = 0.0
) -> Tensor:
    """Return the output of causal attention within each pair.

    Args:
        query: (heads, tokens, size) queries of all tokens.
        key: (heads, tokens, size), each head as often as queries read it.
        value: (heads, tokens, size) values, repeated like `key`.
        groups: positions of each shared prefix and of the rests that follow it.
        scale: factor of the products of queries and keys.
        dropout: dropout rate of the attention weights.
    """
    out = []
    for group in groups:
        at = group.start + group.prefix
        q, k, v = (part[:, group.start : at].unsqueeze(0) for part in (query, key, value))
        if group.prefix:
            out.append(scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout)[0])
        for count, length in group.rests:
            end = at + count * length
            own_q, own_k, own_v = (
                part[:, at:end].reshape(len(part), count, length, -1).transpose(0, 1) for part in (query, key, value)
            )
            keys = torch.cat([k.expand(count, -1, -1, -1), own_k], dim=2)
            values = torch.cat([v.expand(count, -1, -1, -1), own_v], dim=2)
            mask = torch.ones(length, group.prefix + length, dtype=torch.bool, device=q.device).tril(group.prefix)
            mixed = scaled_dot_product_attention(own_q, keys, values, attn_mask=mask, scale=scale, dropout_p=dropout)
            out.append(mixed.transpose(0, 1).flatten(1, 2))
            at = end
    return torch.cat(out, dim=1)


def _transformers_interface(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """Adapt it to transformers' interface: in (1, heads, tokens, size), out (1, tokens, heads, size)."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (part[0].repeat_interleave(repeats, dim=0) if repeats > 1 else part[0] for part in (key, value))
    scale = how.get("scaling") or query.shape[-1] ** -0.5
    dropout = how.get("dropout", 0.0) if module.training else 0.0
    mixed = attend_in_groups(query[0], key, value, how[_ARGUMENT], scale=scale, dropout=dropout)
    return mixed.transpose(0, 1).unsqueeze(0), None


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_NAME, _transformers_interface)
    AttentionMaskInterface.register(_NAME, lambda *_, **__: None)
