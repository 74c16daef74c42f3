"""Write the best setting of each arm as a recipe that says where it comes from.

Invariant: nothing is written before every trial has had its chance, so that what a verdict says of the number of trials
is what was looked at.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cerank import recipes
from cerank.app.sweeps.sweep_arms import SweepPlan, tuned_file
from cerank.app.sweeps.sweep_driver import SweepStatus
from cerank.app.sweeps.trial_results import ArmResult, TrialResult
from cerank.errors import UsageError
from cerank.files import disk
from cerank.recipes import search_space
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.tuning_specs import FoldTuning, Tuning
from cerank.text.safe_text import counted


def tuned_recipe(plan: SweepPlan, arms: Sequence[ArmResult]) -> Recipe:
    """Return a recipe with the settings of its best trial, its tests as they were, and where that comes from.

    Args:
        plan: the sweep.
        arms: the recipe's only arm, or those of all its folds: then it has settings for each of them.

    Raises:
        UsageError: no trial of an arm was finished.
    """
    where = f"sweep {plan.sweep.name}"
    best = [_best(plan, each) for each in arms]
    tuned = Tuning(
        sweep=plan.sweep.name,
        sha256=plan.sha256,
        method=plan.sweep.method,
        trials=len(arms[0].results),
        pairs=sum(each.pairs for each in arms),
        measure=plan.measure,
    )
    first = arms[0].arm
    if first.fold:
        whole = msgspec.structs.replace(first, name=first.of, fold=0)
        recipe = whole.with_settings({}, where)
        each_fold = tuple(
            FoldTuning(
                trial=chosen.trial.number,
                value=chosen.value,
                validation=each.arm.validation,
                pairs=each.pairs,
                settings=chosen.trial.settings,
            )
            for each, chosen in zip(arms, best, strict=True)
        )
        table = msgspec.to_builtins(recipe)
        before = {
            key: search_space.value_at(table, key) for key in search_space.spelled_out(first.search, recipe.chain)
        }
        known = {key: value for key, value in before.items() if value is not None}
        tuned = msgspec.structs.replace(tuned, by_fold=True, folds=each_fold, settings=known)
    else:
        recipe = first.with_settings(best[0].trial.settings, where)
        tuned = msgspec.structs.replace(
            tuned,
            validation=first.validation,
            value=best[0].value,
            trial=best[0].trial.number,
            settings=best[0].trial.settings,
        )
    return msgspec.structs.replace(recipe, name=f"{recipe.name}-tuned", tuned=tuned)


def _best(plan: SweepPlan, each: ArmResult) -> TrialResult:
    if each.best is None:
        what = f"{each.arm.name}: none of {counted(each.arm.trials, 'trial')} was finished"
        hint = "`cerank sweep FILE --results` says why"
        raise UsageError(what, where=f"sweep {plan.sweep.name}", hint=hint, code="sweep-without-best")
    return each.best


def write(plan: SweepPlan, status: SweepStatus, folder: Path, *, replace: bool = False) -> list[Path]:
    """Write the best settings of each recipe to FOLDER/RECIPE-tuned.toml, and return the files.

    Raises:
        UsageError: a trial has not had its chance yet, an arm has no finished one, or a file exists.
        RunFailedError: the folder cannot be written to.
    """
    where = f"sweep {plan.sweep.name}"
    if not status.is_over:
        done = sum(len(each.results) for each in status.arms)
        what = f"not all of {counted(plan.trials, 'trial')} are over ({done} were started)"
        hint = (
            "the best of some would be chosen among fewer than its recipe says; give the command again without --write"
        )
        raise UsageError(what, where=where, hint=hint, code="sweep-not-over")
    arms_of = {name: [each for each in status.arms if each.arm.of == name] for name in plan.recipes}
    tuned_recipes = [tuned_recipe(plan, arms) for arms in arms_of.values()]
    files = [folder / tuned_file(name) for name in arms_of]
    there = [file for file in files if file.exists()]
    if there and not replace:
        raise UsageError("the file exists", where=str(there[0]), hint="--replace writes it anew", code="file-exists")
    disk.make_folder(folder)
    for file, recipe in zip(files, tuned_recipes, strict=True):
        disk.write(file, recipes.render(recipe).encode())
    return files


def run_command(plan: SweepPlan, files: Sequence[Path]) -> str:
    """Return the command that tests tuned recipes: one with its untuned recipe as the baseline, several together."""
    untuned = [plan.arms[0].source] if len(files) == 1 else []
    names = " ".join(f"--recipe {shlex.quote(str(source))}" for source in (*untuned, *files))
    return f"cerank run {names} --name NAME --seeds 1-3"
