"""The matrices of a lab, one file each in LAB/matrices: which runs belong together and what was declared.

Invariant: a file is replaced whole; a record that cannot be read hides no other.
"""

from __future__ import annotations

from pathlib import Path

from cerank.errors import UsageError
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.recipes.matrix_schema import MATRIX_FORMAT, MatrixRecord
from cerank.registry import nearest
from cerank.runs.layout import slug


def folder_of(lab: Path) -> Path:
    """Return the folder of a lab's matrices."""
    return lab / "matrices"


def path_of(lab: Path, name: str) -> Path:
    """Return the file of the matrix called `name`, whether it is there or not."""
    return folder_of(lab) / f"{slug(name)}.json"


def save(lab: Path, record: MatrixRecord) -> None:
    """Write the record to the lab, replacing an earlier one of that name.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    disk.make_folder(folder_of(lab))
    json_records.save(path_of(lab, record.name), record)


def load_if_there(lab: Path, name: str) -> MatrixRecord | None:
    """Return the matrix called `name`; None where the lab has none.

    Raises:
        DamagedError: its file is unreadable, or of a later release.
    """
    path = path_of(lab, name)
    record = json_records.load_if_there(path, MatrixRecord)
    if record is not None and record.format > MATRIX_FORMAT:
        raise DamagedError(
            "the matrix was recorded by a later release of cerank", where=str(path), code="later-release"
        )
    return record


def load(lab: Path, name: str) -> MatrixRecord:
    """Return the matrix called `name`.

    Raises:
        UsageError: the lab has none of that name; the hint names the nearest.
        DamagedError: its file is unreadable.
    """
    record = load_if_there(lab, name)
    if record is None:
        known = names(lab)
        hint = nearest(name, known) if known else f"there are no matrices in {lab} yet; `cerank run --matrix` makes one"
        raise UsageError(f"no matrix is called '{name}'", hint=hint, code="matrix-not-found")
    return record


def names(lab: Path) -> tuple[str, ...]:
    """Return the names of the lab's matrices, sorted, without unreadable ones."""
    known = []
    for path in folder_of(lab).glob("*.json"):
        try:
            record = json_records.load_if_there(path, MatrixRecord)
        except DamagedError:
            continue
        if record is not None:
            known.append(record.name)
    return tuple(sorted(known))
