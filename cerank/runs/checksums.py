"""The checksums of a run's files, each written before the file itself, and the report on damaged files.

Invariant: the checksum is on the disk before the file, so every file that the worker wrote at once has one; the newest
checksum of a file counts. Folders with a manifest (models, checkpoints, parts of a re-ranking) are not listed here.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from cerank.errors import CerankError
from cerank.files import disk, journal, json_records
from cerank.files.disk import DamagedError
from cerank.files.hashing import sha256_file
from cerank.files.journal import Journal
from cerank.runs.layout import RunFolder
from cerank.text.safe_text import counted

CHECKSUMMED_FOLDERS = (
    "candidates",
    "teachers",
    "negatives",
    "qrels",
    "rankings",
    "measures",
)  # folders of files that the worker writes whole


class FileChecksum(msgspec.Struct, frozen=True):
    """The checksum of one file as it was written."""

    path: str  # relative to the run, with forward slashes
    size: int  # bytes
    sha256: str


class DamageReport(msgspec.Struct, frozen=True):
    """What a check found wrong in a run."""

    problems: tuple[str, ...]
    time: str  # UTC, ISO 8601


def write(folder: RunFolder, path: Path, data: bytes) -> None:
    """Record the checksum of `data` and write it to `path`, a file of the run.

    Raises:
        RunFailedError: the disk refuses; the file is as it was.
    """
    _append(folder, [FileChecksum(_relative_name(folder, path), len(data), hashlib.sha256(data).hexdigest())])
    disk.write(path, data)


def save(folder: RunFolder, path: Path, record: msgspec.Struct) -> None:
    """Write a record as `json_records.save` does, with its checksum."""
    write(folder, path, json_records.bytes_of(record, str(path)))


def record(folder: RunFolder, paths: Iterable[Path]) -> None:
    """Record the checksums of files as they are on disk."""
    _append(folder, [checksum_of(folder, path, path) for path in paths])


def checksum_of(folder: RunFolder, path: Path, content: Path) -> FileChecksum:
    """Return the checksum of `path`, whose bytes are or will be those of `content`.

    Raises:
        MissingError: it cannot be read.
    """
    return FileChecksum(_relative_name(folder, path), content.stat().st_size, sha256_file(content))


def link(folder: RunFolder, source: Path, target: Path) -> None:
    """Record the checksum of `source` and make `target`, a file of the run, a link to it."""
    _append(folder, [checksum_of(folder, target, source)])
    disk.link(source, target)


def _append(folder: RunFolder, checksums: Iterable[FileChecksum]) -> None:
    with Journal(folder.checksums, FileChecksum) as out:  # its end syncs
        for checksum in checksums:
            out.append(checksum)


def _relative_name(folder: RunFolder, path: Path) -> str:
    return path.relative_to(folder.path).as_posix()


def load_all(folder: RunFolder) -> dict[str, FileChecksum]:
    """Return path -> its newest checksum; empty for a run of a release without them.

    Raises:
        DamagedError: the list itself is damaged.
    """
    return {checksum.path: checksum for checksum in journal.read(folder.checksums, FileChecksum)}


def find_problem(folder: RunFolder, checksum: FileChecksum) -> str:
    """Return what is wrong with a file by its SHA-256; "" if nothing is."""
    path = folder.path / checksum.path
    wrong = _size_problem(path, checksum)
    if wrong:
        return wrong
    try:
        is_same = sha256_file(path) == checksum.sha256
    except CerankError as error:
        return error.what
    return "" if is_same else "its content is not what was written (sha256 differs)"


def _size_problem(path: Path, checksum: FileChecksum) -> str:
    """Return what is wrong with a file by its size alone; "" if nothing is."""
    try:
        state = path.stat(follow_symlinks=False)
    except OSError:
        return "the file is missing"
    if stat.S_ISLNK(state.st_mode):
        return "not a plain file"
    size = state.st_size
    return "" if size == checksum.size else f"it has {counted(size, 'byte')}; {checksum.size:,} were written"


def first_missing(folder: RunFolder) -> str:
    """Return a sentence about the first file that is gone or has another size; "" if there is none. Cheap."""
    try:
        checksums = load_all(folder)
    except DamagedError as error:
        return str(error)
    wrong = ((checksum, _size_problem(folder.path / checksum.path, checksum)) for checksum in checksums.values())
    return next((f"{folder.path / checksum.path}: {what}" for checksum, what in wrong if what), "")


def find_change(folder: RunFolder, path: Path) -> str:
    """Return what is wrong with a file by its checksum; "" if nothing is, or if it has no checksum."""
    checksum = load_all(folder).get(_relative_name(folder, path))
    return find_problem(folder, checksum) if checksum else ""


# the mark on a damaged run


def damage_of(folder: RunFolder) -> str:
    """Return what the last check found wrong, in a sentence; "" if nothing, or if there was no check."""
    try:
        report = json_records.load_if_there(folder.damage, DamageReport)
    except DamagedError as error:
        return str(error)
    if report is None or not report.problems:
        return ""
    more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
    return report.problems[0] + more


def record_damage(folder: RunFolder, problems: Iterable[str], time: str) -> None:
    """Record what a check found wrong in the run; without problems, remove the record of an earlier check.

    Raises:
        RunFailedError: the disk refuses.
    """
    problems = tuple(problems)
    if problems:
        json_records.save(folder.damage, DamageReport(problems, time))
    else:
        disk.remove(folder.damage)
