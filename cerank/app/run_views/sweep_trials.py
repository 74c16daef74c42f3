"""Which runs of a lab are trials of a sweep, and what a sweep has come to, for lists of runs.

Invariant: read from the lab's records and the runs' files alone; a run that no record names is no trial.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cerank.errors import CerankError
from cerank.recipes.plan import Plan
from cerank.recipes.search_space import short_paths, value_text
from cerank.recipes.sweep_schema import SweepRecord
from cerank.runs.declared_records import SWEEPS
from cerank.runs.layout import RunFolder
from cerank.text.safe_text import counted

_SETTLED = 2_000_000_000  # ns after which a folder's time of change tells one change from the next


class SweepTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is a trial of."""

    sweep: str  # its name
    arm: str
    number: int  # from 1, in each arm
    planned: int  # trials of all arms together
    recorded: int  # how many of these were made so far, be their runs still there or not
    measure: str  # on validation, by which the sweep chooses
    settings: dict[str, object]  # key path as the search names it -> value
    stopped: int = 0  # validation of the last stage after which it was stopped early; 0 where it was not
    fold: int = 0  # whose validation queries it is measured on, from 1; 0 without folds

    @property
    def title(self) -> str:
        """Return what tells the trial from the others of its sweep: "cl 17"."""
        return f"{self.arm} {self.number}"

    def text(self, longest: int = 1000) -> str:
        """Return the title and the settings with their keys; with the values alone where that would be too long."""
        names = short_paths(list(self.settings))
        values = [value_text(value) for value in self.settings.values()]
        named = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
        whole = f"{self.title}: {named}"
        return whole if len(whole) <= longest else f"{self.title}: {', '.join(values)}"


class TrialState(msgspec.Struct, frozen=True, kw_only=True):
    """A trial with what its run came to so far."""

    trial: SweepTrial
    state: str  # of its run
    value: float | None  # of the measure, at the weights that a finished run hands on

    @property
    def is_over(self) -> bool:
        """Return whether the trial has had its chance."""
        return bool(self.trial.stopped) or self.state in {"finished", "failed"}


class SweepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep as a list of runs shows it in one row."""

    name: str
    measure: str
    planned: int  # trials of all arms together
    recorded: int  # how many of these were made so far
    trials: tuple[TrialState, ...]  # those that are there

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the arms, in the order of their first trials."""
        return tuple(dict.fromkeys(each.trial.arm for each in self.trials))

    @property
    def title(self) -> str:
        """Return what is searched: "sweep of cl, kd"."""
        return f"sweep of {', '.join(self.arms) if len(self.arms) < 3 else counted(len(self.arms), 'arm')}"

    @property
    def over(self) -> int:
        """Return how many trials have had their chance."""
        return sum(each.is_over for each in self.trials)

    def best(self, arm: str = "") -> TrialState | None:
        """Return the finished trial with the best value, of equal ones the first; of one arm, or of all.

        Of all there is none in a sweep over folds, whose trials are measured on different queries.
        """
        if not arm and any(each.trial.fold for each in self.trials):
            return None
        of_arm = [each for each in self.trials if arm in {"", each.trial.arm} and each.value is not None]
        return max(of_arm, key=lambda each: (each.value or 0.0, -each.trial.number)) if of_arm else None

    @property
    def deleted(self) -> int:
        """Return how many trials were made whose runs are not in the lab any more."""
        return max(0, self.recorded - len(self.trials))

    @property
    def has_more(self) -> bool:
        """Return whether trials are to be made that were not yet."""
        return self.recorded < self.planned

    @property
    def progress(self) -> str:
        """Return how far it is: "18 of 24 trials, 1 failed"."""
        failed = sum(each.state == "failed" and not each.trial.stopped for each in self.trials)
        text = f"{self.over} of {counted(self.planned, 'trial')}" + (f", {failed} failed" if failed else "")
        return text + (f", {self.deleted} deleted" if self.deleted else "")


def summary_of(trials: Sequence[TrialState]) -> SweepSummary:
    """Return what a sweep has come to, from its trials, of which there is at least one."""
    ordered = tuple(sorted(trials, key=lambda each: (each.trial.number, each.trial.arm)))
    first = ordered[0].trial
    return SweepSummary(
        name=first.sweep, measure=first.measure, planned=first.planned, recorded=first.recorded, trials=ordered
    )


class TrialsOfLab:
    """The trials of a lab's sweeps; the records are read again only where one was written."""

    def __init__(self, lab: Path) -> None:
        self._lab = lab
        self._read_at = (-1, 0)  # time of change of the folder of records, and when that was looked at; ns
        self._trials: dict[str, SweepTrial] = {}

    def by_run(self) -> dict[str, SweepTrial]:
        """Return run -> what it is a trial of."""
        try:
            changed = (self._lab / SWEEPS.folder).stat().st_mtime_ns
        except OSError:  # a lab without sweeps
            return {}
        before, looked = self._read_at
        if changed != before or looked - changed < _SETTLED:
            self._read_at = changed, time.time_ns()
            records = SWEEPS.load_all(self._lab)
            self._trials = {run: trial for record in records for run, trial in _trials_of(record).items()}
        return self._trials


def _trials_of(record: SweepRecord) -> dict[str, SweepTrial]:
    planned = max(sum(record.planned.values()), len(record.trials))
    return {
        trial.run: SweepTrial(
            sweep=record.name,
            arm=trial.arm,
            number=trial.number,
            planned=planned,
            recorded=len(record.trials),
            measure=record.measure,
            settings=trial.settings,
            stopped=trial.stopped,
            fold=trial.fold,
        )
        for trial in record.trials
    }


def kept_value(folder: RunFolder, plan: Plan) -> float | None:
    """Return what the weights that a finished run hands on came to on validation; None where nothing says so."""
    from cerank.training import stage_summary

    last = len(plan.recipe.chain) - 1
    try:
        summary = stage_summary.read(folder.final(last, plan.recipe.chain[last]))
    except CerankError:
        return None
    return summary.end if summary is not None else None
