"""Trials of a sweep as runs in the queue: planned, recorded, queued; asked for again, only what is missing is queued.

Invariant: a trial is in the sweep's record before its run can start, and every trial that is known beforehand is
planned before the first run is made, so that a sweep which cannot be carried out trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from cerank import recipes
from cerank.app import estimates, plans
from cerank.app.lab import Lab
from cerank.app.matrix import matrix_runs
from cerank.app.matrix.drafts import DraftRun, FieldError
from cerank.app.matrix.matrix_planning import WorkTotals, plan_runs
from cerank.app.matrix.outline_times import OutlineTimes
from cerank.app.missing_inputs import MissingInput, check_inputs
from cerank.app.plans import WorkItem
from cerank.app.sweeps.sweep_arms import SweepArm, SweepPlan, as_trial
from cerank.app.test_collections.collection_groups import group_of, is_group
from cerank.datasets import query_overlaps
from cerank.errors import CerankError, MissingError, UsageError
from cerank.files import json_records
from cerank.planning import stage_keys
from cerank.planning.inputs import open_datasets
from cerank.planning.shared_speed import shared_work
from cerank.recipes.schema import Recipe
from cerank.recipes.sweep_schema import SweepRecord, TrialRecord
from cerank.runs.declared_records import SWEEPS
from cerank.runs.layout import RunFolder, runs_folder
from cerank.settings import Settings

ReportProgress = Callable[[str], None]


class NewTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that is not in the record yet."""

    arm: str
    number: int  # from 1
    settings: dict[str, object]


class ArmOutline(msgspec.Struct, frozen=True, kw_only=True):
    """What the trials of one arm come to, before anything is started."""

    arm: SweepArm
    work: tuple[WorkItem, ...]  # of all its trials, part by part; work that two trials share counts once
    pairs: int  # that each trial is trained on, as a mean

    @property
    def minutes(self) -> float | None:
        """Return how long its trials take on one device; None where a part was never timed here."""
        return estimates.total(self.work)


class TrialOutline(msgspec.Struct, frozen=True, kw_only=True):
    """One trial, before anything is started."""

    trial: NewTrial
    pairs: int  # that it is trained on
    minutes: float | None  # of what no trial before it does, on one device; None where a part was never timed


class SweepOutline(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep comes to, found without starting or fetching anything."""

    arms: tuple[ArmOutline, ...]
    trials: tuple[TrialOutline, ...]  # in queue order; of an adaptive sweep, as if all were drawn at random
    work: tuple[WorkItem, ...]
    together: tuple[WorkItem, ...]  # the work as several devices do it that share each trial; () for one device
    is_measured: bool  # whether so many devices were timed together
    needs: tuple[MissingInput, ...]


def recipe_of(plan: SweepPlan, trial: NewTrial) -> Recipe:
    """Return the recipe of a trial, which reads no test set.

    Raises:
        CerankError: the recipe is wrong with the trial's settings.
    """
    given = f"in trial {trial.number} of sweep {plan.sweep.name}"
    return as_trial(plan.arm(trial.arm).with_settings(trial.settings, given), plan.sweep.name, trial.number)


def known_trials(plan: SweepPlan) -> list[NewTrial]:
    """Return every trial of a sweep that is known beforehand, the arms in turn: of an adaptive one, as if at random."""
    each = {arm.name: plan.first_settings(arm) for arm in plan.arms}
    return [
        NewTrial(arm=arm.name, number=number, settings=each[arm.name][number - 1])
        for number in range(1, max(arm.trials for arm in plan.arms) + 1)
        for arm in plan.arms
        if number <= len(each[arm.name])
    ]


def recipes_of_arms(plan: SweepPlan) -> list[Recipe]:
    """Return the recipe of each trial that is known beforehand, under the name of its arm; raises as `recipe_of`."""
    return [msgspec.structs.replace(recipe_of(plan, trial), name=trial.arm) for trial in known_trials(plan)]


def outline(plan: SweepPlan, settings: Settings, times: OutlineTimes, devices: int = 1) -> SweepOutline:
    """Return what a sweep comes to: its trials, the work of each arm with its time, and everything missing.

    Args:
        plan: the sweep.
        settings: settings in force.
        times: what gives the work its time.
        devices: devices that share a trial.

    Raises:
        CerankError: the recipe of a trial is wrong.
    """
    trials = [(trial, recipe_of(plan, trial)) for trial in known_trials(plan)]
    checked = check_inputs([recipe for _, recipe in trials], settings.cache)
    whole, whole_together, of_arm = WorkTotals(), WorkTotals(), {arm.name: WorkTotals() for arm in plan.arms}
    outlined: list[TrialOutline] = []
    is_measured = True
    for trial, recipe in trials:
        work = times.timed(recipe, plans.count_work(recipe, checked.queries, checked.documents))
        keys = [stage_keys.stage_key_by_names(recipe, index) for index in range(len(recipe.chain))]
        own = whole.add(recipe, keys, work)
        of_arm[trial.arm].add(recipe, keys, work)
        if devices > 1:
            together = times.together(recipe, devices)
            is_measured = is_measured and len(together) == len(recipe.chain)
            whole_together.add(recipe, keys, shared_work(work, devices, together))
        pairs = sum(part.pairs for part in work if part.part.startswith("train "))
        minutes = estimates.total(own) if own else 0.0
        outlined.append(TrialOutline(trial=trial, pairs=pairs, minutes=minutes))
    trained = {arm.name: [each.pairs for each in outlined if each.trial.arm == arm.name] for arm in plan.arms}
    arms = tuple(
        ArmOutline(arm=arm, work=of_arm[arm.name].done, pairs=round(sum(each) / len(each)))
        for arm in plan.arms
        if (each := trained[arm.name])
    )
    return SweepOutline(
        arms=arms,
        trials=tuple(outlined),
        work=whole.done,
        together=whole_together.done,
        is_measured=is_measured,
        needs=checked.needs,
    )


# --- into the queue


def check_apart_from_tests(plan: SweepPlan, settings: Settings) -> list[str]:
    """Check that no arm is validated or trained on its test queries; return the test sets that are not here to check.

    Training data that is searched is looked at, each choice of it. Of a name for several test collections, those on
    disk are.

    Raises:
        RecipeError: one is; so would be the runs of the recipes that the sweep finds.
    """
    unknown: list[str] = []
    for recipe in (recipe for arm in plan.arms for recipe in _with_each_training_set(plan, arm)):
        for test in _single_tests(recipe, settings, unknown):
            data = msgspec.structs.replace(recipe.data, test=(test,))
            alone = msgspec.structs.replace(recipe, data=data)
            try:
                shared = query_overlaps.overlaps(alone, open_datasets(alone, settings.cache))
            except CerankError:
                unknown.append(test)
                continue
            query_overlaps.check_test_queries(shared, alone)
    return list(dict.fromkeys(unknown))


def check_apart_from_validation(plan: SweepPlan, settings: Settings) -> None:
    """Check that no arm is trained on queries that choose among its trials; each searched training set is looked at.

    Data that is missing is left to the planning of the trials, which names all of it.

    Raises:
        RecipeError: one is.
    """
    for recipe in (recipe for arm in plan.arms for recipe in _with_each_training_set(plan, arm)):
        untested = as_trial(recipe, plan.sweep.name, 0)
        try:
            datasets = open_datasets(untested, settings.cache)
        except CerankError:
            continue
        query_overlaps.check_validation_queries(msgspec.structs.replace(untested, name=recipe.name), datasets)


def _with_each_training_set(plan: SweepPlan, arm: SweepArm) -> list[Recipe]:
    """Return an arm's recipe, and as it is with each choice of training data that is searched."""
    given = f"in sweep {plan.sweep.name}"
    searched = {path: entry for path, entry in arm.search.items() if path == "data.train" or path.endswith(".dataset")}
    choices = [{path: value} for path, entry in searched.items() for value in entry.choices]
    return [arm.recipe, *(arm.with_settings(settings, given) for settings in choices)]


def _single_tests(recipe: Recipe, settings: Settings, unknown: list[str]) -> list[str]:
    """Return a recipe's test sets, those of a name for several one by one; what is not here is added to `unknown`."""
    tests = []
    for name in recipe.data.test:
        if not is_group(name):
            tests.append(name)
            continue
        try:
            group = group_of(name, settings.cache)
        except MissingError:
            unknown.append(name)
            continue
        tests += group.here
        unknown += group.left_out
    return tests


def load_record(lab: Lab, plan: SweepPlan) -> SweepRecord | None:
    """Return what the lab keeps of a sweep; None before its first trial.

    Raises:
        UsageError: the lab has another sweep of this name.
        DamagedError: the record is unreadable, or of a later release.
    """
    record = SWEEPS.load_if_there(lab.folder, plan.sweep.name)
    if record is not None and record.sha256 != plan.sha256:
        what = f"the lab already has a sweep '{plan.sweep.name}' that declares something else"
        hint = "give the new sweep another name: trials that were chosen among must stay on record"
        where = str(SWEEPS.path_of(lab.folder, plan.sweep.name))
        raise UsageError(what, where=where, hint=hint, code="sweep-exists")
    return record


def queue_trials(
    lab: Lab,
    plan: SweepPlan,
    record: SweepRecord | None,
    trials: Sequence[NewTrial],
    *,
    now: datetime,
    say: ReportProgress,
) -> SweepRecord:
    """Plan trials, record them, and put their runs into the queue.

    Args:
        lab: lab of the runs.
        plan: the sweep.
        record: its record so far; None before the first trial.
        trials: those to add, none of which is in the record.
        now: time at which they are queued, with a time zone.
        say: called with a text for each step.

    Raises:
        CerankError: something is missing or wrong (all of it is said); then nothing was queued.
    """
    cells = [_draft(plan, trial) for trial in trials]
    settings = lab.plan_settings()
    planned = plan_runs(cells, settings, now, say)
    if planned.errors:
        raise _planning_error(plan, cells, planned.errors, settings)
    shared = [msgspec.structs.replace(each, shares=True) for each in planned.plans]
    run_of = matrix_runs.runs_by_plan(lab)  # an earlier asking may have been killed before it wrote the record
    folders = [
        run_of.get((each.recipe.name, each.fingerprint)) or lab.create(each, cell.toml)
        for cell, each in zip(cells, shared, strict=True)
    ]
    added = tuple(
        TrialRecord(
            arm=trial.arm,
            number=trial.number,
            settings=trial.settings,
            run=folder.name,
            fold=plan.arm(trial.arm).fold,
        )
        for trial, folder in zip(trials, folders, strict=True)
    )
    record = _with_trials(plan, record, added, now)
    SWEEPS.save(lab.folder, record)
    queue_runs(lab, folders)
    return record


def queue_runs(lab: Lab, folders: Sequence[RunFolder]) -> list[RunFolder]:
    """Put those of the runs into the queue that are not finished, at work or queued; return them."""
    waiting = [folder for folder in folders if lab.status(folder).state not in matrix_runs.NOT_TO_QUEUE]
    if lab.executor is not None and waiting:
        lab.submit(waiting)
    else:
        for folder in waiting:
            lab.resume_queued(folder)
    return waiting


def queue_unfinished(lab: Lab, record: SweepRecord) -> list[RunFolder]:
    """Put the runs of recorded trials into the queue that are not finished and were not stopped early; return them.

    Raises:
        MissingError: one was deleted.
    """
    going_on = [trial for trial in record.trials if not trial.stopped]
    folders = [RunFolder(runs_folder(lab.folder) / trial.run) for trial in going_on]
    gone = [
        f"{trial.arm} {trial.number}"
        for trial, folder in zip(going_on, folders, strict=True)
        if not folder.path.is_dir()
    ]
    if gone:
        what = f"the runs of trials were deleted: {', '.join(gone)}"
        hint = "restore them in the dashboard, or give the sweep another name; a trial that was made counts"
        raise MissingError(what, where=f"sweep {record.name}", hint=hint, code="sweep-run-deleted")
    return queue_runs(lab, folders)


def _draft(plan: SweepPlan, trial: NewTrial) -> DraftRun:
    recipe = recipe_of(plan, trial)
    label = f"{plan.sweep.name} {trial.arm} {trial.number}/{plan.arm(trial.arm).trials}"
    return DraftRun(recipe, recipes.render(recipe).encode(), label, "")


def _planning_error(
    plan: SweepPlan, cells: Sequence[DraftRun], errors: Sequence[FieldError], settings: Settings
) -> CerankError:
    where = f"sweep {plan.sweep.name}"
    needs = check_inputs([cell.recipe for cell in cells], settings.cache).needs
    if not needs:
        texts = dict.fromkeys(f"{error.path}: {error.text}" for error in errors)
        return UsageError("\n".join(texts), where=where, code="sweep-unplanned")
    hint = "add --dry-run to see how to get each of them"
    return MissingError("\n".join(f"{need.kind} {need.name}: {need.text}" for need in needs), where=where, hint=hint)


def _with_trials(
    plan: SweepPlan, record: SweepRecord | None, added: tuple[TrialRecord, ...], now: datetime
) -> SweepRecord:
    time = json_records.timestamp(now)
    planned = {arm.name: arm.trials for arm in plan.arms}
    if record is not None:
        return msgspec.structs.replace(record, changed=time, planned=planned, trials=record.trials + added)
    return SweepRecord(
        name=plan.sweep.name,
        sha256=plan.sha256,
        created=time,
        changed=time,
        method=plan.sweep.method,
        measure=plan.measure,
        arms=tuple(arm.name for arm in plan.arms),
        planned=planned,
        trials=added,
    )
