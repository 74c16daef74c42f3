"""What a number of queries can show, before any GPU day is spent: exact power of the paired t-test and of TOST.

Invariant: every figure is exact under normal differences (no normal approximation of t), and never NaN.

Power is the mean of a normal probability over the distribution of the estimated sd; scipy's noncentral t, the other
way to the same number, gives NaN for a large noncentrality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POWER = 0.8  # the field's convention: four of five real differences are seen
MOST_QUERIES = 10**8  # beyond this "more queries" is no advice


class PowerEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What `queries` queries can show at `power`; the units of sd, difference and margin are the measure's."""

    queries: int
    sd: float  # of per-query differences
    alpha: float  # of each test, after division by `tests`
    tests: int  # how many are corrected together (Bonferroni: what Holm asks of the first)
    power: float
    smallest_difference: float  # seen with this power, two-sided
    smallest_margin: float  # equivalence shown with this power where the true difference is 0
    difference: float | None = None
    power_for_difference: float | None = None
    queries_for_difference: int | None = None
    margin: float | None = None
    power_for_margin: float | None = None
    queries_for_margin: int | None = None


def power_of_difference(n: int, difference: float, sd: float, alpha: float = 0.05) -> float:
    """Return the chance that n queries show a true `difference`, by a two-sided paired t-test at `alpha`."""
    _refuse(n, sd, alpha)
    return _power_t(n - 1, abs(difference) * math.sqrt(n) / sd, alpha)


def power_of_equivalence(n: int, margin: float, sd: float, true: float = 0.0, alpha: float = 0.05) -> float:
    """Return the chance that n queries show equivalence within ±`margin` if the difference is `true`."""
    _refuse(n, sd, alpha)
    error = sd / math.sqrt(n)
    return _power_tost(n - 1, margin / error, true / error, alpha)


def smallest_difference(n: int, sd: float, power: float = POWER, alpha: float = 0.05) -> float:
    """Return the true difference that n queries show with `power`; the minimal detectable effect."""
    _refuse(n, sd, alpha, power)
    return detectable(sd / math.sqrt(n), n - 1, power, alpha)


def smallest_margin(n: int, sd: float, power: float = POWER, alpha: float = 0.05) -> float:
    """Return the margin within which n queries show equivalence with `power`, where the true difference is 0."""
    _refuse(n, sd, alpha, power)
    return _root(lambda margin: _power_tost(n - 1, margin, 0.0, alpha), power) * sd / math.sqrt(n)


def detectable(error: float, df: float, power: float = POWER, alpha: float = 0.05) -> float:
    """Return the true difference that an estimate with this standard error and these degrees of freedom shows."""
    return _root(lambda nc: _power_t(df, nc, alpha), power) * error


def queries_for_difference(difference: float, sd: float, power: float = POWER, alpha: float = 0.05) -> int | None:
    """Return the fewest queries that show a true `difference` with `power`; None above 100 million, or for 0."""
    _refuse(2, sd, alpha, power)
    return fewest(lambda n: power_of_difference(n, difference, sd, alpha) >= power) if difference else None


def queries_for_margin(margin: float, sd: float, power: float = POWER, alpha: float = 0.05) -> int | None:
    """Return the fewest queries that show equivalence within ±`margin` with `power` where the true difference is 0."""
    _refuse(2, sd, alpha, power)
    return fewest(lambda n: power_of_equivalence(n, margin, sd, 0.0, alpha) >= power) if margin > 0 else None


def power_estimate(
    queries: int,
    sd: float,
    *,
    difference: float | None = None,
    margin: float | None = None,
    power: float = POWER,
    alpha: float = 0.05,
    tests: int = 1,
) -> PowerEstimate:
    """Return what so many queries with such a spread can show: all that `cerank power` prints.

    Args:
        queries: at least 2.
        sd: of per-query differences; .10 nDCG@10 between two neural re-rankers, .19 between one and BM25 (DL-HARD).
        difference: a true difference one hopes to see.
        margin: within which one hopes to show equivalence.
        tests: size of the family; each test is given alpha / tests.

    Raises:
        UsageError: a number out of its range.
    """
    if tests < 1:
        raise UsageError(f"a family has at least 1 test, not {tests}", code="family-out-of-range")
    _refuse(queries, sd, alpha, power)
    level = alpha / tests
    estimate = PowerEstimate(
        queries=queries,
        sd=sd,
        alpha=level,
        tests=tests,
        power=power,
        smallest_difference=smallest_difference(queries, sd, power, level),
        smallest_margin=smallest_margin(queries, sd, power, level),
    )
    if difference is not None:
        estimate = msgspec.structs.replace(
            estimate,
            difference=difference,
            power_for_difference=power_of_difference(queries, difference, sd, level),
            queries_for_difference=queries_for_difference(difference, sd, power, level),
        )
    if margin is not None:
        if margin <= 0:
            raise UsageError(f"a margin is above 0, not {margin}", code="margin-out-of-range")
        estimate = msgspec.structs.replace(
            estimate,
            margin=margin,
            power_for_margin=power_of_equivalence(queries, margin, sd, 0.0, level),
            queries_for_margin=queries_for_margin(margin, sd, power, level),
        )
    return estimate


def spread_of(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the sd of given per-query differences, to plan with.

    Raises:
        UsageError: they cannot be paired, or have no spread.
    """
    from cerank.evaluation.significance import paired

    sd = paired(left, right).sd
    if sd == 0:
        raise UsageError(
            "the two score the same (or differ by the same) on every query: there is no spread to plan by",
            code="no-spread",
        )
    return sd


def _refuse(n: int, sd: float, alpha: float, power: float = POWER) -> None:
    if n < 2:
        raise UsageError(f"a paired test needs at least 2 queries, not {n}", code="too-few-queries")
    if not (math.isfinite(sd) and sd > 0):
        raise UsageError(f"the sd of the differences is a number above 0, not {sd}", code="spread-out-of-range")
    if not 0 < alpha < 0.5:
        raise UsageError(f"alpha lies between 0 and 0.5, not at {alpha}", code="alpha-out-of-range")
    if not alpha < power < 1:
        raise UsageError(f"power lies between alpha and 1, not at {power}", code="power-out-of-range")


def _power_t(df: float, nc: float, alpha: float) -> float:
    """Return P(|T| > critical value) for the noncentral t with noncentrality `nc`."""
    from scipy.special import ndtr, stdtrit

    spread, weight = _spreads(df)
    critical = -stdtrit(df, alpha / 2) * spread
    return float(weight @ (ndtr(nc - critical) + ndtr(-nc - critical)))


def t_below(t: float, df: float, nc: float) -> float:
    """Return P(T <= t) for the noncentral t, without the NaN that scipy's gives for a large noncentrality."""
    from scipy.special import ndtr

    spread, weight = _spreads(df)
    return float(weight @ ndtr(t * spread - nc))


def _power_tost(df: float, margin: float, true: float, alpha: float) -> float:
    """Return P(both one-sided tests reject), sizes in standard errors (Owen, Biometrika 52, 1965)."""
    from scipy.special import ndtr, stdtrit

    limit = -float(stdtrit(df, alpha))
    spread, weight = _spreads(df, margin / limit)  # with a larger sd the two tests cannot both reject
    critical = limit * spread
    both = ndtr(margin - true - critical) - ndtr(-margin - true + critical)
    return float(weight @ both.clip(min=0.0))


@lru_cache(maxsize=256)  # a search for a root asks for the same one dozens of times
def _spreads(df: float, most: float = math.inf) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights (sum 1) of estimated over true sd, sqrt(chi2(df) / df), up to `most`."""
    import numpy as np
    from scipy.special import gammainccinv, gammaincinv

    low, high = (math.sqrt(2 * float(inverse(df / 2, 1e-16)) / df) for inverse in (gammaincinv, gammainccinv))

    def mass(top: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        nodes, weights = _legendre()
        s = low + (top - low) * (nodes + 1) / 2
        return s, (top - low) * weights * np.exp((df - 1) * np.log(s) - df * (s * s - 1) / 2)

    s, weights = mass(min(max(most, low), high))
    return s, np.asarray(weights / mass(high)[1].sum(), dtype=np.float64)


@lru_cache(maxsize=1)
def _legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(256)
    return nodes, weights


def _root(power_at: Callable[[float], float], power: float) -> float:
    """Return where a growing function reaches `power`, to 1e-12 of itself."""
    low, high = 0.0, 8.0
    while power_at(high) < power:
        low, high = high, high * 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if power_at(middle) < power else (low, middle)
    return high


def fewest(is_enough: Callable[[int], bool]) -> int | None:
    """Return the smallest n of at least 2 that is enough, where more is never less."""
    low, high = 1, 2
    while not is_enough(high):
        low, high = high, high * 2
        if high > MOST_QUERIES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
