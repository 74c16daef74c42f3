"""The identity of a teacher that a recipe declares: what its rankings depend on, known before they are made.

Invariant: no model is loaded, and no server is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cerank.datasets.dataset import Dataset
from cerank.datasets.document_fields import check_template
from cerank.files.hashing import sha256_json, sha256_text
from cerank.inference.documents_of_run import documents_of
from cerank.models import bases
from cerank.recipes.sections.teacher_specs import TeacherSpec
from cerank.retrieval import first_stage
from cerank.teachers import prompts

_FOLDER = "teachers"  # in a lab: answers were paid for, and a cache may be emptied


def decisive_parts(spec: TeacherSpec, teachers: Mapping[str, TeacherSpec], *, fetch: bool = False) -> dict[str, object]:
    """Return everything that decides a teacher's answers: its settings, its template's text, its model's hash.

    Args:
        spec: declaration of the teacher.
        teachers: name -> declaration of every teacher of the recipe; members of an ensemble are looked up in it.
        fetch: whether a model in process may be fetched from the hub.

    Raises:
        CerankError: a template or a model in process is missing or malformed.
    """
    parts: dict[str, object] = {"settings": spec.decisive()}
    if spec.kind == "ensemble":
        parts["members"] = [decisive_parts(teachers[name], teachers, fetch=fetch) for name in spec.members]
        return parts
    if spec.kind != "cross-encoder":
        parts["template"] = prompts.template_of(spec).sha256
    if spec.is_local:
        is_scorer = spec.kind == "cross-encoder"
        if not is_scorer:
            return parts | {"model": bases.fingerprint(bases.model_folder(spec.model, fetch=fetch))}
        files = bases.locate(spec.model, fetch=fetch)
        parts["model"] = files.sha256
        documents = documents_of(files.folder)
        if not documents.is_plain:  # a checkpoint of a run, which reads documents as it did there
            read = {"template": documents.template, "passages": documents.passages}
            parts["documents"] = msgspec.to_builtins(read)
    return parts


def documents_read(
    spec: TeacherSpec, teachers: Mapping[str, TeacherSpec], dataset: Dataset, where: str, *, fetch: bool = False
) -> tuple[str, ...]:
    """Return how checkpoints of runs read documents, of a teacher or of an ensemble; none where plain.

    Raises:
        UsageError: the documents lack a field by which one of them reads.
        CerankError: a model in process is missing or malformed.
    """
    notes = []
    for member in [teachers[name] for name in spec.members] if spec.kind == "ensemble" else [spec]:
        if member.kind == "cross-encoder" and member.is_local:
            documents = documents_of(bases.locate(member.model, fetch=fetch).folder)
            check_template(dataset, documents.template, where)
            notes += [] if documents.is_plain else [f"reads {documents}, as its run did"]
    return tuple(dict.fromkeys(notes))


def identity(
    spec: TeacherSpec, teachers: Mapping[str, TeacherSpec], dataset: Dataset, first: str, *, fetch: bool = False
) -> str:
    """Return the SHA-256 of all that a teacher's rankings depend on: itself, the documents, the first stage.

    Queries are none of it: a ranking of further queries is added to the same files. Raises as `decisive_parts`.
    """
    parts = decisive_parts(spec, teachers, fetch=fetch)
    return sha256_json([parts, dataset.documents.fingerprint(), first_stage.fingerprint(dataset, first)])


def answers_file(lab: Path, place: str, model: str) -> Path:
    """Return the file of the answers of a model, by where it runs."""
    digest = sha256_text(f"{place}\n{model}")
    return lab / _FOLDER / "answers" / f"{_plain(model)}-{digest[:8]}.jsonl"


def batches_folder(lab: Path, place: str, model: str) -> Path:
    """Return the folder of what was given to a server's Batch API for a model."""
    return lab / _FOLDER / "batches" / answers_file(lab, place, model).stem


def ranking_folder(lab: Path, name: str, identity_: str) -> Path:
    """Return the folder of a teacher's rankings."""
    return lab / _FOLDER / "rankings" / f"{_plain(name)}-{identity_[:12]}"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:60] or "x"
