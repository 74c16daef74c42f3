"""The command that says what a number of queries can show, before any GPU day is spent."""

from __future__ import annotations

from typing import Annotated

import typer

from cerank.cli import options, table_columns
from cerank.cli.commands.measure import Dataset, Qrels
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import emit
from cerank.errors import UsageError

_ASKED = "What it should show"


def power(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[A B ...]", help="Runs or TREC run files to take the spread from, each against A."),
    ] = None,
    queries: Annotated[
        int | None, typer.Option("--queries", "-n", min=2, metavar="N", help="How many; left out: those of A and B.")
    ] = None,
    sd: Annotated[
        float | None,
        typer.Option("--sd", metavar="SD", help="Of per-query differences; left out: of A and B, or the usual one."),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            "--delta",
            metavar="D",
            help="The true difference you hope to detect; prints the power of these queries and the number needed.",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin", metavar="M", help="How many queries show equivalence within it?", rich_help_panel=_ASKED
        ),
    ] = None,
    tests: Annotated[
        int, typer.Option("--tests", min=1, metavar="N", help="Tests corrected together.", rich_help_panel=_ASKED)
    ] = 1,
    wanted: Annotated[
        float, typer.Option("--power", metavar="P", help="Chance of seeing what is there.", rich_help_panel=_ASKED)
    ] = 0.8,
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="A", help="Of all tests together.", rich_help_panel=_ASKED)
    ] = 0.05,
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Say what queries can show: the smallest difference seen, the smallest margin shown, and how many it takes.

    Exact for the paired t-test and for TOST under normal differences; no re-ranking is done.
    """
    from cerank.app.comparison import power_analysis

    settings = settings_of(lab, cache, form=form, json=json)
    asked = power_analysis.Asked(difference=delta, margin=margin, power=wanted, alpha=alpha, tests=tests)
    if not names:
        if queries is None:
            hint = "such as `cerank power --queries 43 --sd .10`, or `cerank power A B --dataset NAME`"
            raise UsageError("how many queries?", where="--queries", hint=hint)
        if dataset or qrels:
            raise UsageError("a dataset alone has no spread", hint="name two rankings, or give --sd")
        cases = tuple(power_analysis.of_numbers(queries, sd, asked, name) for name in measure or ["nDCG@10"])
    elif sd is not None:
        raise UsageError("--sd and rankings both say the spread", hint="give one of them")
    else:
        cases = power_analysis.of_rankings(
            settings, names, asked, measures=measure or (), dataset=dataset, qrels=qrels, queries=queries
        )
    emit(table_columns.outlooks(cases, settings.format), settings.format)
