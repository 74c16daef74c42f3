"""A comparison with bounds by ties and unjudged documents, and a file of the documents to judge next.

Invariant: rankings are read again from the files that were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cerank.app.comparison.comparison_session import qrels_in, ranking_of
from cerank.app.comparison.comparisons import ComparisonRequest
from cerank.app.comparison.measuring.named_judgments import Qrels
from cerank.app.comparison.named_systems import PER_DATASET, SeedsTarget, file_name_of, targets_of
from cerank.errors import UsageError
from cerank.settings import Settings
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.app.evidence.bounded_rows import NextJudgment
    from cerank.core.rankings import Ranking
    from cerank.evaluation.compare import Comparison, Condition

TAG = "cerank-judge-next"


def with_bounds(
    settings: Settings, request: ComparisonRequest, comparison: Comparison
) -> tuple[Comparison, tuple[NextJudgment, ...]]:
    """Return the comparison that was made of the request, with bounds in its rows, and the documents to judge next."""
    from cerank.app.evidence.bounded_rows import bounded

    targets = targets_of(settings.lab, request.targets)
    by_label = dict(zip((system.label for system in comparison.systems), targets, strict=True))
    rankings: dict[tuple[str, Condition], Ranking | None] = {}
    judged: dict[Condition, Qrels] = {}

    def ranking(label: str, condition: Condition) -> Ranking | None:
        key = label, condition
        if key not in rankings:
            target = by_label[label]
            is_mean = isinstance(target, SeedsTarget)
            rankings[key] = None if is_mean else ranking_of(settings, request, target, condition)
        return rankings[key]

    def qrels(condition: Condition) -> Qrels:
        if condition not in judged:
            judged[condition] = qrels_in(settings, request, targets, condition)
        return judged[condition]

    return bounded(comparison, ranking, qrels)


def table(comparison: Comparison) -> Table:
    """Return the bounds of each row; none of it makes a verdict."""
    from cerank.app.evidence.bounded_rows import LEGEND

    columns = (
        *(Column(name, name.replace("_", " ")) for name in ("dataset", "first_stage", "measure", "left", "right")),
        Column("difference", "difference", "signed"),
        Column("unjudged", "unjudged", "number", 0),
        Column("judgments", "judgments", "name"),
        Column("ties", "ties", "name", priority=1),
        Column("text", "verdict"),
    )
    body = []
    for row in comparison.rows:
        of = row.bounds
        if of is None:
            continue
        where = (row.condition.dataset, row.condition.first_stage, row.measure, row.left, row.right)
        judged = _interval(of.unjudged_low, of.unjudged_high) + ("" if of.is_exact else " or less")
        figures = (row.paired.difference, of.unjudged, judged, _interval(of.ties_low, of.ties_high))
        body.append((*where, *figures, of.text))
    return Table("bounds", columns, tuple(body), "Bounds", (LEGEND,))


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"


def judging_files(
    comparison: Comparison, documents: Sequence[NextJudgment], path: Path
) -> dict[Path, tuple[NextJudgment, ...]]:
    """Return the documents to judge by the file they go to: one, or with `{dataset}` one for each collection.

    Raises:
        UsageError: there are several collections, whose queries may have the same ids, and the path is for one file.
    """
    datasets = tuple(dict.fromkeys(condition.dataset for condition in comparison.conditions))
    if PER_DATASET in str(path):
        return {
            Path(str(path).replace(PER_DATASET, file_name_of(dataset))): tuple(
                each for each in documents if each.dataset == dataset
            )
            for dataset in datasets
        }
    if len(datasets) > 1:
        what = f"the documents of {len(datasets)} collections, whose queries may have the same ids, need a file each"
        hint = f"such as --judge-next '{path.stem}-{PER_DATASET}{path.suffix}'"
        raise UsageError(what, where=f"--judge-next {path}", hint=hint, code="collections-one-file")
    return {path: tuple(documents)}


def judging_file(documents: Sequence[NextJudgment]) -> str:
    """Return documents of one collection to judge as a TREC run: the most telling first, `gain` as their score."""
    ranks: dict[str, int] = {}
    lines = []
    for each in documents:
        ranks[each.query] = ranks.get(each.query, 0) + 1
        lines.append(f"{each.query} Q0 {each.document} {ranks[each.query]} {each.gain:.9f} {TAG}\n")
    return "".join(lines)
