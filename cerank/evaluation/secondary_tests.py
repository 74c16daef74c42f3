"""Secondary tests and the risk of per-query differences, to lay beside the t-test: none of them makes a verdict.

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
WORST = 5  # queries that are named
AVERSION = 1.0  # how much more a loss weighs than a gain, in TRisk
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
    centered = d - mean
    if not centered.any():
        return Interval(mean, mean)
    means = _resampled_means(d, rounds, seed)
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * rounds)
    bias = float(ndtri(min(max(below, 1 / (rounds + 1)), rounds / (rounds + 1))))
    # The jackknife of a mean has a closed form: leaving i out moves it by -centered[i] / (n - 1).
    acceleration = float((centered**3).sum() / (6 * (centered**2).sum() ** 1.5)) if n > 1 else 0.0
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


# --- risk: whom a difference hurts, and how few queries carry it


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """The risk in per-query differences: who is hurt, how much, and how few queries carry the mean."""

    threshold: float  # losses and gains up to it do not count: the harm margin or the margin, else 0
    hurt: int  # queries that lose more than the threshold
    helped: int  # queries that gain more
    hurt_low: float  # Wilson's interval of the share of queries hurt
    hurt_high: float
    mean_loss: float | None  # of the queries hurt; None where there is none
    worst: tuple[str, ...]  # the queries that lose most, the largest loss first
    trisk: float | None  # t of the mean in which losses count (1 + AVERSION) times; None without spread
    queries_to_flip: int | None  # fewest queries without which the t-test shows no difference; None where it shows none


def risk(
    differences: NDArray[np.float64],
    queries: tuple[str, ...],
    *,
    threshold: float = 0.0,
    confidence: float = 0.95,
) -> Risk:
    """Return the risk of a difference.

    Args:
        differences: right minus left, one a query.
        queries: their ids, in the same order.
        threshold: the loss from which on a query counts as hurt, in the measure's units.
        confidence: of the interval of the share hurt, and of the t-test behind `queries_to_flip`.
    """
    import numpy as np

    n = differences.size
    losses = differences[differences < -threshold]
    low, high = wilson(losses.size, n, confidence)
    order = np.argsort(differences, kind="stable")[:WORST]
    return Risk(
        threshold=threshold,
        hurt=losses.size,
        helped=int((differences > threshold).sum()),
        hurt_low=low,
        hurt_high=high,
        mean_loss=float(losses.mean()) if losses.size else None,
        worst=tuple(queries[place] for place in order if differences[place] < 0),
        trisk=trisk(differences),
        queries_to_flip=queries_to_flip(differences, round(1 - confidence, 12)),
    )


def wilson(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval (JASA 22, 1927) of a share of `count` in `n`."""
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    share, width = count / n, z * z / n
    middle = (share + width / 2) / (1 + width)
    half = z * math.sqrt(share * (1 - share) / n + width / (4 * n)) / (1 + width)
    return (0.0 if count == 0 else middle - half), (1.0 if count == n else middle + half)


def trisk(differences: NDArray[np.float64], aversion: float = AVERSION) -> float | None:
    """Return TRisk (Dincer, Macdonald and Ounis, SIGIR 2014): URisk over its standard error; None without spread."""
    import numpy as np

    weighted = np.where(differences < 0, (1 + aversion) * differences, differences)
    sd = float(weighted.std(ddof=1))
    return float(weighted.mean()) / (sd / math.sqrt(weighted.size)) if sd > 0 else None


def queries_to_flip(differences: NDArray[np.float64], alpha: float = 0.05) -> int | None:
    """Return the fewest queries without which a two-sided paired t-test at `alpha` shows no difference any more.

    Exact (a fragility index; Walsh et al., Journal of Clinical Epidemiology 67, 2014). However many go, t is smallest
    where they are neighbors in the order of their differences: t >= c means Q <= k S^2 for the sum S and the sum of
    squares Q of the rest, and Q - k S^2 is convex in each difference as long as c > 1, so that an outer difference in
    place of an inner one never makes it smaller. None where the test shows no difference with all queries.
    """
    import numpy as np
    from scipy.special import stdtrit

    n = differences.size
    ordered = np.sort(differences * np.sign(differences.mean()))
    sums, squares = (np.concatenate([[0.0], np.cumsum(each)]) for each in (ordered, ordered**2))
    for removed in range(n - 1):
        rest = n - removed
        places = np.arange(rest + 1) if removed else np.array([0])  # where the neighbors that go begin
        s = sums[-1] - (sums[places + removed] - sums[places])
        q = squares[-1] - (squares[places + removed] - squares[places])
        error = np.sqrt(np.maximum(q - s**2 / rest, 0.0) / (rest - 1) / rest)
        is_hidden = s / rest <= -float(stdtrit(rest - 1, alpha / 2)) * error
        if (is_hidden | (s <= 0)).any():
            return removed or None
    return n - 1
