"""Cross-validation: one comparison of what the runs of all folds scored.

Invariant: in the pooled comparison each query counts once, with the values of the run that was not trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.app.comparison import comparisons
from cerank.app.comparison.comparisons import ComparisonRequest, declared_margins
from cerank.app.comparison.named_systems import RunTarget, short_name, systems_of
from cerank.datasets import folds
from cerank.errors import MissingError, UsageError
from cerank.files.disk import DamagedError
from cerank.recipes.plan import Plan
from cerank.runs import run_store
from cerank.runs.layout import RunFolder
from cerank.settings import Settings
from cerank.text.table_data import Column, Table

if TYPE_CHECKING:
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.studies.fold_blocks import FoldBlocks
    from cerank.evaluation.systems import Measured, System


class FoldRow(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of the pooled table, fold by fold."""

    right: str
    left: str
    first_stage: str
    measure: str
    blocks: FoldBlocks


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
    from cerank.evaluation.compare import Terms, compare
    from cerank.evaluation.studies.fold_blocks import fold_blocks
    from cerank.evaluation.systems import values_by_query

    members = _members(settings, run_store.find(settings.lab, name))
    first_folder, first = members[0]
    names, measured = systems_of(first), []
    for folder, plan in members:
        targets = [RunTarget(system, folder, plan, system) for system in names]
        systems, measures = comparisons.measured_systems(settings, targets, ComparisonRequest())
        measured.append(systems)
    pooled = [_pooled([fold[at] for fold in measured], len(members)) for at in range(len(names))]
    targets = [RunTarget(system, first_folder, first, system) for system in names]
    terms = Terms(
        confidence=confidence,
        margins=declared_margins(targets, measures, all_pairs=False),
        worth=declared_margins(targets, measures, all_pairs=False, kind="worth"),
        harm=declared_margins(targets, measures, all_pairs=False, kind="harm"),
        primary=first.recipe.evaluate.primary,
        pairs="stages",
    )
    comparison = compare(pooled, measures, terms=terms)
    by_label = {system.label: at for at, system in enumerate(pooled)}
    rows = []
    for row in comparison.rows:
        each = []
        for fold in measured:
            left, right = fold[by_label[row.left]], fold[by_label[row.right]]
            at = next(
                entry.condition for entry in left.measured if entry.condition.first_stage == row.condition.first_stage
            )
            _, (lower, upper) = values_by_query(left, right, at, row.measure)
            each.append([right_value - left_value for left_value, right_value in zip(lower, upper, strict=True)])
        if all(len(fold) > 1 for fold in each):
            rows.append(
                FoldRow(
                    right=row.right,
                    left=row.left,
                    first_stage=row.condition.first_stage,
                    measure=row.measure,
                    blocks=fold_blocks(each, confidence),
                )
            )
    return CrossValidation(comparison=comparison, rows=tuple(rows), confidence=confidence)


def _fold_of(plan: Plan) -> tuple[int, str] | None:
    """Return (number, what the folds are of) of the fold that a run is tested on; None for another run."""
    if len(plan.recipe.data.test) != 1:
        return None
    match = folds.FOLD.search(plan.recipe.data.test[0])
    fold_part = folds.parse_fold(match.group()) if match else None
    return (
        (fold_part.numbers[0], fold_part.of)
        if fold_part and not fold_part.is_rest and len(fold_part.numbers) == 1
        else None
    )


def _family(plan: Plan) -> bytes:
    """Return what the runs of all folds share: the recipe with the folds' numbers left out."""
    return folds.FOLD.sub(r"[fold/\g<of>]", msgspec.json.encode(plan.recipe).decode()).encode()


def _members(settings: Settings, folder: RunFolder) -> list[tuple[RunFolder, Plan]]:
    """Return the newest finished run of each fold, in their order."""
    plan = run_store.load_plan(folder)
    own = _fold_of(plan)
    if own is None:
        hint = "`cerank run --recipe NAME --dataset NAME --folds 5` makes a run for each fold"
        raise UsageError("is no run of a fold", where=run_store.title(folder), hint=hint, code="not-a-fold")
    run_of: dict[int, tuple[RunFolder, Plan]] = {}
    for other in run_store.folders(settings.lab):
        try:
            theirs = run_store.load_plan(other)
        except DamagedError:  # the list of runs says so
            continue
        fold = _fold_of(theirs)
        if fold is not None and _family(theirs) == _family(plan) and _is_measured(other, theirs):
            run_of[fold[0]] = (other, theirs)
    count = folds.count_of(own[1])
    missing = [str(number) for number in range(1, count + 1) if number not in run_of]
    if missing:
        what = f"fold {', '.join(missing)} of {count}: no run of it has finished"
        raise MissingError(what, where=run_store.title(folder), hint="`cerank ps` lists the runs", code="folds-missing")
    return [run_of[number] for number in range(1, count + 1)]


def _is_measured(folder: RunFolder, plan: Plan) -> bool:
    data = plan.recipe.data
    return all(
        folder.measures(system, test, first).exists()
        for system in systems_of(plan)
        for test in data.test
        for first in data.first_stages
    )


def _pooled(members: Sequence[System], count: int) -> System:
    """Return one system with the values of all folds."""
    from cerank.evaluation.systems import System

    rows = [_pooled_rows([system.measured[at] for system in members], count) for at in range(len(members[0].measured))]
    first = members[0]
    return System(label=first.label, measured=tuple(rows), is_fixed=True, is_baseline=first.is_baseline)


def _pooled_rows(rows: Sequence[Measured], count: int) -> Measured:
    from cerank.evaluation.systems import Condition, Measured
    from cerank.files.hashing import sha256_json

    values = {
        measure: {query: value for row in rows for query, value in row.values[measure].items()}
        for measure in rows[0].values
    }
    measure, whole = next(iter(values.items()))
    if len(whole) != sum(len(row.values[measure]) for row in rows):
        raise UsageError("a query is in two folds", where=rows[0].condition.dataset, code="folds-format")
    dataset = short_name(folds.FOLD.sub("", rows[0].condition.dataset))
    return Measured(
        condition=Condition(f"{dataset}, {count} folds", rows[0].condition.first_stage),
        qrels_sha256=sha256_json([row.qrels_sha256 for row in rows]),
        values=values,
        missing=tuple(query for row in rows for query in row.missing),
        unjudged=sum(row.unjudged for row in rows),
        ranking_sha256=sha256_json([row.ranking_sha256 for row in rows]),
    )


def fold_table(study: CrossValidation) -> Table:
    """Return each comparison fold by fold, with the fold as a block."""
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
    rows = tuple(
        (
            row.right, row.left, row.first_stage, row.measure, row.blocks.mean, row.blocks.low, row.blocks.high,
            row.blocks.low_over_folds, row.blocks.high_over_folds,
            " ".join(f"{value:+.3f}" for value in row.blocks.differences),
        )
        for row in study.rows
    )  # fmt: skip
    notes = (
        f"blocked: {study.confidence:.0%} interval over the queries of each fold, for these models",
        "over folds: each fold is one observation, so that the luck of a training counts; folds share most of their "
        "training queries, which makes it too narrow",
    )
    return Table("folds", columns, rows, "The same differences, fold by fold", notes if rows else ())
