"""Whether a teacher is worth learning from, on queries with labels, before hours of training."""

from __future__ import annotations

import gzip
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.teaching.lab_teachers import CHECK, KeptCheck
from cerank.core.rankings import Ranking
from cerank.datasets.dataset import Dataset
from cerank.errors import UsageError
from cerank.files import json_records
from cerank.files.json_records import timestamp
from cerank.settings import Settings
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison
    from cerank.teachers.judging.bias import Stability
    from cerank.teachers.make import MadeTeacher
    from cerank.teachers.requests import Hooks, TeachRequest

BIAS_QUERIES = 20  # whose first window is shown in other orders
MANY_UNCHANGED = 0.5  # share of windows that came back as they were, above which the teacher hardly ranks
MANY_REPAIRED = 0.2
LOW_TAU = 0.5
_FIRST, _DEPTH = "first-stage", 10


class TeacherCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of checking a teacher: a comparison with its candidates, faults of answers, and stability."""

    name: str
    dataset: str
    first_stage: str
    queries: int  # ranked and labeled
    failed: int
    comparison: Comparison  # the teacher against the first stage, by the labels
    repaired: float  # share of answers
    unchanged: float  # share of windows that came back in the order that was given
    position_bias: Stability | None
    consistency: Stability | None
    agreement: dict[str, float]  # teacher of the same recipe -> mean rank-biased overlap
    warnings: tuple[str, ...]
    is_worse: bool  # than the first stage, by the verdict on the first measure
    cost: float | None = None
    asked: int = 0


def check(
    settings: Settings,
    request: TeachRequest,
    hooks: Hooks,
    *,
    measures: tuple[str, ...],
    bias_queries: int = BIAS_QUERIES,
) -> TeacherCheck:
    """Return what a teacher's rankings of labeled queries show; what is missing of them is made.

    Args:
        settings: settings in force; they name the cache and the device.
        request: names the teacher, and queries that have labels.
        hooks: functions that report progress and ask whether to stop.
        measures: names of the measures by which the rankings are compared; the first one decides.
        bias_queries: number of queries whose first window is also asked in other orders and once again; 0 asks none.

    Raises:
        UsageError: no query has labels.
        StopTeachingError: a cap or a signal stopped the work.
    """
    from cerank.teachers.engines.engine import StopTeachingError
    from cerank.teachers.judging.known_training_data import leak
    from cerank.teachers.make import candidates_of, make

    dataset = request.dataset
    labeled = tuple(query for query in request.queries if dataset.qrels.get(query))
    if not labeled:
        raise UsageError("no query has labels to judge a teacher by", where=dataset.name)
    request = msgspec.structs.replace(request, queries=labeled)
    made = make(request, hooks)
    if made.stopped:
        raise StopTeachingError(made.stopped, hint="the same command continues", code="limit-reached")
    comparison = _compared(settings, dataset, candidates_of(request), made, measures)
    bias, twice = _stability(request, hooks, bias_queries)
    rows = [row for row in comparison.rows if row.measure == comparison.measures[0]]
    verdict = rows[0].verdict if rows else "cannot tell"
    facts = made.provenance
    ours = [report for report in made.reports.values() if not report.failure]
    windows = [window for report in ours for window in report.windows]
    answers = max(1, sum(report.calls for report in ours))
    repaired = sum(window.repairs.repaired > 0 or window.unlisted > 0 for window in windows) / answers
    unchanged = sum(window.is_unchanged for window in windows) / answers
    warnings = _warnings(request.name, verdict, (repaired, unchanged), (bias, twice))
    leaked = leak(facts.model, dataset.name)
    every_warning = (*warnings, *([leaked] if leaked else []))
    record = KeptCheck(
        dataset=dataset.name,
        queries=len(made.ranking),
        measure=comparison.measures[0],
        verdict=verdict,
        difference=rows[0].paired.difference if rows else 0.0,
        warnings=every_warning,
        time=timestamp(datetime.now(UTC)),
    )
    json_records.save(made.folder / CHECK, record)
    return TeacherCheck(
        name=request.name,
        dataset=dataset.name,
        first_stage=request.first_stage,
        queries=len(made.ranking),
        failed=sum(bool(report.failure) for report in made.reports.values()),
        comparison=comparison,
        repaired=repaired,
        unchanged=unchanged,
        position_bias=bias,
        consistency=twice,
        agreement=_agreement(request, made.ranking),
        warnings=every_warning,
        is_worse=verdict == "worse",
        cost=facts.cost,
        asked=made.asked,
    )


def _compared(
    settings: Settings, dataset: Dataset, before: Ranking, made: MadeTeacher, measures: tuple[str, ...]
) -> Comparison:
    """Return the comparison of teacher and first stage on the queries that the teacher ranked."""
    from cerank.trec.text_io import write_qrels, write_run

    queries = list(made.ranking)
    with tempfile.TemporaryDirectory(prefix="cerank-check-") as folder:
        room = Path(folder)
        names = []
        for label, ranking in ((_FIRST, before.only(queries)), (made.provenance.name, made.ranking)):
            path = room / f"{label}.run"
            path.write_bytes(gzip.decompress(write_run(ranking, label)))
            names.append(f"{label}={path}")
        qrels = room / "qrels"
        qrels.write_bytes(gzip.decompress(write_qrels({query: dataset.qrels[query] for query in queries})))
        request = ComparisonRequest(
            targets=tuple(names),
            measures=measures,
            qrels=str(qrels),
            now=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return comparisons.compare(settings, request)


def _stability(request: TeachRequest, hooks: Hooks, count: int) -> tuple[Stability | None, Stability | None]:
    """Return position bias and consistency, measured on the first `count` queries; None for kinds without windows."""
    from cerank.teachers.judging.bias import consistency, position_bias
    from cerank.teachers.make import Session, candidates_of

    if not count or request.spec.kind not in {"listwise", "first"}:
        return None, None
    few = msgspec.structs.replace(request, queries=request.queries[:count])
    session = Session(few, candidates_of(few), hooks)
    return position_bias(session), consistency(session)


def _agreement(request: TeachRequest, ranking: Ranking) -> dict[str, float]:
    """Return the mean rank-biased overlap with each other teacher of the recipe that has ranked these queries."""
    from cerank.teachers import declared, ranking_files
    from cerank.teachers.judging.agreement import rank_biased_overlap

    overlaps = {}
    for name, spec in request.teachers.items():
        if name == request.name:
            continue
        identity = declared.identity(spec, request.teachers, request.dataset, request.first_stage)
        other = ranking_files.load_ranking(declared.ranking_folder(request.lab, name, identity))
        shared = [query for query in ranking if query in other]
        if shared:
            overlaps[name] = statistics.fmean(rank_biased_overlap(ranking[query], other[query]) for query in shared)
    return overlaps


def _warnings(
    name: str, verdict: str, shares: tuple[float, float], stabilities: tuple[Stability | None, Stability | None]
) -> list[str]:
    (repaired, unchanged), (bias, twice) = shares, stabilities
    warnings = []
    if verdict == "worse":
        warnings.append(f"{name} ranks worse than the first stage: what a model learns from it is worse, too")
    elif verdict in {"cannot tell", "equivalent", "different but negligible"}:
        warnings.append(f"{name} is not shown to rank better than the first stage ({verdict})")
    if unchanged > MANY_UNCHANGED:
        warnings.append(f"{unchanged:.0%} of its windows came back in the order that was given: it hardly ranks")
    if repaired > MANY_REPAIRED:
        warnings.append(f"{repaired:.0%} of its answers had to be repaired")
    if bias is not None and bias.tau < LOW_TAU:
        warnings.append(
            f"its order depends on where passages stand (tau {bias.tau:.2f} between shuffles of the same "
            f"{counted(bias.queries, 'window')}); shuffles = 3 merges several orders"
        )
    if twice is not None and twice.tau < 1.0:
        warnings.append(f"the same prompt is answered differently the second time (tau {twice.tau:.2f})")
    return warnings
