"""Designs of factors: which combinations are run, and that each effect can be told from every other."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from cerank.errors import RecipeError
from cerank.recipes import factors
from cerank.recipes.matrix_schema import matrix_from
from tests.refusals import refused


def two_levels(count: int) -> dict[str, tuple[str, str]]:
    return dict.fromkeys("abcdefgh"[:count], ("no", "yes"))


@pytest.mark.parametrize(
    ("count", "fraction"), [(3, "half"), (4, "half"), (5, "half"), *((n, "quarter") for n in (5, 6, 7, 8))]
)
def test_a_fraction_holds_every_pair_of_levels_equally_often_and_the_references_together(count, fraction):
    levels = two_levels(count)
    rows = factors.design(levels, fraction)
    assert len(rows) == factors.count(levels, fraction) == 2**count // (2 if fraction == "half" else 4)
    assert set(rows[0].values()) == {"no"}
    assert len({tuple(row.items()) for row in rows}) == len(rows)
    for one, other in combinations(levels, 2):
        assert set(Counter((row[one], row[other]) for row in rows).values()) == {len(rows) // 4}


@pytest.mark.parametrize(("count", "fraction"), [(3, "half"), (5, "quarter"), (4, "half"), (6, "quarter")])
def test_what_a_fraction_cannot_tell_apart_is_what_moves_together_in_it(count, fraction):
    levels = two_levels(count)
    signs = [
        {name: 1 if level == "yes" else -1 for name, level in row.items()} for row in factors.design(levels, fraction)
    ]
    together = {
        name: tuple(
            (one, other)
            for one, other in combinations(levels, 2)
            if abs(sum(row[name] * row[one] * row[other] for row in signs)) == len(signs) and name not in {one, other}
        )
        for name in levels
    }
    assert factors.mixed_effects(list(levels), fraction) == {name: pairs for name, pairs in together.items() if pairs}


def test_a_full_design_is_every_combination_and_no_factors_are_one():
    levels = {"rate": ("low", "high", "none"), "loss": ("lce", "hinge")}
    assert len(factors.design(levels)) == 6
    assert factors.design({}) == [{}]


@pytest.mark.parametrize(
    ("declared", "fraction", "named"),
    [
        ({"rate": {"low": {}}}, "full", "factors.rate"),
        ({"rate": {"low": {}, "same": {}}}, "full", "factors.rate.same"),
        ({"base": {"a": {}, "b": {"data.depth": 1}}}, "full", "factors.base"),
        ({"r r": {"a": {}, "b": {"data.depth": 1}}}, "full", "factors.r r"),
        ({"rate": {"a": {}, "b": {"data.depth": 1}}}, "half", "fraction"),
        ({name: {"a": {}, "b": {f"data.{name}": 1}, "c": {f"data.{name}": 2}} for name in "xyz"}, "half", "x, y, z"),
        ({name: {"a": {}, "b": {f"data.{name}": 1}} for name in "xyz"}, "quarter", "fraction"),
    ],
)
def test_factors_that_make_no_design_are_refused(declared, fraction, named):
    table = {"name": "m", "recipes": ["contrastive"], "factors": declared, "fraction": fraction}
    with refused(RecipeError, "recipe", named):
        matrix_from(table, "m.toml")


LOSS, SAME = {"stages.a.loss": "bce"}, {"stages": {"a": {"loss": "lce"}}}


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ({"one": {"a": {}, "b": LOSS}, "two": {"a": {}, "b": SAME}}, ("factors.two", "stages.a.loss", "factors.one")),
        ({"one": {"a": {}, "b": LOSS}, "two": {"a": {}, "b": {"stages.a": 1}}}, ("factors.two", "stages.a")),
        ({"one": {"a": {"data": 1}, "b": {}}, "two": {"a": {}, "b": {"data.depth": 1}}}, ("data.depth", "factors.one")),
        ({"one": {"a": {"seed": 5}, "b": {"seed": 6}}}, ("factors.one", "seed", "seeds")),
        ({"one": {"a": {}, "b": {"base": "bert"}}}, ("factors.one", "base", "bases")),
        ({"one": {"a": {}, "b": {"name": "other"}}}, ("factors.one", "name")),
    ],
)
def test_a_factor_sets_neither_another_factors_keys_nor_those_of_the_matrix(declared, named):
    with refused(RecipeError, "recipe", *named):
        matrix_from({"name": "m", "recipes": ["contrastive"], "factors": declared}, "m.toml")


def test_factors_may_set_keys_side_by_side_in_one_table():
    declared = {"one": {"a": {}, "b": LOSS}, "two": {"a": {}, "b": {"stages.a": {"steps": 3}, "stages.ab.loss": "lce"}}}
    matrix = matrix_from({"name": "m", "recipes": ["contrastive"], "factors": declared}, "m.toml")
    assert matrix.varied_paths() == {"one": ("stages.a.loss",), "two": ("stages.a.steps", "stages.ab.loss")}
