"""Measures of systems and their comparison, with its footnotes and what is pooled of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from cerank.cli.output import Column, Table, format_of, info, is_for_machines
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.app.comparison.run_answer import RunAnswer
    from cerank.evaluation.answers import Cost
    from cerank.evaluation.compare import Comparison
    from cerank.evaluation.studies.pooling import PooledResult
    from cerank.evaluation.systems import System


def measure_table(systems: Sequence[System], names: Sequence[str], *, per_query: bool, form: str = "") -> Table:
    """Return the measures of systems, their means or query by query; for machines with what was measured on."""
    from cerank.evaluation.measures import relevance_note

    head = (Column("system", "system"), Column("dataset", "dataset"), Column("query", "query"))
    is_full = is_for_machines(form)
    source = (Column("queries", "queries", "number", 0), Column("qrels_sha256", "qrels", "name")) if is_full else ()
    columns = (*head, *(Column(name, name, "number") for name in names), *source)
    rows: list[tuple[str | float, ...]] = []
    for system in systems:
        for entry in system.measured:
            queries, judged = list(entry.values[names[0]]), entry.qrels_sha256
            if per_query:
                for query in queries:
                    values = (entry.values[name][query] for name in names)
                    rows.append(
                        (system.label, entry.condition.dataset, query, *values, *((1, judged) if is_full else ()))
                    )
            means = (sum(entry.values[name].values()) / len(queries) for name in names)
            counts = (len(queries), judged) if is_full else ()
            rows.append((system.label, entry.condition.dataset, "all", *means, *counts))
        if len(system.measured) > 1 and not is_full:
            averages = [
                statistics.fmean(statistics.fmean(entry.values[name].values()) for entry in system.measured)
                for name in names
            ]
            rows.append((system.label, f"mean of {len(system.measured)} collections", "all", *averages))
    level = relevance_note(names)
    many = dict.fromkeys(
        f"{entry.condition.dataset}: means over {counted(len(entry.values[names[0]]), 'query')}"
        for system in systems
        for entry in system.measured
    )
    return Table("measures", columns, tuple(rows), notes=(*many, *([level] if level else ())))


def comparison_table(
    comparison: Comparison, form: str = "", *, with_reasons: bool = False, costs: Mapping[str, Cost] | None = None
) -> Table:
    """Return a comparison: everything for machines, what decides for people."""
    from cerank.app.comparison import export_comparison

    if is_for_machines(form):
        return export_comparison.full_table(comparison, with_reasons=with_reasons, costs=costs)
    return export_comparison.short_table(comparison, with_reasons=with_reasons)


def print_footnotes(comparison: Comparison, form: str = "") -> None:
    """Print on stderr what stands under the table, where the format has no place for it."""
    from cerank.app.comparison import export_comparison

    if is_for_machines(form):
        for line in export_comparison.short_table(comparison, is_marked=False).notes:
            info(line)


def result_tables(
    run_answer_: RunAnswer, form: str = "", hour_price: float = 0.0, *, run: str = "", with_all_notes: bool = False
) -> list[Table]:
    """Return what a run came to: its comparison and what each stage cost; for machines the answers, too.

    Args:
        run_answer_: the result.
        form: of the output.
        hour_price: what an hour of the device costs.
        run: its name, to say what shows the notes that are left out.
        with_all_notes: leave none out.
    """
    from cerank.app.comparison import export_comparison, run_answer, stage_costs

    cost = stage_costs.table(run_answer_.costs, hour_price)
    if is_for_machines(form):
        return [
            export_comparison.full_table(run_answer_.comparison, costs=run_answer_.by_stage),
            cost,
            run_answer.table(run_answer_),
            *([pooled_table(run_answer_.pooled, form)] if run_answer_.pooled is not None else []),
        ]
    is_short = format_of(form) == "table" and not with_all_notes
    shown = (
        list(export_comparison.by_stage(run_answer_.comparison, is_short=is_short))
        if format_of(form) == "table"
        else [export_comparison.short_table(run_answer_.comparison)]
    )
    notes = [*shown[-1].notes, *(() if is_short else run_answer_.spreads), *run_answer_.no_gains, *run_answer_.filters]
    if is_short:
        every = export_comparison.by_stage(run_answer_.comparison)[-1].notes
        more = len(every) - len(shown[-1].notes) + len(run_answer_.spreads)
        notes += [f"{counted(more, 'more note')}: cerank show {run} --notes"] if more else []
    shown[-1] = msgspec.structs.replace(shown[-1], notes=tuple(notes))
    together = [pooled_table(run_answer_.pooled, form)] if run_answer_.pooled is not None else []
    return [*shown, *together, cost]


def pooled_table(pooled: PooledResult, form: str = "") -> Table:
    """Return what several collections come to together: everything for machines, what decides for people."""
    from cerank.app.comparison.several_collections import pooled_tables

    return pooled_tables.machine_table(pooled) if is_for_machines(form) else pooled_tables.summary(pooled)
