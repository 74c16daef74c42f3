"""What lies beside a file of mined candidates: the model that found them, the documents, and the settings.

The candidates themselves are a TREC run, best first; a recipe samples negatives from it with the source "mined".
"""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec

from cerank.datasets.dataset import Dataset
from cerank.errors import UsageError
from cerank.files import json_records
from cerank.files.line_reader import local_path
from cerank.recipes.schema import Stage
from cerank.retrieval.first_stage import open_given_run
from cerank.text.safe_text import counted


class MinedFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Where mined candidates come from; stored beside them."""

    by: str  # "first stage", "bi-encoder" or "re-ranker"
    model: str  # as it was named: bm25, a folder, a run and stage
    model_sha256: str  # of the model's files, or of all that the first stage depends on
    dataset: str  # whose queries they are for
    documents_sha256: str  # fingerprint of the collection
    queries: int  # with candidates
    candidates: int
    depth: int
    settings: dict[str, str | int] = {}
    device: str = ""
    sha256: str = ""  # of the file of candidates
    created: str = ""  # UTC, ISO 8601
    version: str = ""  # of cerank


def provenance_path(path: Path) -> Path:
    """Return the file beside mined candidates that says where they come from."""
    return path.with_name(f"{path.name}.provenance.json")


def provenance_of(path: Path) -> MinedFrom | None:
    """Return where mined candidates come from; None for a file that lacks its provenance.

    Raises:
        DamagedError: the provenance cannot be read.
    """
    return json_records.load_if_there(provenance_path(path), MinedFrom)


def check_mined_files(name: str, stage: Stage, dataset: Dataset, template: str) -> None:
    """Check the mined files that a stage samples negatives from, before anything is trained.

    Args:
        name: name of the stage.
        stage: the stage.
        dataset: the dataset that it trains on.
        template: the recipe's text of a document from its fields; "" if it has none.

    Raises:
        UsageError: a file was mined from other documents, or has candidates of none of the queries.
        MissingError, FormatError: it is not there, or no run.
    """
    for place, source in enumerate(stage.negative_sources):
        if source.source != "mined":
            continue
        where = f"stages.{name}.negative_sources[{place}].run"
        ranking = open_given_run(dataset, source.run).ranking
        if not any(query in ranking for query in dataset.queries):
            what = f"the file has candidates of none of the {counted(len(dataset.queries), 'query')} of {dataset.name}"
            raise UsageError(what, where=where, hint="was it mined for this dataset?", code="no-ranked-query")
        mined = provenance_of(local_path(source.run)) if source.run not in dataset.runs else None
        if mined is not None and mined.documents_sha256 != dataset.documents.fingerprint():
            what = f"the file was mined from the documents of {mined.dataset}, and {dataset.name} has others"
            option = f" --template {shlex.quote(template)}" if template else ""
            hint = f"mine it again: cerank data mine {dataset.name} --by {mined.model}{option} --into FILE"
            raise UsageError(what, where=where, hint=hint, code="mined-from-other-documents")
