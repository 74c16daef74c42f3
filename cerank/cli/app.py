"""All commands in one place, by the rooms they live in."""

from __future__ import annotations

from typing import Annotated

import typer

import cerank
from cerank.cli import (
    benching,
    catalogue,
    checking,
    dashboard,
    guiding,
    importing,
    ingesting,
    measuring,
    powering,
    queueing,
    reporting,
    running,
    watching,
)
from cerank.cli.output import put

app = typer.Typer(
    name="cerank",
    help="A benchmark for fine-tuning cross-encoder re-rankers: contrastive, distillation, or both in stages.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a run failed, 2 a mistake in the request, 3 missing data or model, "
    "4 held by another worker, 75 paused at a checkpoint, 130 interrupted.",
)

_RUNS, _MEASURING, _CATALOGUE = "Runs", "Measuring", "What there is"

app.command(rich_help_panel=_RUNS)(dashboard.tui)
app.command(rich_help_panel=_RUNS)(running.run)
app.command(rich_help_panel=_RUNS)(running.resume)
app.command(rich_help_panel=_RUNS)(running.stop)
app.command(rich_help_panel=_RUNS)(watching.ps)
app.command(rich_help_panel=_RUNS)(watching.show)
app.command(rich_help_panel=_RUNS)(watching.logs)
app.command(rich_help_panel=_RUNS)(running.rm)
app.command(rich_help_panel=_RUNS)(checking.verify)
app.command(rich_help_panel=_RUNS)(checking.doctor)
app.add_typer(queueing.queue_app, name="queue", rich_help_panel=_RUNS)
app.command(rich_help_panel=_MEASURING)(measuring.compare)
app.command(rich_help_panel=_MEASURING)(reporting.report)
app.command(rich_help_panel=_MEASURING)(powering.power)
app.command(rich_help_panel=_MEASURING)(measuring.rerank)
app.command(rich_help_panel=_MEASURING)(measuring.evaluate)
app.command(rich_help_panel=_MEASURING)(benching.bench)
app.add_typer(catalogue.recipes_app, name="recipes", rich_help_panel=_CATALOGUE)
app.command(rich_help_panel=_CATALOGUE)(guiding.guide)
app.command(rich_help_panel=_CATALOGUE)(catalogue.datasets)
app.command(rich_help_panel=_CATALOGUE)(catalogue.bases)
importing.data_app.command("ingest")(ingesting.ingest)
importing.data_app.command("tokenize")(ingesting.tokenize)
app.add_typer(importing.data_app, name="data", rich_help_panel=_CATALOGUE)
app.add_typer(catalogue.config_app, name="config", rich_help_panel=_CATALOGUE)


def _version(asked: bool) -> None:
    if asked:
        put(f"cerank {cerank.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A benchmark for fine-tuning cross-encoder re-rankers: contrastive, distillation, or both in stages."""
