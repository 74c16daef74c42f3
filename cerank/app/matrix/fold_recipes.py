"""A recipe that says `data.folds` as a recipe for each fold: cross-validation is made of runs like any other.

Invariant: no fold's recipe trains on, or chooses checkpoints by, a query of the fold that it is tested on.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cerank import recipes
from cerank.app import plans
from cerank.app.test_collections.collection_groups import is_group
from cerank.core.decode import merge_tables, toml_table
from cerank.datasets import folds
from cerank.errors import UsageError
from cerank.planning import inputs
from cerank.recipes import search_space
from cerank.recipes.recipe_checks import recipe_from
from cerank.recipes.schema import Data, Recipe, Stage
from cerank.recipes.sections.set_mixtures import is_mixture, sets_of, with_names
from cerank.text.safe_text import shown


class FoldRecipe(msgspec.Struct, frozen=True):
    """The recipe of one run: of a fold, or a recipe without folds as it is."""

    recipe: Recipe
    number: int  # of the fold that it is tested on, from 1; 0 without folds
    count: int  # folds in all

    @property
    def toml(self) -> bytes:
        """Return the recipe as its run keeps it."""
        return recipes.render(self.recipe).encode()

    def label(self, text: str) -> str:
        """Return a label with the fold behind it, which tells the runs of one recipe apart."""
        return f"{text} fold {self.number} of {self.count}".lstrip() if self.number else text


def fold_recipes(recipe: Recipe) -> tuple[FoldRecipe, ...]:
    """Return the recipes of all folds; of a recipe without `data.folds` only itself.

    The test dataset is divided, and so is each other place of the recipe that names it: in each round one fold is
    tested, the next chooses checkpoints, and the others are trained on. `data.train` and `data.validation` that the
    recipe leaves out name it, too. A stage that trains and validates on other data is the same in all rounds, and is
    trained once.

    Raises:
        UsageError: there is no one whole dataset to divide, no stage is trained on it, or there are too few folds.
        CerankError: a file of folds that cannot be read.
    """
    if not recipe.data.folds:
        return (FoldRecipe(recipe, 0, 0),)
    default = Data()
    names_data = (recipe.data.train, recipe.data.test) != (default.train, default.test)
    recipe = plans.absolute(_filled(recipe))
    of, whole = recipe.data.folds, recipe.data.test[0]
    _check_divided(recipe, whole, names_data=names_data)
    validates = whole in {stage.validation or recipe.data.validation for _, stage in recipe.chained()}
    count = folds.count_of(of, validates=validates)
    chosen = recipe.tuned.folds
    if chosen and len(chosen) != count:
        what = f"a sweep chose settings for {len(chosen)} folds, and there are {count}"
        hint = f"set data.folds back, or search again: cerank sweep (sweep {shown(recipe.tuned.sweep, 80)})"
        raise UsageError(what, where=f"recipe {recipe.name}, tuned.folds", hint=hint, code="folds-tuned")
    rounds = [folds.fold_names(whole, number, count, of, validates=validates) for number in range(1, count + 1)]
    return tuple(
        FoldRecipe(_of_fold(_as_tuned(recipe, number), whole, names), number, count)
        for number, names in enumerate(rounds, 1)
    )


def _as_tuned(recipe: Recipe, number: int) -> Recipe:
    """Return a recipe with what a sweep chose for one fold, if it did so fold by fold."""
    if not recipe.tuned.folds:
        return recipe
    changed = search_space.changed_settings(msgspec.to_builtins(recipe), recipe.tuned.settings, recipe.chain)
    if changed:
        what = f"sets {changed[0]}, of which a sweep chose a value for each fold, so that it would do nothing"
        hint = "take [tuned] out of the recipe, or leave the key as it is"
        raise UsageError(what, where=f"recipe {recipe.name}", hint=hint, code="folds-tuned-key")
    choice = recipe.tuned.folds[number - 1]
    tuned = msgspec.structs.replace(
        recipe.tuned,
        folds=(),
        trial=choice.trial,
        value=choice.value,
        validation=choice.validation,
        pairs=choice.pairs,
        settings=choice.settings,
    )
    where = f"recipe {recipe.name}, tuned.folds {number}"
    table = toml_table(recipes.render(msgspec.structs.replace(recipe, tuned=tuned)).encode(), where)
    changes = search_space.nested(search_space.spelled_out(choice.settings, recipe.chain))
    return plans.absolute(plans.checked(recipe_from(merge_tables(table, changes), where)))


def instead_of(key: str, name: str, of: str) -> str:
    """Return in words what a recipe with folds reads in the place of data that it leaves out; "" where it names data.

    Args:
        key: key of `[data]`.
        name: what the recipe has there.
        of: its `folds`; "" for none.

    >>> instead_of("train", "pydocs/train", "5")
    'the other folds of the test set'
    >>> [instead_of("train", "./coll", "5"), instead_of("train", "pydocs/train", "")]
    ['', '']
    """
    words = {"train": "the other folds of the test set", "validation": "the next fold of the test set"}
    return words[key] if of.strip() and key in words and name == getattr(Data(), key) else ""


def _filled(recipe: Recipe) -> Recipe:
    """Return the recipe with the one dataset that is tested also where it leaves training or validation out."""
    data, default = recipe.data, Data()
    if len(data.test) != 1:
        what = f"folds are made of the queries of one test dataset, not of {len(data.test)}"
        raise _not_divided(recipe, what, "name one in data.test")
    whole = data.test[0]
    train = whole if data.train == default.train else data.train
    validation = whole if data.validation == default.validation else data.validation
    return msgspec.structs.replace(recipe, data=msgspec.structs.replace(data, train=train, validation=validation))


def _check_divided(recipe: Recipe, whole: str, *, names_data: bool) -> None:
    """Check that there is a dataset to divide, and that it is trained on.

    Raises:
        UsageError: it is not so.
    """
    if whole.endswith("]") or is_mixture(whole) or is_group(whole):
        raise _not_divided(recipe, "folds are made of the queries of a whole dataset", "name all of it")
    if not names_data:
        hint = "name a dataset in data.test or with --dataset"
        raise _not_divided(recipe, "folds are made of the queries of a dataset, and the recipe names none", hint)
    trained = {inputs.training_dataset(recipe, stage) for _, stage in recipe.chained()}
    if not any(whole in _sets(name) for name in trained):
        what = f"no stage trains on '{shown(whole, 120)}', so that all folds would be tested on one model"
        raise _not_divided(recipe, what, "name it in data.train, too, or leave data.folds out")


def _not_divided(recipe: Recipe, what: str, hint: str) -> UsageError:
    return UsageError(what, where=f"recipe {recipe.name}, data.folds", hint=hint, code="folds-dataset")


def _sets(name: str) -> set[str]:
    return {entry.name for entry in sets_of(name)} if is_mixture(name) else {name}


def _of_fold(recipe: Recipe, whole: str, names: folds.FoldNames) -> Recipe:
    def train(name: str) -> str:
        if is_mixture(name):
            return with_names(name, train)
        return names.train if name == whole else name

    def validation(name: str) -> str:
        return names.validation if name == whole else name

    data = msgspec.structs.replace(
        recipe.data,
        train=train(recipe.data.train),
        validation=validation(recipe.data.validation) or inputs.validation_dataset(recipe, recipe.chained()[-1][1]),
        test=(names.test,),
        folds="",
    )
    stages = {name: _stage_of_fold(stage, train, validation) for name, stage in recipe.stages.items()}
    settings = {
        path: train(value) if isinstance(value, str) and path.endswith(("data.train", ".dataset")) else value
        for path, value in recipe.tuned.settings.items()
    }
    tuned = msgspec.structs.replace(recipe.tuned, settings=settings) if settings else recipe.tuned
    return msgspec.structs.replace(recipe, data=data, stages=stages, tuned=tuned)


def _stage_of_fold(stage: Stage, train: Callable[[str], str], validation: Callable[[str], str]) -> Stage:
    return msgspec.structs.replace(
        stage,
        dataset=train(stage.dataset),
        validation=validation(stage.validation),
        losses=tuple(
            msgspec.structs.replace(part, sets=tuple(map(train, part.sets))) if part.sets else part
            for part in stage.losses
        ),
    )
