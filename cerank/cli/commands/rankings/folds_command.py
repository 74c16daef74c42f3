"""The command that compares what the runs of all folds scored together."""

from __future__ import annotations

from cerank.cli import options
from cerank.cli.commands.measure import Alpha, Confidence, confidence_of
from cerank.cli.commands.start_run import RunName, settings_of
from cerank.cli.document_meta import meta_of_comparison
from cerank.cli.output import emit, is_for_machines
from cerank.cli.tables import measured_tables


def folds(
    name: RunName,
    confidence: Confidence = None,
    alpha: Alpha = None,
    wide: options.Wide = False,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Compare by cross-validation: each query counts once, as the model scored it that was not trained on it.

    Give the run of any fold; `cerank run --folds` makes them. The second table has the differences fold by fold, with
    the fold as a block.
    """
    from cerank.app.comparison import recorded_looks
    from cerank.app.rankings import cross_validation

    settings = settings_of(lab, cache, form=form, json=json)
    study = cross_validation.of_run(settings, name, confidence_of(confidence, alpha))
    is_marked = not is_for_machines(settings.format)
    meta = meta_of_comparison(study.comparison)
    by_fold = cross_validation.fold_table(study.rows, study.confidence, is_marked=is_marked)
    recorded_looks.record_shown(settings, [study.comparison], by="folds")
    emit(
        [measured_tables.comparison_table(study.comparison, settings.format), by_fold],
        settings.format,
        wide=wide,
        meta=meta,
    )
