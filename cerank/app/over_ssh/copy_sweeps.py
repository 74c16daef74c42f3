"""The records of sweeps go along with their trials from one lab to another, so that a sweep continues where it went.

Invariant: a record is kept only where every trial of it is, and never in place of one that says more or something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from cerank.app.sweeps import sweep_record
from cerank.errors import UsageError
from cerank.files import json_records
from cerank.files.disk import DamagedError
from cerank.recipes.sweep_schema import SweepRecord
from cerank.runs import run_store
from cerank.text.safe_text import counted, shown


class SweepStorage(Protocol):
    """A lab as copying sees its sweeps."""

    def sweeps(self, runs: Sequence[str]) -> tuple[SweepRecord, ...]:
        """Return the records of the sweeps that have one of these runs as a trial."""

    def keep_sweep(self, record: SweepRecord) -> str:
        """Keep the record of a sweep whose trials were copied; return what became of it, as a sentence."""


def copy_sweeps(source: SweepStorage, target: SweepStorage, runs: Sequence[str]) -> list[str]:
    """Let the records of sweeps follow the runs that were copied; return what became of each, as a sentence.

    Args:
        source: lab that the runs come from.
        target: lab that has them now.
        runs: ids of the runs that are in both labs.
    """
    return [target.keep_sweep(record) for record in source.sweeps(runs)] if runs else []


def records_of(lab: Path, runs: Iterable[str]) -> tuple[SweepRecord, ...]:
    """Return the records of a lab's sweeps that have one of these runs as a trial; those that cannot be read are left.

    Args:
        lab: folder of the lab.
        runs: ids of runs.
    """
    run_ids, records = set(runs), []
    for path in sorted(sweep_record.path_of(lab, "any").parent.glob("*.json")):
        try:
            record = json_records.load(path, SweepRecord)
        except DamagedError:  # `cerank sweep` says so
            continue
        if any(trial.run in run_ids for trial in record.trials):
            records.append(record)
    return tuple(records)


def keep(lab: Path, record: SweepRecord) -> str:
    """Keep the record of a sweep from another lab where all its trials are here; return what became of it.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    name, trials = f"sweep {shown(record.name, 80)}", counted(len(record.trials), "trial")
    here = {folder.name for folder in run_store.folders(lab)}
    absent = sum(trial.run not in here for trial in record.trials)
    if absent:
        return f"{name}: its record was not copied, because {absent} of its {trials} are not in {lab}; copy them, too"
    try:
        own = sweep_record.load_if_there(lab, record.name, record.sha256)
    except (UsageError, DamagedError) as error:
        return f"{name}: its record was not copied: {error.what}"
    ours, theirs = _trials(own), _trials(record)
    if own is not None and theirs <= ours and (ours != theirs or record.changed <= own.changed):
        return f"{name}: its record is there already"
    if not ours <= theirs:
        return f"{name}: its record was not copied, because the one in {lab} has other trials"
    sweep_record.save(lab, record)
    return f"{name}: its record was copied, with all of its {trials}"


def _trials(record: SweepRecord | None) -> set[tuple[str, int, str]]:
    return {(trial.arm, trial.number, trial.run) for trial in record.trials} if record is not None else set()
