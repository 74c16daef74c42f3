"""Cross-validation: one comparison of what the runs of all folds scored.

Invariant: in the pooled comparison each query counts once, with the values of the run that was not trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons
from cerank.app.comparison.comparisons import ComparisonRequest, declared_margins
from cerank.app.comparison.named_systems import FIRST_STAGE, RunTarget, folds_target, of_system, systems_of
from cerank.app.rankings.first_stage_table import marked_end
from cerank.runs import run_store
from cerank.settings import Settings
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.studies.fold_blocks import FoldBlocks


class FoldRow(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of the pooled table, fold by fold."""

    right: str
    left: str
    first_stage: str
    measure: str
    blocks: FoldBlocks
    verdict: str  # by all queries
    mark: str = ""  # after the blocked interval where too few queries differ to show anything


class CrossValidation(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs of all folds came to together."""

    comparison: Comparison
    rows: tuple[FoldRow, ...]
    confidence: float


def of_run(settings: Settings, name: str, confidence: float) -> CrossValidation:
    """Return the comparison of all folds, from the name of the run of one of them.

    Raises:
        UsageError: the run is not of a fold.
        MissingError: a fold has no finished run.
    """
    from cerank.evaluation.compare import compare
    from cerank.evaluation.verdicts.terms import Terms

    folder = run_store.find(settings.lab, name)
    plan = run_store.load_plan(folder)
    whole = folds_target(settings.lab, RunTarget(FIRST_STAGE, folder, plan, FIRST_STAGE))
    targets = [of_system(whole, system, system) for system in systems_of(plan)]
    systems, measures = comparisons.measured_systems(settings, targets, ComparisonRequest())
    terms = Terms(
        confidence=confidence,
        margins=declared_margins(targets, measures, all_pairs=False),
        worth=declared_margins(targets, measures, all_pairs=False, kind="worth"),
        harm=declared_margins(targets, measures, all_pairs=False, kind="harm"),
        primary=plan.recipe.evaluate.primary,
        pairs="stages",
    )
    comparison = compare(systems, measures, terms=terms)
    return CrossValidation(comparison=comparison, rows=fold_rows(comparison), confidence=confidence)


def fold_rows(comparison: Comparison) -> tuple[FoldRow, ...]:
    """Return each row of a comparison with the fold as a block; none where no system is one of folds.

    Rows are left out where the two systems were cut into different folds, or a fold holds one query alone.
    """
    from cerank.evaluation.comparison_rows import mark_of_few
    from cerank.evaluation.studies.fold_blocks import fold_blocks
    from cerank.evaluation.systems import values_by_query

    systems = {system.label: system for system in comparison.systems}
    rows = []
    for row in comparison.rows:
        left, right = systems[row.left], systems[row.right]
        cuts = {frozenset(map(frozenset, system.folds)): system.folds for system in (left, right) if system.folds}
        if len(cuts) != 1:
            continue
        (cut,) = cuts.values()
        queries, (lower, upper) = values_by_query(left, right, row.condition, row.measure)
        gain = {query: high - low for query, low, high in zip(queries, lower, upper, strict=True)}
        each = [[gain[query] for query in fold] for fold in cut]
        if all(len(fold) > 1 for fold in each):
            rows.append(
                FoldRow(
                    right=row.right,
                    left=row.left,
                    first_stage=row.condition.first_stage,
                    measure=row.measure,
                    blocks=fold_blocks(each, comparison.terms.confidence),
                    verdict=row.verdict,
                    mark=mark_of_few(row.paired, row.judgment.alpha, row.verdict),
                )
            )
    return tuple(rows)


def fold_table(
    rows: Sequence[FoldRow], confidence: float, claim: str = "checkpoints", *, is_marked: bool = False
) -> Table:
    """Return each comparison fold by fold, with the fold as a block.

    Args:
        rows: the comparisons.
        confidence: of the intervals.
        claim: what the verdicts are about, "checkpoints" or "recipes".
        is_marked: mark the intervals of rows in which few queries differ, for people: these ends are then texts.
    """
    from cerank.evaluation.comparison_rows import note_of_few

    columns = (
        Column("right", "system", "name"),
        Column("left", "against", "name"),
        Column("first_stage", "first stage", "name", priority=2),
        Column("measure", "measure"),
        Column("mean", "difference", "number"),
        Column("low", "blocked: from", "number"),
        Column("high", "to", "number"),
        Column("low_over_folds", "over folds: from", "number", priority=1),
        Column("high_over_folds", "to", "number", priority=1),
        Column("folds", "by fold", "text", priority=1),
    )
    shown = tuple(
        (
            row.right, row.left, row.first_stage, row.measure, row.blocks.mean, row.blocks.low,
            marked_end(row.blocks.high, row.mark if is_marked else ""), row.blocks.low_over_folds,
            marked_end(row.blocks.high_over_folds, row.mark if is_marked else ""),
            " ".join(f"{value:+.3f}" for value in row.blocks.differences),
        )
        for row in rows
    )  # fmt: skip
    percent = f"{100 * confidence:.4g} %"
    notes = [
        f"blocked: {percent} interval over the queries of each fold, for these models",
        f"over folds: {percent} interval in which each fold is one observation, so that the luck of a training counts "
        "(Nadeau and Bengio); folds share most of their training queries, so that it may still be too narrow",
    ]
    if is_marked and any(row.mark for row in rows):
        notes.append(note_of_few(1 - confidence))
    if claim == "checkpoints":
        notes.append(
            "verdicts count all queries and are about these models; as claims about the recipe they err far more often "
            "(cerank guide datasets)"
        )
        notes += [
            f"{row.right} against {row.left} by {row.measure}: {row.verdict} for these models, but not shown over "
            "folds: another training may come out otherwise"
            for row in rows
            if row.verdict in {"better", "worse"} and not row.blocks.is_shown_over_folds
        ]
    return Table("folds", columns, shown, "The same differences, fold by fold", tuple(notes) if rows else ())
