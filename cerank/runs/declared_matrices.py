"""The matrices of a lab, a file each in LAB/matrices: which runs belong together, and what was declared of them.

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
    """Where a lab keeps its matrices."""
    return lab / "matrices"


def path_of(lab: Path, name: str) -> Path:
    """The file of the matrix called `name`, whether it is there or not."""
    return folder_of(lab) / f"{slug(name)}.json"


def save(lab: Path, record: MatrixRecord) -> None:
    """Keeps the record in the lab, in the place of an earlier one of that name.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    disk.make_folder(folder_of(lab))
    json_records.save(path_of(lab, record.name), record)


def load_if_there(lab: Path, name: str) -> MatrixRecord | None:
    """The matrix called `name`; None where the lab has none.

    Raises:
        DamagedError: its file is unreadable, or of a later release.
    """
    path = path_of(lab, name)
    record = json_records.load_if_there(path, MatrixRecord)
    if record is not None and record.format > MATRIX_FORMAT:
        raise DamagedError("the matrix was recorded by a later release of cerank", where=str(path))
    return record


def load(lab: Path, name: str) -> MatrixRecord:
    """The matrix called `name`.

    Raises:
        UsageError: the lab has none of that name; the hint names the nearest.
        DamagedError: its file is unreadable.
    """
    record = load_if_there(lab, name)
    if record is None:
        known = names(lab)
        hint = nearest(name, known) if known else f"there are no matrices in {lab} yet; `cerank run --matrix` makes one"
        raise UsageError(f"no matrix is called '{name}'", hint=hint)
    return record


def names(lab: Path) -> tuple[str, ...]:
    """The names of the lab's matrices, sorted; unreadable ones are left out."""
    found = []
    for path in folder_of(lab).glob("*.json"):
        try:
            record = json_records.load_if_there(path, MatrixRecord)
        except DamagedError:
            continue
        if record is not None:
            found.append(record.name)
    return tuple(sorted(found))
