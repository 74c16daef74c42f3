"""What the command line asks `cerank run` to do: one recipe, or a matrix of recipes, base models and seeds."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from cerank import recipes
from cerank.app import plans
from cerank.app.matrix import matrix_runs
from cerank.app.matrix.drafts import seeds_in
from cerank.app.matrix.fold_recipes import FoldRecipe, fold_recipes
from cerank.app.matrix.matrix_runs import MatrixRuns
from cerank.app.test_collections.collection_groups import is_group
from cerank.errors import UsageError
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
    split_by: str = ""  # what `dataset` is divided by: "relevant" or a field of its queries; "": by their ids
    folds: str = ""  # of the queries of the dataset, as in the recipe's `data.folds`

    @property
    def is_matrix(self) -> bool:
        """Return whether the request is for several runs."""
        names_matrix = bool(self.matrix or self.matrix_name or self.seeds or self.baseline)
        return names_matrix or len(self.recipes) > 1 or len(self.bases) > 1

    def data(self) -> dict[str, object]:
        """Return the settings of the recipe's table `data` that this request replaces."""
        table: dict[str, object] = {}
        if self.split_by and self.folds:
            what = "folds have few and many relevant documents to a query alike by themselves"
            hint = "leave out --split-by, or the folds"
            raise UsageError(what, where="--split-by", hint=hint, code="options-conflict")
        if self.dataset and is_group(self.dataset):
            raise UsageError(
                "several test collections are no training data",
                where="--dataset",
                hint=f"name a training set with --dataset, and --test '{self.dataset}'",
                code="collections-for-training",
            )
        if self.dataset and self.folds:
            table = {"train": self.dataset, "validation": self.dataset, "test": [self.dataset]}
        elif self.dataset:
            plans.check_whole(self.dataset)
            train, validation, tests = plans.parts_of(self.dataset, self.split_by)
            table = {"train": train, "validation": validation, "test": list(tests)}
        if self.tests:
            table["test"] = list(self.tests)
        if self.first_stages:
            table["first_stages"] = list(self.first_stages)
        if self.depth is not None:
            table["depth"] = self.depth
        if self.folds:
            table["folds"] = self.folds
        return table

    def with_folds_of(self, recipe: Recipe) -> RunRequest:
        """Return the request with the folds of a recipe that has them: its dataset is then not divided in parts."""
        return msgspec.structs.replace(self, folds=recipe.data.folds) if self.dataset and not self.folds else self


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
    loaded = recipes.load(request.recipes[0], request.overrides, changes)
    with_folds = request.with_folds_of(loaded.recipe)
    return load_recipe(with_folds) if with_folds.folds != request.folds else loaded


def load_folds(request: RunRequest, label: str = "") -> list[tuple[FoldRecipe, str]]:
    """Return the recipe of each fold with the label of its run; a recipe without folds is the only one.

    Args:
        request: one recipe.
        label: label of the runs, with the fold behind it; default: the recipe's name.

    Raises:
        UsageError: no whole dataset to divide; too few folds.
        CerankError: the recipe or a file of folds cannot be read.
    """
    recipe = plans.checked(load_recipe(request).recipe)
    return [(of_fold, of_fold.label(label or recipe.name)) for of_fold in fold_recipes(recipe)]


def load_matrix(request: RunRequest) -> MatrixRuns:
    """Return the runs of the matrix that a request stands for.

    Raises:
        UsageError: no recipe is given, or the seeds are wrong.
        CerankError: a recipe cannot be read, or is wrong with what the request replaces.
    """
    if request.seeds and request.seed is not None:
        hint = f"give all seeds with --seeds {request.seed},..."
        raise UsageError("--seed and --seeds cannot be combined", where="--seeds", hint=hint, code="options-conflict")
    request = _with_folds_of_matrix(request)
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


def _with_folds_of_matrix(request: RunRequest) -> RunRequest:
    """Return the request with the folds that its matrix or first recipe has, if it names a dataset to divide."""
    if not request.dataset or request.folds:
        return request
    names = request.recipes
    if request.matrix:
        matrix = recipes.load_matrix(request.matrix).matrix
        if matrix.folds:
            return msgspec.structs.replace(request, folds=matrix.folds)
        names = names or matrix.recipes
    own = [text for text in request.overrides if text.partition("=")[0].strip() == "data.folds"]
    return request.with_folds_of(recipes.load(names[0], own).recipe) if names else request


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
        if key in {"test", "first_stages", "depth", "folds"}:
            changes[key] = value
        else:
            overrides.append(f"data.{key}={json.dumps(value)}")
    return changes, [*overrides, *request.overrides]
