"""Runs that are the folds of one cross-validation: which fold a run is of, and where the others are.

Invariant: runs of one set differ in nothing but the fold that they are tested on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cerank.datasets import folds
from cerank.errors import MissingError, UsageError
from cerank.files.disk import DamagedError
from cerank.recipes import search_space
from cerank.recipes.paths import COUNTED_FOLDS
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe
from cerank.runs import run_store
from cerank.runs.layout import RunFolder


def fold_of(recipe: Recipe) -> tuple[int, str] | None:
    """Return (number, what the folds are of) of the fold that a run is tested on; None for another run."""
    if len(recipe.data.test) != 1:
        return None
    match = folds.FOLD.search(recipe.data.test[0])
    part = folds.parse_fold(match.group()) if match else None
    return (part.numbers[0], part.of) if part and not part.is_rest and len(part.numbers) == 1 else None


def in_words(folder: RunFolder, plan: Plan) -> str:
    """Return a sentence on how to see all folds together, for a run of one of them; "" for another run."""
    own = fold_of(plan.recipe)
    if own is None:
        return ""
    name, counted = run_store.short_name(folder), COUNTED_FOLDS.fullmatch(own[1])
    of = f" of {counted['count']}" if counted else ""
    return (
        f"{name} is fold {own[0]}{of}, so its figures are of that fold's queries alone: `cerank folds {name}` "
        f"pools all folds, as does {name}@folds in compare and report."
    )


def family(recipe: Recipe) -> bytes:
    """Return what is equal for the recipes of all folds: the recipe with the numbers of folds left out.

    Where a sweep chose settings for each fold by itself, these are left out, too.
    """
    own: object = _without_choices(recipe) if recipe.tuned.by_fold else recipe
    return folds.FOLD.sub(r"[fold/\g<of>]", msgspec.json.encode(own).decode()).encode()


def _without_choices(recipe: Recipe) -> dict[str, object]:
    """Return a recipe as a table without the values that a sweep chose for its fold, and what it says of them."""
    table: dict[str, Any] = msgspec.to_builtins(recipe)
    for path in search_space.spelled_out(recipe.tuned.settings, recipe.chain):
        inner: Any = table
        *above, last = path.split(".")
        for key in above:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(last, None)
    tuned = table["tuned"]
    table["tuned"] = {key: tuned[key] for key in ("sweep", "sha256", "method", "trials", "measure")}
    return table


def _shared_inputs(plan: Plan) -> dict[tuple[str, str], str]:
    """Return (role, name) -> SHA-256 of what runs of all folds read: the base, say, and data that is not divided."""
    return {(entry.role, entry.name): entry.sha256 for entry in plan.inputs if not folds.FOLD.search(entry.name)}


def _read_the_same(plan: Plan, other: Plan) -> bool:
    """Return whether two runs read the same; of what a sweep chose for each fold by itself, what both read."""
    ours, theirs = _shared_inputs(plan), _shared_inputs(other)
    if plan.recipe.tuned.by_fold:
        return all(ours[entry] == theirs[entry] for entry in ours.keys() & theirs.keys())
    return ours == theirs


def are_of_one_set(plan: Plan, other: Plan) -> bool:
    """Return whether two runs are folds of one cross-validation, perhaps the same fold.

    Runs that read another base model or other data under the same names are of another set.
    """
    if fold_of(plan.recipe) is None or fold_of(other.recipe) is None:
        return False
    return family(plan.recipe) == family(other.recipe) and _read_the_same(plan, other)


def find_one(lab: Path, name: str) -> RunFolder:
    """Return the run that a name means, as `run_store.find`, where one run is taken and not those of all folds.

    Raises:
        UsageError: as there; the hint on RUN@folds names the run of each fold.
    """
    try:
        return run_store.find(lab, name)
    except UsageError as error:
        if error.code != "folds-together":
            raise
        try:
            runs = in_order(lab, run_store.find(lab, name.removesuffix(run_store.ALL_FOLDS)))
        except (UsageError, MissingError):  # it is the run of no fold, or the others have not finished
            raise error from None
        short = ", ".join(run_store.short_name(folder) for folder, _ in runs)
        hint = f"name the run of one fold: {short}; `cerank compare` and `cerank report` take those of all folds"
        raise UsageError(error.what, where=error.where, hint=hint, code=error.code) from None


def in_order(lab: Path, folder: RunFolder) -> list[tuple[RunFolder, Plan]]:
    """Return the newest finished run of each fold in their order, from the run of any of them.

    Raises:
        UsageError: the run is not of a fold.
        MissingError: a fold has no finished run.
    """
    plan = run_store.load_plan(folder)
    own = fold_of(plan.recipe)
    if own is None:
        hint = "`cerank run --recipe NAME --dataset NAME --folds 5` makes a run for each fold"
        raise UsageError(f"run {run_store.title(folder)} is of no fold", hint=hint, code="not-a-fold")
    run_of: dict[int, tuple[RunFolder, Plan]] = {}
    for other in run_store.folders(lab):
        try:
            theirs = run_store.load_plan(other)
        except DamagedError:  # the list of runs says so
            continue
        fold = fold_of(theirs.recipe)
        if fold is None or not other.done.exists():
            continue
        if are_of_one_set(plan, theirs):
            run_of[fold[0]] = (other, theirs)
    count = folds.count_of(own[1], validates=False)
    missing = [str(number) for number in range(1, count + 1) if number not in run_of]
    if missing:
        what = f"fold {', '.join(missing)} of {count}: no run of it has finished"
        raise MissingError(what, where=run_store.title(folder), hint="`cerank ps` lists the runs", code="folds-missing")
    return [run_of[number] for number in range(1, count + 1)]
