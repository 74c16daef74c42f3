"""Folders with a manifest of their files' checksums: models, checkpoints, parts of rankings.

Invariant: the list is written last, so a folder with one held all of its content on the disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cerank.errors import CerankError
from cerank.files import disk, json_records
from cerank.files.disk import DamagedError
from cerank.files.hashing import sha256_file
from cerank.text.safe_text import counted

MANIFEST = "COMPLETE.json"


class ManifestEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a folder; `path` is relative, with forward slashes."""

    path: str
    size: int  # bytes
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The list of a folder's files, except the manifest itself, in the order of their paths."""

    files: tuple[ManifestEntry, ...]


@contextlib.contextmanager
def checksummed_folder(final: Path) -> Iterator[Path]:
    """Create a folder as `disk.new_folder` does, and write its manifest COMPLETE.json last."""
    with disk.new_folder(final) as temporary:
        yield temporary
        files, _ = disk.list_content(temporary)
        entries = [ManifestEntry(_relative(file, temporary), file.stat().st_size, sha256_file(file)) for file in files]
        disk.write(temporary / MANIFEST, msgspec.json.encode(Manifest(tuple(entries))))


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def verify_folder(folder: Path) -> None:
    """Check that the folder holds exactly the files of its manifest, byte for byte.

    Raises:
        DamagedError: it does not; `where` is the first wrong file.
    """
    manifest = folder / MANIFEST
    if manifest.is_symlink():
        raise DamagedError("the manifest is not a plain file", where=str(manifest))
    try:
        listed = {entry.path: entry for entry in json_records.decode(manifest.read_bytes(), Manifest).files}
    except OSError as error:
        raise DamagedError("the folder is not complete", where=str(manifest)) from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"the list of files is unreadable: {error}", where=str(manifest)) from error
    present = {_relative(path, folder): path for path in disk.list_content(folder)[0] if path != manifest}
    for name in sorted(listed.keys() | present.keys()):
        wrong = _find_problem(listed.get(name), present.get(name))
        if wrong:
            raise DamagedError(wrong, where=str(folder / name), code="file-unexpected")


def _find_problem(entry: ManifestEntry | None, path: Path | None) -> str:
    """Return what is wrong with one file of the folder; "" if nothing is."""
    if path is None:
        return "the file is missing"
    if entry is None:
        return "the file does not belong there"
    if path.is_symlink() or not path.is_file():
        return "the file is missing, or is not a plain file"
    if path.stat().st_size != entry.size:
        return f"it has {counted(path.stat().st_size, 'byte')}; {entry.size:,} were written"
    try:
        is_same = sha256_file(path) == entry.sha256
    except CerankError as error:
        return error.what
    return "" if is_same else "its content is not what was written (sha256 differs)"
