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

MIN_PAIRS = 3  # seeds, below which their spread has too few degrees of freedom for pairs to help
Values = Sequence[Sequence[float]]  # (seeds, queries)


class TwoWay(msgspec.Struct, frozen=True, kw_only=True):
    """A difference between recipes: both its queries and its seeds are samples."""

    estimate: Estimate
    seeds_left: int
    seeds_right: int
    sd_queries: float  # of the per-query differences of seed means
    sd_seeds_left: float  # of the seeds' mean values; 0 for a system without seeds
    sd_seeds_right: float
    is_paired: bool = False  # the two sides' seeds count as pairs: crossed with the queries
    seeds: tuple[int, ...] = ()  # those that pair


def mean_of(label: str, members: Sequence[System]) -> System:
    """Return several seeds as one system: per query, the mean over them.

    Raises:
        UsageError: fewer than 2, or they were not measured on the same queries of the same qrels.
    """
    if len(members) < 2:
        raise UsageError(
            f"'{label}' needs at least 2 seeds to be a mean of seeds, not {len(members)}", code="too-few-seeds"
        )
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
                code="too-few-seeds",
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


def crossed(left: Values, right: Values, seeds: Sequence[int] = ()) -> TwoWay:
    """Return the difference of two recipes whose seeds are pairs, with an error for both queries and seeds.

    With d = right - left of each seed and query, in d = mu + query + seed + noise: a two-way analysis of variance
    without repetition. The variance of the mean is (MSq + MSs - MSe) / (n k), at least its parts alone, with degrees of
    freedom by Satterthwaite (Searle, Casella and McCulloch 1992; Bodoff and Li, SIGIR 2007). What the two sides of a
    seed have in common cancels, and the noise is counted once.

    Args:
        left: (seeds, queries) values; the same seeds and queries in the same order on both sides.
        right: the same.
        seeds: their numbers, for those who read the result.

    Raises:
        UsageError: the sides have different seeds, or fewer than 3, which leave nothing to estimate their spread by.
    """
    first, second = _array(left), _array(right)
    k, n = first.shape
    if first.shape != second.shape or k < MIN_PAIRS:
        raise UsageError(f"seeds count as pairs from {MIN_PAIRS} on that both sides share, not with {k}")
    squares = _mean_squares(second - first)
    error, df = _error_of(squares, n, k)
    return TwoWay(
        estimate=Estimate(difference=float((second - first).mean()), error=error, df=df),
        seeds_left=k,
        seeds_right=k,
        sd_queries=float((second - first).mean(axis=0).std(ddof=1)),
        sd_seeds_left=float(first.mean(axis=1).std(ddof=1)),
        sd_seeds_right=float(second.mean(axis=1).std(ddof=1)),
        is_paired=True,
        seeds=tuple(seeds),
    )


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the spread of paired differences comes from where: variances of one query, one seed, and the rest."""

    queries: float
    seeds: float
    noise: float  # of a query under a seed


def components(left: Values, right: Values) -> Components:
    """Return the variance components of paired differences, by their mean squares; none is below 0.

    Args:
        left: (seeds, queries) values, as for `crossed`.
        right: the same.
    """
    d = _array(right) - _array(left)
    k, n = d.shape
    ms_query, ms_seed, ms_noise = _mean_squares(d)
    return Components(
        queries=max(0.0, (ms_query - ms_noise) / k), seeds=max(0.0, (ms_seed - ms_noise) / n), noise=ms_noise
    )


def planned_error(spread: Components, queries: int, seeds: int) -> tuple[float, float]:
    """Return the standard error of a mean over so many queries and paired seeds, and its degrees of freedom.

    A decision study of generalizability theory (Brennan 2001; Urbano, Marrero and Martin, SIGIR 2013).
    """
    squares = spread.noise + seeds * spread.queries, spread.noise + queries * spread.seeds, spread.noise
    return _error_of(squares, queries, seeds)


def _mean_squares(d: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean squares of queries, of seeds and of the rest of (seeds, queries) differences."""
    k, n = d.shape
    mean, by_seed, by_query = d.mean(), d.mean(axis=1), d.mean(axis=0)
    ms_query = k * float(((by_query - mean) ** 2).sum()) / (n - 1)
    ms_seed = n * float(((by_seed - mean) ** 2).sum()) / (k - 1)
    rest = d - by_seed[:, None] - by_query[None, :] + mean
    return ms_query, ms_seed, float((rest**2).sum()) / ((n - 1) * (k - 1))


def _error_of(squares: tuple[float, float, float], n: int, k: int) -> tuple[float, float]:
    """Return the standard error of the mean over n queries and k seeds, with Satterthwaite's degrees of freedom."""
    ms_query, ms_seed, ms_noise = squares
    total = ms_query + ms_seed - ms_noise
    largest, df = max((ms_query, float(n - 1)), (ms_seed, float(k - 1)))
    if total >= largest and total > 0:
        df = total**2 / (ms_query**2 / (n - 1) + ms_seed**2 / (k - 1) + ms_noise**2 / ((n - 1) * (k - 1)))
    return math.sqrt(max(total, largest) / (n * k)), df


def pairs_of(left: System, right: System) -> tuple[tuple[System, System], ...]:
    """Return the members of both sides that have a seed in common, as pairs; empty where seeds are no pairs.

    They are where both sides have the same seeds, at least three, and each seed decides something that both sides
    share: the order of the same data, or a whole stage. The rule looks at no score, so it holds before any is known.
    """
    others = {member.seed: member for member in right.members}
    first = {member.seed: member for member in left.members}
    is_same = len(first) >= MIN_PAIRS and None not in first and first.keys() == others.keys()
    if not is_same:
        return ()
    pairs = tuple((first[seed], others[seed]) for seed in sorted(seed for seed in first if seed is not None))
    return pairs if all(set(member.shares) & set(other.shares) for member, other in pairs) else ()


def _array(values: Values) -> NDArray[np.float64]:
    import numpy as np

    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _same(first: System, at: Measured, member: System) -> Measured:
    """Return the member's measurement of the same condition, qrels and queries."""
    entry_of_member = next((entry for entry in member.measured if entry.condition == at.condition), None)
    if entry_of_member is None or len(member.measured) != len(first.measured):
        raise UsageError(
            f"seeds '{first.label}' and '{member.label}' were not measured in the same conditions", code="seeds-differ"
        )
    if entry_of_member.qrels_sha256 != at.qrels_sha256 or entry_of_member.values.keys() != at.values.keys():
        raise UsageError(
            f"seeds '{first.label}' and '{member.label}' differ in qrels or measures on {at.condition}",
            code="seeds-differ",
        )
    if any(entry_of_member.values[measure].keys() != values.keys() for measure, values in at.values.items()):
        raise UsageError(
            f"seeds '{first.label}' and '{member.label}' differ in queries on {at.condition}", code="seeds-differ"
        )
    return entry_of_member


def _means(measure: str, rows: Sequence[Measured]) -> dict[str, float]:
    return {
        query: math.fsum(row.values[measure][query] for row in rows) / len(rows) for query in rows[0].values[measure]
    }
