"""The command that retrieves by a cross-encoder alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from cerank.cli import options
from cerank.cli.commands.measure import Margin
from cerank.cli.commands.rankings.rerank_command import (
    UNCHANGED_PASSAGES,
    AggregationName,
    MaxPassages,
    PassageLength,
    Stride,
    Title,
    Top,
    passages_request,
)
from cerank.cli.commands.start_run import settings_of
from cerank.cli.document_meta import meta_of_comparison
from cerank.cli.output import emit, info, write_output
from cerank.errors import UsageError
from cerank.text.safe_text import counted


def retrieve(
    base: Annotated[
        str, typer.Option("--base", metavar="MODEL", help="Cross-encoder: a run, RUN:STAGE, a folder, or a hub id.")
    ],
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="DATASET", help="Dataset that gives queries and all documents.")
    ],
    budget: Annotated[
        int, typer.Option("--budget", min=2, metavar="N", help="Calls of the cross-encoder for each query.")
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="anncur: random anchors, then the best by approximation. adacur: anchors grow by rounds.",
        ),
    ] = "adacur",
    output: Annotated[
        Path | None,
        typer.Option("--to", "--output", "-o", metavar="FILE", help="TREC run file to write; - is standard output."),
    ] = None,
    with_table: Annotated[
        bool,
        typer.Option(
            "--table",
            help="Compare both methods and re-ranking the first stage at equal calls. Scores every query with every "
            "document once.",
        ),
    ] = False,
    train: Annotated[
        str,
        typer.Option(
            "--train", metavar="DATASET", help="Dataset of the training queries that index. Default: the run's own."
        ),
    ] = "",
    train_queries: Annotated[
        int, typer.Option("--train-queries", min=1, metavar="N", help="Number of training queries that index.")
    ] = 200,
    anchors: Annotated[
        int,
        typer.Option(
            "--anchors",
            min=0,
            metavar="N",
            help="Calls on random documents. Default: 0, half of the budget for anncur, one round for adacur.",
        ),
    ] = 0,
    rounds: Annotated[
        int,
        typer.Option("--rounds", min=1, metavar="N", help="Rounds of adacur, the one on random documents included."),
    ] = 5,
    rcond: Annotated[
        float,
        typer.Option("--rcond", metavar="X", help="Singular values below this share of the largest count as 0."),
    ] = 1e-3,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the random anchors.")] = 42,
    first_stage: Annotated[
        str, typer.Option("--first-stage", metavar="RUN", help="First stage that --table re-ranks at equal calls.")
    ] = "bm25",
    measure: Annotated[str, typer.Option("--measure", "-m", metavar="MEASURE", help="Measure of --table.")] = "nDCG@10",
    margin: Margin = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "tf32", "auto"] | None,
        typer.Option("--precision", help="Precision of the model, as in `cerank rerank`."),
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            "--template",
            metavar="TEXT",
            help='Text of a document from its fields, such as "{title}. {text}". Default: as the run did.',
        ),
    ] = "",
    aggregation: AggregationName = None,
    max_passages: MaxPassages = UNCHANGED_PASSAGES.max_passages,
    passage_length: PassageLength = UNCHANGED_PASSAGES.length,
    stride: Stride = UNCHANGED_PASSAGES.stride,
    title: Title = UNCHANGED_PASSAGES.title,
    top: Top = UNCHANGED_PASSAGES.top,
    replace: options.Replace = False,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Retrieve from a closed collection by a cross-encoder alone, with a fixed number of calls for each query.

    The scores of training queries with all documents are the index (kept in the cache; a stopped build is resumed). A
    query's scores with a few anchors give approximate scores with all documents; the best are scored by the model.

    Documents are read as the model's run read them: by its templates, in its passages, and in its precision.
    --aggregation cuts them otherwise, or not at all (none); a call is a document, whose passages are all scored.
    """
    from cerank.app.comparison import recorded_looks
    from cerank.app.rankings import retrieve_documents
    from cerank.app.rerank_dataset import STDOUT

    settings = settings_of(lab, cache, device, threads, form=form, json=json)
    if output is None and not with_table:
        raise UsageError("there is nothing to write to", where="--to", hint="give --to FILE, or --table")
    defaults = ("bm25", "nDCG@10", None)
    for option, value, default in zip(
        ("--first-stage", "--measure", "--margin"), (first_stage, measure, margin), defaults, strict=True
    ):
        if value != default and not with_table:
            raise UsageError("belongs to --table", where=option, hint="give --table", code="option-unused")
    request = retrieve_documents.RetrievalRequest(
        base=base,
        dataset=dataset,
        method=method,
        budget=budget,
        train=train,
        train_queries=train_queries,
        anchors=anchors,
        rounds=rounds,
        rcond=rcond,
        seed=seed,
        precision=precision,
        document_template=template,
        passages=passages_request(
            aggregation, max_passages=max_passages, length=passage_length, stride=stride, title=title, top=top
        ),
        output=output,
        replace=replace,
        first_stage=first_stage,
        measure=measure,
        margins=tuple(margin or ()),
        now=datetime.now(UTC).isoformat(timespec="seconds"),
    )

    def progress(what: str, done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            info(f"{what}: {done} of {counted(total, 'query')}")

    if with_table:
        made = retrieve_documents.compare(settings, request, progress)
        recorded_looks.record_shown(settings, [made.comparison], by="retrieve")
        meta = meta_of_comparison(made.comparison, calls=made.budget, documents=made.documents)
        emit(retrieve_documents.table(made), settings.format, wide=wide, meta=meta)
        result = made.result
    else:
        result = retrieve_documents.retrieve(settings, request, progress)
        for note in result.notes:
            info(note)
    if result is not None and output is not None:
        info(f"{counted(result.queries, 'query')} retrieved for")
        write_output(result.run.decode() if str(output) in STDOUT else f"{output}\n")
