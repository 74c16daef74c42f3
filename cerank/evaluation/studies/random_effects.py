"""One difference over several collections: a random-effects meta-analysis (Soboroff, SIGIR 2018, for retrieval).

Each collection has a true difference of its own; the mean of these over collections like them is estimated, with how
far they scatter (tau). The variance of that scatter is estimated by restricted maximum likelihood (REML; Viechtbauer
2005); the interval of the mean is Hartung and Knapp's, by Student's t with one degree of freedom fewer than there are
collections, and never narrower than without their factor (Röver, Knapp and Friede, BMC Med Res Methodol 15, 2015).

Invariant: with few collections the interval is wide, for nothing is borrowed from anywhere; one collection is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError
from cerank.evaluation.significance import Estimate, EstimateOfFew
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Pooled(msgspec.Struct, frozen=True, kw_only=True):
    """The mean of a difference over collections, and how far the collections' own differences scatter."""

    collections: int
    estimate: Estimate  # of the mean, with Hartung and Knapp's standard error
    tau2: float  # variance of the true differences between collections, by REML
    tau2_low: float | None  # its 95 % interval, by the Q profile (Viechtbauer, Stat Med 26, 2007); None where it is
    tau2_high: float | None  # empty: the differences scatter so little that even tau 0 is unlikely
    i2: float  # share of the observed scatter that lies between collections (Higgins and Thompson 2002)
    q: float  # Cochran's
    p_q: float  # for collections that all have one true difference
    weights: tuple[float, ...]  # of the collections in the mean; sum 1
    prediction: tuple[float, float] | None  # for the true difference on a new collection; None for two collections
    unseen: float | None = None  # how much one more query may differ in each collection where few do
    with_one_more: tuple[Estimate, Estimate] | None = None  # the mean with these, all losing, and all gaining, so much

    @property
    def test(self) -> Estimate:
        """Return the estimate as it is judged: where few queries of a collection differ, with one more, too."""
        if self.unseen is None or self.with_one_more is None:
            return self.estimate
        of = self.estimate
        return EstimateOfFew(
            difference=of.difference, error=of.error, df=of.df, unseen=self.unseen, with_one_more=self.with_one_more
        )

    @property
    def tau(self) -> float:
        """Return the standard deviation of the true differences between collections."""
        return math.sqrt(self.tau2)

    @property
    def tau_interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval of tau; None for one collection, or where no tau fits."""
        if self.collections < 2 or self.tau2_low is None or self.tau2_high is None:
            return None
        return math.sqrt(self.tau2_low), math.sqrt(self.tau2_high)


def pool(
    differences: Sequence[float], errors: Sequence[float], *, level: float = 0.05, is_never_narrower: bool = True
) -> Pooled:
    """Return the pooled mean of differences with these standard errors.

    Args:
        differences: one a collection; of independent queries.
        errors: their standard errors, all above 0.
        level: the prediction interval has confidence 1 - level.
        is_never_narrower: keep Hartung and Knapp's factor at or above 1 (metafor's test "adhoc"; without it "knha").

    Raises:
        UsageError: fewer than two collections, or a standard error that is not above 0.
    """
    import numpy as np
    from scipy.special import chdtrc, stdtrit

    count = len(differences)
    if count < 2 or len(errors) != count:
        what = f"several collections are pooled, not {counted(count, 'collection')}"
        raise UsageError(what, hint="give comparisons on at least two test sets")
    y, variances = np.asarray(differences, dtype=np.float64), np.asarray(errors, dtype=np.float64) ** 2
    if not (np.isfinite(y).all() and np.isfinite(variances).all() and min(errors) > 0):
        raise UsageError("a difference without a standard error above 0 cannot be weighed", hint="leave it out")
    tau2 = _reml(y, variances)
    weights, mean = _weighed(y, variances, tau2)
    total = float(weights.sum())
    factor = _q(y, variances, tau2) / (count - 1)
    error = math.sqrt((max(1.0, factor) if is_never_narrower else factor) / total)
    q, plain = _q(y, variances, 0.0), 1 / variances
    typical = (count - 1) * float(plain.sum()) / (float(plain.sum()) ** 2 - float((plain**2).sum()))
    low, high = _tau2_interval(y, variances) or (None, None)
    prediction = None
    if count > 2:
        half = -float(stdtrit(count - 2, level / 2)) * math.sqrt(tau2 + error**2)
        prediction = mean - half, mean + half
    return Pooled(
        collections=count,
        estimate=Estimate(difference=mean, error=error, df=count - 1),
        tau2=tau2,
        tau2_low=low,
        tau2_high=high,
        i2=tau2 / (typical + tau2),
        q=q,
        p_q=float(chdtrc(count - 1, q)),
        weights=tuple((weights / total).tolist()),
        prediction=prediction,
    )


def _weighed(y: Floats, variances: Floats, tau2: float) -> tuple[Floats, float]:
    """Return the weight of each collection, and the weighted mean."""
    weights = 1 / (variances + tau2)
    return weights, float(weights @ y / weights.sum())


def _q(y: Floats, variances: Floats, tau2: float) -> float:
    """Return the weighted sum of squares around the mean, which falls as tau2 grows."""
    weights, mean = _weighed(y, variances, tau2)
    return float(weights @ (y - mean) ** 2)


def _reml(y: Floats, variances: Floats) -> float:
    """Return the variance between collections at which the restricted likelihood is largest, 0 or above.

    The likelihood may have several maxima. A grid finds the highest; halving finds where its slope is 0.
    """
    import numpy as np

    top = float(np.ptp(y)) ** 2 + float(variances.max())
    grid = np.concatenate([[0.0], top * 10.0 ** (np.arange(81) / 8 - 10)])
    weights = 1 / (variances + grid[:, None])
    totals = weights.sum(axis=1)
    means = weights @ y / totals
    scatter = (weights * (y - means[:, None]) ** 2).sum(axis=1)
    best = int(np.argmax(np.log(weights).sum(axis=1) - np.log(totals) - scatter))
    if best == 0 and _slope(y, variances, 0.0) <= 0:
        return 0.0
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    return _falls_to_zero(lambda tau2: _slope(y, variances, tau2), low, high)


def _slope(y: Floats, variances: Floats, tau2: float) -> float:
    """Return twice the derivative of the restricted log-likelihood."""
    weights, mean = _weighed(y, variances, tau2)
    squares = weights**2
    return float(squares @ (y - mean) ** 2 - weights.sum() + squares.sum() / weights.sum())


def _tau2_interval(y: Floats, variances: Floats) -> tuple[float, float] | None:
    """Return the 95 % interval of the variance between collections: where Q is no unlikely chi-square; None: empty.

    Where Q is too small even for a variance of 0, no variance fits: larger ones make it smaller still.
    """
    from scipy.special import chdtri

    ends = []
    if _q(y, variances, 0.0) < float(chdtri(y.size - 1, 0.975)):
        return None
    for share in (0.025, 0.975):
        limit = float(chdtri(y.size - 1, share))  # with upper tail `share`
        if _q(y, variances, 0.0) <= limit:
            ends.append(0.0)
            continue
        high = float(variances.max())
        while _q(y, variances, high) > limit:
            high *= 4
        ends.append(_falls_to_zero(partial(_above, y, variances, limit), 0.0, high))
    return ends[0], ends[1]


def _above(y: Floats, variances: Floats, limit: float, tau2: float) -> float:
    return _q(y, variances, tau2) - limit


def _falls_to_zero(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that falls from above 0 at `low` to below it at `high` is 0."""
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2
