"""The extremes of t over differences within limits, against every corner of small cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from cerank.evaluation.sensitivity.extreme_statistics import is_always_reached, is_never_reached, largest_t, t_of


def boxes(count=60, n=8):
    random = np.random.default_rng(5)
    for _ in range(count):
        middle = random.normal(0.08, 0.1, n)
        width = random.exponential(random.choice([0.002, 0.02, 0.08]), n)
        yield middle - width / 2, middle + width / 2


def corners(low, high):
    for choice in itertools.product([False, True], repeat=low.size):
        yield np.where(choice, high, low)


def test_t_is_that_of_scipy():
    d = np.array([0.1, 0.3, -0.05, 0.2])
    assert t_of(d) == pytest.approx(stats.ttest_1samp(d, 0).statistic)
    assert t_of(d, 0.02) == pytest.approx(stats.ttest_1samp(d, 0.02).statistic)
    assert (t_of(np.full(4, 0.1)), t_of(np.zeros(4))) == (np.inf, 0.0)


def test_what_is_always_reached_holds_at_every_corner_and_is_nearly_always_proven():
    proven = true = 0
    for low, high in boxes():
        smallest = min(t_of(d) for d in corners(low, high))
        for critical in (2.0, 3.0):
            if is_always_reached(low, high, critical):
                assert smallest >= critical - 1e-9
                proven += 1
            true += smallest >= critical
    assert true > 10
    assert proven >= 0.9 * true


def test_the_largest_t_is_that_of_a_general_optimizer_and_above_all_corners():
    random = np.random.default_rng(1)
    for low, high in itertools.islice(boxes(), 8):
        found = largest_t(low, high)
        assert found >= max(t_of(d) for d in corners(low, high)) - 1e-9
        starts = [random.uniform(low, high) for _ in range(4)]
        best = max(
            -optimize.minimize(lambda d: -t_of(d), start, bounds=list(zip(low, high, strict=True))).fun
            for start in starts
        )
        assert found >= best - 1e-6
        assert best >= found - 0.02 * max(1, abs(found)) or np.isinf(found)


def test_one_positive_value_for_all_has_no_largest_t():
    low, high = np.array([0.0, 0.1, 0.05]), np.array([0.3, 0.2, 0.4])
    assert largest_t(low, high) == np.inf
    assert not is_never_reached(low, high, 5.0)
    assert is_never_reached(-high, -low, 1.0)
