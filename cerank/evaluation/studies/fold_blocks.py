"""A comparison by cross-validation with the fold as a block: queries of one fold share a model.

Invariant: pure functions of per-query differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class FoldBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of two systems over folds."""

    queries: tuple[int, ...]  # of each fold
    differences: tuple[float, ...]  # mean of each fold
    mean: float  # over all queries
    low: float  # interval of the mean, with the folds' own differences taken out of the variance
    high: float
    low_over_folds: float  # interval of the mean of the folds' differences, each fold one observation, corrected
    high_over_folds: float

    @property
    def is_shown_over_folds(self) -> bool:
        """Return whether the interval over folds excludes 0."""
        return not self.low_over_folds <= 0 <= self.high_over_folds


def fold_blocks(differences: Sequence[Sequence[float]], confidence: float) -> FoldBlocks:
    """Return the mean difference over all queries, with two intervals.

    The first counts queries within their folds: these models, other queries. The second counts folds, so that the luck
    of a training is in it. Folds share most of their training queries, so that their variance is multiplied by
    1/K + 1/(K - 1) in place of 1/K (Nadeau and Bengio, Machine Learning 52, 2003); that may still be too narrow, for no
    estimate of this variance is unbiased (Bengio and Grandvalet, JMLR 2004). Error rates of both are in
    `tests/simulations/RESULTS.md`; neither makes a verdict.

    Args:
        differences: of each fold, the difference for each of its queries; at least two of each.
        confidence: of the intervals.

    >>> blocks = fold_blocks([[0.1, 0.3], [0.0, 0.2], [0.3, 0.3]], 0.95)
    >>> round(blocks.mean, 3), [round(mean, 3) for mean in blocks.differences]
    (0.2, [0.2, 0.1, 0.3])
    """
    from scipy.stats import t

    sizes = [len(fold) for fold in differences]
    means = [math.fsum(fold) / len(fold) for fold in differences]
    count, folds = sum(sizes), len(sizes)
    mean = math.fsum(value for fold in differences for value in fold) / count
    squares = [math.fsum((value - own) ** 2 for value in fold) for fold, own in zip(differences, means, strict=True)]
    within = sum((size / count) ** 2 * square / (size - 1) / size for size, square in zip(sizes, squares, strict=True))
    half = float(t.ppf((1 + confidence) / 2, count - folds)) * math.sqrt(within)
    center = math.fsum(means) / folds
    spread = math.fsum((own - center) ** 2 for own in means) / (folds - 1) * (1 / folds + 1 / (folds - 1))
    half_folds = float(t.ppf((1 + confidence) / 2, folds - 1)) * math.sqrt(spread)
    return FoldBlocks(
        queries=tuple(sizes),
        differences=tuple(means),
        mean=mean,
        low=mean - half,
        high=mean + half,
        low_over_folds=center - half_folds,
        high_over_folds=center + half_folds,
    )
