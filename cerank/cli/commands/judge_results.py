"""Commands beside `cerank compare`: a gate for continuous integration, published tables judged again, schemas."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from cerank.cli import options
from cerank.cli.commands.measure import Alpha, Confidence, Dataset, InDomain, Qrels, confidence_of
from cerank.cli.commands.start_run import settings_of
from cerank.cli.document_meta import document_meta
from cerank.cli.output import emit, format_of, info, is_for_machines, write_output
from cerank.errors import UsageError
from cerank.text import escapes


def gate(
    new: Annotated[str, typer.Argument(metavar="NEW", help="Run or TREC run file that would replace the present one.")],
    base: Annotated[str, typer.Argument(metavar="BASE", help="Run or TREC run file in use.")],
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="MEASURE=NUMBER",
            help="NEW must not be worse than BASE by this much. May be repeated.",
        ),
    ] = None,
    superior: Annotated[
        list[str] | None,
        typer.Option("--superior", metavar="MEASURE", help="NEW must be better than BASE. May be repeated."),
    ] = None,
    slices: Annotated[
        Path | None,
        typer.Option(
            "--slices",
            metavar="FILE",
            help="Parts of the queries: lines of query id, tab, name of its slice.",
        ),
    ] = None,
    slice_margin: Annotated[
        list[str] | None,
        typer.Option(
            "--slice-margin",
            metavar="SLICE:MEASURE=NUMBER",
            help="NEW must not be worse than BASE by this much on a slice. May be repeated.",
        ),
    ] = None,
    look: Annotated[
        int,
        typer.Option(
            "--look",
            min=0,
            metavar="K",
            help="This is the K-th gate on these queries: its level is so small that all looks together keep --alpha. "
            "Default: a single look.",
        ),
    ] = 0,
    family: Annotated[
        Literal["looks"] | None,
        typer.Option(
            "--family",
            help="looks: take K of --look from the lab's record, where every recorded look at these judgments counts. "
            "Refused where there is no record, or it cannot be read.",
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(
            "--alpha", metavar="A", help="Error rate over all looks: of shipping a worse system, and of false alarms."
        ),
    ] = 0.05,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the result as Markdown, too.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write it as JUnit XML, too.")] = None,
    dataset: Dataset = "",
    qrels: Qrels = "",
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Check whether NEW may replace BASE. Exit code 0: it ships; 1: it is worse; 4: these queries cannot tell."""
    from cerank.app.comparison import export_comparison
    from cerank.app.comparison.comparisons import ComparisonRequest
    from cerank.app.evidence import release_gate

    settings = settings_of(lab, cache, form=form, json=json)
    for path in (markdown, junit):
        if path is not None and (mistake := export_comparison.path_error(path, replace=True)):
            raise UsageError(mistake, where=str(path))
    request = ComparisonRequest(targets=(base, new), margins=tuple(margin or ()), dataset=dataset, qrels=qrels)
    result = release_gate.gate_of(
        settings,
        request,
        superior=superior or (),
        slices=slices,
        slice_margins=slice_margin or (),
        look=look,
        counts_looks=family == "looks",
        alpha=alpha,
    )
    meta = document_meta(new=result.new, base=result.base, outcome=result.outcome, alpha=result.alpha)
    emit(release_gate.table(result), settings.format, meta=meta | {"look": result.look, "level": result.level})
    if settings.format:
        info(release_gate.summary(result))
    if markdown is not None:
        export_comparison.save(release_gate.as_markdown(result), markdown, replace=True)
    if junit is not None:
        export_comparison.save(release_gate.as_junit(result), junit, replace=True)
    raise typer.Exit(release_gate.EXIT_CODES[result.outcome])


def rejudge(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="TOML file with the claims of a table: difference, queries, p, or run files. dl20 and ecir2025 are "
            "shipped.",
        ),
    ],
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin", metavar="M", help="Largest difference that would not matter; replaces the margin in the file."
        ),
    ] = None,
    lab: options.Lab = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Judge a published table again: what its differences, numbers of queries and p-values bear together.

    p is adjusted over all of its comparisons; "on par" needs a margin. Where run files of a repeated experiment are
    named, its measures of reproduction follow. `cerank guide verdicts` has an example.
    """
    from cerank.app.comparison import recorded_looks
    from cerank.app.evidence import rejudge_table
    from cerank.evaluation.rejudge import rejudge as judge_again

    settings = settings_of(lab, form=form, json=json)
    claims, folder = rejudge_table.read_claims(file)
    if not claims.claims and claims.reproduction is None:
        raise UsageError("it has neither claims nor a reproduction", where=str(file))
    if margin is not None:
        claims = msgspec.structs.replace(claims, margin=margin)
    claims, on_files = rejudge_table.with_runs(claims, folder)
    shown = [rejudge_table.table(claims, judge_again(claims), on_files)] if claims.claims else []
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    recorded_looks.record(settings, rejudge_table.looks(claims, folder), by="rejudge", now=now, only_new=True)
    reproduction = rejudge_table.reproduction_table(claims, folder)
    meta = document_meta(alpha=claims.alpha, correction="holm", family=len(claims.claims), margin=claims.margin)
    emit([*shown, *([reproduction] if reproduction else [])], settings.format, meta=meta)


def schema(
    what: Annotated[
        Literal["comparison"], typer.Argument(metavar="WHAT", help="comparison: what `cerank compare --json` prints.")
    ],
) -> None:
    """Print the JSON Schema of a document that cerank writes for other programs."""
    from cerank.app.comparison import comparison_schema

    documents = {"comparison": comparison_schema.schema}
    write_output(escapes.json_text(documents[what](), indent=2) + "\n", raw=True)


def pool(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="COMPARISON.json...|A B [C...]",
            help="Comparisons that `cerank compare --json` or --full printed, one for each collection; or runs, which "
            "are compared on all of their test sets; or run files on several datasets (--dataset).",
        ),
    ],
    measure: options.Measure = None,
    dataset: Dataset = "",
    in_domain: InDomain = None,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin",
            metavar="MEASURE=NUMBER",
            help="Largest mean difference that would not matter to you. May be repeated.",
        ),
    ] = None,
    correction: Annotated[
        Literal["holm", "bonferroni", "bh", "none"],
        typer.Option("--correction", help="How p is adjusted over the pooled comparisons."),
    ] = "holm",
    alpha: Alpha = None,
    confidence: Confidence = None,
    picture: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Write the forest plot of the first comparison as SVG.")
    ] = None,
    lab: options.Lab = None,
    cache: options.Cache = None,
    form: options.Format = None,
    json: options.Json = False,
) -> None:
    """Pool comparisons on several collections: the mean difference over them, and what a new collection would show.

    A random-effects meta-analysis. Two or three collections suffice to compute it, and rarely to show anything.
    """
    from cerank.app.comparison import export_comparison, named_systems, recorded_looks
    from cerank.app.comparison.comparisons import ComparisonRequest
    from cerank.app.comparison.several_collections import forest_plot, pool_comparisons, pooled_tables

    settings = settings_of(lab, cache, form=form, json=json)
    if dataset and not any(name.endswith(pool_comparisons.SAVED) for name in names):
        names = list(named_systems.with_dataset_runs(settings.lab, names, dataset, settings.cache))
    if picture is not None and (mistake := export_comparison.path_error(picture, replace=True)):
        raise UsageError(mistake, where=str(picture))
    request = ComparisonRequest(
        targets=tuple(names), measures=tuple(measure or ()), margins=tuple(margin or ()), dataset=dataset
    )
    rate = round(1 - confidence_of(confidence, alpha), 12)
    result = pool_comparisons.pool(settings, request, correction, rate, in_domain or ())
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    recorded_looks.record(settings, {}, by="pool", now=now, only_new=True, pooled=result)
    shown = pooled_tables.tables(result, has_plot=format_of(settings.format) == "table")
    meta = document_meta(alpha=result.alpha, correction=result.correction, family=len(result.rows))
    emit(shown, settings.format, meta=meta)
    if is_for_machines(settings.format):
        for note in shown[0].notes:
            info(note)
    if picture is not None:
        export_comparison.save(forest_plot.forest_svg(result.rows[0], result.alpha), picture, replace=True)
