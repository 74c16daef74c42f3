"""One import from beginning to end: files in, a dataset folder out, completely or not at all.

Invariant: the folder has its name only once everything in it is written and on the disk; an error or a kill leaves no
folder of that name, and a second attempt starts clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import cerank
from cerank.datasets.local_folders import COLLECTION, collection_toml
from cerank.errors import FormatError, MissingError, UsageError
from cerank.files import disk, tables
from cerank.files.hashing import sha256_file, sha256_text
from cerank.files.line_reader import line_blocks
from cerank.files.record_reader import arrow_files
from cerank.importing.dataset_writer import DatasetWriter, ImportCounts, run_name
from cerank.importing.format_catalog import FORMATS, Format
from cerank.text.safe_text import shown
from cerank.trec.layouts import layout_of

AUTO = "auto"
_BY_KEYS = (  # keys that a record has -> format; the first that fits
    ({"positive_document_ids"}, "tevatron-ids"),
    ({"positive_passages", "retrieved_passages"}, "rankgpt"),
    ({"retrieved_passages"}, "rankgpt"),
    ({"positive_passages"}, "tevatron"),
    ({"query", "pos"}, "flag-embedding"),
    ({"query", "doc_pos", "doc_neg"}, "openmatch-triples"),
    ({"qid", "pos", "neg"}, "sbert-hard-negatives"),
    ({"query", "candidates"}, "rank-llm"),
    ({"qid", "docno", "query"}, "tirex"),
)
_TEXT_COLUMNS = {"anchor", "positive", "answer", "passage", "sentence1", "sentence2", "label", "labels", "docs"}


def recognize(files: Sequence[Path]) -> str:
    """Return the name of the format of the files, by the first record of each.

    Nothing is guessed from a file's name alone, and a file that fits several formats is an error.

    Raises:
        UsageError: no format is known that looks so, or several are; the hint names them.
    """
    names = {_format_of(path) for path in files if path.suffix != ".json" or len(files) == 1}
    if len(names) != 1:
        what = f"the files look like {' and '.join(sorted(names)) or 'no format'}"
        raise UsageError(what, hint="name the format; `cerank data formats` describes each")
    return names.pop()


def _format_of(path: Path) -> str:
    if path.is_dir() and arrow_files(path):
        return _by_keys(next((set(row) for _, row in tables.arrow_rows(arrow_files(path)[0])), set()), path)
    if tables.is_parquet(path):
        names = set(tables.column_names(path))
        if {"query", "retrieved_passages"} <= names:
            return "twolar"
        is_ranking = names & {"score", "rank"} and names & {"doc_id", "docno"} and "text" not in names
        return "run" if is_ranking else _by_keys(names, path)
    first = next((line for _, lines in line_blocks(path) for line in lines if line.strip()), b"")
    if first.lstrip().startswith((b"{", b"[")):
        return _by_json(first, path)
    if layout_of(path, "run").has_header or len(first.split()) == 6:
        return "run"
    return _by_columns(first.decode().rstrip("\r").split("\t"), path)


def _by_json(first: bytes, path: Path) -> str:
    try:
        value: Any = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return "colbert-triples"
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        raise _unknown(path, "no record stands on its first line")
    values = list(value.values())
    if values and all(isinstance(item, dict) for item in values) and "query" not in value:
        return "run"
    return _by_keys(set(value), path)


def _by_keys(keys: set[str], path: Path) -> str:
    for needed, name in _BY_KEYS:
        if needed <= keys:
            return name
    if keys & _TEXT_COLUMNS:
        return "sentence-transformers"
    raise _unknown(path, f"its keys: {shown(', '.join(sorted(keys)), 200)}")


def _by_columns(parts: Sequence[str], path: Path) -> str:
    def are_ids(columns: Sequence[str]) -> bool:
        return all(column.strip().isdecimal() for column in columns)

    if len(parts) == 3:
        if are_ids(parts):  # MS MARCO's runs and its triples look the same
            hint = "`run` for query, document, rank; `msmarco-id-triples` for query, positive, negative"
            raise UsageError(
                "three columns of numbers could be two formats", where=str(path), hint=hint, code="format-ambiguous"
            )
        return "msmarco-text-triples"
    if len(parts) == 5:
        return "ensemble-scores" if are_ids(parts[2:]) else "ensemble-scores-text"
    raise _unknown(path, f"its first line has {len(parts)} tab-separated columns")


def _unknown(path: Path, why: str) -> UsageError:
    return UsageError(
        f"no format looks like this; {why}",
        where=str(path),
        hint="`cerank data formats` lists them",
        code="format-not-recognized",
    )


RECORD = "import.json"


class ImportedFile(msgspec.Struct, frozen=True):
    """A file that was imported."""

    name: str
    size: int  # bytes
    sha256: str


class Imported(msgspec.Struct, frozen=True):
    """The result of an import, stored in the dataset folder as import.json."""

    format: str
    folder: str
    files: tuple[ImportedFile, ...]
    collection: str  # dataset that has the texts; "" where the folder has them
    contents: ImportCounts
    cerank: str  # version


class ImportOptions(msgspec.Struct, frozen=True):
    """Options of an import: names of runs, the collection of texts, depth, queries."""

    name: str = ""  # name of the run; "" takes the format's
    collection: str = ""  # ir_datasets id or folder with the texts; "" takes the format's
    depth: int = 0  # candidates kept of each query and run; 0 keeps all
    only: tuple[str, ...] = ()  # runs to keep; none keeps all


def import_files(name: str, files: Sequence[Path], into: Path, choices: ImportOptions | None = None) -> Imported:
    """Turn files of a format into a dataset folder.

    Args:
        name: name of the format, as `FORMATS` has it.
        files: plain, .gz, .zip or .tar.gz with one file inside, or parquet; several are read one after the other.
        into: dataset folder to make; it must not exist.
        choices: options of the import, such as the collection that has the texts; None takes the defaults.

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
        raise UsageError(
            "the folder exists already", where=str(into), hint="give the name of a new folder", code="file-exists"
        )
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
                "the file holds no record",
                where=str(files[0]),
                hint=f"{entry.name}: {entry.description}",
                code="no-records",
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
        raise FormatError(f"the file holds no {what} that can be used", where=str(files[0]), code="no-usable-query")
    return contents
