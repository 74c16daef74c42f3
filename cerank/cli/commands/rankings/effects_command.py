"""The command that says what each factor of a matrix changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from cerank.cli import options
from cerank.cli.commands.measure import Alpha, Confidence, Dataset, Margin, confidence_of
from cerank.cli.commands.start_run import settings_of
from cerank.cli.document_meta import document_meta
from cerank.cli.output import emit, is_for_machines


def effects(
    matrix: Annotated[
        str, typer.Argument(metavar="MATRIX", help="A matrix of the lab, all of whose runs are finished.")
    ],
    measure: Annotated[
        str, typer.Option("--measure", "-m", metavar="MEASURE", help="Measure. Default: the first one of the recipes.")
    ] = "",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="FACTOR,FACTOR",
            help="Two factors whose interaction is tested, too, such as recipe,base: does the gain of one depend on "
            "the other?",
        ),
    ] = "",
    gain: Annotated[
        bool,
        typer.Option(
            "--gain", help="Effects on what the last stage adds to the stage before it, not on what it reaches."
        ),
    ] = False,
    dataset: Dataset = "",
    first_stage: Annotated[
        str,
        typer.Option("--first-stage", metavar="RUN", help="First stage to look at, in a matrix with several."),
    ] = "",
    margin: Margin = None,
    confidence: Confidence = None,
    alpha: Alpha = None,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Show what each factor of a matrix changes: the effect of a setting, of a recipe or of a base model, by query.

    An effect is the mean over all settings of the other factors. `cerank guide matrices` says how factors are declared.
    """
    from cerank.app.comparison import recorded_looks
    from cerank.app.rankings import factor_table

    settings = settings_of(lab, cache, form=form, json=json)
    request = factor_table.EffectRequest(
        matrix=matrix,
        measure=measure,
        dataset=dataset,
        first_stage=first_stage,
        by=tuple(name.strip() for name in by.split(",") if name.strip()),
        of_gain=gain,
        margins=tuple(margin or ()),
        alpha=round(1 - confidence_of(confidence, alpha), 12),
        now=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    study = factor_table.study(settings, request)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    recorded_looks.record(settings, study.looks, by="effects", now=now, only_new=True)
    emit(
        factor_table.tables(study, is_marked=not is_for_machines(settings.format)),
        settings.format,
        wide=wide,
        meta=document_meta(
            measure=study.effects.measure,
            dataset=study.condition.dataset,
            first_stage=study.condition.first_stage,
            alpha=study.effects.alpha,
            correction="holm",
            family=len(study.effects.effects),
        ),
    )
