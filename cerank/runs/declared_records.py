"""What a lab keeps of its matrices and sweeps, one file each: what was declared, and which runs belong to it.

Invariant: a file is replaced whole; a record that cannot be read hides no other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.recipes.matrix_schema import MATRIX_FORMAT, MatrixRecord
from cerank.recipes.sweep_schema import SWEEP_FORMAT, SweepRecord
from cerank.runs.layout import slug

R = TypeVar("R", MatrixRecord, SweepRecord)


class DeclaredRecords(Generic[R]):
    """The records of one kind in a lab.

    Args:
        noun: what messages call one.
        folder: name of their folder in the lab.
        kind: class of a record.
        newest: number of the newest format that this release reads.
    """

    def __init__(self, noun: str, folder: str, kind: type[R], newest: int) -> None:
        self.noun, self.folder, self._newest = noun, folder, newest
        self._kind: type[R] = kind

    def path_of(self, lab: Path, name: str) -> Path:
        """Return the file of the record called `name`, whether it is there or not."""
        return lab / self.folder / f"{slug(name)}.json"

    def save(self, lab: Path, record: R) -> None:
        """Write a record to the lab, replacing an earlier one of that name.

        Raises:
            RunFailedError: the lab cannot be written to.
        """
        disk.make_folder(lab / self.folder)
        json_records.save(self.path_of(lab, record.name), record)

    def load_if_there(self, lab: Path, name: str) -> R | None:
        """Return the record called `name`; None where the lab has none.

        Raises:
            DamagedError: its file is unreadable, or of a later release.
        """
        return self._load(self.path_of(lab, name))

    def load_all(self, lab: Path) -> list[R]:
        """Return every record of the lab that can be read, by the names of their files."""
        records = []
        for path in sorted((lab / self.folder).glob("*.json")):
            try:
                record = self._load(path)
            except DamagedError:  # the command that asks for it by name says so
                continue
            records += [record] if record is not None else []
        return records

    def _load(self, path: Path) -> R | None:
        record = json_records.load_if_there(path, self._kind)
        if record is not None and record.format > self._newest:
            what = f"the {self.noun} was recorded by a later release of cerank"
            raise DamagedError(what, where=str(path), code="later-release")
        return record


def kind_of(lab: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """Return what a lab keeps under a name, "sweep" or "matrix", with the ids of its runs; ("", ()) for nothing."""
    kinds: tuple[DeclaredRecords[SweepRecord] | DeclaredRecords[MatrixRecord], ...] = (SWEEPS, MATRICES)
    for kind in kinds:
        try:
            record = kind.load_if_there(lab, name) if name else None
        except DamagedError:
            continue
        if record is not None and record.name == name:  # and not one that is filed alike
            return kind.noun, tuple(record.members.values())
    return "", ()


MATRICES = DeclaredRecords("matrix", "matrices", MatrixRecord, MATRIX_FORMAT)
SWEEPS = DeclaredRecords("sweep", "sweeps", SweepRecord, SWEEP_FORMAT)
