"""How many queries a new test set needs: Sakai's topic set size design (Information Retrieval Journal 19, 2016).

Pilot rankings on shared queries give the variance that is left after systems and queries are taken out (two-way
analysis of variance without replication). From it follow the queries that tell the best of several systems from the
worst, and those that make the interval of one difference as narrow as wanted.

Invariant: a pilot's variance is itself uncertain, so each number of queries comes with those of the variance's ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.power import fewest


class PilotVariance(msgspec.Struct, frozen=True, kw_only=True):
    """The variance of a system's score on a query, beyond what system and query explain."""

    systems: int
    queries: int
    variance: float
    df: int
    low: float  # 95 % interval of the variance, where scores are normal
    high: float


class NeededQueries(msgspec.Struct, frozen=True, kw_only=True):
    """The queries a test set needs by the variance of the pilot, and by both ends of its interval."""

    queries: int | None  # None above 100 million
    low: int | None
    high: int | None


def pilot_variance(scores: Sequence[Sequence[float]]) -> PilotVariance:
    """Return the residual variance of scores, one row a system, one column a query.

    Raises:
        UsageError: fewer than two systems or queries, or systems that differ by the same on every query.
    """
    import numpy as np
    from scipy.special import chdtri

    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise UsageError("a pilot needs at least two rankings of two queries")
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    df = (values.shape[0] - 1) * (values.shape[1] - 1)
    total = float((rest**2).sum())
    if total < 1e-12:
        raise UsageError("the pilot's rankings differ by the same on every query: there is no spread to plan by")
    return PilotVariance(
        systems=values.shape[0],
        queries=values.shape[1],
        variance=total / df,
        df=df,
        low=total / float(chdtri(df, 0.025)),
        high=total / float(chdtri(df, 0.975)),
    )


def power_of_systems(
    queries: int, systems: int, difference: float, variance: float, alpha: float = 0.05, *, is_blocked: bool = True
) -> float:
    """Return the chance that an analysis of variance sees that some of several systems differ.

    Args:
        queries: of the test set.
        systems: compared on them.
        difference: between the best and the worst; the others lie amid both, where they are hardest to see.
        variance: within systems; after queries are taken out, if `is_blocked`.
        alpha: of the F-test.
        is_blocked: all systems answer the same queries (two-way); else as if each had its own (one-way).
    """
    from scipy.special import fdtri, ncfdtr

    first = systems - 1
    second = first * (queries - 1) if is_blocked else systems * (queries - 1)
    away = queries * difference**2 / (2 * variance)
    return float(1 - ncfdtr(first, second, away, fdtri(first, second, 1 - alpha)))


def queries_for_systems(
    systems: int,
    difference: float,
    variance: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    is_blocked: bool = True,
) -> int | None:
    """Return the fewest queries with this power; None above 100 million."""
    _refuse(systems=systems, difference=difference, variance=variance)
    return fewest(lambda n: power_of_systems(n, systems, difference, variance, alpha, is_blocked=is_blocked) >= power)


def half_width(queries: int, variance: float, alpha: float = 0.05) -> float:
    """Return the expected half width of the interval of a difference of two systems; its variance is twice theirs."""
    from scipy.special import gammaln, stdtrit

    df = queries - 1
    shrunk = math.exp(float(gammaln(queries / 2) - gammaln(df / 2))) * math.sqrt(2 / df)  # of the estimated sd
    return -float(stdtrit(df, alpha / 2)) * shrunk * math.sqrt(2 * variance / queries)


def queries_for_width(width: float, variance: float, alpha: float = 0.05) -> int | None:
    """Return the fewest queries whose interval of a difference is expected to reach no further than ±`width`."""
    _refuse(difference=width, variance=variance)
    return fewest(lambda n: half_width(n, variance, alpha) <= width)


def needed(count: Callable[[float], int | None], pilot: PilotVariance) -> NeededQueries:
    """Return the queries by a pilot's variance and by both ends of its interval."""
    return NeededQueries(queries=count(pilot.variance), low=count(pilot.low), high=count(pilot.high))


def _refuse(*, systems: int = 2, difference: float, variance: float) -> None:
    if systems < 2:
        raise UsageError(f"a test set tells at least 2 systems apart, not {systems}")
    if not 0 < difference < math.inf or not 0 < variance < math.inf:
        raise UsageError("difference and variance are numbers above 0")
