"""Commands that rank, measure and compare."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from cerank.cli import options, table_columns
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import emit, put, say
from cerank.errors import UsageError
from cerank.text.safe_text import counted

Dataset = Annotated[str, typer.Option("--dataset", metavar="DATASET", help="Whose queries and qrels.")]
Qrels = Annotated[str, typer.Option("--qrels", metavar="FILE", help="A qrels file, in place of a dataset.")]


_JUDGED = "How it is judged"
_PRECISION = "Of the encoder; auto: bf16 where the device multiplies it faster than float32."
_MORE = "What is shown"

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="A B [C...]",
        help="Runs (RUN or RUN:STAGE) or TREC run files, the baseline first; LABEL=RUN,RUN,... for seeds of a recipe.",
    ),
]
Margin = Annotated[
    list[str] | None,
    typer.Option(
        "--margin",
        metavar="MEASURE=NUMBER",
        help="Largest difference that would not matter to you. Given here it counts as chosen after the results; "
        "declare it in the recipe ([evaluate] margins) before the run. May be repeated.",
        rich_help_panel=_JUDGED,
    ),
]
Correction = Annotated[
    Literal["auto", "holm", "bh", "bonferroni", "max-t", "none"],
    typer.Option(
        "--correction",
        help="How p is adjusted over the table. auto: max-t where all rows share their queries, else holm (any table); "
        "bh: exploring; none: one planned comparison.",
        rich_help_panel=_JUDGED,
    ),
]
Family = Annotated[
    int,
    typer.Option(
        "--family",
        min=0,
        metavar="N",
        help="How many comparisons you planned in all, where this table shows only some of them.",
        rich_help_panel=_JUDGED,
    ),
]
Pairs = Annotated[
    Literal["baseline", "all"],
    typer.Option("--pairs", help="Each against the first, or every pair.", rich_help_panel=_JUDGED),
]
Claim = Annotated[
    Literal["checkpoints", "recipes"],
    typer.Option(
        "--claim",
        help="What a verdict is about: these checkpoints, or the recipes they came from (needs several seeds: "
        "LABEL=RUN,RUN,...).",
        rich_help_panel=_JUDGED,
    ),
]
Seeds = Annotated[
    Literal["mean", "stack"],
    typer.Option("--seeds", help="Seeds of a recipe: their mean by query; stack is refused.", rich_help_panel=_JUDGED),
]
WithSecondary = Annotated[
    bool,
    typer.Option("--secondary", help="Other tests beside the t-test, in a second table.", rich_help_panel=_MORE),
]
Condensed = Annotated[
    bool,
    typer.Option("--condensed", help="Each measure over judged documents only, too.", rich_help_panel=_MORE),
]
Reasons = Annotated[
    bool, typer.Option("--reasons", help="A sentence for each verdict, with what it rests on.", rich_help_panel=_MORE)
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="JSON of the whole comparison with every per-query value, to compute it again.",
        rich_help_panel=_MORE,
    ),
]


def compare(
    names: Names,
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    margin: Margin = None,
    correction: Correction = "auto",
    family: Family = 0,
    pairs: Pairs = "baseline",
    claim: Claim = "checkpoints",
    seeds: Seeds = "mean",
    with_secondary: WithSecondary = False,
    condensed: Condensed = False,
    reasons: Reasons = False,
    full: Full = False,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Compare rankings query by query, to a verdict: better, worse, equivalent, different but negligible, cannot tell.

    Differences with intervals, paired tests adjusted over the whole table, effect sizes, equivalence by margin.
    """
    from cerank.app.checks import verify_run
    from cerank.app.comparison import comparisons, export_comparison
    from cerank.cli.live_status import tell
    from cerank.evaluation.answers import paragraphs
    from cerank.evaluation.compare import Terms

    settings = settings_of(lab, cache, form=form, json=json)
    if len(names) < 2:
        raise UsageError("a comparison needs at least two", hint="such as `cerank compare A B`")
    if full and settings.format not in {"", "json"}:
        raise UsageError(f"--full is JSON, not {settings.format}", hint="leave --format away")
    found = comparisons.compare(
        settings,
        names,
        measures=measure or (),
        dataset=dataset,
        qrels=qrels,
        terms=Terms(correction=correction, family=family, pairs=pairs, claim=claim, with_secondary=with_secondary),
        margins=margin or (),
        now=datetime.now(UTC).isoformat(timespec="seconds"),
        condensed=condensed,
        how=seeds,
    )
    if full:
        put(export_comparison.complete(found), raw=True)
        return
    if settings.format == "json":
        put(export_comparison.document(found, with_reasons=reasons), raw=True)
    else:
        shown = [table_columns.comparison(found, settings.format, with_reasons=reasons)]
        emit([*shown, export_comparison.secondary(found)] if with_secondary else shown, settings.format, wide=wide)
    table_columns.narrate(found, settings.format)
    tell(paragraphs(found))
    for doubt in verify_run.doubts(settings.lab, names):
        say(doubt)


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
    """Measure TREC runs on a dataset's qrels or a qrels file (as trec_eval -c: a query without results counts 0)."""
    from cerank.app.comparison import comparisons

    settings = settings_of(cache=cache, form=form, json=json)
    targets = [comparisons.target(settings.lab, name) for name in run]
    systems, names = comparisons.measured_systems(
        settings, targets, measures=measure or (), dataset=dataset, qrels=qrels
    )
    emit(table_columns.measures(systems, names, per_query=per_query), settings.format)


def rerank(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A model folder, a run, or RUN:STAGE.")],
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="bm25, a run of the dataset, or a TREC run file.")],
    dataset: Annotated[str, typer.Option("--dataset", metavar="DATASET", help="Whose queries and documents.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the TREC run.")],
    depth: Annotated[int, typer.Option("--depth", min=1, metavar="N", help="Candidates a query.")] = 100,
    precision: Annotated[str, typer.Option("--precision", metavar="fp32|bf16|auto", help=_PRECISION)] = "fp32",
    lab: options.Lab = None,
    cache: options.Cache = None,
    device: options.Device = None,
    threads: options.Threads = None,
) -> None:
    """Re-rank a first stage's candidates by a checkpoint and write a TREC run with strictly decreasing scores."""
    from cerank.app import rerank_dataset

    settings = settings_of(lab, cache, device, threads)
    if precision not in {"fp32", "bf16", "auto"}:
        raise UsageError(f"no precision is called '{precision}'", where="--precision", hint="fp32, bf16 or auto")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read once, when CUDA starts
    wanted = rerank_dataset.Wanted(checkpoint, dataset, run, depth, precision)
    count = rerank_dataset.rerank(
        settings, wanted, output, lambda done, total: say(f"{done} of {counted(total, 'query')}")
    )
    say(f"{counted(count, 'query')} re-ranked")
    put(f"{output}\n")
