"""One import from beginning to end: files in, a dataset folder out, completely or not at all.

Invariant: the folder has its name only once everything in it is written and on the disk; an error or a kill leaves no
folder of that name, and a second attempt starts clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

import cerank
from cerank.datasets.local_folders import COLLECTION, collection_toml
from cerank.errors import FormatError, MissingError, UsageError
from cerank.files import disk
from cerank.files.hashing import sha256_file, sha256_text
from cerank.files.record_reader import arrow_files
from cerank.importing.dataset_writer import DatasetWriter, ImportCounts, run_name
from cerank.importing.format_catalog import FORMATS, Format
from cerank.importing.recognize import AUTO, recognize

RECORD = "import.json"


class ImportedFile(msgspec.Struct, frozen=True):
    """A file that was imported."""

    name: str
    size: int  # bytes
    sha256: str


class Imported(msgspec.Struct, frozen=True):
    """What an import did; stored in the folder as import.json."""

    format: str
    folder: str
    files: tuple[ImportedFile, ...]
    collection: str  # dataset that has the texts; "" where the folder has them
    contents: ImportCounts
    cerank: str  # version


class ImportOptions(msgspec.Struct, frozen=True):
    """What the user may choose about an import."""

    name: str = ""  # of the run; "" takes the format's
    collection: str = ""  # ir_datasets id or folder with the texts; "" takes the format's
    depth: int = 0  # candidates kept of each query and run; 0 keeps all
    only: tuple[str, ...] = ()  # runs to keep; none keeps all


def import_files(name: str, files: Sequence[Path], into: Path, choices: ImportOptions | None = None) -> Imported:
    """Turn files of a format into a dataset folder.

    Args:
        name: of a format, as `FORMATS` lists them.
        files: plain, .gz, .zip or .tar.gz with one file inside, or parquet; several are read one after the other.
        into: the folder to make; it must not exist.
        choices: how.

    Raises:
        UsageError: no such format, a folder that exists, or choices that do not fit.
        FormatError: a malformed file, with file:line.
        MissingError: a file is not there.
        RunFailedError: the disk refuses.
    """
    choices = choices or ImportOptions()
    if not files:
        raise UsageError("no file was given", where=name, code="no-input-file")
    for path in files:
        if not path.exists():
            hint = "`cerank data formats` says where each file comes from"
            raise MissingError("no such file", where=str(path), hint=hint, code="folder-missing")
    entry = FORMATS.find(recognize(files) if name == AUTO else name)
    if into.exists() or into.is_symlink():
        raise UsageError("it exists already", where=str(into), hint="give the name of a new folder", code="file-exists")
    sources = tuple(_hash_file(path) for path in files)
    collection = choices.collection or entry.collection
    named = collection_toml(collection) if collection else b""
    with disk.new_folder(into) as folder:
        contents = _fill(entry, files, folder, choices, collection)
        imported = Imported(entry.name, str(into), sources, collection, contents, cerank.__version__)
        if named:
            disk.write(folder / COLLECTION, named)
        disk.write(folder / RECORD, msgspec.json.format(msgspec.json.encode(imported), indent=2) + b"\n")
    return imported


def _hash_file(path: Path) -> ImportedFile:
    if path.is_dir():  # saved by `datasets`
        shards = [_hash_file(shard) for shard in arrow_files(path)]
        sha256 = sha256_text("\n".join(shard.sha256 for shard in shards))
        return ImportedFile(path.name, sum(shard.size for shard in shards), sha256)
    sha256 = sha256_file(path)
    return ImportedFile(path.name, path.stat().st_size, sha256)


def _fill(entry: Format, files: Sequence[Path], folder: Path, choices: ImportOptions, collection: str) -> ImportCounts:
    only = frozenset(run_name(run) for run in choices.only)
    writer = DatasetWriter(folder, keeps_texts=not collection, depth=choices.depth, only=only)
    try:
        entry.read(files, writer, run_name(choices.name) if choices.name else entry.run)
        if not writer.records:
            raise FormatError(
                "holds no record", where=str(files[0]), hint=f"{entry.name}: {entry.description}", code="no-records"
            )
        contents = writer.finish()
    finally:
        writer.close()
    lost = sorted(only - {run for run, _ in contents.runs})
    if lost:
        offered = ", ".join(sorted(writer.offered)) or "none"
        raise UsageError(
            f"no run is called {', '.join(lost)}",
            where=str(files[0]),
            hint=f"the runs: {offered}",
            code="run-not-found",
        )
    if not contents.queries or not (collection or contents.documents):
        what = "documents" if contents.queries else "queries"
        raise FormatError(f"holds no {what} that can be used", where=str(files[0]), code="no-usable-query")
    return contents
