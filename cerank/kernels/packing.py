"""Lay pairs end to end as one row of tokens, so that no layer computes padding.

Invariant: pairs keep the caller's order, and all pairs of a span have the same length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, groupby

import msgspec
import torch
from torch import Tensor

from cerank.tokenization.tokens import Pair


class Span(msgspec.Struct, frozen=True):
    """A number of `pairs` next to each other in a row that are all `length` tokens long."""

    pairs: int
    length: int

    @property
    def tokens(self) -> int:
        """Return the number of tokens of the span."""
        return self.pairs * self.length


class Pack(msgspec.Struct, frozen=True):
    """Pairs end to end; every tensor is (tokens,) but `starts` (pairs,) and `edges` (pairs + 1,)."""

    ids: Tensor
    segments: Tensor  # 0 on the query, 1 on the document
    places: Tensor  # position of each token in its pair, from 0
    starts: Tensor  # place of each pair's first token in the row
    edges: Tensor  # int32, for varlen kernels: 0, then the end of each pair
    spans: tuple[Span, ...]  # parts of the row with pairs of one length, in order
    has_types: bool  # whether the base takes the segments as token types

    @property
    def longest(self) -> int:
        """Return the number of tokens of the longest pair."""
        return max(span.length for span in self.spans)

    def split(self, values: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
        """Return one part of `values` for each span; `dim` is the dimension of tokens."""
        return torch.split(values, [span.tokens for span in self.spans], dim)

    def split_firsts(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return one part of `values` (pairs, ...) for each span."""
        return torch.split(values, [span.pairs for span in self.spans])


def pad_row(pairs: Sequence[Pair], step: int) -> Sequence[Pair]:
    """Return the pairs, with one more that nobody reads if that makes their tokens a multiple of `step`."""
    lengths = [len(pair.ids) for pair in pairs]
    missing = -sum(lengths) % step
    if not 0 < missing <= max(lengths):  # a pair longer than all others might be longer than the model can read
        return pairs
    return [*pairs, Pair(pairs[0].ids[:1] * missing, missing)]


def pack(pairs: Sequence[Pair], has_types: bool, device: torch.device) -> Pack:
    """Return the pairs as one row, in the order given; sorted by length they make the fewest spans."""
    lengths = [len(pair.ids) for pair in pairs]
    ends = list(accumulate(lengths))
    sizes = torch.tensor(lengths)
    starts = torch.tensor([0, *ends[:-1]])
    places = torch.arange(ends[-1]) - starts.repeat_interleave(sizes)
    splits = torch.tensor([pair.split for pair in pairs])
    return Pack(
        ids=torch.tensor(list(chain.from_iterable(pair.ids for pair in pairs))).to(device),
        segments=(places >= splits.repeat_interleave(sizes)).long().to(device),
        places=places.to(device),
        starts=starts.to(device),
        edges=torch.tensor([0, *ends], dtype=torch.int32).to(device),
        spans=tuple(Span(len(list(run)), length) for length, run in groupby(lengths)),
        has_types=has_types,
    )
