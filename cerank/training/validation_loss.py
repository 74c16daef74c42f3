"""Compute a stage's own loss on validation queries, beside the measures of its validations.

Invariant: the groups are sampled once, so that two validations differ in nothing but the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cerank.recipes.schema import VALIDATION_LOSS, Stage
from cerank.training.objective import Objective
from cerank.training.sampling.sampler import Sampler, SamplingStats


class ValidationLoss:
    """The loss over groups of validation queries, one group a query.

    Args:
        sampler: samples from the validation queries, one group a step.
        stage: the stage that names the loss, and whether it is averaged over queries or pairs.
    """

    def __init__(self, sampler: Sampler, stage: Stage) -> None:
        self._objective = Objective(stage)
        self.sampling: SamplingStats = sampler.sampling
        self.groups = tuple(sampler.groups(step)[0] for step in range(1, self.sampling.usable + 1))

    def with_group_candidates(self, candidates: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Return query -> documents to score: the candidates, then those of the query's group beside them."""
        to_score = {query: dict.fromkeys(docs) for query, docs in candidates.items()}
        for group in self.groups:
            to_score.setdefault(group.query_id, {}).update(dict.fromkeys(group.doc_ids))
        return {query: list(docs) for query, docs in to_score.items()}

    def losses(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return the weighted sum of the stage's losses as "loss", and each by its name where there are several.

        Args:
            scores: query -> document -> score. Each loss is the mean over queries, or over pairs as the stage has it,
                0 where each pair of the teacher's is a tie.
        """
        of_groups = [[scores[group.query_id][doc] for doc in group.doc_ids] for group in self.groups]
        values = self._objective.mean_over(self.groups, of_groups)
        parts = dict(zip(self._objective.names, values, strict=True)) if len(values) > 1 else {}
        return {VALIDATION_LOSS: self._objective.combined(values)} | parts
