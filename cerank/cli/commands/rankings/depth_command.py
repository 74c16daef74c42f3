"""The command that says how deep to re-rank."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.measure import Alpha, Confidence, Dataset, Margin, MarginsBecause, Qrels, confidence_of
from cerank.cli.commands.start_run import settings_of
from cerank.cli.document_meta import meta_of_comparison
from cerank.cli.output import emit, is_for_machines
from cerank.errors import UsageError


def numbers_in(text: str, option: str) -> tuple[int, ...]:
    """Return the whole numbers of a list such as "10,20,50".

    Raises:
        UsageError: a part of it is none.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    wrong = [part for part in parts if not part.isascii() or not part.isdigit() or len(part) > 9]
    if wrong:
        raise UsageError(f"'{wrong[0]}' is no whole number", where=option, hint="such as 10,20,50", code="not-a-number")
    return tuple(map(int, parts))


def depths(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Run, RUN:STAGE, or the TREC run file of a re-ranking.")],
    requested: Annotated[
        str, typer.Option("--depths", metavar="N,N,...", help="Depths to measure. Default: those of the recipe.")
    ] = "",
    first_stage: Annotated[
        str, typer.Option("--first-stage", metavar="FILE", help="TREC run file whose candidates a file re-ranked.")
    ] = "",
    measure: options.Measure = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    margin: Margin = None,
    margins_because: MarginsBecause = "",
    confidence: Confidence = None,
    alpha: Alpha = None,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Show how quality and time grow with the depth of re-ranking: where it starts to hurt, and which depth is enough.

    Nothing is scored again: each depth is measured from the scores of the deepest re-ranking. Every depth is compared
    with each other one and with the first stage, and all of these tests are corrected together.
    """
    from cerank.app.comparison import recorded_looks
    from cerank.app.rankings import depth_report

    settings = settings_of(lab, cache, form=form, json=json)
    request = depth_report.DepthRequest(
        target=name,
        first_stage=first_stage,
        depths=numbers_in(requested, "--depths"),
        measures=tuple(measure or ()),
        dataset=dataset,
        qrels=qrels,
        margins=tuple(margin or ()),
        margins_because=margins_because,
        confidence=confidence_of(confidence, alpha),
        now=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    study = depth_report.study(settings, request)
    recorded_looks.record_shown(settings, [study.comparison], by="depths")
    table = depth_report.full_table if is_for_machines(settings.format) else depth_report.table
    emit(table(study), settings.format, wide=wide, meta=meta_of_comparison(study.comparison))
