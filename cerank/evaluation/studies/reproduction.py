"""How near a repeated experiment comes to the original: the measures of repro_eval (Breuer et al., SIGIR 2020).

Invariant: rank correlation, overlap, error and ratios are computed by that library, from values that cerank measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cerank.core.rankings import Ranking
from cerank.errors import MissingError, UsageError


class ReproductionMeasures(msgspec.Struct, frozen=True, kw_only=True):
    """How near the reproduced rankings of one system come to the original ones."""

    system: str
    kendall: float  # Kendall's tau over the union of both rankings, mean over queries
    overlap: float  # rank-biased overlap
    rmse: float  # of the values by query


class ReproducedEffect(msgspec.Struct, frozen=True, kw_only=True):
    """How near the gain of the advanced system over the baseline comes to the original one."""

    systems: tuple[ReproductionMeasures, ReproductionMeasures]  # baseline, advanced
    effect_ratio: float  # mean gain over the original one; 1 is the same
    relative_change: float  # the original relative gain less the reproduced one; 0 is the same


def reproduction(
    measure: str,
    original: tuple[Ranking, Ranking],
    reproduced: tuple[Ranking, Ranking],
    values: tuple[tuple[Mapping[str, float], Mapping[str, float]], tuple[Mapping[str, float], Mapping[str, float]]],
) -> ReproducedEffect:
    """Return repro_eval's measures of a repeated experiment on the same test collection.

    Args:
        measure: what the values are of.
        original: the rankings of baseline and advanced system.
        reproduced: the same, repeated.
        values: of the original pair and of the reproduced one, by query.

    Raises:
        MissingError: repro_eval is not installed.
        UsageError: the original experiment has no gain to compare with, or the rankings have no query in common.
    """
    try:
        from repro_eval.measure.document_order import KTU, RBO
        from repro_eval.measure.effectiveness import RMSE
        from repro_eval.measure.overall_effects import DRI, ER
    except ImportError as error:
        raise MissingError(
            "measures of reproduction need repro_eval", hint="pip install 'cerank[reproduction]'"
        ) from error

    scores = [[{query: {measure: value} for query, value in side.items()} for side in pair] for pair in values]
    (base, advanced), (base_again, advanced_again) = scores
    if sum(values[0][1].values()) == sum(values[0][0].values()):
        raise UsageError("the original systems score the same: there is no gain to be reproduced")
    systems = []
    for place, name in enumerate(("baseline", "advanced")):
        shared = [query for query in original[place] if query in reproduced[place]]
        if not shared:
            raise UsageError(f"the two rankings of the {name} system have no query in common")
        first, second = (
            {query: {doc: -float(rank) for rank, doc in enumerate(rankings[place][query])} for query in shared}
            for rankings in (original, reproduced)
        )
        depth = max(len(docs) for docs in first.values())
        systems.append(
            ReproductionMeasures(
                system=name,
                kendall=float(KTU(first, second)),
                overlap=float(RBO(first, second, p=0.95, depth=depth, pbar=False, per_topic=False)),
                rmse=float(RMSE(scores[0][place], scores[1][place])[measure]),
            )
        )
    return ReproducedEffect(
        systems=(systems[0], systems[1]),
        effect_ratio=float(ER(advanced, base, advanced_again, base_again)[measure]),
        relative_change=float(DRI(advanced, base, advanced_again, base_again)[measure]),
    )
