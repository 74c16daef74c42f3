"""Commands that rank, measure and compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cerank.cli import options, tables
from cerank.cli.output import emit, put, say
from cerank.cli.running import settings_of
from cerank.errors import UsageError

Dataset = Annotated[str, typer.Option("--dataset", metavar="DATASET", help="Whose queries and qrels.")]
Qrels = Annotated[str, typer.Option("--qrels", metavar="FILE", help="A qrels file, in place of a dataset.")]


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C...]", help="Runs (RUN or RUN:STAGE) or TREC run files; the first is the baseline."
        ),
    ],
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Compare rankings query by query: differences with intervals, paired t-tests, Holm-corrected, effect sizes."""
    from cerank.lab import comparisons

    settings = settings_of(lab, cache, form=form, json=json)
    if len(names) < 2:
        raise UsageError("a comparison needs at least two", hint="such as `cerank compare A B`")
    found = comparisons.compare(settings, names, measures=measure or (), dataset=dataset, qrels=qrels)
    emit(tables.comparison(found, settings.format), settings.format)
    tables.narrate(found)


def evaluate(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="TREC run files.")],
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    per_query: Annotated[bool, typer.Option("--per-query", help="A row for each query.")] = False,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Measure TREC runs against a dataset's qrels or a qrels file, as trec_eval -c would."""
    from cerank.lab import comparisons

    settings = settings_of(cache=cache, form=form, json=json)
    targets = [comparisons.target(settings.lab, name) for name in run]
    systems, names = comparisons.measured_systems(
        settings, targets, measures=measure or (), dataset=dataset, qrels=qrels
    )
    emit(tables.measures(systems, names, per_query=per_query), settings.format)


def rerank(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A model folder, a run, or RUN:STAGE.")],
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="bm25, a run of the dataset, or a TREC run file.")],
    dataset: Annotated[str, typer.Option("--dataset", metavar="DATASET", help="Whose queries and documents.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the TREC run.")],
    depth: Annotated[int, typer.Option("--depth", min=1, metavar="N", help="Candidates a query.")] = 100,
    precision: Annotated[str, typer.Option("--precision", metavar="fp32|bf16", help="Of the encoder.")] = "fp32",
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Re-rank a first stage's candidates by a checkpoint and write a TREC run with strictly decreasing scores."""
    from cerank.lab import reranking

    settings = settings_of(lab, cache, device, threads)
    if precision not in {"fp32", "bf16"}:
        raise UsageError(f"no precision is called '{precision}'", where="--precision", hint="fp32 or bf16")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read once, when CUDA starts
    wanted = reranking.Wanted(checkpoint, dataset, run, depth, precision)
    count = reranking.rerank(settings, wanted, output, lambda done, total: say(f"{done} of {total} queries"))
    say(f"{count} queries re-ranked")
    put(f"{output}\n")
