"""What the command line asks `cerank run` to do: one recipe, or a matrix of recipes, base models and seeds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from cerank import recipes
from cerank.app import plans
from cerank.app.matrix import matrix_runs
from cerank.app.matrix.drafts import seeds_in
from cerank.app.matrix.matrix_runs import MatrixRuns
from cerank.app.test_collections.collection_groups import is_group
from cerank.datasets import folds
from cerank.errors import UsageError
from cerank.files.line_reader import local_path
from cerank.recipes.matrix_schema import matrix_from
from cerank.recipes.schema import Recipe


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The recipes to run and what replaces their settings; empty values keep what the recipe or matrix says."""

    recipes: tuple[str, ...] = ()  # shipped names or .toml files; several make a matrix
    bases: tuple[str, ...] = ()  # base models; several make a matrix
    seed: int | None = None
    dataset: str = ""  # one dataset for training, validation and test
    tests: tuple[str, ...] = ()  # test datasets; they win over `dataset`
    first_stages: tuple[str, ...] = ()
    depth: int | None = None  # candidates per query
    overrides: tuple[str, ...] = ()  # KEY=VALUE each
    matrix: str = ""  # a shipped matrix or a .toml file
    matrix_name: str = ""  # under which the lab stores the matrix
    seeds: str = ""  # seeds of a matrix, such as "1,2,3" or "1-5"
    baseline: str = ""  # the recipe with which the others of a matrix are compared

    @property
    def is_matrix(self) -> bool:
        """Return whether the request is for several runs."""
        names_matrix = bool(self.matrix or self.matrix_name or self.seeds or self.baseline)
        return names_matrix or len(self.recipes) > 1 or len(self.bases) > 1

    def data(self) -> dict[str, object]:
        """Return the settings of the recipe's table `data` that this request replaces."""
        table: dict[str, object] = {}
        if self.dataset:
            if is_group(self.dataset):
                raise UsageError(
                    "several test collections are no training data",
                    where="--dataset",
                    hint=f"name a training set with --dataset, and --test '{self.dataset}'",
                    code="collections-for-training",
                )
            plans.check_whole(self.dataset)
            train, validation, tests = plans.parts_of(self.dataset)
            table = {"train": train, "validation": validation, "test": list(tests)}
        if self.tests:
            table["test"] = list(self.tests)
        if self.first_stages:
            table["first_stages"] = list(self.first_stages)
        if self.depth is not None:
            table["depth"] = self.depth
        return table


def load_recipe(request: RunRequest) -> recipes.LoadedRecipe:
    """Return the only recipe of a request that is not a matrix, with what the request replaces.

    Raises:
        UsageError: the request names no recipe.
        CerankError: the recipe cannot be read, or is wrong with what the request replaces.
    """
    if not request.recipes:
        raise UsageError(
            "no recipe is given",
            hint="give --recipe or --matrix; `cerank recipes list` shows the shipped recipes",
            code="recipe-missing",
        )
    changes: dict[str, object] = {}
    if request.bases:
        changes["base"] = request.bases[0]
    if request.seed is not None:
        changes["seed"] = request.seed
    if data := request.data():
        changes["data"] = data
    return recipes.load(request.recipes[0], request.overrides, changes)


def load_folds(request: RunRequest, of: str) -> list[tuple[Recipe, bytes, str]]:
    """Return (recipe, TOML, label) of the run of each fold.

    Args:
        request: one recipe with one dataset.
        of: number of folds, or the file that says which.

    Raises:
        UsageError: no dataset, or a part of one; fewer than three folds.
        CerankError: the recipe or the file cannot be read.
    """
    if not request.dataset or request.tests:
        raise UsageError(
            "folds are made of the queries of one dataset, which is trained and tested on",
            where="--folds",
            hint="name it with --dataset, without --test",
            code="folds-dataset",
        )
    if request.dataset.endswith("]"):
        raise UsageError("folds are made of a whole dataset", where="--dataset", code="folds-dataset")
    if not re.fullmatch(r"[0-9]+", of):
        of = str(local_path(of).resolve())
    count = folds.count_of(of)
    loaded = []
    for number in range(1, count + 1):
        train, validation, test = folds.fold_names(request.dataset, number, count, of)
        parts = {"train": train, "validation": validation, "test": [test]}
        overrides = [f"data.{key}={json.dumps(value)}" for key, value in parts.items()]
        of_fold = msgspec.structs.replace(request, dataset="", overrides=(*overrides, *request.overrides))
        recipe = plans.absolute(plans.checked(load_recipe(of_fold).recipe))
        loaded.append((recipe, recipes.render(recipe).encode(), f"{recipe.name} fold {number} of {count}"))
    return loaded


def load_matrix(request: RunRequest) -> MatrixRuns:
    """Return the runs of the matrix that a request stands for.

    Raises:
        UsageError: no recipe is given, or the seeds are wrong.
        CerankError: a recipe cannot be read, or is wrong with what the request replaces.
    """
    if request.seeds and request.seed is not None:
        hint = f"give all seeds with --seeds {request.seed},..."
        raise UsageError("--seed and --seeds cannot be combined", where="--seeds", hint=hint, code="options-conflict")
    changes, overrides = _matrix_changes(request)
    if request.matrix:
        loaded = recipes.load_matrix(request.matrix, changes)
    else:
        if not request.recipes:
            raise UsageError(
                "a matrix needs at least one recipe", hint="give --recipe or --matrix", code="recipe-missing"
            )
        name = request.matrix_name or "-".join(Path(recipe).stem for recipe in request.recipes)
        matrix = matrix_from({**changes, "name": name}, "the command line")
        loaded = recipes.LoadedMatrix(matrix, Path.cwd(), b"")
    return matrix_runs.load_runs(loaded, overrides)


def _matrix_changes(request: RunRequest) -> tuple[dict[str, object], list[str]]:
    """Return the keys of the matrix that the request replaces, and KEY=VALUE overrides for its recipes."""
    seeds, wrong = seeds_in(request.seeds or ("" if request.seed is None else str(request.seed)))
    if wrong:
        raise UsageError(wrong, where="--seeds", code="range-reversed")
    replaced: tuple[tuple[str, object], ...] = (
        ("name", request.matrix_name),
        ("recipes", list(request.recipes)),
        ("bases", list(request.bases)),
        ("seeds", list(seeds)),
        ("baseline", request.baseline),
    )
    changes = {key: value for key, value in replaced if value}
    overrides: list[str] = []
    for key, value in request.data().items():
        if key in {"test", "first_stages", "depth"}:
            changes[key] = value
        else:
            overrides.append(f"data.{key}={json.dumps(value)}")
    return changes, [*overrides, *request.overrides]
