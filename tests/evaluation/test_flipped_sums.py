"""Sums under random signs are what a product of signs and values gives."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cerank.evaluation import multiple_testing


@pytest.mark.parametrize("n", [1, 7, 8, 9, 12])
def test_every_sum_is_one_of_all_patterns_and_all_patterns_come(n):
    values = np.random.default_rng(n).normal(0, 1, (n, 2))
    patterns = np.array(list(product((1, -1), repeat=n))) @ values
    every = multiple_testing.all_flipped_sums(values)
    assert np.sort(every[:, 0]) == pytest.approx(np.sort(patterns[:, 0]))
    drawn = multiple_testing.flipped_sums(values, 2000, 0)
    nearest = np.abs(drawn[:, None, 0] - patterns[None, :, 0]).argmin(axis=1)
    assert drawn == pytest.approx(patterns[nearest])  # both columns of a query changed sign together
    if n <= 8:
        assert len(set(nearest)) == 2**n


def test_signs_are_even_and_independent_between_queries():
    drawn = multiple_testing.flipped_sums(np.eye(20), 20_000, 3)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.abs(drawn.mean(axis=0)).max() < 4 / np.sqrt(20_000)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(20)).max() < 5 / np.sqrt(20_000)


def test_sums_are_a_function_of_the_seed_and_not_of_other_columns():
    values = np.random.default_rng(0).normal(0, 1, (50, 20))
    assert (
        multiple_testing.flipped_sums(values, 99, 1)[:, :3] == multiple_testing.flipped_sums(values[:, :3], 99, 1)
    ).all()
    assert (multiple_testing.flipped_sums(values, 99, 1) != multiple_testing.flipped_sums(values, 99, 2)).any()
