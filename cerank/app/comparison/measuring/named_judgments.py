"""The relevance judgments that a user names, by a dataset or a qrels file.

Invariant: judgments are known by what they say (`identity`), whatever file they came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import MissingError, UsageError
from cerank.files.named_files import input_file, near_files
from cerank.settings import Settings
from cerank.text.safe_text import shown

if TYPE_CHECKING:
    from cerank.datasets.dataset import Dataset

Qrels = dict[str, dict[str, int]]


def judgments(settings: Settings, dataset: str, qrels: str) -> tuple[str, Qrels]:
    """Return the names of the files, and the judgments that the user names."""
    return judged_by(settings, dataset, qrels)[:2]


def judged_by(settings: Settings, dataset: str, qrels: str) -> tuple[str, Qrels, Dataset | None]:
    """Return what `judgments` does, and the dataset; None for a file of judgments."""
    from cerank.datasets.open_datasets import open_dataset
    from cerank.trec.text_io import read_qrels

    if dataset and qrels:
        raise UsageError("give --dataset or --qrels, not both")
    if not (dataset or qrels):
        raise UsageError(
            "there are no relevance judgments to evaluate run files", hint="give --dataset NAME or --qrels FILE"
        )
    if qrels:
        path = input_file(qrels)
        if path is None:
            near = near_files(qrels)
            hint = f"did you mean {' or '.join(near)}?" if near else ""
            raise MissingError("no such file", where=shown(qrels, 200), hint=hint)
        return Path(qrels).name, read_qrels(path), None
    opened = open_dataset(dataset, settings.cache)
    if not opened.qrels:
        raise UsageError("it has no qrels, so nothing can be measured", where=dataset)
    qrels_in_memory = {query: dict(row) for query, row in opened.qrels.items()}
    return opened.name, qrels_in_memory, opened


def identity(qrels: Mapping[str, Mapping[str, int]]) -> str:
    """Return the SHA-256 of judgments, whatever file they came from and in whatever order."""
    rows = sorted((query, doc, grade) for query, row in qrels.items() for doc, grade in row.items())
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()
