"""What a plan's stages sample their negatives from, before anything is started: sources, shares and counts."""

from __future__ import annotations

from pathlib import Path

from cerank.planning import inputs
from cerank.recipes.plan import Plan
from cerank.recipes.schema import Recipe, Stage
from cerank.recipes.sections.negative_specs import FalseNegativeFilters, NegativeSource
from cerank.recipes.sections.set_mixtures import is_mixture
from cerank.retrieval import first_stage
from cerank.text.table_data import Column, Table
from cerank.training.sampling.negative_rankings import set_shares

_COLUMNS = (
    Column("stage", "stage", "name"),
    Column("source", "source", "name"),
    Column("ranks", "ranks", "name"),
    Column("share", "share", "number", 2),
    Column("per_group", "of a group, mean", "number", 2),
    Column("queries", "queries ranked", "number", 0),
    Column("candidates", "candidates", "number", 0),
)


def table(plan: Plan) -> Table | None:
    """Return the sources of each stage's negatives; None for a plan that has neither sources nor filters.

    Queries and candidates are counted for sources in files; what BM25 or an extension finds is known when the run
    starts.
    """
    recipe = plan.recipe
    stages = [
        (name, stage) for name, stage in recipe.chained() if stage.negative_sources or stage.false_negatives.is_used
    ]
    if not stages:
        return None
    rows = [row for name, stage in stages for row in _rows(plan, recipe, name, stage)]
    notes = [note for name, stage in stages for note in _notes(recipe, name, stage)]
    return Table("negatives", _COLUMNS, tuple(rows), "Negatives", tuple(notes))


def mixture_table(plan: Plan) -> Table | None:
    """Return the sets of each mixture that the plan trains on, with their shares; None where it trains on none."""
    from cerank.datasets.open_datasets import open_dataset

    recipe, rows = plan.recipe, []
    names = dict.fromkeys(inputs.training_dataset(recipe, stage) for _, stage in recipe.chained())
    for name in filter(is_mixture, names):
        dataset = open_dataset(name, Path(plan.cache))
        shares = set_shares(dataset, recipe.data.train_temperature)
        for number, member in dataset.members.items():
            share = shares[number] / sum(shares.values())
            rows.append((number, member.name, len(member.queries), dataset.weights[number], share))
    columns = (
        Column("set", "set", "name"),
        Column("name", "name", "name"),
        Column("queries", "queries", "number", 0),
        Column("weight", "weight", "number", 2),
        Column("share", "share of the groups", "number", 3),
    )
    return Table("mixture", columns, tuple(rows), "Training sets, mixed") if rows else None


def _rows(
    plan: Plan, recipe: Recipe, name: str, stage: Stage
) -> list[tuple[str, str, str | None, float, float, int | None, int | None]]:
    sources = stage.negative_sources or (NegativeSource(source="first-stage"),)
    total = sum(source.share for source in sources)
    size = stage.group_size - stage.positives  # a query with fewer positives gets more negatives
    rows = []
    for source in sources:
        first, last = source.ranks or stage.window
        share = source.share / total
        queries, candidates = _counts(plan, recipe, stage, source) if source.is_ranked else (None, None)
        called = f"{source.source} {source.run}".rstrip()
        ranks = f"{first}-{last}" if source.is_ranked else None
        rows.append((name, called, ranks, share, share * size, queries, candidates))
    return rows


def _counts(plan: Plan, recipe: Recipe, stage: Stage, source: NegativeSource) -> tuple[int | None, int | None]:
    """Return how many training queries a file ranks, and their candidates in the source's ranks; None if computed."""
    dataset = inputs.open_with_template(inputs.training_dataset(recipe, stage), recipe, Path(plan.cache))
    run = source.run or inputs.training_first_stage(recipe, stage)
    if first_stage.is_built_in_bm25(dataset, run) or (run not in dataset.runs and run in first_stage.RETRIEVERS):
        return None, None
    first, last = source.ranks or stage.window
    ranking = first_stage.open_given_run(dataset, run).ranking.only(list(dataset.queries)).top(last)
    return len(ranking), sum(max(0, len(ranking[query]) - first + 1) for query in ranking)


def _notes(recipe: Recipe, name: str, stage: Stage) -> list[str]:
    filters = stage.false_negatives
    if not filters.is_used:
        return []
    defaults = FalseNegativeFilters()
    keys = ("absolute_margin", "relative_margin", "max_score", "top_p", "near_duplicates", "positive", "unscored")
    given = [f"{key} {getattr(filters, key)}" for key in keys if getattr(filters, key) != getattr(defaults, key)]
    by = f", by the scores of {filters.scores}" if filters.scores else ""
    if filters.scores in recipe.teachers:
        by += ", whose pairs are counted below, once each, as if it were as fast as the stage's own model"
    return [f"{name}: false negatives are filtered before training: {', '.join(given)}{by}"]
