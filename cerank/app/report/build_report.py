"""From what the user names to a whole report, ready to be written in any form.

Invariant: reading only; nothing is written and no run is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

import cerank
from cerank.app.comparison.named_systems import short_name
from cerank.app.comparison.several_collections import pool_comparisons, training_domains
from cerank.app.evidence import system_costs
from cerank.app.report import footnotes, provenance, results_tables
from cerank.app.report.measured_rows import measure_rows
from cerank.app.report.paper.methods_text import MethodsText, methods
from cerank.app.report.paper.released_table import ReleasedRequest, ReleasedTables, released_tables
from cerank.app.report.report_data import Curve, PublishedComparison, Report
from cerank.app.report.report_scope import ReportRequest, ReportScope, report_scope, unnamed_baselines
from cerank.app.report.results_tables import TestResults
from cerank.errors import UsageError
from cerank.evaluation import published
from cerank.evaluation.answers import Cost
from cerank.evaluation.comparison_rows import skewed
from cerank.evaluation.studies.pooling import PooledResult
from cerank.evaluation.verdicts.terms import Margin
from cerank.settings import Settings
from cerank.text.table_data import Table

_FORESTS = 24  # pictures of pooled differences, at most


def build_report(settings: Settings, request: ReportRequest, say: Callable[[str], None] = lambda _: None) -> Report:
    """Return the report of a matrix or of runs.

    Args:
        say: called with a text for each step; measuring a large test set takes its time.

    Raises:
        UsageError: nothing is called so, no row is the baseline, a measure is unknown or 0 for every ranking.
        DamagedError: a file of a run cannot be read.
    """
    scope = report_scope(settings.lab, request.names, baseline=request.baseline, every_stage=request.every_stage)
    data = measure_rows(settings, scope, request.measures, say)
    columns = results_tables.places(scope, data)
    verdicts = results_tables.test_rows(scope, data, columns, request)
    tables = tuple(
        msgspec.structs.replace(table, caption=footnotes.caption(table, scope, verdicts))
        for table in results_tables.results_tables(scope, data, columns, verdicts)
    )
    costs = system_costs.of_runs({row.model.label: row.members for row in scope.rows}, settings.hour_price)
    facing = results_tables.published_comparisons(tables)
    curves: tuple[Curve, ...] = ()
    if request.has_curves:
        from cerank.app.report.curve_figures import pictures

        curves = pictures(scope)
    depths: tuple[Table, ...] = ()
    if any(member.plan.recipe.evaluate.depths for row in scope.rows for member in row.members):
        from cerank.app.report.sections import depth_sections

        depths, drawn = depth_sections.of_scope(scope)
        curves += drawn if request.has_curves else ()
    released = _released(settings, scope, request)
    pooled, pooling_notes = _pooled(scope, verdicts, request)
    if pooled is not None and request.has_curves:
        from cerank.app.comparison.several_collections.forest_plot import forest_svg

        curves += tuple(
            Curve(
                name=f"forest-{number}",
                title=f"{row.right} against {row.left} by {row.measure}, over test sets",
                svg=forest_svg(row, pooled.alpha),
            )
            for number, row in enumerate([row for row in pooled.rows if not row.domain][:_FORESTS], 1)
        )
    return Report(
        title=scope.title,
        command=request.command,
        created=request.created,
        version=cerank.__version__,
        is_declared=scope.record is not None,
        declared=_declared(scope),
        family=verdicts.family,
        baseline=footnotes.baseline_text(scope, verdicts),
        models=tuple(row.model for row in scope.rows),
        grids=tables,
        facing=facing,
        papers=_papers(facing),
        places=results_tables.place_statistics(scope, data, columns),
        runs=provenance.run_records(scope),
        notes=(*data.notes, *_notes(scope, verdicts), *pooling_notes),
        missing=(
            *(f"run {name} is not in the lab" for name in scope.absent),
            *data.missing,
            *released.missing,
            *(f"what answers the primary question {question}" for question in verdicts.unanswered),
        ),
        sources=data.sources,
        comparison=verdicts.comparison,
        curves=curves,
        methods=_methods(verdicts, pooled),
        pooled=pooled,
        answers=_answers(verdicts, costs, is_primary=True),
        described=_answers(verdicts, costs, is_primary=False),
        released=released.tables,
        depths=depths,
        costs=costs,
    )


def _released(settings: Settings, scope: ReportScope, request: ReportRequest) -> ReleasedTables:
    """Return the paper's table from its released rankings, where the matrix names a paper.

    Raises:
        UsageError: the user names released rankings, and what is reported names no paper.
    """
    if not scope.paper:
        if request.released is not None or request.judged_by:
            what = "the runs or the matrix name no paper whose table could be printed again"
            where = "--released" if request.released is not None else "--dataset"
            raise UsageError(
                what, where=where, hint="such as: cerank report rank-distillm-table1", code="unknown-paper"
            )
        return ReleasedTables()
    own = {heading: test for test in scope.tests if (heading := published.heading(test))}
    for test in request.judged_by:
        if published.heading(test) not in own:
            what = f"'{short_name(test)}' is none of the paper's test sets"
            known = ", ".join(own)
            raise UsageError(
                what, where="--dataset", hint=f"its folder's name tells; {known} are known", code="not-tested"
            )
    named = own | {published.heading(test): test for test in request.judged_by}
    return released_tables(
        settings,
        ReleasedRequest(
            paper=scope.paper,
            tests=tuple(named.values()),
            first_stages=scope.first_stages,
            path=request.released,
            margins=scope.margins,
        ),
    )


def _methods(verdicts: TestResults, pooled: PooledResult | None) -> MethodsText | None:
    if verdicts.comparison is None:
        return None
    pooled_by = None if pooled is None else pooled.correction
    return methods(verdicts.comparison, cerank.__version__, pooled_by=pooled_by)


def _pooled(
    scope: ReportScope, verdicts: TestResults, request: ReportRequest
) -> tuple[PooledResult | None, tuple[str, ...]]:
    """Return each difference pooled over the test sets, with notes; None where there is one test set only.

    Test sets that the user calls in-domain, or else those of collections that any of the runs was trained on, and the
    others are pooled apart, too.

    Raises:
        UsageError: a test set that is called in-domain was not measured.
    """
    from cerank.evaluation.studies import pooling

    comparison = verdicts.comparison
    collections = {row.condition.dataset for row in comparison.rows} if comparison is not None else set()
    named = training_domains.named_in_domain(request.in_domain, collections)
    if comparison is None or len(collections) < 2:
        return None, ()
    runs = [member for row in scope.rows for member in row.members]
    try:
        result = pooling.pooled(
            pooling.of_comparison(comparison),
            margins=_absolute(comparison.terms.margins),
            alpha=comparison.terms.alpha,
            correction=pool_comparisons.correction_of(comparison.terms.correction),
            in_domain=named or training_domains.in_domain_of_runs(runs, collections),
        )
    except UsageError as error:
        return None, (f"not pooled over test sets: {error.what}",)
    return result, pooling.shared_queries(comparison)


def _absolute(margins: Mapping[str, Margin]) -> dict[str, Margin]:
    """Return the margins in a measure's units: a share of the mean of a baseline differs from test set to test set."""
    return {measure: margin for measure, margin in margins.items() if margin.share is None}


def _answers(verdicts: TestResults, costs: Mapping[str, Cost], *, is_primary: bool) -> tuple[str, ...]:
    """Return every verdict in words, after its measure and condition; or the rows that have none."""
    from cerank.evaluation.answers import answers

    if verdicts.comparison is None:
        return ()
    return tuple(
        f"{row.measure} on {row.condition}: {answer.with_question}"
        for row, answer in zip(verdicts.comparison.rows, answers(verdicts.comparison, costs), strict=True)
        if row.is_primary == is_primary
    )


def _declared(scope: ReportScope) -> str:
    if scope.record is None:
        return ""
    return f"matrix {scope.record.name}, declared {scope.record.created}, sha256 {scope.record.sha256}"


def _notes(scope: ReportScope, verdicts: TestResults) -> tuple[str, ...]:
    lines = list(footnotes.notes_of(verdicts.comparison))
    lines += skewed(verdicts.comparison) if verdicts.comparison else []
    without = [row.model.label for row in scope.rows if row.model.label not in verdicts.pairs]
    untested = [label for label in without if label not in verdicts.pairs.values()]
    if untested:
        lines.insert(0, f"no baseline of the same base: {', '.join(untested)}; not tested")
    if others := unnamed_baselines(scope):
        lines.append(f"finished re-rankers beside the stages, rows where a report names them: {', '.join(others)}")
    return tuple(lines)


def _papers(facing: Sequence[PublishedComparison]) -> tuple[tuple[str, str], ...]:
    """Return those whose figures are shown, with source and notes."""
    known = {figure.paper for figure in facing}
    return tuple(
        (paper.key, f"{paper.cited}; read from {paper.source}; {'; '.join(paper.notes)}")
        for paper in published.papers()
        if paper.key in known
    )
