"""Whom a difference hurts, and how few queries carry it: risk beside the mean, which makes no verdict.

Invariant: figures of per-query differences (right minus left) alone; nothing is drawn at random.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from cerank.evaluation.significance import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORST = 5  # queries that are named
AVERSION = 1.0  # how much more a loss weighs than a gain, in TRisk


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """What the differences are like beside their mean."""

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

    The largest differences in the direction of the mean go first, which moves the mean most (a fragility index; Walsh
    et al., Journal of Clinical Epidemiology 67, 2014). None where the test shows no difference with all queries.
    """
    import numpy as np

    ordered = np.sort(differences * np.sign(differences.mean()))  # the largest support of the mean comes last
    for removed in range(ordered.size - 1):
        rest = ordered[: ordered.size - removed]
        sd = float(rest.std(ddof=1))
        estimate = Estimate(difference=float(rest.mean()), error=sd / math.sqrt(rest.size), df=rest.size - 1)
        if sd == 0 or rest.mean() <= 0 or estimate.p() > alpha:
            return removed or None
    return ordered.size - 1
