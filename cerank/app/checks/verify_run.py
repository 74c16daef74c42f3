"""Whether a run is what it says: every hash computed again, and every measure from the ranking and the qrels.

Invariant: nothing of the run is changed but the mark that says what was found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from cerank.core.metrics import Event
from cerank.errors import CerankError, RunFailedError
from cerank.files import journal, json_records
from cerank.files.lease import Lease
from cerank.files.manifests import MANIFEST
from cerank.recipes.plan import Plan
from cerank.runs import checksums, run_store
from cerank.runs.layout import RunFolder
from cerank.runs.records import QueryMeasures, decode_measures

SAME = 1e-12  # a measure computed again differs by less


class VerificationResult(msgspec.Struct, frozen=True):
    """The result of verifying a run: how much was checked, and each problem."""

    files: int  # with a hash of their own
    models: int  # folders with a checksum manifest
    rankings: int  # measured again
    values: int  # measures of queries compared
    largest: float  # difference found
    problems: tuple[str, ...]


def verify(folder: RunFolder, now: datetime) -> VerificationResult:
    """Compare every file of a run with its checksum, and measure its rankings again.

    What is wrong is left as a mark on the run, so that lists show it; the mark goes where nothing is. A run that a
    worker holds is looked at and not marked.
    """
    from cerank.worker import repair

    problems = [str(problem) for problem in repair.find_problems(folder) if problem.path != folder.damage]
    damaged = set(problems)
    files, rankings, values, largest = 0, 0, 0, 0.0
    with contextlib.suppress(CerankError):
        files = len(checksums.load_all(folder))
    try:
        plan = run_store.load_plan(folder)
    except CerankError:
        plan = None
    if plan is not None:
        problems += [problem for problem in repair.find_missing_metrics(folder, plan) if problem not in damaged]
        for key in _measured(folder, plan):
            try:
                count, worst = _measure_again(folder, key)
            except CerankError as error:
                problems.append(str(error))
                continue
            rankings, values, largest = rankings + 1, values + count, max(largest, worst)
            if worst > SAME:
                problems.append(
                    f"{folder.measures(*key)}: values differ from those of the ranking by up to {worst:.3g}"
                )
    problems = list(dict.fromkeys(problems))
    with contextlib.suppress(CerankError), Lease.take(folder.lease, now):  # held, or a disk that cannot be written to
        checksums.record_damage(folder, problems, json_records.timestamp(now))
    models = sum(1 for path in folder.path.glob(f"stages/**/{MANIFEST}") if ".bad" not in str(path))
    return VerificationResult(files, models, rankings, values, largest, tuple(problems))


_DOUBTS = {
    "replay mismatch": "a step that was repeated after a resume gave different numbers",
    "environment changed": "the run was resumed with other versions or on another machine",
}


def warnings_about(lab: Path, texts: Sequence[str]) -> list[str]:
    """Return a warning for each named run that is damaged or was resumed elsewhere; run files have none."""
    from cerank.app.comparison import named_systems

    warnings = []
    for target in named_systems.targets_of(lab, texts):
        for run in named_systems.runs_of(target):
            kinds = {event.kind for event in journal.read_valid_rows(run.folder.events, Event)[0]}
            warnings += [f"{run_store.title(run.folder)}: {text}" for kind, text in _DOUBTS.items() if kind in kinds]
    return list(dict.fromkeys(warnings))


def _measured(folder: RunFolder, plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield the (system, dataset, first stage) that have measures."""
    from cerank.app.comparison.named_systems import systems_of

    data = plan.recipe.data
    for system in systems_of(plan):
        for test in data.test:
            for first in data.first_stages:
                if folder.measures(system, test, first).exists():
                    yield system, test, first


def _measure_again(folder: RunFolder, key: tuple[str, str, str]) -> tuple[int, float]:
    """Return how many values the measures file of a ranking has, and the largest difference from those computed now."""
    from cerank.evaluation.measures import per_query
    from cerank.trec.text_io import read_qrels, read_run

    path = folder.measures(*key)
    rows = _rows(path)
    if not rows:
        return 0, 0.0
    qrels, ranking = read_qrels(folder.qrels(key[1])), read_run(folder.ranking(*key)).ranking
    measured = per_query(tuple(rows[0].measures), qrels, ranking)
    worst, count = 0.0, 0
    stored = {row.query_id: row.measures for row in rows}
    for name, by_query in measured.items():
        for query, value in by_query.items():
            count += 1
            worst = max(worst, abs(value - stored.get(query, {}).get(name, float("inf"))))
    return count, float("inf") if len(stored) != len(qrels) else worst


def _rows(path: Path) -> list[QueryMeasures]:
    try:
        return decode_measures(path.read_bytes())
    except (OSError, *json_records.DECODE_ERRORS) as error:
        raise RunFailedError(
            f"the file of measures cannot be read: {json_records.decode_reason(error)}", where=str(path)
        ) from error
