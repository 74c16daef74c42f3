"""What a filter adds to a stage's training loop: the losses it chooses by, its state, and word of what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cerank.core.seeds import derive
from cerank.kernels.dropout import dropout_seed
from cerank.kernels.parallel import run_in_threads
from cerank.tokenization.tokens import Pair, batches_by_length
from cerank.training.batches import EncodedGroup, split_by_tokens
from cerank.training.filtering.filter_state import FilterState
from cerank.training.forward_backward import ForwardBackward, Position

GroupLosses = Callable[[Tensor, Sequence[EncodedGroup]], Tensor]


class LossProbe:
    """Computes the losses of groups without a gradient, with dropout as in training, but sampled apart from it.

    Args:
        passes: runs the model in the stage's updates; the same numbers of tokens go through it at once here.
        stage: name of the stage; with `seed` and the step it seeds dropout.
        seed: seed of the run.
    """

    def __init__(self, passes: ForwardBackward, stage: str, seed: int) -> None:
        self._passes, self._stage, self._seed = passes, f"{stage} before a choice", seed
        self._own = ForwardBackward(passes.model, self._stage, seed, passes.microbatch)

    def losses(self, groups: Sequence[EncodedGroup], step: int, of_groups: GroupLosses) -> list[float]:
        """Return the loss of each group; `of_groups` computes them from the scores of all pairs, end to end."""
        if not groups:
            return []
        self._own.microbatch = self._passes.microbatch
        parts = []
        with torch.no_grad():
            for number, microbatch in enumerate(split_by_tokens(groups, self._own.microbatch)):
                scores = self._scores([pair for encoded in microbatch for pair in encoded.pairs], (step, number))
                parts.append(of_groups(scores, microbatch))
        losses: list[float] = torch.cat(parts).tolist()
        return losses

    def _scores(self, pairs: Sequence[Pair], position: Position) -> Tensor:
        """Return scores (pairs,): on a CPU a shard of the pairs in each thread, as in an update."""
        lengths = [len(pair.ids) for pair in pairs]
        shards = self._own.shards_of(lengths)
        if len(shards) < 2:
            batches = batches_by_length(lengths, self._own.microbatch)
            return self._own.forward_without_graph(pairs, position, batches).detach()
        scores = torch.empty(len(pairs))

        def score_shard(number: int) -> None:
            seed = derive(self._seed, "dropout", self._stage, *position, number)
            with dropout_seed(seed), self._own.model.scoring() as score:
                scores[torch.tensor(shards[number])] = score([pairs[index] for index in shards[number]])

        run_in_threads(score_shard, range(len(shards)), max(1, torch.get_num_threads() // len(shards)))
        return scores


def changes(before: FilterState, after: FilterState) -> list[str]:
    """Return a sentence for each phase that a step ended or announced."""
    sentences = []
    if before.phase == "plain" and after.phase != "plain":
        sentences.append(
            f"from step {after.by_loss_from} on only groups whose loss reaches {after.threshold:.4g} are trained on, "
            "the mean of the groups before"
        )
    if before.phase != "by prediction" and after.phase == "by prediction":
        mean = sum(after.log_losses) / len(after.log_losses)
        sentences.append(
            f"from step {after.by_prediction_from} on a predictor decides which groups go forward at all: its mean "
            f"log-loss over {len(after.log_losses)} groups is {mean:.3f}"
        )
    return sentences
