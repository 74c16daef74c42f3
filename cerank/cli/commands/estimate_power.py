"""The command `cerank power`: what a number of queries can show, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.measure import Dataset, Qrels
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import emit, is_for_machines
from cerank.cli.tables import power_tables
from cerank.errors import UsageError

if TYPE_CHECKING:
    from cerank.app.comparison.power_analysis import PowerRequest

_ASKED = "What should be shown"


def power(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[A B ...]",
            help="Runs or TREC run files on which the standard deviation is measured, each compared with A.",
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option("--queries", "-n", min=2, metavar="N", help="Number of queries. Default: the queries of A and B."),
    ] = None,
    sd: Annotated[
        float | None,
        typer.Option(
            "--sd",
            metavar="SD",
            help="Standard deviation of per-query differences. Default: measured on A and B, else a typical value.",
        ),
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
            "--margin",
            metavar="M",
            help="Equivalence margin: how many queries does it take to show equivalence within it?",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    tests: Annotated[
        int,
        typer.Option(
            "--tests", min=1, metavar="N", help="Number of tests that are corrected together.", rich_help_panel=_ASKED
        ),
    ] = 1,
    target_power: Annotated[
        float, typer.Option("--power", metavar="P", help="Statistical power (1 - beta).", rich_help_panel=_ASKED)
    ] = 0.8,
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="A", help="Family-wise significance level.", rich_help_panel=_ASKED)
    ] = 0.05,
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="K,K,...",
            help="Numbers of seeds to plan with, for recipes given as A=RUN,RUN,RUN B=RUN,RUN,RUN: prints the smallest "
            "difference that each number of queries and seeds can show.",
            rich_help_panel=_ASKED,
        ),
    ] = "",
    systems: Annotated[
        int | None,
        typer.Option(
            "--systems",
            metavar="M",
            help="Topic set size design: how many queries a new test set needs to tell M systems apart whose best is "
            "--delta above the worst, by the variance of the pilot rankings A B ... (or of the dataset's own runs).",
            rich_help_panel=_ASKED,
        ),
    ] = None,
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Compute what a number of queries can show, before anything is trained.

    Prints the smallest difference that can be detected, the smallest margin within which equivalence can be shown, and
    how many queries it takes. The numbers are exact for the paired t-test and for TOST if differences are normal.
    """
    from cerank.app.comparison import power_analysis
    from cerank.app.comparison.comparisons import ComparisonRequest

    settings = settings_of(lab, cache, form=form, json=json)
    request = power_analysis.PowerRequest(difference=delta, margin=margin, power=target_power, alpha=alpha, tests=tests)
    rankings = ComparisonRequest(
        targets=tuple(names or ()), measures=tuple(measure or ()), dataset=dataset, qrels=qrels
    )
    _check_options(request, names or (), queries, sd, seeds, systems)
    if seeds:
        counts = [int(part) if part.strip().isdecimal() else 0 for part in seeds.split(",")]
        cells = power_analysis.seed_grid(settings, rankings, request, counts)
        grids = power_tables.seed_grid_tables(cells, settings.format)
        emit(grids[0] if is_for_machines(settings.format) else grids, settings.format)
    elif systems is not None:
        from cerank.app.comparison import design_test_set

        sizes = design_test_set.designs(settings, rankings, request, systems)
        emit(design_test_set.table(sizes, request), settings.format)
    elif names:
        cases = power_analysis.of_rankings(settings, rankings, request, queries=queries)
        emit(power_tables.power_table(cases, settings.format), settings.format)
    else:
        if queries is None:
            hint = "such as `cerank power --queries 43 --sd .10`, or `cerank power A B --dataset NAME`"
            raise UsageError("the number of queries is missing", where="--queries", hint=hint)
        if dataset or qrels:
            raise UsageError("a dataset alone gives no standard deviation", hint="name two rankings, or give --sd")
        cases = tuple(power_analysis.of_numbers(queries, sd, request, name) for name in measure or ["nDCG@10"])
        emit(power_tables.power_table(cases, settings.format), settings.format)


def _check_options(
    request: PowerRequest,
    names: Sequence[str],
    queries: int | None,
    sd: float | None,
    seeds: str,
    systems: int | None,
) -> None:
    """Refuse options that would do nothing beside the others.

    Raises:
        UsageError: two kinds of planning at once, or a number that the chosen kind computes itself.
    """
    if seeds and systems is not None:
        raise UsageError(
            "--seeds and --systems plan different things", hint="give one of them", code="options-conflict"
        )
    kind = "--seeds" if seeds else "--systems" if systems is not None else ""
    unused = {
        "--queries": queries is not None,
        "--sd": sd is not None,
        "--margin": request.margin is not None,
        "--delta": bool(seeds) and request.difference is not None,
        "--tests": systems is not None and request.tests != 1,
    }
    given = [option for option, is_given in unused.items() if is_given]
    if kind and given:
        raise UsageError(
            f"{' and '.join(given)}: {kind} has no use for it, and computes the numbers of queries from rankings",
            hint=f"omit {' and '.join(given)}",
            code="options-conflict",
        )
    if names and not kind and sd is not None:
        raise UsageError("--sd and rankings both give the standard deviation", hint="give only one of them")
