"""Paired statistics over per-query values: what the difference is, how sure it is, how large for its spread.

The statistics shown by default; `secondary_tests` has the others.

Invariant: a difference is always right minus left, and nothing here returns NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOISE = 1e-12  # differences below this are rounding of the same value: sums of gains in another order


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """A paired comparison over n queries; `difference` is mean(right - left).

    Where every difference is the same non-zero value there is no spread to divide by: `t`, `effect` and the interval
    are then None, and p is that of the exact sign-flip test, 2^(1-n).
    """

    n: int
    mean_left: float
    mean_right: float
    difference: float
    sd: float  # of the per-query differences, n - 1 in the denominator
    confidence: float  # of the interval
    low: float | None
    high: float | None
    t: float | None
    df: int
    p: float  # two-sided paired t-test
    effect: float | None  # d_z: mean of the differences over their sd
    wins: int  # queries where right is larger
    ties: int
    losses: int


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A difference with its standard error and the degrees of freedom of that error: all a t-test needs."""

    difference: float
    error: float  # 0 where there is no spread, and so no evidence
    df: float

    def p(self) -> float:
        """Return two-sided p for no difference; 1 without spread, for then t is not defined."""
        from scipy.special import stdtr

        if self.error == 0:
            return 1.0
        return float(2 * stdtr(self.df, -abs(self.difference / self.error)))

    def p_equivalent(self, margin: float) -> float:
        """Run TOST (Schuirmann 1987): return the larger one-sided p against a difference of -margin and of +margin."""
        from scipy.special import stdtr

        nearest = margin - abs(self.difference)
        if self.error == 0:
            return 1.0
        return float(stdtr(self.df, -nearest / self.error))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the t interval at confidence 1 - `level`, low and high."""
        from scipy.special import stdtrit

        half = -float(stdtrit(self.df, level / 2)) * self.error
        return self.difference - half, self.difference + half


def differences(left: Sequence[float], right: Sequence[float]) -> NDArray[np.float64]:
    """Return right minus left, query by query, with rounding noise as exact zeros.

    Raises:
        UsageError: lengths differ, fewer than 2 queries, or a value that is not finite.
    """
    import numpy as np

    first, second = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise UsageError(f"cannot pair {counted(len(left), 'value')} with {len(right)}", hint="pair them by query id")
    if first.size < 2:
        raise UsageError(f"a paired test needs at least 2 queries, not {first.size}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UsageError("a per-query value is not a finite number")
    out = second - first
    out[np.abs(out) < NOISE] = 0.0
    return np.asarray(out, dtype=np.float64)


def paired(left: Sequence[float], right: Sequence[float], confidence: float = 0.95) -> Paired:
    """Run the paired t-test, with its interval, on the mean of right - left.

    All differences zero give p = 1, d_z = 0 and an interval without width; see `evaluate.exact` for what is made of it.

    Args:
        left: the baseline's values, one a query.
        right: the other system's values for the same queries in the same order.
        confidence: of the interval, in (0, 1).

    Raises:
        UsageError: the values cannot be paired, or there are fewer than 2.
    """
    import numpy as np

    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, not {confidence}")
    d = differences(left, right)
    n, df = d.size, d.size - 1
    mean, sd = float(d.mean()), float(d.std(ddof=1))
    if np.ptp(d) < NOISE:
        mean, sd = float(d[0]), 0.0
    has_spread = sd > 0
    estimate = Estimate(difference=mean, error=sd / math.sqrt(n), df=df)
    low, high = estimate.interval(1 - confidence) if has_spread or mean == 0 else (None, None)
    degenerate = 0.0 if mean == 0 else None
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    return Paired(
        n=n,
        mean_left=float(np.mean(left)),
        mean_right=float(np.mean(right)),
        difference=mean,
        sd=sd,
        confidence=confidence,
        low=low,
        high=high,
        t=mean / estimate.error if has_spread else degenerate,
        df=df,
        p=estimate.p() if has_spread or mean == 0 else min(1.0, 2.0 ** (1 - n)),
        effect=mean / sd if has_spread else degenerate,
        wins=wins,
        ties=n - wins - losses,
        losses=losses,
    )


def estimate_of(figures: Paired) -> Estimate:
    """Return the difference of paired figures with its error, for further intervals and tests."""
    error = figures.sd / math.sqrt(figures.n)
    return Estimate(difference=figures.difference, error=error, df=figures.df)


def holm(ps: Sequence[float]) -> list[float]:
    """Return Holm's step-down p-values (Scandinavian Journal of Statistics 6, 1979), in the order given."""
    from cerank.evaluation.multiple_testing import corrected

    return list(corrected(ps).ps)
