"""The command that tells why two rankings differ."""

from __future__ import annotations

from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.measure import Dataset, Qrels
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import emit


def explain(
    left: Annotated[str, typer.Argument(metavar="A", help="Run (RUN or RUN:STAGE) or TREC run file: the baseline.")],
    right: Annotated[str, typer.Argument(metavar="B", help="Run or TREC run file that is compared with A.")],
    query: Annotated[
        str, typer.Option("--query", metavar="ID", help="Tell this query document by document. Default: all queries.")
    ] = "",
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Tell why two rankings differ: which queries carry the difference, or which documents make that of one query.

    The documents' parts sum exactly to the query's difference, by nDCG, RR, AP, P, R, Success and Rprec. Nothing here
    makes a verdict.
    """
    from cerank.app.comparison.comparison_session import ComparisonSession
    from cerank.app.comparison.comparisons import ComparisonRequest
    from cerank.app.evidence import explain_difference
    from cerank.evaluation.verdicts.terms import Terms

    settings = settings_of(lab, cache, form=form, json=json)
    request = ComparisonRequest(targets=(left, right), measures=tuple(measure or ()), dataset=dataset, qrels=qrels)
    session = ComparisonSession(settings, request, by="explain")
    comparison = session.compare(session.labels[0], Terms(correction="holm"))
    if query:
        emit(explain_difference.one_query(session, comparison, query), settings.format, wide=wide)
    else:
        emit(explain_difference.all_queries(session, comparison), settings.format, wide=wide)
