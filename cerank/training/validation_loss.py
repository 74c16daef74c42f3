"""Compute a stage's own loss on validation queries, beside the measures of its validations.

Invariant: the groups are sampled once, so that two validations differ in nothing but the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from cerank.recipes.schema import Stage
from cerank.training.losses import find_loss
from cerank.training.sampler import Sampler, SamplingStats


class ValidationLoss:
    """The loss over groups of validation queries, one group a query.

    Args:
        sampler: samples from the validation queries, one group a step.
        stage: the stage that names the loss, and whether it is averaged over queries or pairs.
    """

    def __init__(self, sampler: Sampler, stage: Stage) -> None:
        self._stage = stage
        self.sampling: SamplingStats = sampler.sampling
        self.groups = tuple(sampler.groups(step)[0] for step in range(1, self.sampling.usable + 1))

    def with_group_candidates(self, candidates: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Return query -> documents to score: the candidates, then those of the query's group beside them."""
        to_score = {query: dict.fromkeys(docs) for query, docs in candidates.items()}
        for group in self.groups:
            to_score.setdefault(group.query_id, {}).update(dict.fromkeys(group.doc_ids))
        return {query: list(docs) for query, docs in to_score.items()}

    def loss(self, scores: Mapping[str, Mapping[str, float]]) -> float:
        """Return the loss from query -> document -> score: the mean over queries, or over pairs as the stage has it."""
        loss = find_loss(self._stage.loss)
        total = weights = 0.0
        for group in self.groups:
            row = torch.tensor([[scores[group.query_id][doc] for doc in group.doc_ids]])
            value = float(loss(row, torch.tensor([group.labels]), torch.ones(1, len(group), dtype=torch.bool)))
            weight = float(group.pairs) if self._stage.mean_over == "pairs" else 1.0
            total, weights = total + weight * value, weights + weight
        return total / (weights or 1.0)  # 0 where each pair of the teacher's is a tie
