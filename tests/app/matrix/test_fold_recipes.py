"""A recipe with folds becomes a recipe for each, none of which sees the queries that it is tested on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cerank import recipes
from cerank.app import fold_runs, plans, run_request
from cerank.app.matrix import matrix_runs
from cerank.app.matrix.drafts import check_draft, draft_of
from cerank.app.matrix.fold_recipes import fold_recipes
from cerank.app.run_request import RunRequest
from cerank.datasets.open_datasets import open_dataset
from cerank.errors import CerankError, UsageError
from cerank.planning import inputs
from cerank.recipes.matrix_schema import matrix_from
from cerank.recipes.recipe_checks import recipe_from
from cerank.settings import Settings
from tests.model_fixtures import write_tiny
from tests.refusals import refused
from tests.worker.small import STAGE, write_dataset

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def coll(tmp_path_factory):
    return str(write_dataset(tmp_path_factory.mktemp("folds") / "coll"))


def values(data: dict[str, object], *stages: dict[str, object]) -> dict[str, object]:
    named = {f"s{at}": STAGE | stage for at, stage in enumerate(stages or ({},))}
    return {"name": "r", "base": "minilm", "chain": [*named], "data": data, "stages": named}


def recipe(data: dict[str, object], *stages: dict[str, object]):
    return recipe_from(values(data, *stages), "test")


def settings_in(folder: Path) -> Settings:
    return Settings(lab=folder / "lab", cache=folder / "cache", device="cpu", threads=1, format="")


def test_a_recipe_without_folds_stays_one():
    plain = recipe({"test": ["pydocs/test"]})
    (only,) = fold_recipes(plain)
    assert only.recipe is plain
    assert only.label("name") == "name"


def test_each_fold_trains_on_the_others_and_the_key_is_gone(coll):
    rounds = fold_recipes(recipe({"test": [coll], "folds": 4}))
    assert [each.number for each in rounds] == [1, 2, 3, 4]
    assert rounds[3].label("name") == "name fold 4 of 4"
    data = rounds[3].recipe.data
    assert (data.train, data.validation, data.test) == (
        f"{coll}[fold!=4,1/4]",
        f"{coll}[fold=1/4]",
        (f"{coll}[fold=4/4]",),
    )
    assert data.folds == ""
    assert len({fold_runs.family(each.recipe) for each in rounds}) == 1
    assert recipes.render(rounds[0].recipe) == rounds[0].toml.decode()


def test_another_seed_deals_other_folds_which_are_disjoint_too(coll, tmp_path):
    parts = {}
    for folds in ("4", "4 by seed 7"):
        rounds = fold_recipes(recipe({"test": [coll], "folds": folds}))
        parts[folds] = [set(open_dataset(each.recipe.data.test[0], tmp_path).queries) for each in rounds]
        assert sum(map(len, parts[folds])) == len(set().union(*parts[folds])) == 40
    assert parts["4"] != parts["4 by seed 7"]


def test_a_stage_on_other_data_is_the_same_in_all_folds_and_trained_once(coll):
    other = {"dataset": "pydocs/train", "validation": "pydocs/validation"}
    rounds = fold_recipes(recipe({"test": [coll], "folds": 3}, other, {}))
    assert {each.recipe.stages["s0"].dataset for each in rounds} == {"pydocs/train"}
    assert len({each.recipe.data.train for each in rounds}) == 3


def test_a_mixture_is_divided_where_it_names_the_test_dataset(coll):
    rounds = fold_recipes(recipe({"test": [coll], "train": f"pydocs/train * 2 + {coll}", "folds": 3}))
    assert rounds[0].recipe.data.train == f"pydocs/train * 2 + {coll}[fold!=1,2/3]"


def test_two_folds_are_enough_where_other_queries_choose_checkpoints(coll):
    data = {"test": [coll], "validation": "pydocs/test", "folds": 2}
    assert [each.recipe.data.train for each in fold_recipes(recipe(data))] == [
        f"{coll}[fold!=1/2]",
        f"{coll}[fold!=2/2]",
    ]
    with refused(UsageError, "folds-too-few", 2):
        fold_recipes(recipe({"test": [coll], "folds": 2}))


def test_where_stages_validate_on_other_queries_no_tested_query_is_named_for_validation(coll, tmp_path):
    other = str(write_dataset(tmp_path / "other", seed=9))
    rounds = fold_recipes(recipe({"test": [coll], "folds": 2}, {"validation": other}))
    assert {each.recipe.data.validation for each in rounds} == {other}
    for each in rounds:
        used = [name for name in inputs.dataset_names(each.recipe) if name.startswith(coll)]
        assert used == [each.recipe.data.train, each.recipe.data.test[0]]


@pytest.mark.parametrize(
    "data",
    [
        {"test": ["pydocs/test"]},
        {"test": ["{coll}", "pydocs/test"]},
        {"test": ["{coll}[:50%]"]},
        {"test": ["beir:*"]},
        {"test": ["{coll}"], "train": "pydocs/test"},
    ],
    ids=["no dataset", "two tests", "a part", "a group", "not trained on"],
)
def test_what_cannot_be_divided_is_refused(data, coll):
    data = data | {"test": [name.format(coll=coll) for name in data["test"]]}
    with refused(UsageError, "folds-dataset"):
        fold_recipes(recipe(data | {"folds": 3}))


@pytest.mark.parametrize("folds", [0, -3, True, 2.5])
def test_what_is_no_number_of_folds_is_refused(folds, coll):
    with pytest.raises(CerankError):
        fold_recipes(recipe({"test": [coll], "folds": folds}))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([[f"q{at}" for at in range(start, 40, 4)] for start in range(3)], "folds-incomplete"),
        ([[f"q{at}" for at in range(start, 60, 4)] for start in range(4)], "folds-unknown"),
        ([["q1"], ["q1"], ["q2"]], "folds-format"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_a_run_is_made(content, code, coll, tmp_path):
    file = tmp_path / "folds.json"
    file.write_text(json.dumps(content))
    with refused(CerankError, code):
        plans.plan_of(
            fold_recipes(recipe({"test": [coll], "folds": str(file)}))[0].recipe, settings_in(tmp_path), now=NOW
        )
    assert not settings_in(tmp_path).lab.exists()


def test_more_folds_than_queries_are_refused_before_a_run_is_made(coll, tmp_path):
    with refused(UsageError, "folds-too-many", 41):
        plans.plan_of(fold_recipes(recipe({"test": [coll], "folds": 41}))[0].recipe, settings_in(tmp_path), now=NOW)


def test_training_on_another_part_of_the_tested_queries_is_refused_as_a_leak(coll, tmp_path):
    """A stage that names a part of the dataset is not divided, so it would see the queries of some fold."""
    rounds = fold_recipes(recipe({"test": [coll], "folds": 3}, {"dataset": f"{coll}[:50%]"}, {}))
    with refused(CerankError, "shared-queries"):
        plans.plan_of(rounds[0].recipe, settings_in(tmp_path), now=NOW)


def test_folds_of_queries_that_a_sweep_was_validated_on_are_refused_as_a_leak(coll, tmp_path):
    tuned = {"sweep": "rates", "method": "grid", "trials": 4, "validation": f"{coll}[60%:80%]"}
    table = values({"test": [coll], "folds": 3})
    for each in fold_recipes(recipe_from(table | {"tuned": tuned}, "test")):
        with refused(CerankError, "shared-queries"):
            plans.plan_of(each.recipe, settings_in(tmp_path), now=NOW)
    told: list[str] = []
    here = {"base": str(write_tiny(tmp_path / "base").folder), "pooling": "mean"}
    gone = recipe_from(table | here | {"tuned": tuned | {"validation": str(tmp_path / "gone")}}, "test")
    plans.plan_of(fold_recipes(gone)[0].recipe, settings_in(tmp_path), now=NOW, tell=told.append)
    assert any("gone" in text for text in told)


def test_a_plan_of_a_recipe_with_folds_is_refused(coll, tmp_path):
    with refused(UsageError, "folds-one-run"):
        plans.plan_of(recipe({"test": [coll], "folds": 3}), settings_in(tmp_path), now=NOW)


def test_a_file_of_folds_is_found_beside_the_recipe(coll, tmp_path):
    (tmp_path / "folds.json").write_text(json.dumps([[f"q{at}" for at in range(start, 40, 4)] for start in range(4)]))
    table = values({"test": [coll], "folds": "folds.json"})
    (tmp_path / "r.toml").write_text(recipes.render(recipe_from(table, "test")))
    loaded = recipes.load(str(tmp_path / "r.toml")).recipe
    assert loaded.data.folds == str(tmp_path / "folds.json")
    assert len(fold_recipes(loaded)) == 4


def test_the_dataset_of_the_command_line_is_divided_in_the_folds_of_the_recipe(coll, tmp_path):
    table = values({"folds": 3})
    (tmp_path / "r.toml").write_text(recipes.render(recipe_from(table, "test")))
    request = RunRequest(recipes=(str(tmp_path / "r.toml"),), dataset=coll)
    assert [label for _, label in run_request.load_folds(request)] == [f"r fold {number} of 3" for number in (1, 2, 3)]


def test_folds_are_a_dimension_of_a_matrix(coll, tmp_path):
    for name in ("a", "b"):
        text = recipes.render(recipe_from(values({}) | {"name": name}, "test"))
        (tmp_path / f"{name}.toml").write_text(text)
    files = [str(tmp_path / "a.toml"), str(tmp_path / "b.toml")]
    matrix = matrix_from({"name": "m", "recipes": files, "seeds": [1, 2], "test": [coll], "folds": 3}, "test")
    runs = matrix_runs.load_runs(recipes.LoadedMatrix(matrix, tmp_path, b""))
    cells = [(cell.recipe.name, cell.recipe.seed, cell.fold) for cell in runs.cells]
    assert len(cells) == len(set(cells)) == 2 * 2 * 3
    assert {cell.recipe.data.test for cell in runs.cells} == {(f"{coll}[fold={number}/3]",) for number in (1, 2, 3)}
    request = RunRequest(recipes=tuple(files), dataset=coll, folds="3", seeds="1,2")
    assert [cell.recipe for cell in run_request.load_matrix(request).cells] == [cell.recipe for cell in runs.cells]
    set_ = RunRequest(recipes=tuple(files), dataset=coll, overrides=("data.folds=3",), seeds="1,2")
    assert [cell.recipe for cell in run_request.load_matrix(set_).cells] == [cell.recipe for cell in runs.cells]


def test_a_dataset_that_a_recipe_would_have_by_itself_is_divided_where_it_is_named():
    (first, *_) = fold_recipes(recipe({"test": ["pydocs/test"], "train": "pydocs/test", "folds": 3}))
    assert first.recipe.data.train == "pydocs/test[fold!=1,2/3]"


def test_what_looks_like_a_number_of_folds_is_told_how_one_is_written(coll):
    with refused(CerankError, "folds-number", "5"):
        fold_recipes(recipe({"test": [coll], "folds": "5 by seed"}))


def test_a_form_with_folds_has_a_run_for_each(coll):
    draft = draft_of(recipe({"test": [coll], "folds": 3}))
    checked = check_draft(draft)
    assert [cell.fold for cell in checked.cells] == [1, 2, 3]
    assert [bool(cell.command) for cell in checked.cells] == [True, False, False]
    wrong = check_draft(draft_of(recipe({"test": [coll, "pydocs/test"], "folds": 3})))
    assert [error.path for error in wrong.errors] == ["data.folds"]
