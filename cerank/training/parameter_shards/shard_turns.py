"""Compute the shards of a step by turns: each pass of one process is a pass of all, because all hold a part of weights.

With P processes, shards 0 to P - 1 come first, one in each process, then the next P. A shard may need several passes,
for as many tokens as memory holds at once. The first pass of all shards comes before the second of any, and gradients
are added in that order, pass by pass and shard by shard: one process computes them so, and so do several, which need no
more memory than for one sum of their own rows.

A group with more tokens than fit goes through the model twice: all of its parts for the scores, which give the loss,
then each part again for its gradient (GradCache). The first of these passes come before all others of the step.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cerank.core.ranks import Ranks
from cerank.kernels.packing import to_device
from cerank.tokenization.tokens import Pair, batches_by_length
from cerank.training.batches import EncodedGroup, split_by_tokens
from cerank.training.forward_backward import ForwardBackward, in_order
from cerank.training.step_shards import StepShards, deal_groups
from cerank.training.weight_shares import WeightShares

# returns the loss () to take the gradient of and its parts, from the scores of all pairs of some groups of the step
LossesOf = Callable[[Tensor, Sequence[int]], tuple[Tensor, list[Tensor]]]
Place = tuple[int, int]  # a microbatch of a shard, and a batch of its pairs


class JointLockstep:
    """Lets the processes that compute a model together agree on whether there is one more pass.

    Args:
        ranks: the processes.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    @property
    def is_shared(self) -> bool:
        """Return whether there are several processes."""
        return self._ranks.count > 1

    def goes_on(self, *, has_work: bool) -> bool:
        """Return whether any of the processes has work, so that all make one more pass."""
        return self._ranks.is_any(has_work)


class _Microbatch(NamedTuple):
    """Groups of a shard whose loss is computed at once."""

    places: list[int]  # of the groups, in the step's batch
    pairs: list[Pair]
    batches: list[list[int]]  # places of the pairs that go through the model at once


class ShardTurns(StepShards):
    """The shards of a step, computed by turns.

    Args:
        weights: the trained weights of this process, or its shares of them.
        count: shards of a step, a power of two that the number of processes divides.
        ranks: the processes.
    """

    def __init__(self, weights: WeightShares, count: int, ranks: Ranks) -> None:
        super().__init__(list(weights.trained.values()), count, ranks)
        self._shares = weights

    def compute(
        self, passes: ForwardBackward, batch: Sequence[EncodedGroup], step: int, losses_of: LossesOf
    ) -> list[Tensor]:
        """Add the gradients of the step; return the parts of the loss of each shard of this process, in order.

        Args:
            passes: runs the model, `passes.microbatch` tokens at once.
            batch: the groups of the step.
            step: number of the step; part of the seed of dropout.
            losses_of: returns what `LossesOf` says.
        """
        began = time.perf_counter()
        shards = [_cut(batch, places, passes.microbatch) for places in deal_groups(batch, self._count)]
        own = range(self._ranks.number, self._count, self._ranks.count)
        self._stats.tokens += sum(len(pair.ids) for shard in own for micro in shards[shard] for pair in micro.pairs)
        parts: dict[tuple[int, int], list[Tensor]] = {}  # (shard, microbatch) -> parts of the loss
        of_scores = self._gradients_of_scores(passes, shards, step, losses_of, parts)
        every = [[(m, b) for m, micro in enumerate(shard) for b in range(len(micro.batches))] for shard in shards]
        for is_real, mine in self._turns(every):
            self._shares.begin_pass(is_real)
            if mine is None:
                (self._scores(passes, [passes.model.shortest_pair()]).sum() * 0.0).backward()  # type: ignore[no-untyped-call]
                continue
            shard, (number, part) = mine
            micro = shards[shard][number]
            scores = self._scores(passes, [micro.pairs[at] for at in micro.batches[part]], (step, shard, number, part))
            if (shard, number) in of_scores:
                indices = to_device(micro.batches[part], torch.int64, scores.device)
                scores.backward(of_scores[shard, number][indices])  # type: ignore[no-untyped-call]
                continue
            loss, values = losses_of(in_order([scores], micro.batches), micro.places)
            parts[shard, number] = [value.detach() for value in values]
            loss.backward()  # type: ignore[no-untyped-call]
        of_shards = [[parts[shard, number] for number in range(len(shards[shard]))] for shard in own]
        self._wait_for_device()
        self._stats.seconds += time.perf_counter() - began
        self._began = time.perf_counter()
        return [torch.stack(list(of_loss)).sum() for values in of_shards for of_loss in zip(*values, strict=True)]

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """Let all processes make one pass that counts for nothing, with a backward pass, in the `with` block."""
        self._shares.begin_pass([True] * self._ranks.count)
        yield
        self._shares.take_gradients()
        for weight in self._weights:
            weight.grad = None

    def sum_over_ranks(self, losses: Sequence[Tensor], spread: Tensor) -> tuple[list[Tensor], Tensor]:
        """Give the weights the gradient of the step; return all shards' losses in order, and the largest spread."""
        self._shares.take_gradients()
        if self._ranks.count > 1:
            every = self._ranks.gather_tensor(torch.stack([*losses, spread.to(losses[0].dtype)]))
            turns = self._count // self._ranks.count
            losses = list(every[:, :-1].view(self._ranks.count, turns, -1).transpose(0, 1).flatten())
            spread = every[:, -1].amax()
        self._stats.waited += time.perf_counter() - self._began
        return list(losses), spread

    def _gradients_of_scores(
        self, passes: ForwardBackward, shards: Sequence[Sequence[_Microbatch]], step: int, losses_of: LossesOf,
        parts: dict[tuple[int, int], list[Tensor]],
    ) -> dict[tuple[int, int], Tensor]:  # fmt: skip
        """Return the gradient (pairs,) of the scores of each of this process's microbatches that needs several passes.

        The parts of their losses are put into `parts`; keys are (shard, microbatch).
        """
        several = [
            [(m, b) for m, micro in enumerate(shard) if len(micro.batches) > 1 for b in range(len(micro.batches))]
            for shard in shards
        ]
        scores: dict[tuple[int, int], list[Tensor]] = {}
        with torch.no_grad():
            for _, mine in self._turns(several):
                if mine is None:
                    self._scores(passes, [passes.model.shortest_pair()])
                    continue
                shard, (number, part) = mine
                micro = shards[shard][number]
                pairs = [micro.pairs[at] for at in micro.batches[part]]
                scores.setdefault((shard, number), []).append(self._scores(passes, pairs, (step, *mine[:1], *mine[1])))
        of_scores = {}
        for (shard, number), of_parts in scores.items():
            micro = shards[shard][number]
            whole = in_order(of_parts, micro.batches).requires_grad_()
            loss, values = losses_of(whole, micro.places)
            parts[shard, number] = [value.detach() for value in values]
            (of_scores[shard, number],) = torch.autograd.grad(loss, whole)
        return of_scores

    def _turns(self, work: Sequence[Sequence[Place]]) -> Iterator[tuple[list[bool], tuple[int, Place] | None]]:
        """Yield each pass of all: which processes have work in it, and this one's shard and place, or None.

        Args:
            work: the places of the passes of each shard.
        """
        count = self._ranks.count
        for at in range(max(map(len, work), default=0)):
            for first in range(0, self._count, count):
                is_real = [at < len(work[shard]) for shard in range(first, first + count)]
                own = first + self._ranks.number
                if any(is_real):
                    yield is_real, (own, work[own][at]) if at < len(work[own]) else None

    def _scores(self, passes: ForwardBackward, pairs: Sequence[Pair], position: Sequence[int] = ()) -> Tensor:
        """Return the scores of pairs, with the dropout of their position: step, shard, microbatch and batch."""
        if position:
            passes.seed_dropout(tuple(position[:-1]), position[-1])
        with passes.model.scoring() as score:
            return score(pairs)


def _cut(batch: Sequence[EncodedGroup], places: Sequence[int], tokens: int) -> list[_Microbatch]:
    """Return the microbatches of a shard, of at most so many tokens but for groups that are larger."""
    cut, start = [], 0
    for groups in split_by_tokens([batch[place] for place in places], tokens):
        pairs = [pair for encoded in groups for pair in encoded.pairs]
        batches = batches_by_length([len(pair.ids) for pair in pairs], tokens)
        cut.append(_Microbatch(list(places[start : start + len(groups)]), pairs, batches))
        start += len(groups)
    return cut
