"""A plan: what it reads, the work that it is, and the queries that its parts share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cerank.app import estimates
from cerank.cli.output import Column, Table, format_of
from cerank.recipes.plan import Plan
from cerank.text.safe_text import shown

if TYPE_CHECKING:
    from cerank.app.plans import WorkItem
    from cerank.datasets.query_overlaps import Overlap


def input_table(plan: Plan) -> Table:
    """Return what a plan reads, with hashes."""
    columns = (Column("role", "role"), Column("name", "name"), Column("sha256", "sha256", priority=1))
    is_short = format_of("") == "table"
    rows = tuple((entry.role, entry.name, entry.sha256[:16] if is_short else entry.sha256) for entry in plan.inputs)
    return Table("inputs", columns, rows, "Inputs")


def work_table(parts: Sequence[WorkItem]) -> Table:
    """Return a plan's work, part by part, with its sum."""
    columns = (
        Column("part", "part"),
        Column("units", "steps or queries", "number", 0, priority=1),
        Column("pairs", "pairs through the model", "number", 0),
        Column("seconds", "time", "duration"),
    )
    rows = [(part.part, part.units, part.pairs, estimates.seconds_of(part.minutes)) for part in parts]
    sums = (sum(part.pairs for part in parts), estimates.seconds_of(estimates.total(parts)))
    is_assumed = any(part.part.startswith("choose ") for part in parts)
    title = "Work, if filters keep half of the groups" if is_assumed else "Work, at most"
    return Table("work", columns, (*rows, ("all", None, *sums)), title)


def shared_query_table(overlaps: Sequence[Overlap]) -> Table:
    """Return queries that two parts of a plan share, and what that comes to."""
    columns = (
        Column("left", "part"),
        Column("right", "shares queries with"),
        Column("shared", "shared", "number", 0),
        Column("of", "of", "number", 0),
        Column("by_id", "by id", "number", 0, priority=1),
        Column("by_text", "by text", "number", 0, priority=1),
        Column("example", "such as", priority=2),
    )
    rows = tuple(
        (str(row.left), str(row.right), row.shared, row.of, row.by_id, row.by_text, shown(row.examples[0], 60))
        for row in overlaps
    )
    return Table("shared_queries", columns, rows, "Shared queries", empty="No two parts share a query.")
