"""The tests of one comparison: the paired t-test, and exact sign flips where few queries differ or all by the same.

The statistics shown by default; `secondary_tests` has the others.

Invariant: a difference is always right minus left, and nothing here returns NaN. For every test, p and interval are one
test turned round: the interval at `level` holds the differences that are not rejected at it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import msgspec

from cerank.errors import UsageError
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEW = 10  # queries that differ: for fewer equal gains among many queries, a t-test's p is 1.5 to 30 times too small
UNSEEN = 0.25  # of the measure's range: a rare difference as large as this may have gone unseen (tests/simulations)
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


class Inference(Protocol):
    """What a verdict is made of: a t-test's estimate, an exact sign-flip test, or the stricter of both."""

    @property
    def difference(self) -> float:
        """Return the mean of right minus left."""
        ...

    @property
    def df(self) -> float:
        """Return the degrees of freedom."""
        ...

    def p(self) -> float:
        """Return the two-sided p for no difference."""
        ...

    def p_above(self, value: float) -> float:
        """Return the one-sided p for a mean difference above `value`."""
        ...

    def p_below(self, value: float) -> float:
        """Return the one-sided p for a mean difference below `value`."""
        ...

    def interval(self, level: float) -> tuple[float, float]:
        """Return the low and high end at confidence 1 - `level`."""
        ...


def p_equivalent(test: Inference, margin: float) -> float:
    """Run TOST (Schuirmann 1987): return the larger one-sided p against a difference of -margin and of +margin.

    Where fewer than `FEW` queries differ, it must hold with one more query that differs, too: see `with_unseen`.
    """
    return max(max(each.p_above(-margin), each.p_below(margin)) for each in (test, *with_unseen(test)))


def p_not_worse(test: Inference, margin: float) -> float:
    """Return the one-sided p for a difference above -margin; where few queries differ, as `p_equivalent`."""
    return max(each.p_above(-margin) for each in (test, *with_unseen(test)))


def with_unseen(test: Inference) -> tuple[Inference, ...]:
    """Return a test of few differing queries with one query more that differs much, once each way; () for any other.

    Flipped signs say how a mean of queries like these scatters, and nothing of differences that are rare and large: a
    true mean of .02 that comes from a gain of .2 on every tenth query shows in none of 20 queries in .12 of the
    draws. What must hold with one such query more errs in about .05 at most (`tests/simulations/RESULTS.md`). Its
    difference is a quarter of the measure's range, or the largest that was seen.
    """
    if isinstance(test, Stricter):
        return tuple(Stricter(test.first, more) for more in _with_one_more(test.second))
    if isinstance(test, EstimateOfFew):
        return test.with_one_more
    return _with_one_more(test) if isinstance(test, SignFlips) else ()


def unseen_of(test: Inference) -> float | None:
    """Return how much the query differs that `with_unseen` adds; None for a test of many differing queries."""
    if not with_unseen(test):
        return None
    flips = test.second if isinstance(test, Stricter) else test
    return flips.unseen if isinstance(flips, SignFlips | EstimateOfFew) else None


def _with_one_more(flips: SignFlips) -> tuple[SignFlips, ...]:
    if len(flips.values) >= FEW:
        return ()
    sizes = (sign * flips.unseen for sign in (-1.0, 1.0))
    return tuple(msgspec.structs.replace(flips, values=(*flips.values, size), n=flips.n + 1) for size in sizes)


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

    def p_above(self, value: float) -> float:
        """Return the one-sided p for a difference above `value`; 1 without spread."""
        from scipy.special import stdtr

        return 1.0 if self.error == 0 else float(stdtr(self.df, (value - self.difference) / self.error))

    def p_below(self, value: float) -> float:
        """Return the one-sided p for a difference below `value`; 1 without spread."""
        from scipy.special import stdtr

        return 1.0 if self.error == 0 else float(stdtr(self.df, (self.difference - value) / self.error))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the t interval at confidence 1 - `level`, low and high."""
        from scipy.special import stdtrit

        half = -float(stdtrit(self.df, level / 2)) * self.error
        return self.difference - half, self.difference + half


class EstimateOfFew(Estimate, frozen=True, kw_only=True):
    """An estimate that rests, in part, on queries of which few differ and of which only a summary is known."""

    unseen: float  # see `with_unseen`
    with_one_more: tuple[Estimate, Estimate]  # the estimate with such a query more, once each way


class SignFlips(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The exact test of differences of which few are not 0, or which are all the same.

    Under the null hypothesis that the mean difference is `mu`, each query's difference from `mu` is as likely to be of
    either sign (Fisher 1935; Hartigan, JASA 64, 1969). All sign patterns are counted, none is drawn.
    """

    values: tuple[float, ...]  # the differences that are not 0: at most FEW, or all equal
    n: int  # queries
    least: float  # the difference of means that the measure allows, at least and at most
    most: float

    @property
    def difference(self) -> float:
        """Return the mean difference."""
        return math.fsum(self.values) / self.n

    @property
    def df(self) -> float:
        """Return the degrees of freedom of a t-test of as many queries."""
        return self.n - 1

    @property
    def unseen(self) -> float:
        """Return how much a query may differ that was not drawn: see `with_unseen`."""
        return max([UNSEEN * (self.most - self.least), *(abs(value) for value in self.values)])

    @property
    def smallest(self) -> float:
        """Return the smallest two-sided p that so many differing queries can have."""
        return min(1.0, 2.0 ** (1 - len(self.values)))

    def p(self) -> float:
        """Return two-sided p for no difference."""
        return min(1.0, 2 * min(self.p_above(0.0), self.p_below(0.0)))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the differences that the tests do not reject at `level`, low and high."""
        low = _first(lambda mu: self.p_above(mu) > level / 2, self.least, self.most)
        high = -_first(lambda mu: self.p_below(-mu) > level / 2, -self.most, -self.least)
        return low + 0.0, high + 0.0  # no -0.0, which would be read as an end below 0

    def p_above(self, value: float) -> float:
        """Return p for a larger mean: the share of sign patterns that sum to the observed value or more."""
        return self._share(value, 1.0)

    def p_below(self, value: float) -> float:
        """Return p for a mean below `value`: `p_above` with everything mirrored."""
        return self._share(-value, -1.0)

    def _share(self, mu: float, sign: float) -> float:
        """Return the share of patterns whose changed differences (times `sign`) sum to at most `mu` each."""
        import numpy as np
        from scipy.special import bdtr

        sizes, sums, weights = self._subsets
        zeros = self.n - len(self.values)
        tiny = 1e-9 * (abs(mu) * self.n + float(np.abs(sums).max(initial=0.0)))
        room = sign * sums - mu * sizes  # at most mu times the zeros among those that change sign
        if mu == 0:
            return float(weights @ (room <= tiny))
        bound = (room - tiny) / mu
        if mu > 0:  # at least `bound` zeros change sign
            below = np.where(bound > 0, bdtr(np.clip(np.ceil(bound) - 1, 0, zeros), zeros, 0.5), 0.0)
            return float(weights @ np.where(bound > zeros, 0.0, 1 - below))
        most = np.floor(bound)  # at most so many
        return float(weights @ np.where(most < 0, 0.0, bdtr(np.clip(most, 0, zeros), zeros, 0.5)))

    @cached_property
    def _subsets(self) -> tuple[Floats, Floats, Floats]:
        """Return size, sum and share of every set of differing queries that may change sign."""
        import numpy as np
        from scipy.special import comb

        k = len(self.values)
        if k > FEW:  # all equal: a set is known by its size
            sizes = np.arange(k + 1, dtype=np.float64)
            return sizes, sizes * self.values[0], comb(k, sizes) * 0.5**k
        members = (np.arange(2**k)[:, None] >> np.arange(k)) & 1
        sums = np.asarray(members @ np.asarray(self.values), dtype=np.float64)
        return members.sum(axis=1).astype(np.float64), sums, np.full(2**k, 0.5**k)


class Stricter(msgspec.Struct, frozen=True):
    """Two tests of one difference, where only what both show counts."""

    first: Estimate
    second: SignFlips

    @property
    def difference(self) -> float:
        """Return the mean difference."""
        return self.first.difference

    @property
    def df(self) -> float:
        """Return the degrees of freedom of the first test."""
        return self.first.df

    def p(self) -> float:
        """Return the larger p for no difference."""
        return max(self.first.p(), self.second.p())

    def p_above(self, value: float) -> float:
        """Return the larger p for a difference above `value`."""
        return max(self.first.p_above(value), self.second.p_above(value))

    def p_below(self, value: float) -> float:
        """Return the larger p for a difference below `value`."""
        return max(self.first.p_below(value), self.second.p_below(value))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the differences that the tests do not reject at `level`, low and high."""
        (low, high), (other_low, other_high) = self.first.interval(level), self.second.interval(level)
        return min(low, other_low), max(high, other_high)


def needs_exact_test(differing: int, sd: float) -> bool:
    """Return whether the exact test is to be used in place of the t-test."""
    return differing < FEW or sd == 0


def can_show_nothing(figures: Paired, alpha: float) -> bool:
    """Return whether so few queries differ that no signs of their differences give an exact p of at most `alpha`.

    The interval of such a row is as narrow as those few differences are small; it says nothing of how precisely the
    mean is known.

    >>> [can_show_nothing(paired([0.5] * 30, [0.6] * count + [0.5] * (30 - count)), 0.05) for count in (1, 5, 6)]
    [True, True, False]
    """
    differing = figures.wins + figures.losses
    return differing < FEW and 2.0 ** (1 - differing) > alpha


def inference_of(
    figures: Paired, values: tuple[Sequence[float], Sequence[float]], limits: tuple[float, float] | None
) -> Estimate | SignFlips:
    """Return the test of a paired comparison: the t-test, or exact sign flips where few queries differ.

    Args:
        figures: of the values.
        values: of both sides, in the same order.
        limits: the smallest and the largest that a value can be; None takes what was seen.
    """
    if not needs_exact_test(figures.wins + figures.losses, figures.sd):
        return estimate_of(figures)
    least, most = limits or (min(map(min, values)), max(map(max, values)))
    changed = tuple(gain for gain in differences(*values).tolist() if gain)
    return SignFlips(values=changed, n=figures.n, least=least - figures.mean_left, most=most - figures.mean_left)


def _first(holds: Callable[[float], bool], least: float, most: float) -> float:
    """Return where a condition that turns true once, from `least` to `most`, does so; 0 is returned exactly."""
    if holds(least):
        return least
    low, high = (least, 0.0) if least < 0 and holds(0.0) else (max(least, 0.0), most)
    for _ in range(200):
        middle = (low + high) / 2
        if high - low <= 1e-12 or middle in {low, high}:
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return 0.0 if -1e-8 < high <= 0 else high  # sums that are 0 but for rounding


def differences(left: Sequence[float], right: Sequence[float]) -> NDArray[np.float64]:
    """Return right minus left, query by query, with rounding noise as exact zeros.

    Raises:
        UsageError: lengths differ, fewer than 2 queries, or a value that is not finite.
    """
    import numpy as np

    first, second = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise UsageError(
            f"cannot pair {counted(len(left), 'value')} with {len(right)}",
            hint="pair them by query id",
            code="values-unpaired",
        )
    if first.size < 2:
        raise UsageError(f"a paired test needs at least 2 queries, not {first.size}", code="too-few-queries")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UsageError("a per-query value is not a finite number", code="value-not-finite")
    out = second - first
    out[np.abs(out) < NOISE] = 0.0
    return np.asarray(out, dtype=np.float64)


def paired(left: Sequence[float], right: Sequence[float], confidence: float = 0.95) -> Paired:
    """Run the paired t-test, with its interval, on the mean of right - left.

    All differences zero give p = 1, d_z = 0 and an interval without width; see `SignFlips`.

    Args:
        left: the baseline's values, one a query.
        right: the other system's values for the same queries in the same order.
        confidence: of the interval, in (0, 1).

    Raises:
        UsageError: the values cannot be paired, or there are fewer than 2.

    Example:
        >>> result = paired([0.2, 0.5, 0.4, 0.1], [0.3, 0.5, 0.7, 0.3])
        >>> round(result.difference, 2), round(result.p, 2), (result.wins, result.ties, result.losses)
        (0.15, 0.1, (3, 1, 0))
    """
    import numpy as np

    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, not {confidence}", code="confidence-out-of-range")
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
