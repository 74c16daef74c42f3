"""A request to run: what it replaces in a recipe, and when it is a matrix."""

from __future__ import annotations

import pytest

from cerank.app.run_request import RunRequest, load_matrix, load_recipe
from cerank.errors import UsageError

SHIPPED = "contrastive-then-distill"


def test_what_a_request_names_replaces_the_recipes_own() -> None:
    request = RunRequest(
        recipes=(SHIPPED,),
        bases=("electra",),
        seed=7,
        first_stages=("bm25", "scoreddocs"),
        depth=5,
        overrides=("stages.distill.steps=3",),
    )
    recipe = load_recipe(request).recipe
    own = load_recipe(RunRequest(recipes=(SHIPPED,))).recipe
    assert (recipe.base, recipe.seed, recipe.data.depth) == ("electra", 7, 5)
    assert recipe.data.first_stages == ("bm25", "scoreddocs")
    assert recipe.stages["distill"].steps == 3
    assert recipe.data.test == own.data.test


def test_a_test_dataset_wins_over_the_parts_of_a_dataset() -> None:
    data = RunRequest(dataset="./mine", tests=("dl19",)).data()
    assert data == {"train": "./mine[:60%]", "validation": "./mine[60%:80%]", "test": ["dl19"]}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (RunRequest(recipes=("a",), bases=("b",), seed=1), False),
        (RunRequest(recipes=("a", "b")), True),
        (RunRequest(recipes=("a",), bases=("b", "c")), True),
        (RunRequest(recipes=("a",), seeds="1"), True),
        (RunRequest(matrix="ecir2025"), True),
        (RunRequest(recipes=("a",), baseline="a"), True),
    ],
)
def test_several_runs_make_a_matrix(request_: RunRequest, expected: bool) -> None:
    assert request_.is_matrix is expected


def test_a_matrix_has_a_run_for_each_recipe_base_and_seed() -> None:
    request = RunRequest(recipes=(SHIPPED, "contrastive"), bases=("electra", "minilm"), seeds="1-3", depth=9)
    runs = load_matrix(request)
    assert len(runs.cells) == 2 * 2 * 3
    assert {cell.recipe.data.depth for cell in runs.cells} == {9}


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        (RunRequest(recipes=("contrastive",), seed=1, seeds="1,2"), "--seeds"),
        (RunRequest(recipes=("contrastive",), seeds="2-1"), "--seeds"),
    ],
)
def test_seeds_that_contradict_each_other_are_rejected(request_: RunRequest, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_matrix(request_)
    assert caught.value.where == where
