"""The matrices of a lab, one file each in LAB/matrices: which runs belong together and what was declared.

Invariant: a file is replaced whole; a record that cannot be read hides no other.
"""

from __future__ import annotations

from pathlib import Path

from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.recipes.matrix_schema import MATRIX_FORMAT, MatrixRecord
from cerank.runs.layout import slug


def path_of(lab: Path, name: str) -> Path:
    """Return the file of the matrix called `name`, whether it is there or not."""
    return lab / "matrices" / f"{slug(name)}.json"


def save(lab: Path, record: MatrixRecord) -> None:
    """Write the record to the lab, replacing an earlier one of that name.

    Raises:
        RunFailedError: the lab cannot be written to.
    """
    disk.make_folder(lab / "matrices")
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
