"""The command that fuses rankings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.measure import Dataset
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import info, write_output
from cerank.errors import UsageError
from cerank.text.safe_text import counted


def _weights(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError as error:
        raise UsageError(f"'{text}' is no list of numbers", where="--weights", hint="such as .3,.7") from error


def fuse(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C...]",
            help="TREC run files, or RUN:STAGE. For interpolate the first stage comes first, then its re-ranking.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="rrf, wsum or interpolate; or, by the library ranx (the extra fusion): combsum, combmnz, combgmnz, "
            "combanz, combmax, combmin, combmed, isr, log-isr, logn-isr, bordafuse or condorcet.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--to", "--output", "-o", metavar="FILE", help="TREC run file to write; - is standard output."),
    ],
    k: Annotated[int, typer.Option("--k", min=0, metavar="N", help="The constant of rrf: 1 / (k + rank).")] = 60,
    weights: Annotated[
        str, typer.Option("--weights", metavar="W,W,...", help="Weights of wsum, one for each ranking. Default: all 1.")
    ] = "",
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha", metavar="A", help="Weight of the re-ranker in interpolate, from 0 to 1, if you know it."
        ),
    ] = None,
    validation: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--validation",
            metavar="FIRST RERANKED",
            help="Rankings of validation queries on which interpolate chooses alpha, in the order of A and B.",
        ),
    ] = None,
    measure: Annotated[str, typer.Option("--measure", "-m", metavar="MEASURE", help="Measure that chooses alpha.")] = (
        "nDCG@10"
    ),
    dataset: Dataset = "",
    qrels: Annotated[
        str, typer.Option("--qrels", metavar="FILE", help="Qrels of the validation queries, in place of a dataset.")
    ] = "",
    first_stage: Annotated[
        str, typer.Option("--first-stage", metavar="RUN", help="Which first stage, for a run that has several.")
    ] = "",
    replace: options.Replace = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
) -> None:
    """Fuse rankings of the same queries into one TREC run, which `cerank compare` takes as a system like any other.

    Interpolation mixes the scores of a re-ranker with those of its first stage. Its weight alpha is chosen on
    validation queries, never on the queries that are fused, and is in the tag of the run.
    """
    from cerank.app.rankings import fuse_runs
    from cerank.app.rerank_dataset import STDOUT

    request = fuse_runs.FusionRequest(
        targets=tuple(names),
        method=method,
        output=output,
        k=k,
        weights=_weights(weights),
        alpha=alpha,
        validation=validation or (),
        measure=measure,
        dataset=dataset,
        qrels=qrels,
        first_stage=first_stage,
        replace=replace,
    )
    result = fuse_runs.fuse(settings_of(lab, cache), request)
    info(f"{counted(result.queries, 'query')} fused ({result.tag})")
    for note in result.notes:
        info(note)
    write_output(result.run.decode() if str(output) in STDOUT else f"{output}\n")
