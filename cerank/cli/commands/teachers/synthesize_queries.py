"""`cerank data synthesize`: queries for a collection that has none, written by a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cerank import recipes
from cerank.cli import options
from cerank.cli.commands import ingest_data as _listed_before  # noqa: F401 - its commands come first in the help
from cerank.cli.commands import teach
from cerank.cli.commands.import_data import data_app
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info
from cerank.errors import ExitCode, UsageError
from cerank.text.safe_text import counted

if TYPE_CHECKING:
    from cerank.teachers.synthesis import Synthesized


@data_app.command("synthesize")
def synthesize(
    collection: Annotated[
        str, typer.Argument(metavar="DATASET", help="Collection: a folder with documents, or an ir_datasets id.")
    ],
    recipe: teach.Recipe,
    name: Annotated[
        str,
        typer.Option("--teacher", metavar="NAME", help='Teacher of kind "queries" in [teachers] of the recipe.'),
    ],
    into: options.NewDataset,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, help="Passages, drawn at random, to write a query for.")
    ],
    round_trip: Annotated[
        int,
        typer.Option(
            "--round-trip",
            metavar="RANK",
            min=0,
            help="Keep a query only if the first stage ranks its passage that high; 0 keeps all.",
        ),
    ] = 10,
    first_stage: Annotated[
        str,
        typer.Option(
            "--first-stage",
            metavar="NAME",
            help="First stage of the round trip: bm25, or one of an installed extension.",
        ),
    ] = "bm25",
    min_words: Annotated[int, typer.Option("--min-words", metavar="N", min=1, help="Skip shorter passages.")] = 10,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Decides which passages are drawn.")] = 0,
    dry_run: options.EstimateCalls = False,
    retry_failed: options.RetryFailed = False,
    max_cost: teach.MaxCost = 0.0,
    max_calls: teach.MaxCalls = 0,
    max_tokens: teach.MaxTokens = 0,
    prices: teach.Prices = None,
    set_: options.Set = None,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Have a model write queries for passages of a collection, and keep those that lead back to their passage.

    The result is a dataset to train and validate on; a recipe that tests on it is refused. Calls that were answered
    before are not made again. Exits with 75 if a cap or a signal stopped it; the same command continues.
    """
    from cerank.app.teaching import planned_teaching, query_synthesis
    from cerank.app.teaching.teach_options import TeachOptions
    from cerank.teachers import synthesis
    from cerank.teachers.estimate import estimate

    settings = settings_of(lab, cache, device, threads, form, json)
    loaded = recipes.load(recipe, set_ or ()).recipe
    choices = synthesis.SynthesisOptions(
        collection=collection, count=count, seed=seed, least_words=min_words, round_trip=round_trip
    )
    request = query_synthesis.request_of(
        loaded,
        name,
        settings,
        collection,
        TeachOptions(
            first_stage=first_stage,
            max_cost=max_cost,
            max_calls=max_calls,
            max_tokens=max_tokens,
            prices=prices,
            retry_failed=retry_failed,
        ),
    )
    if dry_run:
        passages = synthesis.sampled_passages(request, choices)
        planned = [planned_teaching.PlannedTeaching(use="", estimate=each) for each in estimate(request, passages)]
        emit(planned_teaching.table(planned, "Nothing was asked"), settings.format)
        return
    if not into.parent.is_dir():
        raise UsageError("the folder that it is to be in does not exist", where=str(into.parent))
    with teach.hooks_of(request, count) as hooks:
        made, stopped = synthesis.synthesize(request, choices, into, hooks)
    if stopped:
        info(f"stopped: {stopped}; the same command continues")
        raise typer.Exit(ExitCode.PAUSED)
    emit(_table(made), settings.format)
    info(f"{into} holds {counted(made.kept, 'query')} to train and validate on; a recipe that tests on them is refused")


def _table(made: Synthesized) -> Table:
    rows: list[tuple[str, int]] = [("passages asked about", made.passages)]
    rows += [(f"failed: {reason}", count) for reason, count in made.failed.items()]
    rows += [
        ("dropped: people asked the same", made.known),
        ("dropped: the same for several passages", made.repeated),
        (f"dropped: passage not in the first {made.round_trip} of {made.first_stage}", made.not_found),
        ("queries kept", made.kept),
        ("tokens", made.usage.input_tokens + made.usage.output_tokens),
    ]
    title = f"Queries written by {made.model}"
    if made.cost is not None:
        title += f" for {made.cost:.2f} {made.currency}"
    return Table("synthesized", (Column("what", "what"), Column("number", "number", "number", 0)), tuple(rows), title)
