"""The sweeps of a lab, one file each in LAB/sweeps: what was declared, and the run of each trial.

Invariant: a file is replaced whole, and a trial that is in it keeps its settings for ever.
"""

from __future__ import annotations

from pathlib import Path

from cerank.errors import UsageError
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.recipes.sweep_schema import SWEEP_FORMAT, SweepRecord
from cerank.runs.layout import slug


def path_of(lab: Path, name: str) -> Path:
    """Return the file of the sweep called `name`, whether it is there or not."""
    return lab / "sweeps" / f"{slug(name)}.json"


def save(lab: Path, record: SweepRecord) -> None:
    """Write the record to the lab, replacing an earlier one of that name.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    disk.make_folder(lab / "sweeps")
    json_records.save(path_of(lab, record.name), record)


def load_if_there(lab: Path, name: str, sha256: str) -> SweepRecord | None:
    """Return the record of a sweep; None where the lab has none.

    Raises:
        UsageError: the lab has another sweep of this name.
        DamagedError: its file is unreadable, or of a later release.
    """
    path = path_of(lab, name)
    record = json_records.load_if_there(path, SweepRecord)
    if record is not None and record.format > SWEEP_FORMAT:
        raise DamagedError("the sweep was recorded by a later release of cerank", where=str(path), code="later-release")
    if record is not None and record.sha256 != sha256:
        what = f"the lab already has a sweep '{name}' that declares something else"
        hint = "give the new sweep another name: trials that were chosen among must stay on record"
        raise UsageError(what, where=str(path), hint=hint, code="sweep-exists")
    return record
