"""What the trials of a sweep came to: validation values read from their runs, the best of each arm, and the tables.

Invariant: computed from the runs' files alone; a trial's value is that of the weights which its last stage hands on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cerank.app.comparison import stage_costs
from cerank.app.lab import Lab
from cerank.app.sweeps.sweep_arms import SweepArm, SweepPlan
from cerank.core.metrics import Validation
from cerank.errors import CerankError
from cerank.files import journal
from cerank.recipes.plan import Plan
from cerank.recipes.search_space import short_paths, value_text
from cerank.recipes.sweep_schema import SweepRecord, TrialRecord
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder, runs_folder
from cerank.text.safe_text import counted
from cerank.text.table_data import Column, Table

ALIVE = ("queued", "running", "stopping")
STOPPED_EARLY = "stopped early"
OVER = ("finished", "failed", STOPPED_EARLY)  # states in which a trial has had its chance


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """One trial as it stands."""

    trial: TrialRecord
    state: str  # of its run; "stopped early" where the search stopped it, "missing" where its run was deleted
    value: float | None = None  # of the measure, once the run is finished
    start: float | None = None  # of the measure before the last stage's first step; None where it is not known
    best_step: int = 0  # steps of the last stage after which the value was measured
    pairs: int = 0  # that it was trained on so far, in all of its stages
    why: str = ""  # of a failed run


class ArmResult(msgspec.Struct, frozen=True, kw_only=True):
    """The trials of one arm, in order, and the best of them."""

    arm: SweepArm
    results: tuple[TrialResult, ...]

    @property
    def best(self) -> TrialResult | None:
        """Return the finished trial with the best value, of equal ones the first; None before any is finished."""
        known = [result for result in self.results if result.state == "finished" and result.value is not None]
        return max(known, key=lambda result: (result.value or 0.0, -result.trial.number)) if known else None

    @property
    def is_over(self) -> bool:
        """Return whether all trials that the arm gets were made and have had their chance."""
        return len(self.results) >= self.arm.trials and all(result.state in OVER for result in self.results)

    @property
    def pairs(self) -> int:
        """Return the pairs that all trials were trained on."""
        return sum(result.pairs for result in self.results)

    @property
    def edges(self) -> dict[str, str]:
        """Return the keys whose best value lies at an end of its range or list of numbers -> "low" or "high"."""
        if self.best is None:
            return {}
        settings = self.best.trial.settings
        each = {path: entry.edge_of(settings.get(path)) for path, entry in self.arm.search.items()}
        return {path: edge for path, edge in each.items() if edge}


def results_of(lab: Lab, plan: SweepPlan, record: SweepRecord | None) -> tuple[ArmResult, ...]:
    """Return the trials of each arm as they stand.

    Args:
        lab: lab of their runs.
        plan: the sweep.
        record: its trials; None before the first.
    """
    trials = record.trials if record is not None else ()
    return tuple(
        ArmResult(arm=arm, results=tuple(result_of(lab, trial) for trial in trials if trial.arm == arm.name))
        for arm in plan.arms
    )


def result_of(lab: Lab, trial: TrialRecord) -> TrialResult:
    """Return a trial as it stands."""
    folder = RunFolder(runs_folder(lab.folder) / trial.run)
    if not (trial.run and folder.path.is_dir()):
        return TrialResult(trial=trial, state="missing")
    status = lab.status(folder)
    state = STOPPED_EARLY if trial.stopped else status.state
    try:
        plan = run_store.load_plan(folder)
        pairs = sum(cost.pairs for cost in stage_costs.of_run(folder, plan))
        value, start, step = _final_value(folder, plan) if state == "finished" else (None, None, 0)
    except CerankError as error:
        return TrialResult(trial=trial, state="damaged", why=str(error))
    return TrialResult(trial=trial, state=state, value=value, start=start, best_step=step, pairs=pairs, why=status.text)


def _final_value(folder: RunFolder, plan: Plan) -> tuple[float | None, float | None, int]:
    from cerank.training import stage_summary

    last = len(plan.recipe.chain) - 1
    summary = stage_summary.read(folder.final(last, plan.recipe.chain[last]))
    return (summary.end, summary.start, summary.kept_step) if summary is not None else (None, None, 0)


def validations_of(folder: RunFolder, plan: Plan, measure: str) -> list[float]:
    """Return what the validations of a run's last stage gave of a measure so far, but for that of its start."""
    rows: list[ReadingRow]
    rows, _ = journal.read_valid_rows(folder.readings, ReadingRow)
    last = len(plan.recipe.chain) - 1
    by_step = {row.step: row.measures for row in rows if isinstance(row, Validation) and row.stage == last and row.step}
    return [by_step[step][measure] for step in sorted(by_step) if measure in by_step[step]]


# --- tables


def trial_table(plan: SweepPlan, results: Sequence[ArmResult], short: Mapping[str, str]) -> Table:
    """Return the trials of all arms, in each the best first."""
    paths = list(dict.fromkeys(path for arm in plan.arms for path in arm.search))
    columns = (
        Column("arm", "arm"),
        Column("trial", "trial", "number", 0),
        Column("value", plan.measure, "number"),
        *(Column(path, name) for path, name in zip(paths, short_paths(paths), strict=True)),
        Column("pairs", "pairs trained on", "number", 0, priority=1),
        Column("step", "step", "number", 0, priority=2),
        Column("state", "state"),
        Column("run", "run", "name", priority=1),
    )
    rows = []
    for arm in results:
        order = sorted(
            arm.results, key=lambda result: (result.value is None, -(result.value or 0.0), result.trial.number)
        )
        for result in order:
            trial = result.trial
            rows.append(
                (
                    *(trial.arm, trial.number, result.value),
                    *(value_text(trial.settings[path]) if path in trial.settings else "" for path in paths),
                    *(result.pairs or None, result.best_step or None, result.state, short.get(trial.run, trial.run)),
                )
            )
    return Table("trials", columns, tuple(rows), "Trials, by validation", empty="No trial was made yet.")


def best_table(plan: SweepPlan, results: Sequence[ArmResult]) -> Table:
    """Return the best setting of each arm, with what its search took."""
    columns = (
        Column("arm", "arm"),
        Column("trials", "trials", "number", 0),
        Column("finished", "finished", "number", 0),
        Column("pairs", "pairs trained on", "number", 0),
        Column("best", "best trial", "number", 0),
        Column("value", plan.measure, "number"),
        Column("settings", "its settings"),
        Column("edge", "at the edge"),
    )
    rows = []
    for each in results:
        best, edges = each.best, each.edges
        rows.append(
            (
                *(each.arm.name, each.arm.trials, sum(result.state == "finished" for result in each.results)),
                *(each.pairs, best.trial.number if best else None, best.value if best else None),
                ", ".join(f"{path} = {value_text(value)}" for path, value in best.trial.settings.items())
                if best
                else "",
                ", ".join(f"{path} ({edge})" for path, edge in edges.items()),
            )
        )
    return Table("best", columns, tuple(rows), f"Best of each arm, by {plan.measure} on validation")


def warnings(results: Sequence[ArmResult]) -> list[str]:
    """Return what to mind before the best settings are used, a sentence each."""
    sentences = []
    for each in results:
        if each.best is not None:
            sentences += [
                f"{each.arm.name}: the best {path} lies at the {edge} end of its values; a better may lie beyond"
                for path, edge in each.edges.items()
            ]
            sentences += _without_gain(each.arm.name, each.best)
        failed = [str(result.trial.number) for result in each.results if result.state == "failed"]
        if failed:
            why = next(result.why for result in each.results if result.state == "failed")
            sentences.append(f"{each.arm.name}: {counted(len(failed), 'trial')} failed ({', '.join(failed)}): {why}")
        if each.results and each.is_over and each.best is None:
            sentences.append(f"{each.arm.name}: no trial was finished, so there is no best setting")
    return sentences


def _without_gain(arm: str, best: TrialResult) -> list[str]:
    """Return a sentence where not even the best trial's last stage made validation better than it found it."""
    if best.value is None or best.start is None or best.value > best.start:
        return []
    return [
        f"{arm}: nothing was learned, by validation: {best.value:.4f} in the best trial, {best.start:.4f} before the "
        "first step of its last stage; search other settings, or keep the model that it starts from"
    ]
