"""The command `cerank report`."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from cerank.cli import options
from cerank.cli.commands.measure import Alpha, Confidence, InDomain, confidence_of
from cerank.cli.commands.start_run import settings_of
from cerank.cli.output import info, write_output
from cerank.text.safe_text import counted

_JUDGED = "Statistics"
_SHOWN = "What to show"

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="MATRIX|RUN...", help="A matrix of the lab, or runs (RUN or RUN:STAGE) with the baseline first."
    ),
]
Baseline = Annotated[
    str,
    typer.Option(
        "--baseline",
        metavar="SYSTEM",
        help="Baseline: a recipe, run, table row or `first-stage`. Default: the matrix's baseline, else the first run.",
        rich_help_panel=_JUDGED,
    ),
]
CorrectionName = Annotated[
    Literal["auto", "holm", "bh", "bonferroni", "max-t", "none"],
    typer.Option(
        "--correction",
        help="How p is adjusted over the declared family, as for `cerank compare`.",
        rich_help_panel=_JUDGED,
    ),
]
ClaimName = Annotated[
    Literal["auto", "checkpoints", "recipes"],
    typer.Option(
        "--claim",
        help="What verdicts are about. auto: recipes where every row has several seeds, else checkpoints.",
        rich_help_panel=_JUDGED,
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="html, markdown, latex or csv. Default: markdown; with --output, all of them.",
        rich_help_panel=_SHOWN,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Write the report into this folder, with curves and sources."
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite the report in FOLDER.")]
EveryStage = Annotated[
    bool, typer.Option("--every-stage", help="Show a row for each stage of a run.", rich_help_panel=_SHOWN)
]
Released = Annotated[
    Path | None,
    typer.Option(
        "--released",
        metavar="PATH",
        help="Rankings that the matrix's paper released: the archive, or the folder in it. Default: where `cerank data "
        "fetch` puts them.",
        rich_help_panel=_SHOWN,
    ),
]
JudgedBy = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset",
        metavar="DATASET",
        help="Dataset with judgments for the released rankings, in place of the matrix's test set of that name, such "
        "as ./trec-dl-2020. May be repeated.",
        rich_help_panel=_SHOWN,
    ),
]
NoCurves = Annotated[
    bool, typer.Option("--no-curves", help="Draw no loss curves and no forest plots.", rich_help_panel=_SHOWN)
]


def report(
    names: Names,
    baseline: Baseline = "",
    form: Form = None,
    out: Out = None,
    replace: Replace = False,
    correction: CorrectionName = "auto",
    claim: ClaimName = "auto",
    confidence: Confidence = None,
    alpha: Alpha = None,
    measure: options.Measure = None,
    every_stage: EveryStage = False,
    released: Released = None,
    dataset: JudgedBy = None,
    in_domain: InDomain = None,
    no_curves: NoCurves = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
) -> None:
    """Write a paper's tables, with corrected significance marks, loss curves, published figures and sources.

    There is a table for each measure; rows are base models and recipes, columns are first stages and test sets.
    Without --output the report is printed.
    """
    from cerank.app.comparison import recorded_looks
    from cerank.app.report import build_report, write_report
    from cerank.app.report.report_scope import ReportRequest
    from cerank.errors import UsageError

    settings = settings_of(lab, cache)
    chosen = write_report.form_named(form) if form else None
    if out is not None and (mistake := write_report.folder_error(out, replace=replace)):
        raise UsageError(mistake, where=str(out), code="folder-missing")
    if replace and out is None:
        raise UsageError("--replace needs --output FOLDER", code="option-needs-output")
    request = ReportRequest(
        names=tuple(names),
        baseline=baseline,
        correction=correction,
        claim=claim,
        confidence=confidence_of(confidence, alpha),
        measures=tuple(measure or ()),
        every_stage=every_stage,
        released=released,
        judged_by=tuple(dataset or ()),
        in_domain=tuple(in_domain or ()),
        has_curves=not no_curves and (out is not None or chosen == "html"),
        command=shlex.join(["cerank", *sys.argv[1:]]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    built = build_report.build_report(settings, request, info)
    if built.comparison is not None:
        recorded_looks.record_shown(settings, [built.comparison], by="report", pooled=built.pooled)
    if out is None:
        write_output(write_report.as_text(built, chosen or "markdown"), raw=True)
        return
    forms = (chosen,) if chosen else write_report.FORMS
    folder = write_report.save(built, out, forms, replace=replace)
    info(
        f"{counted(len(built.grids), 'table')} of {counted(len(built.models), 'model')}, "
        f"{counted(built.family, 'test')}, "
        f"{counted(len(built.curves), 'picture')}"
    )
    if built.missing:
        info(f"Not measured yet: {counted(len(built.missing), 'declared part')}. The report names them.")
    write_output(f"{folder}\n")
