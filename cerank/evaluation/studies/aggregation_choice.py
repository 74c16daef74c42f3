"""Choose on validation how the scores of passages become the score of a document; all from the same passage scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from cerank.core.passage_scores import AGGREGATIONS, Aggregation, document_scores
from cerank.core.rankings import Ranking, ordered
from cerank.evaluation.measures import check, per_query


class AggregationChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The aggregation of a system, and what each of them gave on validation; stored in the run's folder."""

    chosen: Aggregation
    measure: str
    means: dict[str, float]  # aggregation -> mean of the measure over the validation queries
    queries: int  # validation queries with candidates

    def __str__(self) -> str:
        others = ", ".join(f"{name} {mean:.4f}" for name, mean in self.means.items() if name != self.chosen)
        return (
            f"{self.chosen} was chosen on {self.queries} validation queries: {self.measure} "
            f"{self.means[self.chosen]:.4f}; {others} (no test)"
        )


def choose_aggregation(
    passages: Mapping[str, Mapping[str, float]],
    candidates: Ranking,
    qrels: Mapping[str, Mapping[str, int]],
    measure: str,
    top: int,
) -> AggregationChoice:
    """Return the aggregation with the best mean; of equal ones the first in the order in which they are documented.

    Args:
        passages: query -> passage -> score, for the validation queries.
        candidates: their candidates; documents with equal scores keep this order.
        qrels: the judgments of the validation queries; one without candidates counts 0.
        measure: what decides; larger is better.
        top: how many passages "TopMeanP" takes.
    """
    names: Sequence[str] = check([measure], qrels, "passages.aggregation")
    means: dict[str, float] = {}
    for aggregation in AGGREGATIONS:
        ranking = ordered(document_scores(passages, aggregation, top), candidates)
        values = per_query(names, qrels, ranking)[names[0]]
        means[aggregation] = math.fsum(values.values()) / max(1, len(values))
    chosen = max(AGGREGATIONS, key=lambda name: means[name])  # max returns the first of equal ones
    return AggregationChoice(chosen=chosen, measure=names[0], means=means, queries=len(passages))
