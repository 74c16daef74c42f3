"""Run the pairs of a microbatch through the model, and the gradient of their loss back, within the device's memory.

The trainer writes `scores = passes.forward(pairs)`, computes a loss from the scores, and calls `passes.backward(loss)`.
Which of three ways computes them is decided here, from the number of tokens, the device and the model:

- in one graph: all batches of the microbatch, then torch's own backward pass. The usual way on a GPU.
- in threads: on a CPU each thread takes a shard of the pairs through the model and back. Threads that compute one
  matrix product together wait for each other after each: on two cores a step of 32 pairs took 1.3 times as long so.
- without a graph, then again (GradCache): for a group with more tokens than may go through the model at once.

Invariant: all three give the same gradient but for rounding, with the same dropout however often a pair goes through
the model. On a CPU the bits depend on the number of threads, never on which of them is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cerank.core.seeds import derive
from cerank.kernels.dropout import dropout_seed
from cerank.kernels.packing import to_device
from cerank.kernels.parallel import run_in_threads
from cerank.models.forward_pass import ForwardPass
from cerank.tokenization.tokens import Pair, batches_by_length

MAX_HALVINGS = 4  # largest number of halvings of the microbatch: if a sixteenth does not fit, something else is wrong
_MAX_SHARDS = 4  # shards of a microbatch, each in a thread of its own
_SHARD_GRADIENT_BYTES = 1 << 30  # until they are summed, every shard has its own gradients of all weights
MIN_SHARD_TOKENS = 256  # for fewer tokens, the fixed costs of a pass would be most of its time

# step, shard where the step is divided into shards, and number of the microbatch: part of the seed of dropout
Position = tuple[int, ...]


class ForwardBackward:
    """Computes scores and gradients of one microbatch after another.

    Args:
        model: scores pairs with the weights as they are at the time of the call.
        stage: name of the stage; with `seed` and a position it seeds dropout.
        seed: seed of the run, from 0.
        microbatch: largest number of tokens that go through the model at once.
    """

    def __init__(self, model: ForwardPass, stage: str, seed: int, microbatch: int) -> None:
        self.model, self.microbatch = model, microbatch
        self._stage, self._seed = stage, seed
        self._backward: Callable[[Tensor], None] = _no_forward_pass

    def forward(self, pairs: Sequence[Pair], position: Position) -> Tensor:
        """Return the scores (pairs,) in float32, to compute one loss from.

        Args:
            pairs: all pairs of a microbatch.
            position: (step, ..., number of the microbatch); the same position samples the same dropout.
        """
        lengths = [len(pair.ids) for pair in pairs]
        shards = self.shards_of(lengths)
        if len(shards) > 1:
            return self._forward_in_threads(pairs, position, shards)
        batches = batches_by_length(lengths, self.microbatch)
        if len(batches) == 1 or sum(lengths) <= self.microbatch:
            return self.forward_in_one_graph(pairs, position, batches)
        return self.forward_without_graph(pairs, position, batches)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the parameters; `loss` () comes from the scores of the last `forward`."""
        backward, self._backward = self._backward, _no_forward_pass
        backward(loss)

    def forward_in_one_graph(
        self, pairs: Sequence[Pair], position: Position, batches: Sequence[Sequence[int]]
    ) -> Tensor:
        """Return the scores of all batches with the graph of each, which one backward pass goes through."""
        with self.model.scoring() as score:
            parts = []
            for number, batch in enumerate(batches):
                self.seed_dropout(position, number)
                parts.append(score([pairs[index] for index in batch]))
        self._backward = Tensor.backward
        return in_order(parts, batches)

    def _forward_in_threads(self, pairs: Sequence[Pair], position: Position, shards: list[list[int]]) -> Tensor:
        kernel_threads = max(1, torch.get_num_threads() // len(shards))
        weights = self.model.trained_weights
        parts: list[Tensor] = [weights[0]] * len(shards)
        gradients: list[Sequence[Tensor | None]] = [()] * len(shards)

        def shard_forward(number: int) -> None:
            seed = derive(self._seed, "dropout", self._stage, *position, number)
            with dropout_seed(seed), self.model.scoring() as score:
                parts[number] = score([pairs[index] for index in shards[number]])

        run_in_threads(shard_forward, range(len(shards)), kernel_threads)
        scores = in_order([part.detach() for part in parts], shards).requires_grad_()

        def backward(loss: Tensor) -> None:
            (of_scores,) = torch.autograd.grad(loss, scores)

            def shard_backward(number: int) -> None:
                of_shard = of_scores[torch.tensor(shards[number])]
                gradients[number] = torch.autograd.grad(parts[number], weights, of_shard, allow_unused=True)

            run_in_threads(shard_backward, range(len(shards)), kernel_threads)
            for of_shard in gradients:  # in the order of the shards, whichever thread was faster
                _add_gradients(weights, of_shard)

        self._backward = backward
        return scores

    def forward_without_graph(
        self, pairs: Sequence[Pair], position: Position, batches: Sequence[Sequence[int]]
    ) -> Tensor:
        """Score all pairs without a graph; the backward pass scores each batch again, with a graph.

        Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache),
        RepL4NLP 2021, section 3.
        """
        parts = []
        with torch.no_grad(), self.model.scoring() as score:
            for number, batch in enumerate(batches):
                self.seed_dropout(position, number)
                parts.append(score([pairs[index] for index in batch]))
        scores = in_order(parts, batches).requires_grad_()

        def backward(loss: Tensor) -> None:
            (of_scores,) = torch.autograd.grad(loss, scores)
            for number, batch in enumerate(batches):
                self.seed_dropout(position, number)  # the same dropout as in the first pass
                with self.model.scoring() as score:
                    again = score([pairs[index] for index in batch])
                again.backward(of_scores[to_device(batch, torch.int64, scores.device)])  # type: ignore[no-untyped-call]

        self._backward = backward
        return scores

    def reduced_from(self, tokens: int) -> int:
        """Return how many tokens go through the model at once, or 0 if they are as many as the stage asks for."""
        return 0 if self.microbatch == tokens else self.microbatch

    def shards_of(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return the indices of pairs in shards, one a thread; one shard or none where threads gain nothing.

        Pairs are sorted by length and dealt in snake order, so that shards have equal numbers of tokens and equal
        numbers of distinct lengths: each length costs kernel calls of its own.
        """
        total = sum(lengths)
        if total > self.microbatch or not self.model.supports_threaded_backward:
            return []
        fitting = 1 + _SHARD_GRADIENT_BYTES // max(1, sum(weight.nbytes for weight in self.model.trained_weights))
        count = max(1, min(torch.get_num_threads(), _MAX_SHARDS, fitting, total // MIN_SHARD_TOKENS, len(lengths)))
        by_length = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
        rounds = [by_length[start : start + count] for start in range(0, len(by_length), count)]
        dealt = [row if number % 2 == 0 else row[::-1] for number, row in enumerate(rounds)]
        return [[row[shard] for row in dealt if shard < len(row)] for shard in range(count)]

    def seed_dropout(self, position: Position, number: int) -> None:
        """Seed the dropout of one pass through the model, from the position of its microbatch and its number there."""
        torch.manual_seed(derive(self._seed, "dropout", self._stage, *position, number))


def _no_forward_pass(_: Tensor) -> None:
    raise RuntimeError("backward was called without a forward pass before it")


def in_order(parts: Sequence[Tensor], batches: Sequence[Sequence[int]]) -> Tensor:
    """Return the scores (pairs,) in the order of the pairs, from the scores of batches of indices."""
    order = [index for batch in batches for index in batch]
    place = sorted(range(len(order)), key=order.__getitem__)
    flat = torch.cat(list(parts))
    return flat[to_device(place, torch.int64, flat.device)]


@torch.no_grad()
def _add_gradients(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to those that the weights have; None stands for a weight that the shard did not use."""
    used = [(weight, gradient) for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None]
    sums = [weight.grad for weight, _ in used if weight.grad is not None]
    if sums:
        torch._foreach_add_(sums, [gradient for weight, gradient in used if weight.grad is not None])
    for weight, gradient in used:
        if weight.grad is None:
            weight.grad = gradient
