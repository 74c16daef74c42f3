"""Carry a sweep on: queue its trials, decide about the next ones and about which to stop, until all have had a chance.

Invariant: it keeps nothing but the record. What a trial tries, and where it is stopped, depends on the trials of
earlier rounds alone and never on which of them was faster; so a sweep that is killed and asked for again continues.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from cerank.app import plans
from cerank.app.lab import Lab
from cerank.app.sweeps import adaptive_search, sweep_queue, trial_results
from cerank.app.sweeps.sweep_arms import SweepPlan
from cerank.app.sweeps.sweep_queue import NewTrial, ReportProgress
from cerank.app.sweeps.trial_results import ALIVE, OVER, ArmResult
from cerank.errors import CerankError
from cerank.files import json_records
from cerank.recipes.plan import Plan
from cerank.recipes.sweep_schema import SweepRecord, TrialRecord
from cerank.runs import run_store
from cerank.runs.declared_records import SWEEPS
from cerank.runs.layout import RunFolder, runs_folder


class SweepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep as it stands."""

    record: SweepRecord | None
    arms: tuple[ArmResult, ...]

    @property
    def is_over(self) -> bool:
        """Return whether every trial of every arm has had its chance."""
        return all(each.is_over for each in self.arms)

    @property
    def is_alive(self) -> bool:
        """Return whether a trial is queued or at work."""
        return any(result.state in ALIVE for each in self.arms for result in each.results)

    @property
    def waiting(self) -> list[str]:
        """Return the trials that nobody carries out though they have not had their chance: paused or lost, say."""
        return [
            f"{result.trial.arm} {result.trial.number} is {result.state}"
            for each in self.arms
            for result in each.results
            if result.state not in {*ALIVE, *OVER}
        ]


def status(lab: Lab, plan: SweepPlan) -> SweepStatus:
    """Return how a sweep stands; nothing is queued or stopped.

    Raises:
        UsageError: the lab has another sweep of this name.
    """
    record = sweep_queue.load_record(lab, plan)
    return SweepStatus(record=record, arms=trial_results.results_of(lab, plan, record))


def begin(lab: Lab, plan: SweepPlan, now: datetime, say: ReportProgress) -> SweepStatus:
    """Queue what a sweep has to do: trials that were interrupted, and those that are missing.

    Args:
        lab: lab of the runs.
        plan: the sweep.
        now: time at which runs are queued, with a time zone.
        say: called with a text for each step.

    Raises:
        CerankError: something is missing or wrong (all of it is said); then nothing was queued.
    """
    if plan.sweep.is_adaptive:
        adaptive_search.check_library(plan.sweep.method)
    record = sweep_queue.load_record(lab, plan)
    if record is None:
        for trial in sweep_queue.known_trials(plan):  # all that is wrong is said before anything is trained
            sweep_queue.recipe_of(plan, trial)
        for test in sweep_queue.check_apart_from_tests(plan, lab.settings):
            say(f"{test} is not here, so that nobody looked whether it shares queries with validation")
        sweep_queue.check_apart_from_validation(plan, lab.settings)
    else:
        sweep_queue.queue_unfinished(lab, record)
    after = advance(lab, plan, now, say)
    if lab.executor is None and any(result.state == "queued" for each in after.arms for result in each.results):
        lab.start_queue()  # after a reboot nobody serves it
    return after


def advance(lab: Lab, plan: SweepPlan, now: datetime, say: ReportProgress) -> SweepStatus:
    """Stop the trials that ASHA has seen enough of, and queue the trials that can be decided about now.

    Raises:
        CerankError: a trial cannot be planned.
    """
    lab.refresh_jobs()
    record = sweep_queue.load_record(lab, plan)
    if record is not None and plan.sweep.method == "asha":
        record = _with_stops(lab, plan, record, now, say)
    new = _new_trials(plan, trial_results.results_of(lab, plan, record))
    if new:
        record = sweep_queue.queue_trials(lab, plan, record, new, now=now, say=say)
    return SweepStatus(record=record, arms=trial_results.results_of(lab, plan, record))


def _new_trials(plan: SweepPlan, results: Sequence[ArmResult]) -> list[NewTrial]:
    """Return the trials that can be decided about now and were not yet."""
    if not plan.sweep.is_adaptive:
        there = {(result.trial.arm, result.trial.number) for each in results for result in each.results}
        return [trial for trial in sweep_queue.known_trials(plan) if (trial.arm, trial.number) not in there]
    new = [_next_round(plan, each) for each in results]
    longest = max(map(len, new), default=0)
    return [trials[place] for place in range(longest) for trials in new if place < len(trials)]  # the arms in turn


def _next_round(plan: SweepPlan, each: ArmResult) -> list[NewTrial]:
    """Return an arm's next round of an adaptive search; [] while the round before it is not over."""
    sweep, done = plan.sweep, len(each.results)
    if done >= each.arm.trials or any(result.state not in OVER for result in each.results):
        return []
    drawn = plan.first_settings(each.arm)
    first = done // sweep.parallel * sweep.parallel  # a round that more trials were added to is still that round
    earlier = [(result.trial.settings, result.value) for result in each.results[:first]]
    trials = []
    for number in range(done + 1, min(first + sweep.parallel, each.arm.trials) + 1):
        is_drawn = sweep.method == "asha" or number <= sweep.startup
        settings = (
            drawn[number - 1] if is_drawn else adaptive_search.suggest(each.arm.search, earlier, sweep.seed, number)
        )
        trials.append(NewTrial(arm=each.arm.name, number=number, settings=settings))
    return trials


# --- ASHA


def _with_stops(lab: Lab, plan: SweepPlan, record: SweepRecord, now: datetime, say: ReportProgress) -> SweepRecord:
    """Return the record with the trials that are to be stopped early, after asking their workers to stop.

    A trial is compared with those of earlier rounds, up to where these were stopped. One that went on for a few more
    steps, or even to its end because nobody was there to stop it, counts as stopped where it should have been.
    """
    stops: dict[tuple[str, int], int] = {}
    for arm in plan.arms:
        histories: list[list[float]] = []
        trials = sorted((trial for trial in record.trials if trial.arm == arm.name), key=lambda trial: trial.number)
        rounds = [trials[at : at + plan.sweep.parallel] for at in range(0, len(trials), plan.sweep.parallel)]
        for together in rounds:
            seen = [_values_of(lab, plan, trial) for trial in together]
            for trial, (values, planned) in zip(together, seen, strict=True):
                number = trial.stopped or adaptive_search.stopped_after(histories, values, plan.sweep.reduction)
                if trial.stopped or 0 < number < planned:
                    stops[trial.arm, trial.number] = number
            histories += [
                values[: stops.get((trial.arm, trial.number), len(values))]
                for trial, (values, _) in zip(together, seen, strict=True)
            ]
    marked = tuple(
        msgspec.structs.replace(trial, stopped=stops.get((trial.arm, trial.number), 0)) for trial in record.trials
    )
    fresh = [trial for trial, before in zip(marked, record.trials, strict=True) if trial.stopped and not before.stopped]
    if not fresh:
        return record
    record = msgspec.structs.replace(record, changed=json_records.timestamp(now), trials=marked)
    SWEEPS.save(lab.folder, record)
    for trial in fresh:
        say(f"{trial.arm} {trial.number}: stopped early, after validation {trial.stopped}")
        with contextlib.suppress(CerankError):  # it has come to its end meanwhile
            lab.stop(RunFolder(runs_folder(lab.folder) / trial.run))
    return record


def _values_of(lab: Lab, plan: SweepPlan, trial: TrialRecord) -> tuple[list[float], int]:
    """Return the validations of a trial so far, and how many there are if it is not stopped."""
    folder = RunFolder(runs_folder(lab.folder) / trial.run)
    try:
        own = run_store.load_plan(folder)
        return trial_results.validations_of(folder, own, plan.measure), _planned_validations(own)
    except CerankError:
        return [], 0  # it is damaged or gone, which the table says


def _planned_validations(plan: Plan) -> int:
    name, stage = plan.recipe.chained()[-1]
    steps = stage.steps or next(part.units for part in plans.work_of(plan) if part.part == f"train {name}")
    return -(-steps // (stage.validate_every or steps))
