"""Many tests at once: p-values corrected over a declared family, and the level at which each was judged.

Invariant: a row is rejected by its corrected p exactly where the interval at its level excludes zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from cerank.core.seeds import derive
from cerank.errors import UsageError
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Correction = Literal["holm", "bh", "bonferroni", "max-t", "none"]


class Corrected(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a correction, in the order of the p-values given.

    `levels[i]` is the level at which row i was tested: p[i] <= levels[i] exactly where ps[i] <= alpha. For Holm it is
    alpha over the step's remaining tests, for BH alpha times the rejected share (the FCR level of Benjamini and
    Yekutieli, JASA 100, 2005).
    """

    method: Correction
    family: int
    alpha: float
    ps: tuple[float, ...]
    levels: tuple[float, ...]


def corrected(ps: Sequence[float], method: Correction = "holm", *, alpha: float = 0.05, family: int = 0) -> Corrected:
    """Corrected p-values.

    Args:
        ps: one a test, each in [0, 1].
        method: "holm" (any dependence), "bonferroni", "bh" (false discovery rate, for exploration), or "none".
        family: tests declared, at least len(ps); 0 takes len(ps). Those not shown count as unrejected, the safe side.

    Raises:
        UsageError: the family is smaller than what is shown, or the method works on differences ("max-t").
    """
    size = family or len(ps)
    if size < len(ps):
        raise UsageError(
            f"the declared family has {counted(size, 'test')}, and {len(ps)} are shown", hint="declare all of them"
        )
    if method == "max-t":
        raise UsageError("max-t corrects differences, not p-values")
    if not ps:
        return Corrected(method=method, family=size, alpha=alpha, ps=(), levels=())
    out = _adjusted([*ps, *[1.0] * (size - len(ps))], method)[: len(ps)]
    levels = _levels(ps, out, method, alpha, size)
    return Corrected(method=method, family=size, alpha=alpha, ps=tuple(out), levels=tuple(levels))


def _adjusted(ps: Sequence[float], method: Correction) -> list[float]:
    """Return the corrected p-value of each test in a family that is given whole.

    Holm multiplies the smallest p by the number of tests, the next by one less and so on; a larger p never gets a
    smaller corrected p than the one before it (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    import numpy as np

    raw = np.asarray(ps, dtype=np.float64)
    if method == "bonferroni":
        raw = np.minimum(raw * raw.size, 1.0)
    elif method == "bh":
        from scipy.stats import false_discovery_control

        raw = false_discovery_control(raw, method="bh")
    elif method == "holm":
        order = np.argsort(raw, kind="stable")
        steps = np.maximum.accumulate(raw[order] * np.arange(raw.size, 0, -1))
        raw[order] = np.minimum(steps, 1.0)
    return [float(p) for p in raw]


def _levels(ps: Sequence[float], out: Sequence[float], method: Correction, alpha: float, size: int) -> list[float]:
    rejected = sum(p <= alpha for p in out)
    if method == "none":
        return [alpha] * len(ps)
    if method == "bonferroni":
        return [alpha / size] * len(ps)
    if method == "bh":
        return [alpha * max(rejected, 1) / size] * len(ps)
    levels = [alpha / max(size - rejected, 1)] * len(ps)
    order = sorted(range(len(ps)), key=lambda place: (out[place] > alpha, ps[place]))
    for step, place in enumerate(order[:rejected]):
        levels[place] = alpha / (size - step)
    return levels


class MaxT(msgspec.Struct, frozen=True, kw_only=True):
    """Tests corrected by the largest |t| of sign-flipped data; one block of queries after another, columns in order."""

    ps: tuple[float, ...]  # (1 + flips whose largest |t| reaches this one's) / (1 + flips)
    critical: float  # |t| above which the corrected p is at most alpha


def max_t(blocks: Sequence[NDArray[np.float64]], *, alpha: float = 0.05, rounds: int = 9999, seed: int = 0) -> MaxT:
    """Randomised maximum statistic (Westfall and Young 1993), blocked by query: strong control under dependence.

    In each round all differences of a query change sign together, so that systems, measures and first stages keep
    their dependence; it needs the joint distribution of a query's differences to be symmetric where the null holds.

    Args:
        blocks: one a set of queries, each (queries, comparisons) per-query differences; sets are flipped apart.
        rounds: random flips; the smallest p is 1 / (rounds + 1).
    """
    import numpy as np

    from cerank.evaluation import permutation

    largest = np.zeros(rounds)
    observed = []
    for place, block in enumerate(blocks):
        n = block.shape[0]
        squares = (block**2).sum(axis=0)
        flipped = _t(permutation.sums(block, rounds, derive(seed, "flips", place)), squares, n)
        largest = np.maximum(largest, np.abs(flipped).max(axis=1, initial=0.0))
        observed.append(np.abs(_t(block.sum(axis=0), squares, n)))
    reached = np.concatenate(observed) if observed else np.zeros(0)
    ordered = np.sort(largest)
    # Sums of the same numbers in another order differ in their last bits: a flip that ties with the data counts.
    above = rounds - np.searchsorted(ordered, reached * (1 - 1e-9), side="left")
    allowed = max(math.floor(alpha * (rounds + 1) + 1e-9), 1)
    critical = float(ordered[-allowed]) / (1 - 1e-9)
    return MaxT(ps=tuple(((1 + above) / (rounds + 1)).tolist()), critical=critical)


def _t(sums: NDArray[np.float64], squares: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Student's t from sums and sums of squares; 0 where there is no difference, very large where no spread."""
    import numpy as np

    mean = sums / n
    spread = np.maximum(squares - n * mean**2, 1e-12 * squares)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0, mean * math.sqrt(n) / np.sqrt(spread / (n - 1)), 0.0)
