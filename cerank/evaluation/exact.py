"""The exact sign-flip test where a t-test has little to go by: few queries differ, or all differ by the same.

Invariant: p, interval and equivalence are one test turned round: the interval holds every value that its p allows.

Under the null hypothesis that the mean difference is `mu`, each query's difference from `mu` is as likely to be of
either sign (Fisher 1935; Hartigan, JASA 64, 1969). All sign patterns are counted, none is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from cerank.evaluation.significance import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEW = 10  # queries that differ: for fewer equal gains among many queries, a t-test's p is 1.5 to 30 times too small


class SignFlips(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The differences of a comparison in which few queries differ, or all by the same."""

    values: tuple[float, ...]  # the differences that are not 0: fewer than FEW, or all equal
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
    def smallest(self) -> float:
        """Return the smallest two-sided p that so many differing queries can have."""
        return min(1.0, 2.0 ** (1 - len(self.values)))

    def p(self) -> float:
        """Return two-sided p for no difference."""
        return min(1.0, 2 * min(self._above(0.0), self._below(0.0)))

    def p_equivalent(self, margin: float) -> float:
        """Return the larger of the two one-sided p against a difference of -margin and of +margin."""
        return max(self._above(-margin), self._below(margin))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the differences that the tests do not reject at `level`, low and high."""
        low = _first(lambda mu: self._above(mu) > level / 2, self.least, self.most)
        high = -_first(lambda mu: self._below(-mu) > level / 2, -self.most, -self.least)
        return low, high

    def _above(self, mu: float) -> float:
        """Return p for a larger mean: the share of sign patterns that sum to the observed value or more under `mu`."""
        return self._share(mu, 1.0)

    def _below(self, mu: float) -> float:
        """Return p for a smaller mean: `_above` with everything mirrored."""
        return self._share(-mu, -1.0)

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
        if k >= FEW:  # all equal: a set is known by its size
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
        """Return the degrees of freedom of a t-test of as many queries."""
        return self.first.df

    def p(self) -> float:
        """Return the larger p for no difference."""
        return max(self.first.p(), self.second.p())

    def p_equivalent(self, margin: float) -> float:
        """Return the larger p against a difference beyond the margin."""
        return max(self.first.p_equivalent(margin), self.second.p_equivalent(margin))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the differences that the tests do not reject at `level`, low and high."""
        (low, high), (other_low, other_high) = self.first.interval(level), self.second.interval(level)
        return min(low, other_low), max(high, other_high)


def is_due(differing: int, sd: float) -> bool:
    """Return whether the exact test is to be used in place of the t-test."""
    return differing < FEW or sd == 0


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
