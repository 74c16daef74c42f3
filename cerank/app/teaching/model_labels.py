"""Labels by a graded teacher: written as qrels with their provenance, compared with people's."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.errors import UsageError
from cerank.files import disk
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.teachers.judging.labels import LabelAgreement, SystemAgreement
    from cerank.teachers.requests import Hooks, TeachRequest


class ModelLabels(msgspec.Struct, frozen=True, kw_only=True):
    """The labels that were written, and their agreement with people's."""

    model: str
    queries: int
    documents: int
    agreement: LabelAgreement | None  # None where people judged none of the documents
    systems: SystemAgreement | None  # None for fewer than three runs, or without people's labels
    warnings: tuple[str, ...]


def write_labels(
    request: TeachRequest, hooks: Hooks, output: Path, *, runs: tuple[str, ...], measure: str
) -> ModelLabels:
    """Write a graded teacher's grades as qrels to `output`, and their provenance to `output`.teacher.json.

    Args:
        request: names the teacher and the queries.
        hooks: functions that report progress and ask whether to stop.
        output: path of the qrels file; compressed if it ends in .gz.
        runs: paths of TREC runs, which are ordered by human and by model labels to compare both orders.
        measure: name of the measure by which the runs are ordered.

    Raises:
        UsageError: the teacher gives no grades.
        StopTeachingError: a cap or a signal stopped the work.
    """
    from cerank.evaluation.measures import check, per_query
    from cerank.teachers.engines.engine import StopTeachingError
    from cerank.teachers.judging import labels
    from cerank.teachers.make import make
    from cerank.trec.open_run import open_run_file
    from cerank.trec.text_io import write_qrels

    spec, dataset = request.spec, request.dataset
    if spec.kind != "graded":
        hint = 'declare one with kind = "graded"'
        raise UsageError(
            f"a teacher of kind {spec.kind} gives no grades",
            where=f"teachers.{request.name}",
            hint=hint,
            code="teacher-without-grades",
        )
    made = make(request, hooks)
    if made.stopped:
        raise StopTeachingError(made.stopped, hint="the same command continues")
    by_model = labels.grades_of(made.ranking)
    packed = write_qrels(by_model)
    disk.write(output, packed if output.suffix == ".gz" else gzip.decompress(packed))
    disk.write(output.with_name(f"{output.name}.teacher.json"), (made.folder / "teacher.json").read_bytes())
    by_people = {query: row for query, row in dataset.qrels.items() if query in by_model}
    label_agreement = labels.agreement(by_model, by_people)
    systems = None
    if runs and label_agreement.pairs:
        means: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for path in runs:
            ranking = open_run_file(Path(path), dataset.cache).ranking.only(list(by_people))
            both: tuple[Mapping[str, Mapping[str, int]], ...] = (by_model, by_people)
            for qrels, mean in zip(both, means, strict=True):
                judged = {query: dict(qrels[query]) for query in by_people}
                (name,) = check([measure], judged, "--measure")
                values = per_query((name,), judged, ranking)[name]
                mean[path] = math.fsum(values.values()) / len(judged)
        systems = labels.system_agreement(*means)
    warnings = labels.family_warnings(spec.model, runs)
    if not label_agreement.pairs:
        warnings.append("people judged none of these documents, so nothing says how far the labels can be trusted")
    failed = sum(bool(report.failure) for report in made.reports.values())
    if failed:
        warnings.append(f"{counted(failed, 'query')} could not be graded and are not in the qrels")
    return ModelLabels(
        model=spec.model,
        queries=len(by_model),
        documents=sum(map(len, by_model.values())),
        agreement=label_agreement if label_agreement.pairs else None,
        systems=systems,
        warnings=tuple(warnings),
    )
