"""`cerank data ingest`, `tokenize` and `check`: prepare large data once, ahead of the first run, and look at it.

No run needs them: a run prepares what is missing by itself, and only starts faster where it has been prepared.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.import_data import data_app
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import Column, Table, emit, info
from cerank.cli.progress_messages import ProgressMessages
from cerank.errors import UsageError
from cerank.text.safe_text import counted, shown


@data_app.command("ingest")
def ingest(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="TREC run files, plain or packed.")],
    verify: options.VerifyStored = False,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Convert TREC runs once into indexed files that are read from disk, so that they can be larger than memory.

    A run of 64 MB or more (16 MB compressed) that a recipe names is converted automatically when the run is planned.
    Use this command to do it ahead of time, or for smaller files. Every line is checked; documents are ordered as
    trec_eval orders them.
    """
    from cerank.trec import ingest as ingesting
    from cerank.trec import mapped_run
    from cerank.trec.rank_order import note_on_rising

    settings = settings_of(cache=cache, form=form, json=json)
    rows = []
    for run in runs:
        messages = ProgressMessages()
        ranking = ingesting.ingest_run(run, settings.cache, partial(messages.show_bytes, run.name))
        contents = ranking.store.contents
        if verify and not mapped_run.verify(ranking.store.folder):
            hint = "delete that folder and ingest the run again"
            raise UsageError("the stored run does not match its checksums", where=str(ranking.store.folder), hint=hint)
        size = sum(entry.size for entry in contents.files)
        for note in note_on_rising(contents.rising, contents.queries):
            info(f"{run}: {note}")
        others = contents.misranked - contents.rising
        if others:
            info(f"{run}: {counted(others, 'query')} with ranks that contradict the scores; cerank orders by score")
        if contents.is_scattered:
            info(
                f"{run}: rows are not grouped by query, so the file is read three times; "
                "sort it by query to speed this up"
            )
        rows.append(
            (
                str(run),
                contents.queries,
                contents.rows,
                contents.ties,
                contents.misranked,
                contents.rising,
                size,
                messages.seconds,
                contents.sha256,
            )
        )
    columns = (
        Column("run", "run"),
        Column("queries", "queries", "number", 0),
        Column("rows", "rows", "number", 0),
        Column("ties", "tied rows", "number", 0, priority=2),
        Column("misranked", "queries ranked against their scores", "number", 0, priority=1),
        Column("rising", "of these with scores that rise", "number", 0, priority=2),
        Column("bytes", "on disk", "bytes", priority=2),
        Column("seconds", "took", "seconds", priority=2),
        Column("sha256", "sha256 of the run", "name", priority=3),
    )
    emit(Table("ingested", columns, tuple(rows), "Ingested runs"), settings.format)


@data_app.command("tokenize")
def tokenize(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Dataset, as recipes name it, without a part in brackets.")
    ],
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="BASE",
            help="Base model whose tokenizer is used: a name from `cerank bases`, a Hugging Face id, or a folder.",
        ),
    ] = "minilm",
    verify: options.VerifyStored = False,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Tokenize the documents and queries of a dataset once, for every run that uses the tokenizer of this base model.

    Training and re-ranking find the stored tokens automatically, and results are the same with and without them. If
    the command is interrupted, run it again to continue.
    """
    from cerank.datasets.open_datasets import open_dataset
    from cerank.models.bases import locate
    from cerank.models.cross_encoder import load_tokenizer
    from cerank.tokenization import tokenize_collection
    from cerank.tokenization.token_store import KINDS

    settings = settings_of(cache=cache, form=form, json=json)
    opened = open_dataset(dataset, settings.cache)
    tokenizer = load_tokenizer(locate(base, fetch=True).folder)
    rows = []
    for kind in KINDS:
        messages = ProgressMessages()

        def report(done: int, _tokens: int, kind: str = kind, messages: ProgressMessages = messages) -> None:
            rate = done / max(messages.seconds, 1e-9)
            messages.show(f"{kind} texts of {dataset}: {done:,}, {rate:,.0f} per second")

        shard = tokenize_collection.build(tokenizer, kind, opened, settings.cache, report)
        if verify and not tokenize_collection.verify(shard):
            hint = "delete that folder and tokenize again"
            raise UsageError("the stored tokens do not match their checksums", where=str(shard.folder), hint=hint)
        contents = shard.contents
        size = sum(entry.size for entry in contents.files)
        rows.append((kind, contents.rows, contents.tokens, size, messages.seconds, str(shard.folder)))
    columns = (
        Column("kind", "kind", "name"),
        Column("texts", "texts", "number", 0),
        Column("tokens", "tokens", "number", 0),
        Column("bytes", "on disk", "bytes", priority=1),
        Column("seconds", "took", "seconds", priority=2),
        Column("folder", "stored in", "name", priority=3),
    )
    emit(Table("tokenized", columns, tuple(rows), f"Tokens of {dataset} for {base}"), settings.format)


@data_app.command("check")
def check(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Dataset, as recipes name it.")],
    first_stage: Annotated[
        str, typer.Option("--first-stage", "--run", metavar="RUN", help="Measure what these candidates allow.")
    ] = "",
    depth: Annotated[int, typer.Option("--depth", min=1, metavar="N", help="Candidates per query.")] = 100,
    against: Annotated[
        str, typer.Option("--against", metavar="DATASET", help="Compare the queries with those of this dataset.")
    ] = "",
    base: Annotated[
        str, typer.Option("--base", metavar="BASE", help="Show the examples as this model's tokenizer reads them.")
    ] = "",
    max_length: Annotated[
        int, typer.Option("--max-length", min=8, metavar="N", help="Tokens at which a pair is cut.")
    ] = 512,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Check a dataset before training: counts, ceilings, overlaps, copies of positives, and random examples.

    The ceiling is the best nDCG@10 that any re-ranker could reach on the candidates of a first stage.
    """
    from cerank.app.checks.check_data import DataCheckRequest, check_data

    settings = settings_of(cache=cache, form=form, json=json)
    request = DataCheckRequest(
        dataset=dataset, first_stage=first_stage, depth=depth, against=against, base=base, max_length=max_length
    )
    result = check_data(settings, request)
    counts = Table("data", (Column("what", "what"), Column("value", "value")), result.counts, f"Data of {dataset}")
    columns = (
        Column("query", "query"),
        Column("document", "document"),
        Column("grade", "grade", "number", 0),
        Column("tokens", "tokens", "number", 0),
        Column("is_cut", "cut"),
    )
    rows = tuple(
        (shown(pair.query, 100), shown(pair.document, 160), pair.grade, pair.tokens or None, pair.is_cut)
        for pair in result.examples
    )
    emit([counts, Table("examples", columns, rows, "Examples, sampled at random")], settings.format)
    for warning in result.warnings:
        info(warning)
