"""The stages of a run: their validations, losses and weights, and the rankings of their models."""

from __future__ import annotations

from cerank.cli.output import Column, Table
from cerank.core.metrics import Validation
from cerank.files import journal, json_records
from cerank.recipes.plan import Plan
from cerank.recipes.schema import kept_name
from cerank.runs import run_store
from cerank.runs.layout import ReadingRow, RunFolder


def validation_table(folder: RunFolder, plan: Plan) -> Table:
    """Return what the validations of a run showed, step by step."""
    readings: list[ReadingRow]
    readings, _ = journal.read_valid_rows(folder.readings, ReadingRow)
    rows = {(row.stage, row.step): row for row in readings if isinstance(row, Validation)}
    names = list(dict.fromkeys(name for row in rows.values() for name in row.measures))
    columns = (Column("stage", "stage"), Column("step", "step", "number", 0), *(Column(n, n, "number") for n in names))
    body = tuple(
        (plan.recipe.chain[row.stage], row.step, *(row.measures.get(name) for name in names))
        for _, row in sorted(rows.items())
    )
    fresh = [plan.recipe.chain[row.stage] for row in rows.values() if row.fresh_head]
    has_start = any(row.step == 0 for row in rows.values())
    notes = ["step 0: the model that the stage starts from; the stage never hands it on"] if has_start else []
    notes += [f"step 0 of {', '.join(fresh)}: a fresh head, whose scores are noise"] if fresh else []
    sets = dict.fromkeys(stage.validation or plan.recipe.data.validation for _, stage in plan.recipe.chained())
    own = [name for name, stage in plan.recipe.chained() if stage.validation] if len(sets) > 1 else []
    notes += [f"{name} on {plan.recipe.stages[name].validation}" for name in own]
    return Table(
        "validations",
        columns,
        body,
        f"Validation on {', '.join(sets)}",
        tuple(notes),
        empty="The run has not been validated yet.",
    )


def loss_table(folder: RunFolder, plan: Plan) -> Table | None:
    """Return what the losses of stages that train several came to; None for a run without such a stage."""
    from cerank.app.run_views import stage_losses

    columns = (
        Column("stage", "stage"),
        Column("loss", "loss", "name"),
        Column("weight", "weight", "number", 2),
        Column("learns_from", "learns from", "name"),
        Column("first", "at start", "number"),
        Column("last", "at end", "number"),
        Column("cosine", "cosine of gradients", "number", 2, priority=1),
    )
    rows = tuple(
        (row.stage, row.name, row.weight, row.learns_from, row.first, row.last, row.cosine)
        for row in stage_losses.of_run(folder, plan)
    )
    note = f"means over the first and last {stage_losses.SHARE:.0%} of the steps, before the weight"
    return Table("losses", columns, rows, "Losses", (note,)) if rows else None


def stage_table(folder: RunFolder, plan: Plan) -> Table:
    """Return what the finished stages of a run came to: what they drew from, and how far their weights moved."""
    from cerank.training import stage_summary

    columns = (
        Column("stage", "stage"),
        Column("precision", "precision"),
        Column("steps", "steps", "number", 0),
        Column("kept", "step handed on", "number", 0, priority=1),
        Column("start", "validated at start", "number", priority=1),
        Column("end", "at end", "number", priority=1),
        Column("fresh_head", "fresh head", priority=4),
        Column("moved", "weight change"),
        Column("changed", "weights changed", "percent", priority=2),
        Column("queries", "queries", "number", 0, priority=1),
        Column("usable", "usable queries", "number", 0, priority=1),
        Column("without_positive", "without positive", "number", 0, priority=3),
        Column("short", "undersized groups", "number", 0, priority=4),
        Column("unretrieved", "positives not retrieved", "number", 0, priority=4),
        Column("repaired", "lists completed", "number", 0, priority=4),
    )
    summaries = [stage_summary.read(folder.final(index, name)) for index, name in enumerate(plan.recipe.chain)]
    best_models = [
        (name, stage_summary.read(path))
        for index, name in enumerate(plan.recipe.chain)
        for path in folder.best_models(index, name)
    ]
    rows = tuple(
        (
            row.stage,
            run_store.measured_precision(folder, plan, row.stage),
            row.steps,
            row.kept_step,
            row.start,
            row.end,
            "yes" if row.fresh_head else "no",
            f"{row.weight_change.norm:.1e}",
            row.weight_change.changed,
            row.sampling.queries,
            row.sampling.usable,
            row.sampling.without_positive,
            row.sampling.undersized,
            row.sampling.unretrieved_positives,
            row.repairs.repaired,
        )
        for row in summaries
        if row is not None
    )
    still = [row.stage for row in summaries if row is not None and row.weight_change.is_negligible]
    notes: tuple[str, ...] = (f"weights hardly changed in: {', '.join(still)}",) if still else ()
    tied = [(row.stage, row.teacher_ties) for row in summaries if row is not None and row.teacher_ties is not None]
    notes += tuple(f"{stage}: {ties}" for stage, ties in tied if ties.tied)
    notes += tuple(f"{row.stage}: {row.no_gain}" for row in summaries if row is not None and row.no_gain)
    notes += tuple(f"{row.stage}: {row.filter}" for row in summaries if row is not None and row.filter is not None)
    notes += tuple(
        f"{kept_name(name, best.measure)}: {best.measure} {best.best:.4f} on validation at step {best.best_step}"
        for name, best in best_models
        if best is not None
    )
    note = "weight change: the norm of the change of the weights, divided by their norm"
    return Table("stages", columns, rows, "Stages", (note, *notes) if rows else (), empty="No stage is finished yet.")


def ranking_table(folder: RunFolder, plan: Plan) -> Table:
    """Return the measured rankings: how deep each is, and how much of its order was left to ties."""
    from cerank.app.comparison.named_systems import systems_of
    from cerank.training.stage_summary import RankingStats

    columns = (
        *(Column(name, name.replace("_", " ")) for name in ("system", "dataset", "first_stage")),
        Column("queries", "queries", "number", 0),
        Column("shallowest", "min depth", "number", 0, priority=2),
        Column("deepest", "max depth", "number", 0, priority=2),
        Column("tied", "tied documents", "percent", priority=1),
    )
    data = plan.recipe.data
    rows = []
    for test in data.test:
        for first in data.first_stages:
            for system in systems_of(plan):
                stats = json_records.load_if_there(folder.ranking_stats_file(system, test, first), RankingStats)
                if stats is not None:
                    figures = (stats.queries, stats.min_depth, stats.max_depth, stats.tied)
                    rows.append((system, test, first, *figures))
    return Table(
        "rankings", columns, tuple(rows), "Rankings, all cut at the same depth", empty="Nothing has been re-ranked yet."
    )
