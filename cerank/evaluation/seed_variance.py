"""Several seeds of a recipe: one system with a spread, never more queries.

Invariant: no figure here treats two seeds' scores of one query as two independent queries: a test at .05 would err in
.23 to .50 (tests/simulations/RESULTS.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError
from cerank.evaluation import diagnostics
from cerank.evaluation.significance import Estimate
from cerank.evaluation.systems import Measured, System

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Values = Sequence[Sequence[float]]  # (seeds, queries)


class TwoWay(msgspec.Struct, frozen=True, kw_only=True):
    """A difference between recipes: both its queries and its seeds are samples."""

    estimate: Estimate
    seeds_left: int
    seeds_right: int
    sd_queries: float  # of the per-query differences of seed means
    sd_seeds_left: float  # of the seeds' mean values; 0 for a system without seeds
    sd_seeds_right: float


def mean_of(label: str, members: Sequence[System]) -> System:
    """Return several seeds as one system: per query, the mean over them.

    Raises:
        UsageError: fewer than 2, or they were not measured on the same queries of the same qrels.
    """
    if len(members) < 2:
        raise UsageError(f"'{label}' needs at least 2 seeds to be a mean of seeds, not {len(members)}")
    first = members[0]
    means = []
    for at in first.measured:
        rows = [_same(first, at, member) for member in members]
        means.append(
            msgspec.structs.replace(
                at,
                values={measure: _means(measure, rows) for measure in at.values},
                missing=tuple(sorted({query for row in rows for query in row.missing})),
                unjudged=max(row.unjudged for row in rows),
                facts=diagnostics.merged([row.facts for row in rows]),
                ranking_sha256="",
            )
        )
    return System(label=label, measured=tuple(means), members=tuple(members))


def two_way(left: Values, right: Values, *, left_fixed: bool = False, right_fixed: bool = False) -> TwoWay:
    """Return the difference of two recipes with an error for both queries and seeds, in closed form.

    In d = mu + query + seed + noise the variance of the mean is sd_queries^2 / n plus, for each side, the variance of
    its seed means over its seeds; degrees of freedom by Satterthwaite (Biometrics Bulletin 2, 1946). The noise of a
    query under a seed is counted in both terms: the error is a little large, never small.

    Args:
        left: (seeds, queries) values; the same queries in the same order on both sides.
        left_fixed: that side has no seed; give one row.

    Raises:
        UsageError: a side has one seed only and is not fixed.
    """
    import numpy as np

    first, second = _array(left), _array(right)
    d = second.mean(axis=0) - first.mean(axis=0)
    n = d.size
    parts = [(float(d.var(ddof=1)) / n, n - 1)]
    spreads = []
    for name, side, is_fixed in (("baseline", first, left_fixed), ("other system", second, right_fixed)):
        seeds = side.shape[0]
        if seeds < 2 and not is_fixed:
            raise UsageError(
                f"a claim about recipes needs at least 2 seeds of each, and the {name} has 1",
                hint="train more seeds, or compare these checkpoints only",
            )
        variance = 0.0 if is_fixed else float(side.mean(axis=1).var(ddof=1))
        spreads.append(math.sqrt(variance))
        if not is_fixed:
            parts.append((variance / seeds, seeds - 1))
    total = sum(part for part, _ in parts)
    df = total**2 / sum(part**2 / own for part, own in parts) if total > 0 else n - 1
    return TwoWay(
        estimate=Estimate(difference=float(np.mean(d)), error=math.sqrt(total), df=df),
        seeds_left=first.shape[0],
        seeds_right=second.shape[0],
        sd_queries=float(d.std(ddof=1)),
        sd_seeds_left=spreads[0],
        sd_seeds_right=spreads[1],
    )


def _array(values: Values) -> NDArray[np.float64]:
    import numpy as np

    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _same(first: System, at: Measured, member: System) -> Measured:
    """Return the member's measurement of the same condition, qrels and queries."""
    entry_of_member = next((entry for entry in member.measured if entry.condition == at.condition), None)
    if entry_of_member is None or len(member.measured) != len(first.measured):
        raise UsageError(f"seeds '{first.label}' and '{member.label}' were not measured in the same conditions")
    if entry_of_member.qrels_sha256 != at.qrels_sha256 or entry_of_member.values.keys() != at.values.keys():
        raise UsageError(f"seeds '{first.label}' and '{member.label}' differ in qrels or measures on {at.condition}")
    if any(entry_of_member.values[measure].keys() != values.keys() for measure, values in at.values.items()):
        raise UsageError(f"seeds '{first.label}' and '{member.label}' differ in queries on {at.condition}")
    return entry_of_member


def _means(measure: str, rows: Sequence[Measured]) -> dict[str, float]:
    return {
        query: math.fsum(row.values[measure][query] for row in rows) / len(rows) for query in rows[0].values[measure]
    }
