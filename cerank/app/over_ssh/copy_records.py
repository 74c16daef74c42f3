"""The records of matrices and sweeps go along with their runs from one lab to another.

Invariant: a record is kept only where every run of it is, and never in place of one that says more or something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from cerank.files.disk import DamagedError
from cerank.recipes.matrix_schema import MatrixRecord
from cerank.recipes.sweep_schema import SweepRecord
from cerank.runs import run_store
from cerank.runs.declared_records import MATRICES, SWEEPS, DeclaredRecords, R
from cerank.text.safe_text import counted, shown


class RecordsOfRuns(msgspec.Struct, frozen=True, kw_only=True):
    """The records to which some runs belong."""

    matrices: tuple[MatrixRecord, ...] = ()
    sweeps: tuple[SweepRecord, ...] = ()
    deleted: tuple[str, ...] = ()  # runs of these records that the lab that they come from no longer has


class RecordStorage(Protocol):
    """A lab as copying sees its matrices and sweeps."""

    def records(self, runs: Sequence[str]) -> RecordsOfRuns:
        """Return the records of the matrices and sweeps that have one of these runs."""

    def keep_records(self, records: RecordsOfRuns) -> tuple[str, ...]:
        """Keep records whose runs were copied; return what became of each, as a sentence."""


def copy_records(source: RecordStorage, target: RecordStorage, runs: Sequence[str]) -> tuple[str, ...]:
    """Let the records of matrices and sweeps follow the runs that were copied; return what became of each.

    Args:
        source: lab that the runs come from.
        target: lab that has them now.
        runs: ids of the runs that are in both labs.
    """
    return target.keep_records(source.records(runs)) if runs else ()


def records_of(lab: Path, runs: Iterable[str]) -> RecordsOfRuns:
    """Return a lab's records that have one of these runs; those that cannot be read are left.

    Args:
        lab: folder of the lab.
        runs: ids of runs.
    """
    names, here = set(runs), {folder.name for folder in run_store.folders(lab)}
    matrices = tuple(record for record in MATRICES.load_all(lab) if names & set(record.members.values()))
    sweeps = tuple(record for record in SWEEPS.load_all(lab) if names & set(record.members.values()))
    every = [run for record in matrices for run in record.members.values()]
    every += [run for record in sweeps for run in record.members.values()]
    deleted = tuple(run for run in dict.fromkeys(every) if run not in here)
    return RecordsOfRuns(matrices=matrices, sweeps=sweeps, deleted=deleted)


def keep(lab: Path, records: RecordsOfRuns) -> tuple[str, ...]:
    """Keep records from another lab where all of their runs are here; return what became of each, as a sentence.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    here = {folder.name for folder in run_store.folders(lab)}
    deleted = set(records.deleted)
    matrices = [_kept(lab, MATRICES, record, here, deleted) for record in records.matrices]
    return (*matrices, *(_kept(lab, SWEEPS, record, here, deleted) for record in records.sweeps))


def _why_absent(count: str, gone: int, absent: int, lab: Path) -> str:
    """Return why a record cannot follow: `gone` of the `absent` runs are in neither lab."""
    left = absent - gone
    if not gone:
        return f"{left} of its {count} are not in {lab}; copy them, too"
    why = f"{gone} of its {count} {'was' if gone == 1 else 'were'} deleted in the lab that it comes from"
    return f"{why} and {left} of its {count} {'is' if left == 1 else 'are'} not in {lab}" if left else why


def _kept(lab: Path, kind: DeclaredRecords[R], record: R, here: set[str], deleted: set[str]) -> str:
    name, count = f"{kind.noun} {shown(record.name, 80)}", counted(len(record.members), "run")
    absent = [run for run in record.members.values() if run not in here]
    if absent:
        why = _why_absent(count, sum(run in deleted for run in absent), len(absent), lab)
        return f"{name}: its record was not copied, because {why}"
    try:
        own = kind.load_if_there(lab, record.name)
    except DamagedError as error:
        return f"{name}: its record was not copied: {error.what}"
    if own is not None and own.declaration != record.declaration:
        return f"{name}: its record was not copied, because {lab} has another {kind.noun} of that name"
    ours, theirs = (set(each.members.items()) if each is not None else set() for each in (own, record))
    if own is not None and theirs <= ours and (ours != theirs or record.changed <= own.changed):
        return f"{name}: its record is there already"
    if not ours <= theirs:
        return f"{name}: its record was not copied, because the one in {lab} has other runs"
    kind.save(lab, record)
    return f"{name}: its record was copied, with all of its {count}"
