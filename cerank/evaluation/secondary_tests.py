"""Secondary tests of per-query differences, to lay beside the t-test: none of them makes a verdict.

Invariant: every function takes differences (right minus left); anything random is a function of its seed.

Why secondary: the t-test is the most robust and powerful of these on per-query scores (Urbano, Lima and Hanjalic,
SIGIR 2019); Wilcoxon's and the sign test answer another question (the median) and should not decide (Smucker, Allan
and Carterette, CIKM 2007).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from cerank.core.seeds import derive
from cerank.evaluation.significance import Estimate, Paired

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Differences = NDArray[np.float64]

ROUNDS = 9999
_CHUNK = 4_000_000  # resampled values held at once: 32 MB


class Interval(msgspec.Struct, frozen=True):
    """Low and high end."""

    low: float
    high: float


class Posterior(msgspec.Struct, frozen=True):
    """Probabilities of the mean difference: left better by more than the margin, within it, right better by more."""

    left: float
    within: float
    right: float


class Secondary(msgspec.Struct, frozen=True, kw_only=True):
    """All secondary figures of one comparison."""

    randomization: float
    wilcoxon: float
    sign: float
    bca: Interval  # for the mean difference, at the comparison's confidence
    posterior: Posterior | None  # where a margin serves as the rope
    rounds: int
    seed: int


def secondary(
    d: Differences, confidence: float, *, estimate: Estimate, rope: float | None, seed: int, rounds: int = ROUNDS
) -> Secondary:
    """Return every secondary figure of the differences `d`.

    Args:
        estimate: of their mean, with the error that the verdict's claim has.
        rope: the margin; None for none.
    """
    return Secondary(
        randomization=randomization(d, rounds=rounds, seed=derive(seed, "randomization")),
        wilcoxon=wilcoxon(d),
        sign=sign(d),
        bca=bca(d, confidence, rounds=rounds, seed=derive(seed, "bootstrap")),
        posterior=None if rope is None or estimate.error == 0 else posterior(estimate, rope),
        rounds=rounds,
        seed=seed,
    )


def randomization(d: Differences, *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Run Fisher's randomization test of the mean: exact where 2^n flips are no more than `rounds`, else add-one.

    (1 + flips at least as far from 0) / (1 + rounds): the data themselves are one of the flips (Phipson and Smyth
    2010). Queries without a difference change no flip and are left out.
    """
    import numpy as np

    from cerank.evaluation.multiple_testing import all_flipped_sums, flipped_sums

    d = d[d != 0]
    if d.size == 0:
        return 1.0
    reached = abs(float(d.sum())) * (1 - 1e-9)  # sums in another order differ in their last bits
    if 2**d.size <= rounds:
        return float(np.mean(np.abs(all_flipped_sums(d[:, None])) >= reached))
    sums = flipped_sums(d[:, None], rounds, seed)
    return float((1 + np.count_nonzero(np.abs(sums) >= reached)) / (1 + rounds))


def wilcoxon(d: Differences, zeros: str = "pratt") -> float:
    """Run Wilcoxon's signed-rank test, two-sided; zero differences are ranked and then dropped (Pratt 1959)."""
    if not d.any():
        return 1.0
    from scipy.stats import wilcoxon as test

    return float(test(d, zero_method=zeros).pvalue)


def sign(d: Differences) -> float:
    """Run the exact sign test, two-sided, of wins against losses; ties are not counted."""
    from scipy.special import bdtr

    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5))) if wins + losses else 1.0


def bca(d: Differences, confidence: float = 0.95, *, rounds: int = ROUNDS, seed: int = 0) -> Interval:
    """Return the bias-corrected and accelerated bootstrap interval of the mean (Efron, JASA 82, 1987).

    Too narrow for few queries: in simulation it excluded a true 0 in 12 of 100 collections of 43 queries, 7 of 200.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    n, mean = d.size, float(d.mean())
    centred = d - mean
    if not centred.any():
        return Interval(mean, mean)
    means = _resampled_means(d, rounds, seed)
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * rounds)
    bias = float(ndtri(min(max(below, 1 / (rounds + 1)), rounds / (rounds + 1))))
    # The jackknife of a mean has a closed form: leaving i out moves it by -centred[i] / (n - 1).
    acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5)) if n > 1 else 0.0
    z = ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2])) + bias
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z)))
    return Interval(float(low), float(high))


def _resampled_means(d: Differences, rounds: int, seed: int) -> Differences:
    import numpy as np

    random = np.random.default_rng(seed)
    index = np.uint16 if d.size < 2**16 else np.int64  # narrow draws are three times as fast
    step = max(_CHUNK // d.size, 1)
    parts = [
        d[random.integers(0, d.size, (min(step, rounds - first), d.size), dtype=index)].mean(axis=1)
        for first in range(0, rounds, step)
    ]
    return np.concatenate(parts)


def posterior(estimate: Estimate, rope: float) -> Posterior:
    """Return the posterior of the mean difference, which the verdict is about: Student's t around the estimate.

    It is that of a normal model with the reference prior (Carterette, ICTIR 2015; Sakai, SIGIR
    2017); its central interval is the t interval.
    """
    from scipy.special import stdtr

    left = float(stdtr(estimate.df, (-rope - estimate.difference) / estimate.error))
    right = float(stdtr(estimate.df, (estimate.difference - rope) / estimate.error))
    return Posterior(left, max(0.0, 1 - left - right), right)


def effect_interval(figures: Paired, confidence: float = 0.95) -> Interval | None:
    """Return the exact interval of d_z: the noncentralities that put the observed t at either tail, over sqrt(n).

    None where d_z is infinite. (Steiger and Fouladi 1997; Cumming and Finch 2001.)
    """
    if figures.t is None:
        return None
    root = math.sqrt(figures.n)
    tail = (1 - confidence) / 2
    return Interval(
        _noncentrality(figures.t, figures.df, 1 - tail) / root, _noncentrality(figures.t, figures.df, tail) / root
    )


def _noncentrality(t: float, df: int, share: float) -> float:
    """Return the nc for which P(T <= t) = `share`; P falls as nc grows."""
    from cerank.evaluation.power import t_below

    low, high = t - 8.0 - abs(t), t + 8.0 + abs(t)
    while t_below(t, df, low) < share:
        low -= high - low
    while t_below(t, df, high) > share:
        high += high - low
    while high - low > 1e-11 * max(abs(low), abs(high), 1.0):
        middle = (low + high) / 2
        low, high = (middle, high) if t_below(t, df, middle) > share else (low, middle)
    return high
