"""Many comparisons at once: p-values adjusted over a declared family, and the level of its intervals.

Invariant: where an interval excludes 0, or lies within the margin, the adjusted p says so too. The converse does not
hold: p is stepped down, which no interval can follow, so that an interval may hold a 0 that its p has rejected.

Why none can: with one true difference of 0 among m and the others found for sure, Holm's last step spends all of alpha
on the 0. Intervals that end at 0 where p rejects it miss a truth there in up to alpha, and each of the others misses
its own in alpha / m: in all, in (2 - 1/m) alpha. Intervals that belong to stepped-down tests spend nothing on what is
rejected, and so have no far end until all is rejected (Strassburger and Bretz, Stat Med 27, 2008; Guilbaud, Biom J 50,
2008). "bonferroni" takes one step: there p and interval always agree.

A comparison may be tested twice, for a difference and for equivalence. Both of its null hypotheses cannot be true
together, so a family counts comparisons, not tests, and all verdicts in it share one error rate: the closed test of
both kinds together (Marcus, Peritz and Gabriel, Biometrika 63, 1976; Goeman, Solari and Stijnen, Stat Med 29, 2010).
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

_COLUMNS = 16  # columns flipped at once: their tables take 29 MB for 6,980 queries

Correction = Literal["auto", "holm", "bh", "bonferroni", "max-t", "none"]


class Corrected(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a correction, in the order of the comparisons given.

    `level` is that of every interval: the intervals at confidence 1 - level hold all true differences together with
    confidence 1 - alpha ("holm", "bonferroni": alpha over the family), or make the false coverage rate alpha ("bh":
    alpha times the rejected share; Benjamini and Yekutieli, JASA 100, 2005). `level_equivalent` is that of one side.
    """

    method: Correction
    family: int
    alpha: float
    ps: tuple[float, ...]
    ps_equivalent: tuple[float | None, ...]
    level: float
    level_equivalent: float
    raw: tuple[float, ...] = ()  # by "max-t": the p of each comparison by itself, from the same flips
    critical: float | None = None  # by "max-t": half the width of every interval, in standard errors


def corrected(
    ps: Sequence[float],
    method: Correction = "holm",
    *,
    equivalent: Sequence[float | None] = (),
    alpha: float = 0.05,
    family: int = 0,
) -> Corrected:
    """Return the adjusted p-values of a family of comparisons.

    Args:
        ps: one a comparison, each in [0, 1]: of no difference.
        method: "holm" (any dependence), "bonferroni", "bh" (false discovery rate, for exploration), or "none".
        equivalent: p of the tests of equivalence, None for a comparison without a margin; empty for none at all.
        family: comparisons declared, at least len(ps); 0 takes len(ps). Those not shown count as unrejected.

    Raises:
        UsageError: the family is smaller than what is shown, or the method works on differences ("max-t").
    """
    size = family or len(ps)
    refuse_smaller(family, len(ps))
    if method in {"max-t", "auto"}:
        raise UsageError("max-t corrects differences, not p-values")
    within = list(equivalent) or [None] * len(ps)
    if method == "bh":
        return _false_discoveries(ps, within, alpha, size)
    out, out_within = list(ps), within
    if method == "bonferroni":
        out = [min(p * size, 1.0) for p in ps]
        out_within = [None if p is None else min(p * size, 1.0) for p in within]
    elif method == "holm":
        out, out_within = _stepped_down(ps, within, size)
    level = alpha if method == "none" else alpha / max(size, 1)
    return Corrected(
        method=method,
        family=size,
        alpha=alpha,
        ps=tuple(map(float, out)),
        ps_equivalent=tuple(out_within),
        level=level,
        level_equivalent=level,
    )


def refuse_smaller(family: int, count: int) -> None:
    """Refuse a declared family of fewer comparisons than are shown.

    Raises:
        UsageError: it is one.
    """
    if 0 < family < count:
        raise UsageError(
            f"the declared family has {counted(family, 'comparison')}, and {count} are shown",
            hint="declare all of them",
            code="family-too-small",
        )


def _stepped_down(
    ps: Sequence[float], within: Sequence[float | None], size: int
) -> tuple[list[float], list[float | None]]:
    """Adjust by Holm (Scandinavian Journal of Statistics 6, 1979), closed over both tests of each comparison.

    From the smallest p on, each is multiplied by the comparisons that may still hold a true null hypothesis: a
    comparison no longer does once all of its tests have been passed. Without margins this is Holm's own.
    """
    tests = sorted(_tests(ps, within))
    open_tests = [1 + (p is not None) for p in within]
    unresolved, largest = size, 0.0
    out, out_within = [1.0] * len(ps), list(within)
    for p, place, is_within in tests:
        largest = max(largest, min(p * unresolved, 1.0))
        if is_within:
            out_within[place] = largest
        else:
            out[place] = largest
        open_tests[place] -= 1
        unresolved -= not open_tests[place]
    return out, out_within


def _tests(ps: Sequence[float], within: Sequence[float | None]) -> list[tuple[float, int, bool]]:
    """Return (p, comparison, whether it is of equivalence) for every test."""
    different = [(float(p), place, False) for place, p in enumerate(ps)]
    return different + [(float(p), place, True) for place, p in enumerate(within) if p is not None]


def _false_discoveries(ps: Sequence[float], within: Sequence[float | None], alpha: float, size: int) -> Corrected:
    """Adjust differences and equivalences as two families, each with its own false discovery rate."""
    known = [p for p in within if p is not None]
    out, out_within = _bh(ps, size), iter(_bh(known, size))
    levels = [alpha * max(sum(p <= alpha for p in each), 1) / max(size, 1) for each in (out, _bh(known, size))]
    return Corrected(
        method="bh",
        family=size,
        alpha=alpha,
        ps=tuple(out),
        ps_equivalent=tuple(None if p is None else next(out_within) for p in within),
        level=levels[0],
        level_equivalent=levels[1],
    )


def _bh(ps: Sequence[float], size: int) -> list[float]:
    if not ps:
        return []
    from scipy.stats import false_discovery_control

    padded = [*ps, *[1.0] * (size - len(ps))]
    return [float(p) for p in false_discovery_control(padded, method="bh")[: len(ps)]]


class MaxT(msgspec.Struct, frozen=True, kw_only=True):
    """Comparisons corrected by the largest |t| of sign-flipped data; one block of queries after another, in order."""

    raw: tuple[float, ...]  # (1 + flips whose own |t| reaches the observed one) / (1 + flips)
    ps: tuple[float, ...]  # the same of the largest |t| among the comparisons not yet resolved: stepped down
    ps_equivalent: tuple[float | None, ...]
    critical: float  # |t| above which a p is at most alpha in one step: half the width of each interval, in errors


def max_t(
    blocks: Sequence[NDArray[np.float64]],
    *,
    statistics: Sequence[float] = (),
    equivalent: Sequence[float | None] = (),
    is_ranked: Sequence[bool] = (),
    alpha: float = 0.05,
    rounds: int = 9999,
    seed: int = 0,
) -> MaxT:
    """Return p-values by the randomized maximum statistic, stepped down (Westfall and Young 1993, algorithm 2.8).

    In each round all differences of a query change sign together, so that systems, measures and first stages keep
    their dependence; it needs the joint distribution of a query's differences to be symmetric where the null holds.
    A comparison leaves the maximum once all of its tests have been passed, those of equivalence too: whichever of its
    null hypotheses is true, it is rejected only where its own |t| is large (Romano and Wolf, Econometrica 73, 2005).

    Args:
        blocks: one a set of queries, each (queries, comparisons) per-query differences; sets are flipped apart.
        statistics: |t| of each comparison; empty takes that of its differences.
        equivalent: (margin - |difference|) over the standard error, None without a margin; empty for no margins.
        is_ranked: whether a comparison's flips are compared by rank, as few differing queries ask for: its flipped
            |t| is then the one whose p in Student's distribution is the share of flips that reach so far.
        rounds: random flips; the smallest p is 1 / (rounds + 1).
    """
    import numpy as np

    parts, observed, at = [], [], 0
    for place, block in enumerate(blocks):
        n = block.shape[0]
        squares = (block**2).sum(axis=0)
        flipped = np.abs(_t(flipped_sums(block, rounds, derive(seed, "flips", place)), squares, n))
        observed.append(np.abs(_t(block.sum(axis=0), squares, n)))
        for column in range(block.shape[1]):
            if is_ranked and is_ranked[at + column]:
                flipped[:, column] = _by_rank(flipped[:, column], n - 1)
        at += block.shape[1]
        parts.append(flipped)
    drawn = np.concatenate(parts, axis=1) if parts else np.zeros((rounds, 0))
    sizes = np.asarray(statistics, dtype=np.float64) if statistics else np.concatenate([*observed, np.zeros(0)])
    within = list(equivalent) or [None] * sizes.size
    largest = np.sort(drawn.max(axis=1, initial=0.0))
    allowed = max(math.floor(alpha * (rounds + 1) + 1e-9), 1)
    out, out_within = _stepped_down_by_flips(drawn, sizes.tolist(), within)
    raw = [_reached(drawn[:, place], value) for place, value in enumerate(sizes)]
    return MaxT(
        raw=tuple(raw), ps=tuple(out), ps_equivalent=tuple(out_within), critical=float(largest[-allowed]) / (1 - 1e-9)
    )


def _stepped_down_by_flips(
    drawn: NDArray[np.float64], sizes: Sequence[float], within: Sequence[float | None]
) -> tuple[list[float], list[float | None]]:
    """Return p for each test, the maximum growing by one comparison at a time, then made monotone."""
    import numpy as np

    tests = sorted(_tests(sizes, within))
    last = [min(value, other) if other is not None else value for value, other in zip(sizes, within, strict=True)]
    order = iter(sorted(range(len(sizes)), key=lambda place: last[place]))
    largest = np.zeros(drawn.shape[0])
    joined: set[int] = set()
    ps = []
    for value, place, _ in tests:
        while place not in joined:  # a comparison counts as unresolved for every statistic from its smallest one on
            other = next(order)
            joined.add(other)
            largest = np.maximum(largest, drawn[:, other])
        ps.append(_reached(largest, value))
    out, out_within = [1.0] * len(sizes), list(within)
    top = 0.0
    for (_, place, is_within), p in zip(reversed(tests), reversed(ps), strict=True):
        top = max(top, p)
        if is_within:
            out_within[place] = top
        else:
            out[place] = top
    return out, out_within


def _reached(drawn: NDArray[np.float64], value: float) -> float:
    """Return the share of flips, the data among them, that reach the observed value.

    Sums of the same numbers in another order differ in their last bits: a flip that ties with the data counts.
    """
    import numpy as np

    return float((1 + np.count_nonzero(drawn >= value * (1 - 1e-9 if value > 0 else 1 + 1e-9))) / (1 + drawn.shape[0]))


def _by_rank(drawn: NDArray[np.float64], df: int) -> NDArray[np.float64]:
    """Return for each flip, the |t| whose two-sided p is the share of flips that reach it."""
    import numpy as np
    from scipy.special import stdtrit

    ordered = np.sort(drawn)
    reached = drawn.size - np.searchsorted(ordered, drawn * (1 - 1e-9), side="left")
    return np.asarray(-stdtrit(df, reached / drawn.size / 2), dtype=np.float64)


def _t(sums: NDArray[np.float64], squares: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return Student's t from sums and sums of squares; 0 where there is no difference, very large where no spread."""
    import numpy as np

    mean = sums / n
    spread = np.maximum(squares - n * mean**2, 1e-12 * squares)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0, mean * math.sqrt(n) / np.sqrt(spread / (n - 1)), 0.0)


# --- random changes of sign: all columns of a query change together; a function of (values, rounds, seed) alone


def flipped_sums(values: NDArray[np.float64], rounds: int, seed: int) -> NDArray[np.float64]:
    """Return (rounds, columns) sums over queries of (queries, columns) values, each row times a random sign.

    Eight queries at a time: a table holds their signed sums for all 256 patterns, so that a flip of n queries is n / 8
    look-ups. It takes no matrix product, whose threads would stand in each other's way on a shared machine.
    """
    import numpy as np

    groups = -(-values.shape[0] // 8)
    random = np.random.default_rng(seed)
    draws = random.integers(0, 256, (groups, rounds), dtype=np.uint8)
    padded = np.zeros((groups * 8, values.shape[1]))
    padded[: values.shape[0]] = values
    out = np.zeros((rounds, values.shape[1]))
    for first in range(0, values.shape[1], _COLUMNS):
        tables = _tables(padded[:, first : first + _COLUMNS])
        for group in range(groups):
            out[:, first : first + _COLUMNS] += tables[group][draws[group]]
    return out


def all_flipped_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (2^queries, columns) sums under every pattern of signs; for few queries."""
    import numpy as np

    flips = np.arange(2 ** values.shape[0])
    out = np.zeros((flips.size, values.shape[1]))
    for place, row in enumerate(values):
        out += (1 - 2 * ((flips >> place) & 1))[:, None] * row
    return out


def _tables(padded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of each eight rows under each of their 256 patterns of signs, shape (groups, 256, columns)."""
    import numpy as np

    blocks = padded.reshape(-1, 8, padded.shape[1])
    tables = np.zeros((blocks.shape[0], 1, padded.shape[1]))
    for place in range(8):
        row = blocks[:, place : place + 1, :]
        tables = np.concatenate([tables + row, tables - row], axis=1)
    return tables
