"""The values that a sweep tries of a key: on grids, drawn, at ends; and the keys that no sweep may set."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerank.recipes import search_space
from cerank.recipes.search_space import SearchRange

RATE = SearchRange(log_uniform=(1e-6, 1e-4))
SIZE = SearchRange(integer=(2, 4))
LOSS = SearchRange(choices=("lce", "hinge"))


def test_a_grid_has_both_ends_equal_factors_and_every_whole_number() -> None:
    assert SearchRange(log_uniform=(1e-6, 1e-4), points=3).grid() == [1e-6, 1e-5, 1e-4]
    assert SearchRange(uniform=(0.0, 1.0), points=5).grid() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert SIZE.grid() == [2, 3, 4]
    assert SearchRange(log_integer=(4, 64), points=3).grid() == [4, 16, 64]
    assert search_space.grid({"a": SIZE, "b": LOSS})[:3] == [
        {"a": 2, "b": "lce"},
        {"a": 2, "b": "hinge"},
        {"a": 3, "b": "lce"},
    ]


@given(share=st.floats(0.0, 1.0))
def test_a_value_lies_in_its_range_at_every_share(share: float) -> None:
    assert 1e-6 <= RATE.at(share) <= 1e-4
    assert SIZE.at(share) in {2, 3, 4}
    assert SearchRange(log_integer=(1, 9)).at(share) in range(1, 10)
    assert LOSS.at(share) in LOSS.choices


def test_draws_follow_from_the_seed_and_the_key_alone_and_none_comes_twice() -> None:
    def some(count: int, seed: int = 1, **search: SearchRange) -> list[dict[str, object]]:
        return list(itertools.islice(search_space.draws(search, seed), count))

    assert some(9, rate=RATE, size=SIZE) == some(9, rate=RATE, size=SIZE)
    assert some(9, rate=RATE) != some(9, rate=RATE, seed=2)
    assert [row["rate"] for row in some(9, rate=RATE, loss=LOSS)] == [row["rate"] for row in some(9, rate=RATE)]
    assert sorted(map(str, some(99, size=SIZE, loss=LOSS))) == sorted(
        map(str, search_space.grid({"size": SIZE, "loss": LOSS}))
    )


def test_draws_of_a_logarithmic_range_give_each_factor_alike() -> None:
    values = [row["rate"] for row in itertools.islice(search_space.draws({"rate": RATE}, 3), 400)]
    below = sum(value < 1e-5 for value in values)
    assert 160 < below < 240  # 200 +- 4 standard deviations


@pytest.mark.parametrize(
    ("entry", "value", "edge"),
    [
        (RATE, 1.1e-6, "low"),
        (RATE, 1e-5, ""),
        (RATE, 9.5e-5, "high"),
        (SIZE, 2, "low"),
        (SIZE, 3, ""),
        (LOSS, "lce", ""),
        (SearchRange(uniform=(0.5, 0.5)), 0.5, ""),
        (SearchRange(choices=(1e-5, 3e-6, 3e-5)), 3e-6, "low"),
        (SearchRange(choices=(1e-5, 3e-6, 3e-5)), 1e-5, ""),
        (SearchRange(choices=(8, 16)), 16, "high"),
        (SearchRange(choices=(8,)), 8, ""),
        (SearchRange(choices=(False, True)), True, ""),
        (SearchRange(choices=("auto", 8, 16)), 16, ""),
    ],
)
def test_the_edge_of_a_range_is_known(entry: SearchRange, value: object, edge: str) -> None:
    assert entry.edge_of(value) == edge


@pytest.mark.parametrize(
    "path",
    [
        "seed",
        "name",
        "chain",
        "tuned.trials",
        "evaluate.measures",
        "data.test",
        "data.depth",
        "data.first_stages",
        "data.validation",
        "data.folds",
        "stages.cl.validation_queries",
        "stages.*.validation_measure",
        "stages.cl",
        "data",
    ],
)
def test_no_sweep_sets_the_test_side_the_seed_or_what_is_validated(path: str) -> None:
    assert search_space.refused_key(path)


@pytest.mark.parametrize(
    "path", ["stages.cl.learning_rate", "stages.*.loss", "base", "data.train_temperature", "passages.stride"]
)
def test_what_is_trained_may_be_searched(path: str) -> None:
    assert search_space.refused_key(path) == ""


def test_all_arms_may_have_other_validation_queries_tests_or_seed_and_no_other_name_or_chain() -> None:
    free = ("stages.*.validation_queries", "data.test", "seed", "stages.cl.learning_rate", "evaluate.measures")
    assert [path for path in free if search_space.refused_setting(path)] == []
    taken = ("name", "chain", "tuned.trials", "stages", "stages.cl", "stages..steps")
    assert [path for path in taken if not search_space.refused_setting(path)] == []


def test_a_space_is_as_large_as_its_ranges_say() -> None:
    assert search_space.size_of({"a": SIZE, "b": LOSS}) == 6
    assert math.isinf(search_space.size_of({"a": SIZE, "b": RATE}))
