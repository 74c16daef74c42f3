"""Add up the gradients of several processes in the order of the shards of a step, each process its share of them.

torch's fully_shard calls this in place of its own exchanges. Its reduce-scatter adds along rings and trees that change
with the number of processes. Here an all-to-all moves what is to be added, as many bytes as any reduce-scatter moves,
and each process adds it to the sum so far, one shard after the other: what one process does that computes them in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cerank.kernels.rank_group import RankGroup


class _Exchange:
    """What both exchanges have in common.

    Args:
        ranks: the processes; while one waits for the others here, they count it as waiting.
    """

    def __init__(self, ranks: RankGroup) -> None:
        self._ranks = ranks

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return memory for an exchange."""
        return torch.empty(*size, dtype=dtype, device=device)


class WeightGather(_Exchange):
    """The gathering of one group of parameters; an `AllGather` of fully_shard."""

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> None:
        """Write the shares (share,) of all processes into (processes * share,)."""
        del group, async_op
        self._ranks.gather_into(output_tensor, input_tensor)


class OrderedSum(_Exchange):
    """The sum of the gradients of one group of parameters over the passes of a step; a `ReduceScatter` of fully_shard.

    Attributes:
        is_real: of each process, whether its gradients of the present pass count: one that has no shard left computes
            something only to take part.
    """

    def __init__(self, ranks: RankGroup) -> None:
        super().__init__(ranks)
        self.is_real: Sequence[bool] = ()
        self._total: Tensor | None = None

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        """Write into the output this process's share of the sum of this pass and all before it.

        Args:
            output_tensor: (share,) where the sum is written.
            input_tensor: (processes * share,) gradients of this process, of the share of each.
            group: the processes.
            op: how torch would add: never a mean, see `ShardedWeights`.
            async_op: whether the caller waits itself; it does not ask for that.
        """
        del group, op, async_op
        received = torch.empty_like(input_tensor)
        self._ranks.deal(received, input_tensor)
        parts = received.view(len(self.is_real), -1)
        counted = [part for part, is_real in zip(parts, self.is_real, strict=True) if is_real]
        if self._total is None:
            output_tensor.copy_(counted[0])
            counted = counted[1:]
        else:
            output_tensor.copy_(self._total)
        for part in counted:
            output_tensor.add_(part)
        self._total = output_tensor

    def forget(self) -> None:
        """Begin with no sum, as at the start of a step."""
        self._total = None
