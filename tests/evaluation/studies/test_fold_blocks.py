"""Cross-validation with the fold as a block: the mean over queries, and its variance within and over folds."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from cerank.evaluation.studies.fold_blocks import fold_blocks


def folds(sizes, shifts, seed=1):
    draw = random.Random(seed)
    return [[draw.gauss(shift, 0.1) for _ in range(size)] for size, shift in zip(sizes, shifts, strict=True)]


def test_the_mean_counts_every_query_once():
    blocks = fold_blocks([[0.0, 0.2], [1.0, 1.0, 1.0, 1.0]], 0.95)
    assert blocks.mean == pytest.approx((0.2 + 4.0) / 6)
    assert blocks.differences == pytest.approx((0.1, 1.0))
    assert blocks.queries == (2, 4)


def test_over_folds_it_is_a_t_interval_of_the_means_of_folds_as_nadeau_and_bengio_widen_it():
    """Their variance is (1/K + test/train) times that of the folds, here 1/4 + 1/3, and not 1/4 of it."""
    blocks = fold_blocks(folds([9, 9, 9, 9], [0.0, 0.1, 0.2, 0.3]), 0.9)
    plain = stats.ttest_1samp(blocks.differences, 0.0).confidence_interval(0.9)
    center, half = (plain.low + plain.high) / 2, (plain.high - plain.low) / 2 * (7 / 3) ** 0.5
    assert (blocks.low_over_folds, blocks.high_over_folds) == pytest.approx((center - half, center + half))
    assert not blocks.is_shown_over_folds
    assert fold_blocks([[0.1, 0.2], [0.1, 0.2], [0.11, 0.19]], 0.9).is_shown_over_folds


def test_in_folds_of_one_size_blocking_takes_the_differences_of_folds_out():
    values = folds([30] * 5, [0.0, 0.5, 1.0, 1.5, 2.0])
    blocks = fold_blocks(values, 0.95)
    centered = [value - mean for fold, mean in zip(values, blocks.differences, strict=True) for value in fold]
    half = stats.t.ppf(0.975, 145) * (sum(value**2 for value in centered) / 145 / 150) ** 0.5
    assert blocks.high - blocks.mean == pytest.approx(half)
    plain = stats.ttest_1samp([value for fold in values for value in fold], 0.0).confidence_interval()
    assert blocks.high - blocks.low < (plain.high - plain.low) / 3
