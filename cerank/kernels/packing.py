"""Lay pairs end to end as one row of tokens, so that no layer computes padding.

Invariant: pairs keep the caller's order, and all pairs of a span have the same length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, groupby

import msgspec
import numpy as np
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
    """Return the pairs, padded by one pair without results if that makes the tokens a multiple of `step`."""
    lengths = [len(pair.ids) for pair in pairs]
    missing = -sum(lengths) % step
    if not 0 < missing <= max(lengths):  # a pair longer than all others might be longer than the model can read
        return pairs
    return [*pairs, Pair(pairs[0].ids[:1] * missing, missing)]


def pack(pairs: Sequence[Pair], has_types: bool, device: torch.device) -> Pack:
    """Return the pairs as one row, in the order given; sorted by length they make the fewest spans.

    All of it is one buffer that NumPy fills, and one copy to a GPU, for which the host does not wait.
    """
    lengths = [len(pair.ids) for pair in pairs]
    sizes = np.array(lengths, dtype=np.int64)
    ends = sizes.cumsum()
    starts, tokens, count = ends - sizes, int(ends[-1]), len(pairs)
    buffer = torch.empty(3 * tokens + 2 * count + 1, dtype=torch.int64, pin_memory=device.type == "cuda")
    values = buffer.numpy()
    ids, places, segments = (values[part * tokens : (part + 1) * tokens] for part in range(3))
    ids[:] = np.fromiter(chain.from_iterable(pair.ids for pair in pairs), np.int64, tokens)
    np.subtract(np.arange(tokens), starts.repeat(sizes), out=places)
    splits = np.fromiter((pair.split for pair in pairs), np.int64, count)
    np.greater_equal(places, splits.repeat(sizes), out=segments, casting="unsafe")
    values[3 * tokens : 3 * tokens + count] = starts
    values[3 * tokens + count] = 0
    values[3 * tokens + count + 1 :] = ends
    row = buffer.to(device, non_blocking=True)
    return Pack(
        ids=row[:tokens],
        segments=row[2 * tokens : 3 * tokens],
        places=row[tokens : 2 * tokens],
        starts=row[3 * tokens : 3 * tokens + count],
        edges=row[3 * tokens + count :].to(torch.int32),
        spans=tuple(Span(len(list(run)), length) for length, run in groupby(lengths)),
        has_types=has_types,
    )


def to_device(values: Sequence[float] | Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the values as a tensor (values,) on `device`, copied to a GPU without waiting for what it computes."""
    tensor = torch.tensor(values, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
