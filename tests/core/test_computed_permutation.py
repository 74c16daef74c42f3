"""Orders that are computed place by place: a bijection of any size, fixed for ever, and fair for few items."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.core.computed_permutation import ComputedPermutation


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 255, 256, 257, 1000, 4099])
def test_each_item_has_one_place_whatever_the_size(size):
    order = ComputedPermutation(size, seed=7)
    items = [order[place] for place in range(size)]
    assert sorted(items) == list(range(size))
    assert [order.place_of(item) for item in items] == list(range(size))


@given(st.integers(1, 10**12), st.integers(0, 2**63 - 1), st.data())
def test_places_of_a_huge_order_are_found_again(size, seed, data):
    order = ComputedPermutation(size, seed)
    place = data.draw(st.integers(0, size - 1))
    assert 0 <= order[place] < size
    assert order.place_of(order[place]) == place


def test_the_order_never_changes_from_version_to_version():
    assert list(ComputedPermutation(10, seed=1)) == [8, 4, 6, 2, 5, 0, 3, 9, 7, 1]
    assert ComputedPermutation(100_000_000, seed=1)[99_999_999] == 92_575_024


def test_there_is_nothing_beyond_the_last_place():
    order = ComputedPermutation(3, seed=1)
    with pytest.raises(IndexError):
        order[3]
    with pytest.raises(IndexError):
        order[-1]


def test_of_many_seeds_each_order_of_four_items_is_as_likely_as_any_other():
    seen = Counter(tuple(ComputedPermutation(4, seed)) for seed in range(1200))
    expected = 1200 / 24
    # 23 degrees of freedom: 49.7 is exceeded once in a thousand times, and the seeds are always the same
    assert len(seen) == 24
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 49.7


def test_neighbors_are_not_left_side_by_side():
    order = list(ComputedPermutation(5000, seed=3))
    assert sum(abs(left - right) == 1 for left, right in itertools.pairwise(order)) < 12  # 2 are expected
