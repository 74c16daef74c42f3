"""From a dataset's name to the dataset: pydocs, a short name, an ir_datasets id, or a local folder, whole or in part.

Invariant: opening a dataset either gives all of it, strictly checked, or one error that says where the mistake is.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from cerank.datasets import aliases, folds, query_splits
from cerank.datasets.dataset import Dataset, part_of
from cerank.datasets.local_folders import open_folder, runs_of_folder
from cerank.datasets.mapped.rows_record import RowsRecord
from cerank.datasets.mixtures import mixed
from cerank.datasets.pydocs import SPLITS, materialize
from cerank.errors import UsageError, os_error
from cerank.files.line_reader import local_path
from cerank.recipes.sections.set_mixtures import is_mixture
from cerank.registry import nearest
from cerank.text.safe_text import shown
from cerank.trec.open_run import open_run_file
from cerank.trec.rows import RunFile

_PART = re.compile(r"(?P<name>.*?)(?P<part>\[(?:fold!?=[^\[\]]*|[^\[\]]*:[^\[\]]*)\])?", re.DOTALL)
_PYDOCS_IS = (
    "known-item search in the documentation of the installed Python's standard library: a query is the summary of one "
    "docstring, and that docstring's object is its only relevant document. For trying things out and for tests; not a "
    "test collection of the field, and figures on it compare with nothing published"
)


class DatasetEntry(msgspec.Struct, frozen=True):
    """A line in the list of datasets."""

    name: str
    description: str


class DatasetDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a dataset before anything is ranked."""

    name: str
    description: str
    location: str
    documents: int
    queries: int
    judgments: int  # rows of the qrels
    grades: tuple[tuple[int, int], ...]  # (grade, number of rows), ascending
    judged_without_text: int | None  # different documents in the qrels that have no text; None: not counted
    runs: tuple[str, ...]
    fingerprint: str


def _is_path(name: str) -> bool:
    if name.startswith(("./", "../", "~", "/")) or name in {".", ".."} or Path(name).is_absolute():
        return True
    separators = {os.sep, os.altsep or os.sep}
    return any(mark in name for mark in separators) and local_path(name.partition("#")[0]).exists()


def _open_pydocs(name: str, cache: Path) -> Dataset:
    split = name.partition("/")[2]
    if split not in SPLITS:
        raise UsageError(
            f"no dataset is called '{shown(name, 120)}'", hint=nearest(name, [f"pydocs/{s}" for s in SPLITS])
        )
    return open_folder(materialize(cache) / split, "", name, _PYDOCS_IS, cache=cache)


def _open_folder(name: str, cache: Path) -> Dataset:
    path, split = local_path(name), ""
    if "#" in name and not path.is_dir():
        before, _, split = name.rpartition("#")
        path = local_path(before)
    try:
        return open_folder(path, split, name, cache=cache)
    except OSError as error:
        raise os_error(error, path) from error


def _open_whole(name: str, cache: Path) -> Dataset:
    if "\0" in name or not name.strip():
        raise UsageError(f"'{shown(name, 120)}' cannot be the name of a dataset")
    if name == "pydocs" or name.startswith("pydocs/"):
        return _open_pydocs(name, cache)
    if name in aliases.IMPORTED_DATASETS:
        return replace(_open_folder(str(aliases.imported_folder(name, cache)), cache), name=name)
    if _is_path(name):
        return _open_folder(name, cache)
    from cerank.datasets.irds import open_catalog_dataset

    opened = open_catalog_dataset(aliases.id_of(name), cache)
    return _with_placed_runs(replace(opened, name=name), cache)


def _with_placed_runs(dataset: Dataset, cache: Path) -> Dataset:
    """Return the dataset with the runs that the user placed for it; its own runs take precedence."""
    placed = aliases.placed_runs(dataset.name, cache)
    brought, reader = dataset.runs, dataset.reader

    def read(run: str) -> RunFile:
        return reader(run) if run in brought else open_run_file(placed[run], cache)

    runs = (*brought, *(run for run in placed if run not in brought))
    return replace(dataset, runs=runs, reader=read, place=str(aliases.run_folders(dataset.name, cache)[0]))


def whole_and_part(name: str) -> tuple[str, str]:
    """Split a dataset's name into name and part: "x[:60%]" gives ("x", "[:60%]"); the part may be ""."""
    match = _PART.fullmatch(name)
    return (match["name"], match["part"] or "") if match else (name, "")


def open_dataset(name: str, cache: Path) -> Dataset:
    """Return the dataset called `name`.

    Args:
        name: `pydocs/train`, `pydocs/validation` or `pydocs/test`; a folder (starts with `./`, `../`, `~` or `/`, or
            holds a separator and exists), `FOLDER#SPLIT` for its other qrels; a short name such as `dl19`; else an
            ir_datasets id. Any of them may end in a part of its judged queries: `[:60%]`, `[60%:80%]`, `[80%:]`,
            `[:100]`, by what the data says of them: `[:60% by date]` (see `query_splits`), or in folds of them:
            `[fold=2/5]` (see `folds`). `NAME * 2 + OTHER` is a mixture of several.
        cache: folder where built datasets are kept, and where the user places runs for datasets of the catalog.

    Raises:
        UsageError: no such dataset, split or part.
        MissingError: its files are not here and could not be fetched.
        FormatError: a malformed file, with file:line.
    """
    if is_mixture(name):
        return replace(mixed(name, lambda set_name: open_dataset(set_name, cache)), cache=cache)
    base_name, part = whole_and_part(name)
    dataset = replace(_open_whole(base_name, cache), cache=cache)
    if part.startswith("[fold"):
        return folds.part_of_folds(dataset, part)
    if query_splits.split_key(part):
        return query_splits.part_by(dataset, part)
    keep = partial(RowsRecord, cache, "parts-of-queries", counted_by=(part_of.__module__,))
    return part_of(dataset, part, keep) if part else dataset


def dataset_runs(name: str, cache: Path) -> dict[str, Path]:
    """Return the names of the runs that a dataset brings, or that were placed for it, with their files.

    Empty for a name that stands for no dataset, or for several.
    """
    whole, _ = whole_and_part(name)
    if is_mixture(whole) or "\0" in whole:
        return {}
    if whole in aliases.IMPORTED_DATASETS:
        whole = str(cache / aliases.IMPORTED / whole)
    if _is_path(whole):
        return dict(runs_of_folder(local_path(whole.partition("#")[0])))
    return dict(aliases.placed_runs(whole, cache))


def catalog() -> list[DatasetEntry]:
    """Return the datasets that cerank ships or knows by a short name; `search` covers all of ir_datasets."""
    own = [DatasetEntry(f"pydocs/{split}", f"{split} queries of pydocs: {_PYDOCS_IS}") for split in SPLITS]
    return own + [
        DatasetEntry(alias.name, f"{alias.description}; {', '.join(alias.measures)}; {alias.id}")
        for alias in aliases.ALIASES.values()
    ]


def measures_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the measures of the dataset for a recipe that says "auto"."""
    grades = (grade for row in dataset.qrels.values() for grade in row.values())
    return aliases.declared_measures(dataset.name, max(grades, default=0))


def search(text: str) -> list[DatasetEntry]:
    """Return the ir_datasets ids that contain every word of `text`, with what each has; imports ir_datasets."""
    from cerank.datasets.irds import search_catalog

    return [DatasetEntry(name, kinds) for name, kinds in search_catalog(text)]


def describe(name: str, cache: Path) -> DatasetDescription:
    """Open a dataset and return its counts and its fingerprint; raises as `open_dataset`.

    Judged documents without text are counted in folders only: for catalog datasets it would fetch whole collections.
    """
    dataset = open_dataset(name, cache)
    grades = Counter(grade for row in dataset.qrels.values() for grade in row.values())
    return DatasetDescription(
        name=dataset.name,
        description=dataset.description,
        location=dataset.location,
        documents=len(dataset.documents),
        queries=len(dataset.queries),
        judgments=sum(grades.values()),
        grades=tuple(sorted(grades.items())),
        judged_without_text=None if dataset.reads_catalog else dataset.judged_without_text(),
        runs=dataset.runs,
        fingerprint=dataset.fingerprint(),
    )
