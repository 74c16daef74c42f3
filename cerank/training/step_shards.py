"""Divide a training step into shards whose gradients are added in one fixed order, whichever process computes which.

A step has up to 8 shards. A process computes a run of neighboring shards, one after the other, and their
gradients are added as a tree: neighbors first, then sums of neighbors. The sums of a run of shards are nodes of that
tree, and the processes' nodes are its upper levels. So the gradient has the same bits on 1, 2, 4 or 8 devices.

Invariant: which groups are in a shard, and what dropout they get, follows from the plan and the step alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import msgspec
import torch
from torch import Tensor

from cerank.core.ranks import Ranks
from cerank.training.batches import EncodedGroup


def deal_groups(batch: Sequence[EncodedGroup], shards: int) -> list[list[int]]:
    """Return the places of the groups of each shard: the largest group first, each to the shard with least tokens.

    Groups keep their order within a shard.
    """
    dealt: list[list[int]] = [[] for _ in range(shards)]
    tokens = [0] * shards
    for place in sorted(range(len(batch)), key=lambda place: (-batch[place].tokens, place)):
        # fewest groups first: a shard without one would be a device without work
        least = min(range(shards), key=lambda shard: (bool(dealt[shard]), tokens[shard], shard))
        dealt[least].append(place)
        tokens[least] += batch[place].tokens
    return [sorted(places) for places in dealt]


class RankStats(msgspec.Struct):
    """What one process did in the steps since the last report."""

    tokens: int = 0
    seconds: float = 0.0  # in forward and backward passes of its own shards
    waited: float = 0.0  # seconds until the others were done, and for the exchange of gradients
    memory: int = 0  # bytes of the GPU that were in use at most; 0 on a CPU
    device: str = ""


def describe(stats: Sequence[RankStats]) -> str:
    """Return a sentence about what the processes did since the last report, in their order."""
    tokens, busy = [each.tokens for each in stats], [each.seconds for each in stats]
    rates = ", ".join(f"{each.tokens / max(each.seconds, 1e-9):,.0f}" for each in stats)
    largest = max(tokens) * len(tokens) / max(1, sum(tokens))
    slowest = max(busy) * len(busy) / max(1e-9, sum(busy))
    waited = sum(each.waited for each in stats) / max(1e-9, sum(each.waited + each.seconds for each in stats))
    text = (
        f"tokens/s {rates}; the largest share of tokens is {largest:.2f} times the mean, the longest time "
        f"{slowest:.2f} times; {waited:.0%} of the time went into waiting and exchange"
    )
    if any(each.memory for each in stats):
        text += f"; GPU memory {', '.join(f'{each.memory / 2**30:.1f}' for each in stats)} GiB at most"
    return text


class StepShards:
    """The shards of a step, and the sum of their gradients.

    Args:
        weights: the trained parameters.
        count: shards of a step, a power of two that the number of processes divides.
        ranks: the processes that share the shards.
    """

    def __init__(self, weights: Sequence[Tensor], count: int, ranks: Ranks) -> None:
        self._weights, self._count, self._ranks = tuple(weights), count, ranks
        self._nodes: list[tuple[int, list[Tensor | None]]] = []  # (shards in it, sum of their gradients)
        self._stats = RankStats()
        self._began = time.perf_counter()

    def own(self, batch: Sequence[EncodedGroup]) -> Iterator[tuple[int, list[int]]]:
        """Yield number and groups' places of each shard that this process computes."""
        self._nodes = []
        self._began = time.perf_counter()
        each = self._count // self._ranks.count
        dealt = deal_groups(batch, self._count)
        for number in range(self._ranks.number * each, (self._ranks.number + 1) * each):
            self._stats.tokens += sum(batch[place].tokens for place in dealt[number])
            yield number, dealt[number]
        self._wait_for_device()
        self._stats.seconds += time.perf_counter() - self._began
        self._began = time.perf_counter()

    def add(self) -> None:
        """Take the gradients of a shard from the weights, and add them to the tree."""
        node = (1, [weight.grad for weight in self._weights])
        for weight in self._weights:
            weight.grad = None
        while self._nodes and self._nodes[-1][0] == node[0]:
            size, left = self._nodes.pop()
            node = (2 * size, _sums(left, node[1]))
        self._nodes.append(node)

    def sum_over_ranks(self, losses: Sequence[Tensor], spread: Tensor) -> tuple[list[Tensor], Tensor]:
        """Give the weights the gradient of the whole step; return all shards' losses in order, and the largest spread.

        Args:
            losses: the losses () of the shards of this process, in order.
            spread: () the largest difference of scores within one of its groups.
        """
        ((_, gradients),) = self._nodes
        self._nodes = []
        if self._ranks.count > 1:
            gradients = self._exchanged(gradients)
            every = self._ranks.gather_tensor(torch.stack([*losses, spread.to(losses[0].dtype)]))
            losses, spread = list(every[:, :-1].flatten()), every[:, -1].amax()
        for weight, gradient in zip(self._weights, gradients, strict=True):
            weight.grad = gradient
        self._stats.waited += time.perf_counter() - self._began
        return list(losses), spread

    def report(self) -> list[RankStats]:
        """Return what each process did since the last report, and begin a new one."""
        self._stats.device = str(self._weights[0].device)
        if self._weights[0].is_cuda:
            self._stats.memory = torch.cuda.max_memory_allocated(self._weights[0].device)
        stats, self._stats = self._stats, RankStats()
        return self._ranks.gather(stats)

    def _wait_for_device(self) -> None:
        """Wait until a GPU has done all so far: else a time would be that of giving it work."""
        if self._weights[0].is_cuda:
            torch.cuda.current_stream(self._weights[0].device).synchronize()

    def _exchanged(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the sum of the gradients of all processes; None for a weight that no shard of the step used."""
        is_used = torch.tensor([float(gradient is not None) for gradient in gradients])
        flat = [
            weight.new_zeros(weight.numel()) if gradient is None else gradient.reshape(-1)
            for weight, gradient in zip(self._weights, gradients, strict=True)
        ]
        device = flat[0].device
        total = self._ranks.sum_tree(torch.cat([*flat, is_used.to(device)]))
        summed = torch.split(total[: -len(self._weights)], [weight.numel() for weight in self._weights])
        # copies of their own: a view into one long vector may be added up in another order by the norm's kernel
        used = total[-len(self._weights) :].tolist() if any(value is None for value in gradients) else None
        return [
            None if used is not None and not used[at] else gradient.view_as(weight).clone()
            for at, (weight, gradient) in enumerate(zip(self._weights, summed, strict=True))
        ]


def bits_of(weights: Sequence[Tensor]) -> Tensor:
    """Return for each tensor of float32 the sum of its bits as integers, which has the same value in any order."""
    return torch.stack([weight.detach().view(torch.int32).sum(dtype=torch.int64) for weight in weights]).cpu()


@torch.no_grad()
def _sums(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the sums of two lists of gradients, made in the memory of the first; None stands for no gradient."""
    pairs = [(mine, other) for mine, other in zip(left, right, strict=True) if mine is not None and other is not None]
    if pairs:
        torch._foreach_add_([mine for mine, _ in pairs], [other for _, other in pairs])
    return [mine if mine is not None else other for mine, other in zip(left, right, strict=True)]
