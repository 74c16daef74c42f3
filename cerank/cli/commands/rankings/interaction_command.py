"""The command that says whether the order of re-rankers holds behind another first stage."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.measure import Alpha, Confidence, Dataset, Margin, confidence_of
from cerank.cli.commands.start_run import settings_of
from cerank.cli.document_meta import document_meta
from cerank.cli.output import emit, is_for_machines


def interaction(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [RUN...]",
            help="Runs over the same first stages (RUN or RUN:STAGE). One run alone stands for all its stages.",
        ),
    ],
    measure: Annotated[
        str, typer.Option("--measure", "-m", metavar="MEASURE", help="Measure. Default: the first one of the recipe.")
    ] = "",
    dataset: Dataset = "",
    margin: Margin = None,
    confidence: Confidence = None,
    alpha: Alpha = None,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Test whether the order of re-rankers holds behind another first stage: first stages by re-rankers.

    The interaction is tested over all (two-way, paired by query) and for each pair of re-rankers behind each pair of
    first stages: does the gain of one over the other depend on what was re-ranked?
    """
    from cerank.app.comparison import recorded_looks
    from cerank.app.rankings import first_stage_table

    settings = settings_of(lab, cache, form=form, json=json)
    request = first_stage_table.InteractionRequest(
        targets=tuple(names),
        measure=measure,
        dataset=dataset,
        margins=tuple(margin or ()),
        alpha=round(1 - confidence_of(confidence, alpha), 12),
        now=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    study, looks = first_stage_table.study(settings, request)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    recorded_looks.record(settings, looks, by="interaction", now=now, only_new=True)
    is_marked = not is_for_machines(settings.format)
    emit(
        first_stage_table.tables(study, is_marked=is_marked),
        settings.format,
        wide=wide,
        meta=document_meta(measure=study.measure, alpha=study.alpha, correction="holm", family=len(study.contrasts)),
    )
