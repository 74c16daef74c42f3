"""A stage's own loss on queries it does not learn from, beside the measures of its validations.

Invariant: the groups are drawn once, so that two validations differ in nothing but the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from cerank.recipes.schema import Stage
from cerank.training.losses import LOSSES
from cerank.training.sampler import Sampler, Supply


class HeldOut:
    """Groups of validation queries, one each.

    Args:
        sampler: of the validation queries, one group a step.
        stage: whose loss it is, and how it is averaged.
    """

    def __init__(self, sampler: Sampler, stage: Stage) -> None:
        self._stage = stage
        self.supply: Supply = sampler.supply
        self.groups = tuple(sampler.groups(step)[0] for step in range(1, self.supply.usable + 1))

    def with_groups(self, wanted: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Query -> documents to score: those wanted, and after them those of its group that are not among them."""
        asked = {query: dict.fromkeys(docs) for query, docs in wanted.items()}
        for group in self.groups:
            asked.setdefault(group.query_id, {}).update(dict.fromkeys(group.doc_ids))
        return {query: list(docs) for query, docs in asked.items()}

    def loss(self, scores: Mapping[str, Mapping[str, float]]) -> float:
        """The loss by query -> document -> score: the mean over queries, or over pairs as the stage has it."""
        loss = LOSSES[self._stage.loss]
        total = weights = 0.0
        for group in self.groups:
            row = torch.tensor([[scores[group.query_id][doc] for doc in group.doc_ids]])
            value = float(loss(row, torch.tensor([group.labels]), torch.ones(1, len(group), dtype=torch.bool)))
            weight = float(group.pairs) if self._stage.mean_over == "pairs" else 1.0
            total, weights = total + weight * value, weights + weight
        return total / weights
