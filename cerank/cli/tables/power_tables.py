"""What test queries can show: of a comparison, of a grid of queries and seeds, and of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.cli.output import Column, Table, is_for_machines, rounded

if TYPE_CHECKING:
    from cerank.app.comparison.power_analysis import Expected, PowerCase, SeedGridCell


def power_table(cases: Sequence[PowerCase], form: str = "") -> Table:
    """Return what queries can show: a row a case for machines, a column a case for people without empty figures."""
    from cerank.app.comparison.power_analysis import is_beyond, sentences

    def cell(case: PowerCase, key: str) -> str | float | None:
        value = getattr(case if hasattr(case, key) else case.estimate, key)
        # A size that the measure does not span would be read as one that can be.
        return None if key in {"smallest_difference", "smallest_margin"} and is_beyond(case, value) else value

    columns = (
        *(Column(name, name.replace("_", " ")) for name in ("dataset", "first_stage", "left", "right", "measure")),
        Column("queries", "queries", "number", 0),
        Column("sd", "sd", "number"),
        Column("spread", "source of the sd"),
        Column("tests", "tests", "number", 0),
        Column("alpha", "level of each test", "number"),
        Column("power", "power", "percent"),
        Column("smallest_difference", "smallest difference", "number"),
        Column("smallest_margin", "smallest margin", "number"),
        Column("difference", "delta", "number"),
        Column("power_for_difference", "power for delta", "percent"),
        Column("queries_for_difference", "queries for delta", "number", 0),
        Column("margin", "margin", "number"),
        Column("power_for_margin", "power for margin", "percent"),
        Column("queries_for_margin", "queries for margin", "number", 0),
        Column("can_show", "enough queries for the margin?"),
    )
    keys = [column.key for column in columns]
    rows = [tuple(cell(case, key) for key in keys) for case in cases]
    share = f"{100 * cases[0].estimate.power:.3g} %"
    notes = (
        f"smallest difference: what must truly be there to come out significant in {share} of cases; smallest margin: "
        f"how narrow 'equivalent' can be claimed in {share} of cases if both are truly equal",
        *sentences(cases),
    )
    if is_for_machines(form):
        return Table("power", columns, tuple(rows), "What the queries can show", notes)
    # Turned round: there are more figures than cases, and a terminal is narrow.
    shown_places = [place for place in range(len(keys)) if any(row[place] not in {None, ""} for row in rows)]
    body = tuple((columns[at].heading, *(rounded(row[at], columns[at]) for row in rows)) for at in shown_places)
    heads = (Column("figure", "what"), *(Column(f"case_{number}", str(number)) for number in range(1, len(rows) + 1)))
    return Table("power", heads, body, "What the queries can show", notes)


def seed_grid_tables(cells: Sequence[SeedGridCell], form: str = "") -> list[Table]:
    """Return what queries and seeds can show: a row a cell for machines, for people queries by seeds."""
    names = cells[0].__struct_fields__
    if is_for_machines(form):
        return [Table("seeds", tuple(Column(n, n) for n in names), tuple(msgspec.structs.astuple(c) for c in cells))]
    tables = []
    grids = dict.fromkeys((cell.dataset, cell.first_stage, cell.measure, cell.left, cell.right) for cell in cells)
    for grid in grids:
        own = [cell for cell in cells if (cell.dataset, cell.first_stage, cell.measure, cell.left, cell.right) == grid]
        counts = sorted({cell.seeds for cell in own})
        columns = (
            Column("queries", "queries", "number", 0),
            *(Column(f"k{k}", f"{k} seeds", "number") for k in counts),
        )
        rows = tuple(
            (queries, *(cell.smallest_difference for cell in own if cell.queries == queries))
            for queries in sorted({cell.queries for cell in own})
        )
        pilot = next(cell for cell in own if cell.is_pilot)
        more = "seeds" if pilot.seed_share >= 0.5 else "queries"
        notes = (
            "each number: the smallest true difference between the recipes that this power detects, seeds paired",
            f"with {pilot.queries} queries and {pilot.seeds} seeds, {100 * pilot.seed_share:.0f} % of the variance of "
            f"the mean comes from seeds: more {more} help most",
        )
        title = f"{pilot.right} against {pilot.left}, {pilot.measure} on {pilot.dataset}"
        tables.append(Table("seeds", columns, rows, title, notes))
    return tables


def expectations(expected: Sequence[Expected]) -> Table:
    """Return what a plan's test queries can show, a row for each kind of comparison."""
    from cerank.app.comparison.power_analysis import told

    columns = (
        *(Column(name, name) for name in ("dataset", "comparison", "measure")),
        Column("queries", "queries", "number", 0, priority=2),
        Column("tests", "comparisons", "number", 0, priority=4),
        Column("alpha", "level", "number", priority=4),
        Column("sd_low", "sd from", "number"),
        Column("sd_high", "sd to", "number"),
        Column("spread", "sd is from", priority=3),
        Column("smallest_difference_low", "shows from", "number", priority=1),
        Column("smallest_difference_high", "shows to", "number", priority=1),
        Column("margin", "margin", "number", 3),
        Column("power_for_margin_low", "power from", "percent"),
        Column("power_for_margin_high", "power to", "percent"),
        Column("queries_for_margin", "queries needed", "number", 0, priority=2),
        Column("can_show", "enough for the margin?"),
    )
    rows = tuple(
        (
            *(case.dataset, case.kind, case.measure, case.low.queries, case.low.tests, case.low.alpha),
            *(case.low.sd, case.high.sd, case.source, case.low.smallest_difference, case.high.smallest_difference),
            *(case.low.margin, case.high.power_for_margin, case.low.power_for_margin, case.high.queries_for_margin),
            case.can_show,
        )
        for case in expected
    )
    return Table("power", columns, rows, "What the queries can show", told(expected))
