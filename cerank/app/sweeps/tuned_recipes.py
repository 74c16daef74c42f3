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
from cerank.app.sweeps.trial_results import ArmResult
from cerank.errors import UsageError
from cerank.files import disk
from cerank.recipes.schema import Recipe
from cerank.recipes.sections.tuning_specs import Tuning
from cerank.text.safe_text import counted


def tuned_recipe(plan: SweepPlan, each: ArmResult) -> Recipe:
    """Return an arm's recipe with the settings of its best trial, its tests as they were, and where that comes from.

    Raises:
        UsageError: no trial of the arm was finished.
    """
    best, where = each.best, f"sweep {plan.sweep.name}"
    if best is None:
        what = f"{each.arm.name}: none of {counted(each.arm.trials, 'trial')} was finished"
        raise UsageError(what, where=where, hint="`cerank sweep FILE --results` says why", code="sweep-without-best")
    settings = best.trial.settings
    recipe = each.arm.with_settings(settings, where)
    tuned = Tuning(
        sweep=plan.sweep.name,
        sha256=plan.sha256,
        method=plan.sweep.method,
        trials=len(each.results),
        pairs=each.pairs,
        measure=plan.measure,
        validation=each.arm.validation,
        value=best.value,
        trial=best.trial.number,
        settings=settings,
    )
    return msgspec.structs.replace(recipe, name=f"{recipe.name}-tuned", tuned=tuned)


def write(plan: SweepPlan, status: SweepStatus, folder: Path, *, replace: bool = False) -> list[Path]:
    """Write the best setting of each arm to FOLDER/ARM-tuned.toml, and return the files.

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
    tuned_recipes = [tuned_recipe(plan, each) for each in status.arms]
    files = [folder / tuned_file(each.arm.name) for each in status.arms]
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
