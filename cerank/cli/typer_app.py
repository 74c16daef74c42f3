"""Register every command with Typer, in the order in which `cerank --help` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

import cerank
from cerank.cli.command_class import CommandLine
from cerank.cli.commands import (
    bench,
    catalog,
    check,
    dashboard,
    estimate_power,
    import_data,
    ingest_data,
    judge_results,
    manage_queue,
    measure,
    report_command,
    show_guide,
    start_run,
    teach,
    watch_runs,
)
from cerank.cli.output import write_output

app = CommandLine(
    name="cerank",
    help="A benchmark for fine-tuning cross-encoder re-rankers: contrastive, distillation, or both in stages.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a run failed, 2 the request is wrong, 3 data or a model is missing, "
    "4 another process runs it, 75 paused at a checkpoint, 130 interrupted.",
)

_RUNS, _MEASURING, _CATALOGUE = "Runs", "Measuring", "Catalog and settings"

app.command(rich_help_panel=_RUNS)(dashboard.tui)
app.command(rich_help_panel=_RUNS)(start_run.run)
app.command(rich_help_panel=_RUNS)(start_run.resume)
app.command(rich_help_panel=_RUNS)(start_run.stop)
app.command(rich_help_panel=_RUNS)(watch_runs.ps)
app.command(rich_help_panel=_RUNS)(watch_runs.show)
app.command(rich_help_panel=_RUNS)(watch_runs.logs)
app.command(rich_help_panel=_RUNS)(start_run.rm)
app.command(rich_help_panel=_RUNS)(check.verify)
app.command(rich_help_panel=_RUNS)(check.doctor)
app.add_typer(manage_queue.queue_app, name="queue", rich_help_panel=_RUNS)
app.command(rich_help_panel=_MEASURING)(measure.compare)
app.command(rich_help_panel=_MEASURING)(report_command.report)
app.command(rich_help_panel=_MEASURING)(estimate_power.power)
app.command(rich_help_panel=_MEASURING)(judge_results.gate)
app.command(rich_help_panel=_MEASURING)(judge_results.rejudge)
app.command(rich_help_panel=_MEASURING)(judge_results.schema)
app.command(rich_help_panel=_MEASURING)(measure.rerank)
app.command(rich_help_panel=_MEASURING)(measure.evaluate)
app.command(rich_help_panel=_MEASURING)(bench.bench)
app.add_typer(teach.teach_app, name="teach", rich_help_panel=_MEASURING)
app.add_typer(catalog.recipes_app, name="recipes", rich_help_panel=_CATALOGUE)
app.command(rich_help_panel=_CATALOGUE)(show_guide.guide)
app.command(rich_help_panel=_CATALOGUE)(catalog.datasets)
app.command(rich_help_panel=_CATALOGUE)(catalog.bases)
import_data.data_app.command("ingest")(ingest_data.ingest)
import_data.data_app.command("tokenize")(ingest_data.tokenize)
import_data.data_app.command("check")(ingest_data.check)
app.add_typer(import_data.data_app, name="data", rich_help_panel=_CATALOGUE)
app.add_typer(catalog.config_app, name="config", rich_help_panel=_CATALOGUE)


def _version(is_given: bool) -> None:
    if is_given:
        write_output(f"cerank {cerank.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A benchmark for fine-tuning cross-encoder re-rankers: contrastive, distillation, or both in stages."""
